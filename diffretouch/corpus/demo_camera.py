"""A simulated camera: scene light to a Bayer mosaic, and the genuine DNG it would write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from diffretouch.corpus.demo_tables import Draws, Floats, mix_channels

BLACK, WHITE = 512, 16383
PHASES: dict[str, tuple[int, int, int, int]] = {
    "RGGB": (0, 1, 1, 2),
    "BGGR": (2, 1, 1, 0),
    "GRBG": (1, 0, 2, 1),
    "GBRG": (1, 2, 0, 1),
}
# EXIF orientation -> quarter turns (counter-clockwise) that take the upright picture back onto the sensor
TURNS = {1: 0, 3: 2, 6: 1, 8: 3}
# linear sRGB from XYZ, D65 (IEC 61966-2-1), for writing ColorMatrix1 = camera from XYZ
LINEAR_FROM_XYZ = [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]


@dataclass(frozen=True)
class Camera:
    """A body: its name and what its sensor sees of linear sRGB light (row sums = daylight neutral)."""

    model: str
    sensitivity: list[list[float]]
    noise: float

    @property
    def neutral(self) -> list[float]:
        """The sensor's answer to daylight white, green = 1."""
        sums = [sum(row) for row in self.sensitivity]
        return [value / sums[1] for value in sums]


CAMERAS = (
    Camera("Simulated One", [[0.33, 0.17, 0.03], [0.18, 0.70, 0.12], [0.02, 0.15, 0.46]], 0.0016),
    Camera("Simulated Two", [[0.40, 0.13, 0.02], [0.21, 0.73, 0.06], [0.03, 0.12, 0.55]], 0.0010),
)


@dataclass(frozen=True)
class Exposure:
    """One press of the shutter."""

    camera: Camera
    phase: str
    orientation: int
    """EXIF orientation."""
    gain: float
    """Scene light of 1 fills this share of the sensor's range."""
    neutral: tuple[float, float, float]
    """What the camera believes white looks like (its automatic white balance errs)."""
    iso: int


def mosaic(scene: Floats, shot: Exposure, draws: Draws) -> NDArray[np.uint16]:
    """Upright scene light (H, W, 3), white 1, to sensor values as the DNG stores them."""
    sensor = np.rot90(scene, TURNS[shot.orientation])
    light = mix_channels(np.ascontiguousarray(sensor), shot.camera.sensitivity) * np.float32(shot.gain)
    bayer = np.empty(light.shape[:2], np.float32)
    for place, channel in enumerate(PHASES[shot.phase]):
        row, column = divmod(place, 2)
        bayer[row::2, column::2] = light[row::2, column::2, channel]
    gain = np.float32(shot.iso / 100)
    spread = np.sqrt(np.maximum(bayer, 0) * np.float32(0.00002) * gain + np.float32(shot.camera.noise**2) * gain)
    bayer += spread * draws.noise(bayer.shape)
    levels = np.clip(bayer, np.float32(-0.03), 1) * np.float32(WHITE - BLACK) + np.float32(BLACK + 0.5)
    return np.clip(levels, 0, WHITE).astype(np.uint16)


def write_dng(path: Path, bayer: NDArray[np.uint16], shot: Exposure) -> None:
    """An uncompressed DNG 1.4 of one CFA image (tags: Adobe DNG Specification 1.4)."""
    camera_from_xyz = [
        sum(shot.camera.sensitivity[row][k] * LINEAR_FROM_XYZ[k][column] for k in range(3))
        for row in range(3)
        for column in range(3)
    ]
    tags = [
        (271, "s", 0, "Simulated", True),  # Make
        (272, "s", 0, shot.camera.model.removeprefix("Simulated "), True),
        (274, "H", 1, shot.orientation, True),
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, PHASES[shot.phase], True),  # CFAPattern
        (34855, "H", 1, shot.iso, True),  # ISOSpeedRatings
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50707, "B", 4, (1, 1, 0, 0), True),  # DNGBackwardVersion
        (50708, "s", 0, shot.camera.model, True),  # UniqueCameraModel
        (50710, "B", 3, (0, 1, 2), True),  # CFAPlaneColor
        (50711, "H", 1, 1, True),  # CFALayout
        (50714, "H", 1, BLACK, True),
        (50717, "H", 1, WHITE, True),
        (50721, "2i", 9, _rationals(camera_from_xyz), True),  # ColorMatrix1
        (50728, "2I", 3, _rationals(shot.neutral), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
    ]
    tifffile.imwrite(
        path,
        bayer,
        photometric="CFA",
        rowsperstrip=bayer.shape[0],
        metadata=None,
        software=False,
        extratags=tags,
    )


def _rationals(values: list[float] | tuple[float, ...]) -> tuple[int, ...]:
    return tuple(part for value in values for part in (round(value * 10000), 10000))
