"""RAW to linear light: the only place that imports rawpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rawpy
from numpy.typing import NDArray

from diffretouch.errors import PhotoError


@dataclass(frozen=True)
class RawPhoto:
    """One developed RAW."""

    rgb_linear: NDArray[np.float32]
    """(H,W,3) scene light, upright, sRGB primaries; 1 is the sensor's white level after white balance."""
    bayer: str
    """The mosaic's first 2x2 cell, row by row, for instance RGGB; empty without a mosaic."""
    flip: int
    """LibRaw's rotation that was applied: 0 none, 3 half a turn, 5 left, 6 right."""


def decode(path: Path, *, demosaic: str = "AHD", highlights: str = "Clip") -> RawPhoto:
    """Develop a RAW file: as-shot white balance, camera matrix to sRGB primaries, no tone curve, 16 bit throughout.

    Raises PhotoError with LibRaw's reason when the file cannot be read or developed.
    """
    if not path.exists():
        raise PhotoError(f"{path.name} is missing")
    try:
        with rawpy.imread(str(path)) as raw:
            pattern = raw.raw_pattern
            colours = raw.color_desc.decode("ascii", "replace")
            bayer = "".join(colours[i] for i in pattern.flat) if pattern is not None else ""
            flip = raw.sizes.flip
            rgb = raw.postprocess(
                gamma=(1, 1),
                no_auto_bright=True,
                output_bps=16,
                use_camera_wb=_has_white_balance(raw.camera_whitebalance),
                use_auto_wb=False,
                adjust_maximum_thr=0.0,
                output_color=rawpy.ColorSpace.sRGB,
                demosaic_algorithm=rawpy.DemosaicAlgorithm[demosaic],
                highlight_mode=rawpy.HighlightMode[highlights],
            )
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else type(error).__name__
        text = reason.decode("ascii", "replace") if isinstance(reason, bytes) else str(reason)
        more = ", the file ends too early or is no file" if isinstance(error, rawpy.LibRawIOError) else ""
        raise PhotoError(f"LibRaw cannot read {path.name}: {text}{more}") from error
    if rgb.shape[2] == 1:
        rgb = np.repeat(rgb, 3, axis=2)
    if not rgb.any():
        raise PhotoError(f"{path.name} decodes to black everywhere")
    return RawPhoto(rgb.astype(np.float32) / np.float32(65535), bayer, flip)


def _has_white_balance(gains: list[float]) -> bool:
    """Whether the as-shot gains say anything: some cameras write [0,1,0,0] or all ones."""
    return all(gain > 0 for gain in gains[:3]) and len({round(gain, 6) for gain in gains[:3]}) > 1
