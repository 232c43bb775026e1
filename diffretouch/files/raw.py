"""RAW to linear light: the only place that imports rawpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import rawpy
from numpy.typing import NDArray

from diffretouch.errors import PhotoError
from diffretouch.files.exif import Exif, read_exif
from diffretouch.files.raw_checks import check_filled, check_stable, filled_memory

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

LIBRAW = ".".join(map(str, rawpy.libraw_version))
# LibRaw's working set for a photo, bytes a sensor pixel: mosaic 2, four planes 8, output 6, a demosaicking's tiles
BYTES_A_PIXEL = 17
LARGEST_BASELINE_EXPOSURE = 8.0
STRIP = 256


@dataclass(frozen=True)
class RawFacts:
    """What a RAW says about itself, read before it is developed; empty or 0 where it says nothing."""

    mosaic: str
    """The colour filters' first cell, row by row, for instance RGGB; X-Trans; empty without a mosaic."""
    flip: int
    """How LibRaw turned it, in bits: 1 mirrored left to right, 2 top to bottom, then 4 rows and columns swapped."""
    white_balance: str
    """as shot; daylight where the camera wrote none that makes sense; none where there is no colour to balance."""
    baseline_exposure: float
    """Stops of a DNG's BaselineExposure, whether applied or not."""
    camera: str
    lens: str
    iso: float
    shutter_s: float
    aperture: float
    focal_mm: float
    taken: str
    """Local time of the camera's clock, ISO 8601."""


@dataclass(frozen=True)
class Developed:
    """LibRaw's own 16-bit output, nothing copied."""

    rgb16_linear: NDArray[np.uint16]
    """(H,W,3) or (H,W,1), upright, linear light with sRGB primaries; 65535 is the sensor's white level."""
    box: Box
    """The part of it that is the photo (a DNG's default crop), in its pixels."""
    size: tuple[int, int]
    """Height and width of that part at full size."""
    facts: RawFacts


@dataclass(frozen=True)
class RawPhoto:
    """One developed RAW."""

    rgb_linear: NDArray[np.float32]
    """(H,W,3) scene light, upright, sRGB primaries; 1 is the sensor's white level after white balance."""
    facts: RawFacts


def decode(
    path: Path,
    *,
    demosaic: str = "AHD",
    highlights: str = "Clip",
    half_size: bool = False,
    baseline_exposure: bool = True,
) -> RawPhoto:
    """Develop a RAW file: as-shot white balance, camera matrix to sRGB primaries, no tone curve, 16 bit throughout.

    A DNG's default crop and, if wanted, its baseline exposure (clipped at 1) are honoured. Raises PhotoError with the
    reason when the file cannot be read, is damaged, or holds no picture.
    """
    developed = develop(path, demosaic=demosaic, highlights=highlights, half_size=lambda _: half_size)
    left, top, right, bottom = (round(edge) for edge in developed.box)
    light = developed.rgb16_linear[top:bottom, left:right].astype(np.float32) / np.float32(65535)
    if baseline_exposure and (stops := developed.facts.baseline_exposure):
        light = np.minimum(light * np.float32(2**stops), 1)
    return RawPhoto(light if light.shape[2] == 3 else np.repeat(light, 3, axis=2), developed.facts)


