"""Twins of the RAW kinds a lab meets: small genuine DNGs (Adobe DNG Specification 1.4) of a scene whose light is known.

Each is written bit for bit the same every time. LibRaw wants at least 22x22 pixels, and 512x512 of an X-Trans sensor.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from diffretouch.corpus.demo_camera import CAMERAS, LINEAR_FROM_XYZ

Light = NDArray[np.float64]
"""(H,W,3) linear light with sRGB primaries."""
Tag = tuple[int, str, int | None, Any, bool]
"""TIFF code, type, count, value, only on the first page: what tifffile calls an extratag."""

EXPOSURE = 0.9
"""White fills this share of the sensor's range."""
TAKEN = "2021:03:04 05:06:07"
_LETTERS = "RGBCMY"  # a filter's code in CFAPattern is its place here (TIFF/EP; DNG 1.4, CFAPlaneColor)
_RED, _GREEN, _BLUE = np.array(CAMERAS[0].sensitivity)
_LUMINANCE = np.array([[0.2126, 0.7152, 0.0722]])
_SEES = {
    "R": _RED,
    "G": _GREEN,
    "B": _BLUE,
    "C": 0.7 * (_GREEN + _BLUE),
    "M": 0.9 * (_RED + _BLUE),
    "Y": 0.7 * (_RED + _GREEN),
}
CELLS: dict[str, tuple[str, ...]] = {
    "RGGB": ("RG", "GB"),
    "BGGR": ("BG", "GR"),
    "GRBG": ("GR", "BG"),
    "GBRG": ("GB", "RG"),
    "X-Trans": ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG"),
    "RGBC": ("RC", "GB"),
    "GMCY": ("GM", "CY"),
    "linear": (),
    "monochrome": (),
}
"""The sensors a twin can have: the colour filters' cell, row by row; no filters: every pixel has every colour."""
_PLANES = {"RGBC": "RGBC", "GMCY": "GMCY"}
PACKINGS = ("plain", "lossless jpeg", "lossy jpeg", "jpeg xl")


@dataclass(frozen=True)
class Twin:
    """What one DNG is like; the defaults are an ordinary Bayer camera's."""

    sensor: str = "RGGB"
    orientation: int = 1
    """EXIF's number, 1 to 8."""
    black: tuple[int, ...] = (512,)
    """One level for each place of `black_cell`, row by row; for linear also one for each colour."""
    black_cell: tuple[int, int] = (1, 1)
    white: int = 16383
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Masked pixels above, left of, below and right of the active area."""
    crop: tuple[int, int, int, int] | None = None
    """DefaultCrop: left, top, width, height in the active area."""
    baseline_exposure: float | None = None
    neutral: tuple[float, ...] | str = "daylight"
    """AsShotNeutral; daylight is the sensor's own answer to white, absent writes no tag."""
    packing: str = "plain"
    nested: bool = False
    """As Adobe's converter writes: a JPEG preview first, the RAW in a SubIFD."""

    def __str__(self) -> str:
        differs = [field for field in fields(self) if getattr(self, field.name) != field.default]
        return "-".join(f"{field.name}={getattr(self, field.name)}" for field in differs) or "ordinary"

    @property
    def planes(self) -> NDArray[np.float64]:
        """(planes, 3): what each of the sensor's colours sees of linear sRGB light; white gives the brightest one 1."""
        if self.sensor == "monochrome":
            return _LUMINANCE
        seen = np.array([_SEES[letter] for letter in _PLANES.get(self.sensor, "RGB")])
        return seen / seen.sum(1).max()


def smooth_scene(height: int = 64, width: int = 96) -> Light:
    """Gentle slopes, another one in each colour and none symmetric: a wrong turn, shift, filter or gain shows."""
    down, across = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    red = 0.15 + 0.6 * across
    green = 0.2 + 0.5 * down
    blue = 0.2 + 0.4 * (1 - across) * down + 0.2 * across
    return np.stack([red, green, blue], axis=2)


