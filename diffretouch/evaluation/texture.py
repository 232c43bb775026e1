"""How much of a photo's texture is still there in a retouch of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffretouch.files.pictures import Picture
from diffretouch.files.srgb import srgb_decode

DARKEST, BRIGHTEST = 0.05, 0.98
"""sRGB values between which every channel of an unclipped pixel lies: below, 8-bit steps are coarser than texture."""
FEWEST = 100
"""Differences under which a pair of pictures says nothing."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # IEC 61966-2-1, the Y of linear sRGB


def survival(photo: Picture, result: Picture) -> float:
    """Correlation of the differences of log luminance between neighbours, in the photo and in the result: at most 1.

    Both (H,W,3) sRGB in [0,1]. Over pairs of neighbours, along and across, that are unclipped in both pictures; NaN
    where hardly any are. A retouch that multiplies light, or raises it to a power, keeps 1 exactly, also where its
    strength changes slowly over the picture; a picture painted anew is below, however like the photo it looks.
    """
    if photo.shape != result.shape:
        raise ValueError(f"a photo {photo.shape} and a result {result.shape} differ in size")
    usable = _unclipped(photo) & _unclipped(result)
    ours, theirs = _log_luminance(photo), _log_luminance(result)
    pairs = [_steps(ours, theirs, usable, axis) for axis in (0, 1)]
    a, b = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
    if a.size < FEWEST or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _steps(
    a: NDArray[np.float64], b: NDArray[np.float64], usable: NDArray[np.bool_], axis: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = (np.take(usable, range(*part), axis) for part in ((0, usable.shape[axis] - 1), (1, usable.shape[axis])))
    both = low & high
    return np.diff(a, axis=axis)[both], np.diff(b, axis=axis)[both]


def _unclipped(picture: Picture) -> NDArray[np.bool_]:
    return (picture.min(-1) >= DARKEST) & (picture.max(-1) <= BRIGHTEST)


def _log_luminance(picture: Picture) -> NDArray[np.float64]:
    return np.log(np.maximum(srgb_decode(picture) @ LUMINANCE, 1e-6).astype(np.float64))