def develop(
    path: Path,
    *,
    demosaic: str,
    highlights: str,
    half_size: Callable[[tuple[int, int]], bool],
    reserve: Callable[[int], None] = lambda _: None,
) -> Developed:
    """As `decode`, without the last step to floats.

    `half_size` is asked with the photo's upright (height, width); `reserve` is told the bytes it takes before they are.
    """
    with _opened(path) as raw:
        exif = read_exif(path)
        # before LibRaw unpacks it: of lossy data it fills the missing part with grey, or never ends
        if (beyond := exif.data_end - path.stat().st_size) > 0:
            raise PhotoError(f"{path.name} is cut off: {beyond:,} bytes of its data lie beyond its end", "unreadable")
        reserve(BYTES_A_PIXEL * raw.sizes.raw_height * raw.sizes.raw_width)
        with filled_memory() as fill:
            raw.unpack()
        check_stable(path, raw, fill)
        facts, crop = _facts(raw, exif), _crop(raw, exif)
        width, height = round(crop[2] - crop[0]), round(crop[3] - crop[1])
        size = (width, height) if facts.flip & 4 else (height, width)
        sensor = raw.sizes.height, raw.sizes.width
        matrix = raw.color_matrix
        # LibRaw leaves a DNG's matrix out where this number is small, and then gives the first three filters as RGB
        skipped = raw.num_colors == 4 and matrix.any() and matrix[0, 0] <= 0.125
        planes = raw.postprocess(
            gamma=(1, 1),
            no_auto_bright=True,
            output_bps=16,
            use_camera_wb=facts.white_balance == "as shot",
            use_auto_wb=False,
            adjust_maximum_thr=0.0,
            user_sat=_white_level(raw),
            output_color=rawpy.ColorSpace.raw if skipped else rawpy.ColorSpace.sRGB,
            demosaic_algorithm=rawpy.DemosaicAlgorithm[demosaic],
            highlight_mode=rawpy.HighlightMode[highlights],
            half_size=half_size(size),
        )
    planes16 = cast("NDArray[np.uint16]", planes)
    rgb = _mixed(planes16, matrix) if skipped else planes16
    check_filled(rgb, path.name)
    upright = sensor[::-1] if facts.flip & 4 else sensor
    down, across = rgb.shape[0] / upright[0], rgb.shape[1] / upright[1]
    # an odd size is rounded up to whole cells, so the scale is not quite a half then
    down, across = (0.5 if abs(scale - 0.5) < 0.1 else scale for scale in (down, across))
    left, top, right, bottom = _turned(crop, sensor, facts.flip)
    return Developed(rgb, (left * across, top * down, right * across, bottom * down), size, facts)


def preview(path: Path) -> bytes | NDArray[np.uint8] | None:
    """The small picture that the camera put into a RAW file: a JPEG's bytes, unchecked, or pixels (H,W,3); or None."""
    try:
        with rawpy.RawPy() as raw:
            raw.open_file(str(path))
            thumb = raw.extract_thumb()
    except (rawpy.LibRawError, NotImplementedError):  # the latter is rawpy's, for a picture of another kind
        return None
    return bytes(thumb.data) if thumb.format == rawpy.ThumbFormat.JPEG else np.array(thumb.data)


@contextmanager
def _opened(path: Path) -> Iterator[rawpy.RawPy]:
    """The file's header read; LibRaw's errors in the block become PhotoErrors."""
    if not path.exists():
        raise PhotoError(f"{path.name} is missing", "missing")
    try:
        with rawpy.RawPy() as raw:
            raw.open_file(str(path))
            yield raw
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else type(error).__name__
        text = reason.decode("ascii", "replace") if isinstance(reason, bytes) else str(reason)
        more = ", the file ends too early or lacks its picture" if isinstance(error, rawpy.LibRawIOError) else ""
        if read_exif(path).jpeg_xl:
            more = ": it is a DNG compressed with JPEG XL; convert it with Adobe's DNG Converter, without compression"
        raise PhotoError(f"LibRaw cannot read {path.name}: {text}{more}", "unreadable") from error