def upright(sensor: Light, orientation: int) -> Light:
    """What the sensor holds, turned and mirrored as EXIF 2.32 says: where its first row and column are to be seen."""
    turned = {
        1: sensor,
        2: sensor[:, ::-1],
        3: sensor[::-1, ::-1],
        4: sensor[::-1],
        5: sensor.swapaxes(0, 1),
        6: np.rot90(sensor, -1),
        7: sensor[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(sensor),
    }
    return turned[orientation]


def on_sensor(scene: Light, orientation: int) -> Light:
    """How the upright scene lies on the sensor: all but the two quarter turns are their own inverse."""
    return upright(scene, {6: 8, 8: 6}.get(orientation, orientation))


def cropped(scene: Light, twin: Twin) -> Light:
    """The part of an upright scene that the twin's default crop leaves."""
    if twin.crop is None:
        return scene
    left, top, width, height = twin.crop
    sensor = on_sensor(scene, twin.orientation)
    return upright(sensor[top : top + height, left : left + width], twin.orientation)


def write_twin(path: Path, twin: Twin, scene: Light) -> None:
    """The DNG that the twin's camera would write of the upright `scene`, which fills its active area."""
    levels = _levels(twin, EXPOSURE * on_sensor(scene, twin.orientation))
    dtype = np.uint8 if twin.packing == "lossy jpeg" else np.uint16
    pixels = np.clip(levels + 0.5, 0, np.iinfo(dtype).max).astype(dtype)
    image = {
        "photometric": "CFA" if CELLS[twin.sensor] or twin.sensor == "monochrome" else "LINEAR_RAW",
        "planarconfig": "CONTIG" if pixels.ndim == 3 else None,
        "rowsperstrip": pixels.shape[0],
        "metadata": None,
        "software": False,
        **_packed(twin, pixels),
    }
    camera, frame = _camera_tags(twin), _frame_tags(twin, pixels.shape[:2])
    with tifffile.TiffWriter(path) as file:
        if twin.nested:
            # EXIF's writer of orientation is the first directory; LibRaw takes it from there
            file.write(
                _preview(),
                photometric="YCBCR",
                compression="JPEG",
                subifds=1,
                subfiletype=1,
                metadata=None,
                software=False,
                extratags=camera,
            )
            file.write(**image, subfiletype=0, extratags=frame)
        else:
            file.write(**image, extratags=camera + frame)
    if twin.sensor == "monochrome":
        # tifffile holds that LinearRaw has three colours
        with tifffile.TiffFile(path, mode="r+") as file:
            page: Any = file.pages.first
            page = page.pages[0] if twin.nested else page
            page.tags["PhotometricInterpretation"].overwrite(34892)


def _levels(twin: Twin, light: Light) -> NDArray[np.float64]:
    """Sensor light to the numbers the file stores, masked borders included: (H,W) or, for linear, (H,W,3)."""
    seen = light @ twin.planes.T
    if twin.packing == "lossy jpeg":
        return 255 * np.sqrt(seen)
    rows, columns = np.indices(light.shape[:2])
    cell, planes = CELLS[twin.sensor], _PLANES.get(twin.sensor, "RGB")
    if cell:
        colours = np.array([[planes.index(letter) for letter in row] for row in cell])
        colour = colours[rows % len(cell), columns % len(cell[0])]
        seen = np.take_along_axis(seen, colour[..., None], 2)
    if twin.sensor != "linear":
        seen = seen[..., 0]
    down, across = twin.black_cell
    black = np.reshape(twin.black, (down, across, -1))[rows % down, columns % across]
    black = black if seen.ndim == 3 else black[..., 0]
    # DNG 1.4, chapter 5: the range is what is left above the highest black level
    levels = np.minimum(black + seen * (twin.white - max(twin.black)), twin.white)
    top, left, bottom, right = twin.margins
    frame = [(top, bottom), (left, right)] + [(0, 0)] * (levels.ndim - 2)
    return np.pad(levels, frame, constant_values=min(twin.black))


def _camera_tags(twin: Twin) -> list[Tag]:
    tags: list[Tag] = [
        (271, "s", 0, "Twin", True),  # Make
        (272, "s", 0, f"Twin {twin.sensor}", True),  # Model
        (274, "H", 1, twin.orientation, True),
        (306, "s", 0, TAKEN, True),  # DateTime
        (33434, "2I", 1, (1, 250), True),  # ExposureTime
        (33437, "2I", 1, (56, 10), True),  # FNumber
        (34855, "H", 1, 400, True),  # ISOSpeedRatings
        (37386, "2I", 1, (35, 1), True),  # FocalLength
        (42036, "s", 0, "Twin 24-70mm f/2.8-4", True),  # LensModel
        (50706, "B", 4, (1, 7 if twin.packing == "jpeg xl" else 4, 0, 0), True),  # DNGVersion
        (50707, "B", 4, (1, 1, 0, 0), True),  # DNGBackwardVersion
        (50708, "s", 0, f"Twin {twin.sensor}", True),  # UniqueCameraModel
    ]
    if twin.sensor != "monochrome":
        camera_from_xyz = twin.planes @ np.array(LINEAR_FROM_XYZ)
        tags += [
            (50721, "2i", camera_from_xyz.size, _rationals(camera_from_xyz.ravel()), True),  # ColorMatrix1
            (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
        ]
        neutral = tuple(twin.planes.sum(1)) if twin.neutral == "daylight" else twin.neutral
        if neutral != "absent":
            tags.append((50728, "2I", len(neutral), _rationals(neutral), True))
    if twin.baseline_exposure is not None:
        tags.append((50730, "2i", 1, _rationals([twin.baseline_exposure]), True))
    return tags


def _frame_tags(twin: Twin, size: tuple[int, ...]) -> list[Tag]:
    lossy = twin.packing == "lossy jpeg"
    tags: list[Tag] = [
        (50713, "H", 2, twin.black_cell, True),
        (50714, "H", len(twin.black), (0,) if lossy else twin.black, True),
        (50717, "I", 1, 255 if lossy else twin.white, True),
    ]
    if lossy:
        tags.append((51009, "B", None, _squares(size), True))  # OpcodeList2
    if cell := CELLS[twin.sensor]:
        codes = tuple(_LETTERS.index(letter) for row in cell for letter in row)
        tags += [(33421, "H", 2, (len(cell), len(cell[0])), True), (33422, "B", len(codes), codes, True)]
        planes = tuple(_LETTERS.index(letter) for letter in _PLANES.get(twin.sensor, "RGB"))
        tags += [(50710, "B", len(planes), planes, True), (50711, "H", 1, 1, True)]  # CFAPlaneColor, CFALayout
    top, left, bottom, right = twin.margins
    if any(twin.margins):
        tags.append((50829, "I", 4, (top, left, size[0] - bottom, size[1] - right), True))  # ActiveArea
    if twin.crop:
        tags += [(50719, "I", 2, twin.crop[:2], True), (50720, "I", 2, twin.crop[2:], True)]
    return tags


def _rationals(values: Any) -> tuple[int, ...]:
    return tuple(part for value in values for part in (round(value * 10000), 10000))


def _packed(twin: Twin, pixels: NDArray[Any]) -> dict[str, Any]:
    """tifffile's arguments for the pixels."""
    if twin.packing == "plain":
        return {"data": pixels}
    if twin.packing == "lossy jpeg":
        options = {"level": 98, "subsampling": "444", "outcolorspace": "rgb"}
        return {"data": pixels, "compression": 34892, "compressionargs": options}
    if twin.packing == "jpeg xl":
        return {"data": pixels, "compression": 52546, "compressionargs": {"lossless": True}}

    def strips() -> Iterator[bytes]:
        yield bytes(imagecodecs.ljpeg_encode(pixels))

    return {"data": strips(), "shape": pixels.shape, "dtype": pixels.dtype, "compression": 7}


def _squares(size: tuple[int, ...]) -> bytes:
    """OpcodeList2: the stored values' squares, in each colour (DNG 1.4, chapter 6, MapPolynomial; big endian)."""
    codes = struct.pack(">I", 3)
    for colour in range(3):
        area = struct.pack(">8I", 0, 0, *size, colour, 1, 1, 1)
        body = area + struct.pack(">I3d", 2, 0, 0, 1)
        codes += struct.pack(">4I", 8, 0x01030000, 0, len(body)) + body
    return codes


def _preview() -> NDArray[np.uint8]:
    return np.tile(np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], (32, 1, 3))
