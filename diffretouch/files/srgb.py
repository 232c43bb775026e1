"""The sRGB curve (IEC 61966-2-1) on whole pictures, from tables and sums that have the same bits on every processor.

`diffretouch.color` has the formula itself, for torch; powers of numpy and torch differ between processors in the last
bits, which rounding to whole numbers would sometimes show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
"""(H,W,3), or (H,W) where it is said."""

LAST = 65535
STRIP_PIXELS = 2**16  # a strip and what is computed from it fit a processor's cache


def srgb_decode(srgb: Picture, out: Picture | None = None) -> Picture:
    """sRGB in [0,1], clipped there, to linear light in [0,1], within 2e-7 of the formula; any shape.

    `out` may be `srgb` itself.
    """
    return by_strips(lambda strip: _read_off(_light(), np.clip(strip, 0, 1)), srgb, out)


def srgb_encode(linear: Picture, out: Picture | None = None) -> Picture:
    """Linear light to sRGB in [0,1], clipped there, within 2e-7 of the formula; any shape.

    `out` may be `linear` itself.
    """
    # over the root of the light the curve is nearly straight, also near black
    return by_strips(lambda strip: _read_off(_values(), np.sqrt(np.clip(strip, 0, 1))), linear, out)


@cache
def light_of_steps() -> Picture:
    """Linear light of the 65536 steps of 16-bit sRGB."""
    return _light()[0]


def by_strips(convert: Callable[[Any], Any], source: NDArray[Any], out: Picture | None = None) -> Picture:
    """`convert` on strips of rows of `source`, gathered in `out`: only strips are ever held in between."""
    out = np.empty(source.shape, np.float32) if out is None else out
    rows = max(1, STRIP_PIXELS // max(1, prod(source.shape[1:2])))
    for top in range(0, len(source), rows):
        out[top : top + rows] = convert(source[top : top + rows])
    return out


def _read_off(curve: tuple[Picture, Picture], place: Picture) -> Picture:
    """The curve, straight between its points, at places in [0,1]."""
    values, rises = curve
    place = place * np.float32(LAST)
    point = place.astype(np.uint16)
    place -= point
    # "clip" spares numpy a look at every index before the first
    place *= rises.take(point, mode="clip")
    place += values.take(point, mode="clip")
    return place


@cache
def _light() -> tuple[Picture, Picture]:
    return _curve(lambda v: v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4)


@cache
def _values() -> tuple[Picture, Picture]:
    """sRGB over the root of the light."""
    return _curve(lambda root: 12.92 * root**2 if root**2 <= 0.0031308 else 1.055 * root ** (2 / 2.4) - 0.055)


def _curve(formula: Callable[[float], float]) -> tuple[Picture, Picture]:
    """65536 points of a curve over [0,1], and the rise from each to the next."""
    points = np.array([formula(step / LAST) for step in range(LAST + 1)])
    return points.astype(np.float32), np.diff(points, append=points[-1]).astype(np.float32)