def _mixed(planes: NDArray[np.uint16], matrix: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Four filters' planes (H,W,4) to linear sRGB (H,W,3) by a 3x4 matrix, in strips of rows."""
    rgb = np.empty((*planes.shape[:2], 3), np.uint16)
    for top in range(0, len(planes), STRIP):
        mixed = planes[top : top + STRIP].astype(np.float32) @ matrix[:3].T
        rgb[top : top + STRIP] = np.rint(mixed.clip(0, 65535))
    return rgb


def _facts(raw: rawpy.RawPy, exif: Exif) -> RawFacts:
    stops = exif.baseline_exposure if exif.is_dng else 0.0
    if not abs(stops) <= LARGEST_BASELINE_EXPOSURE:
        raise PhotoError(f"the DNG asks for a baseline exposure of {stops:g} stops: it is damaged", "unreadable")
    lens = raw.lens
    return RawFacts(
        mosaic=_mosaic(raw),
        flip=raw.sizes.flip,
        white_balance=_white_balance(raw),
        baseline_exposure=stops,
        camera=exif.camera,
        lens=exif.lens or f"{lens.make} {lens.model}".strip(),
        **_shot(raw, exif),
    )


def _shot(raw: rawpy.RawPy, exif: Exif) -> dict[str, Any]:
    """Of the facts those that rawpy gives with the date, all or none: it raises where no calendar has that date."""
    try:
        shot = raw.other
    except (ValueError, OverflowError, OSError):
        return {"iso": exif.iso, "shutter_s": 0.0, "aperture": 0.0, "focal_mm": 0.0, "taken": ""}
    return {
        "iso": _number(shot.iso_speed) or exif.iso,
        "shutter_s": _number(shot.shutter_speed),
        "aperture": _number(shot.aperture),
        "focal_mm": _number(shot.focal_length),
        "taken": shot.timestamp.isoformat() if shot.timestamp > datetime(1970, 1, 2) else "",
    }


def _mosaic(raw: rawpy.RawPy) -> str:
    pattern = raw.raw_pattern
    if pattern is None or raw.num_colors == 1:
        return ""
    if pattern.shape == (6, 6):
        return "X-Trans"
    names = raw.color_desc.decode("ascii", "replace")
    return "".join(names[colour] for colour in pattern.flat)


def _number(value: float) -> float:
    """Rounded to what a camera can mean; damaged files hold infinities."""
    return float(f"{value:.4g}") if np.isfinite(value) and value > 0 else 0.0


def _white_balance(raw: rawpy.RawPy) -> str:
    """What to trust. Gains like [0,1,0,0] say nothing; equal ones are absent ones or a camera's that balances itself.

    Such a camera's (Nikon D1, many linear DNGs) picture is nearer to grey on average without daylight's gains.
    """
    if raw.num_colors == 1:
        return "none"
    gains = np.array(raw.camera_whitebalance[: raw.num_colors])
    if not (np.isfinite(gains).all() and (gains > 0).all()):
        return "daylight"
    if np.ptp(gains) > 1e-6 * gains.max():
        return "as shot"
    daylight = np.array(raw.daylight_whitebalance[: raw.num_colors])
    return "as shot" if _cast(raw, gains) <= _cast(raw, daylight) else "daylight"


def _cast(raw: rawpy.RawPy, gains: NDArray[np.float64]) -> float:
    """How far the sensor's mean is from grey after these gains, in stops between its extreme colours."""
    if raw.raw_type == rawpy.RawType.Stack:
        means = raw.raw_image_visible.reshape(-1, raw.raw_image_visible.shape[-1]).mean(0)[:4]
    else:
        colours = raw.raw_colors_visible.ravel()
        sums = np.bincount(colours, weights=raw.raw_image_visible.ravel(), minlength=4)
        means = sums / np.maximum(np.bincount(colours, minlength=4), 1)
    # the second green of a Bayer cell is colour 3
    light = (means - raw.black_level_per_channel[: means.size])[: gains.size]
    return float(np.ptp(np.log2(light.clip(min=1) * gains.clip(min=1e-6))))


def _white_level(raw: rawpy.RawPy) -> int | None:
    """What counts as white above black, where LibRaw forgets black: full-colour data with a black level a colour."""
    black = raw.black_level_per_channel
    if raw.raw_type == rawpy.RawType.Stack and raw.num_colors == 3 and min(black[:3]) > 0 and black[3] == 0:
        return raw.white_level - max(black[:3])
    return None


def _crop(raw: rawpy.RawPy, exif: Exif) -> Box:
    """The photo's part of the visible sensor, before it is turned: a DNG's default crop.

    From the tags, because LibRaw moves odd origins; and it develops an active area from its first even row and column.
    """
    sizes, crop = raw.sizes, exif.default_crop if exif.is_dng else None
    everything = (0.0, 0.0, float(sizes.width), float(sizes.height))
    if crop is None:
        return everything
    left, top = max(crop[0] - sizes.left_margin, 0.0), max(crop[1] - sizes.top_margin, 0.0)
    right, bottom = crop[2] - sizes.left_margin, crop[3] - sizes.top_margin
    inside = left < right <= sizes.width and top < bottom <= sizes.height
    return (left, top, right, bottom) if inside else everything


def _turned(box: Box, size: tuple[int, int], flip: int) -> Box:
    """A box on a sensor of (height, width) in the upright picture."""
    (left, top, right, bottom), (height, width) = box, size
    if flip & 2:
        top, bottom = height - bottom, height - top
    if flip & 1:
        left, right = width - right, width - left
    return (top, left, bottom, right) if flip & 4 else (left, top, right, bottom)
