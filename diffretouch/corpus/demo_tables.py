"""Curves as rounded tables and draws as raw integers, so that the demo's bytes agree across processors.

Pictures are float32 and see only + - * / and sqrt, which IEEE 754 fixes; powers are taken once, by Python's math, and
rounded; random numbers are the raw words of PCG64, a stream numpy promises to keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

STEPS = 65535
SCENE_TOP = 2.0  # the brightest scene light a tone table knows, in units of the scene's white
SCENE_STEPS = 131072
TONE_SLOPE = 2.6  # of the camera maker's tone curve at black: mid tones come out 1.2 EV brighter than linear ones


class Draws:
    """Uniform and bell-shaped numbers from the raw words of PCG64."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.PCG64(seed)

    def uniform(self, low: float, high: float) -> float:
        """One number in [low, high)."""
        return low + (high - low) * ((int(self._words.random_raw()) >> 32) / 4294967296.0)

    def bell(self, sd: float) -> float:
        """One number about 0 with standard deviation `sd` (a sum of four uniforms, so never beyond 3.5 sd)."""
        return sd * 1.7320508 * (sum(self.uniform(0.0, 1.0) for _ in range(4)) - 2.0)

    def choice(self, count: int) -> int:
        """One integer in [0, count)."""
        return (int(self._words.random_raw()) >> 32) % count

    def noise(self, shape: tuple[int, ...]) -> Floats:
        """Bell-shaped noise of mean 0 and standard deviation 1."""
        words = self._words.random_raw(int(np.prod(shape))).view(np.uint16).reshape(-1, 4)
        total = words[:, 0].astype(np.int32) + words[:, 1] + words[:, 2] + words[:, 3] - 131070
        return (total.astype(np.float32) * np.float32(1.7320508 / 65536)).reshape(shape)

    def grid(self, shape: tuple[int, int]) -> Floats:
        """Uniform numbers in [0, 1)."""
        words = self._words.random_raw(shape[0] * shape[1])
        return ((words >> np.uint64(48)).astype(np.float32) / np.float32(65536)).reshape(shape)


def look_up(table: NDArray[T], image: Floats, top: float = 1.0) -> NDArray[T]:
    """`table` sampled evenly over [0, top], read at the nearest entry of every value of `image` (any shape)."""
    last = len(table) - 1
    index = np.clip(image, 0, np.float32(top)) * np.float32(last / top) + np.float32(0.5)
    return table[index.astype(np.int32)]


@cache
def srgb_from_linear() -> Floats:
    """IEC 61966-2-1 encoding over [0, 1]."""
    return _table(lambda x: 12.92 * x if x <= 0.0031308 else 1.055 * math.pow(x, 1 / 2.4) - 0.055)


@cache
def linear_from_srgb() -> Floats:
    """IEC 61966-2-1 decoding over [0, 1]."""
    return _table(lambda y: y / 12.92 if y <= 0.04045 else math.pow((y + 0.055) / 1.055, 2.4))


@cache
def romm_from_linear() -> Floats:
    """ProPhoto encoding over [0, 1]: exponent 1/1.8, without a toe, as the profile of `files.pictures.icc` says."""
    return _table(lambda x: math.pow(x, 1 / 1.8))


@cache
def scene_from_srgb() -> Floats:
    """Scene light behind a finished picture's sRGB value: undoes sRGB and the camera maker's tone curve."""
    y = linear_from_srgb()
    return y / (np.float32(TONE_SLOPE) - np.float32(TONE_SLOPE - 1) * y)


@cache
def picture_from_scene() -> Floats:
    """The camera maker's picture of scene light over [0, SCENE_TOP]: tone curve, then sRGB; white may exceed 1."""

    def encode(i: int) -> float:
        x = SCENE_TOP * i / SCENE_STEPS
        y = TONE_SLOPE * x / (1 + (TONE_SLOPE - 1) * x)
        return round(12.92 * y if y <= 0.0031308 else 1.055 * math.pow(y, 1 / 2.4) - 0.055, 7)

    return np.array([encode(i) for i in range(SCENE_STEPS + 1)], np.float32)


@cache
def stops_from_scene() -> NDArray[np.int32]:
    """log2 of scene light over [0, SCENE_TOP] in thousandths of a stop, floor 2^-6.5 (whole numbers sum exactly)."""
    values = (SCENE_TOP * i / SCENE_STEPS for i in range(SCENE_STEPS + 1))
    return np.array([round(1000 * math.log2(max(x, 2**-6.5))) for x in values], np.int32)


def _table(function: Callable[[float], float]) -> Floats:
    return np.array([round(function(i / STEPS), 7) for i in range(STEPS + 1)], np.float32)


def luminance(image: Floats) -> Floats:
    """Rec. 709 weights on (H, W, 3), as explicit sums."""
    return image[..., 0] * np.float32(0.2126) + image[..., 1] * np.float32(0.7152) + image[..., 2] * np.float32(0.0722)


def mix_channels(image: Floats, matrix: list[list[float]]) -> Floats:
    """A 3x3 matrix on the channels of (H, W, 3), as explicit sums."""
    out = np.empty_like(image)
    for row in range(3):
        r, g, b = (np.float32(value) for value in matrix[row])
        out[..., row] = image[..., 0] * r + image[..., 1] * g + image[..., 2] * b
    return out
