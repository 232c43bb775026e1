"""Colour spaces of picture files: their ICC profiles, from them to linear light, and from sRGB to them (LittleCMS)."""

from __future__ import annotations

import struct
from functools import cache, lru_cache
from typing import Any, Literal, get_args

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from diffretouch.files.srgb import LAST, Picture, by_strips, light_of_steps

Space = Literal["srgb", "prophoto", "adobe_rgb", "display_p3"]
SPACES: tuple[Space, ...] = get_args(Space)

D50, D65 = (0.3457, 0.3585), (0.3127, 0.3290)
# x, y of red, green and blue
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # IEC 61966-2-1
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))  # ISO 22028-2
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))  # Adobe RGB (1998) Color Image Encoding, section 4.3
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))  # SMPTE RP 431-2
CURVES = (b"rTRC", b"gTRC", b"bTRC")
BRIGHTEST = 100  # times white: damaged curves lead to 1e22, ProPhoto's red to 2


class ProfileError(ValueError):
    """An ICC profile from which LittleCMS makes no colours."""


@cache
def icc(space: Space) -> bytes:
    """The ICC profile of a colour space, always the same bytes.

    sRGB (IEC 61966-2-1), ProPhoto RGB (D50, gamma 1.8 without a toe), Adobe RGB (1998) (D65, gamma 563/256),
    Display P3 (D65, the curve of sRGB).
    """
    if space == "srgb":
        return _dated(imagecodecs.cms_profile("srgb"))
    if space == "prophoto":
        return _rgb(D50, PROPHOTO, 1.8)
    if space == "adobe_rgb":
        return _rebuilt(_rgb(D65, ADOBE_RGB, 563 / 256), "Adobe RGB (1998)", {})
    srgb = _elements(icc("srgb"))
    return _rebuilt(_rgb(D65, DISPLAY_P3, 1.0), "Display P3", {curve: srgb[curve] for curve in CURVES})


def to_linear(pixels: NDArray[Any], profile: bytes) -> Picture:
    """Linear light with sRGB primaries, (H,W,3), of 8- or 16-bit (H,W,3) or grey (H,W,1) in the colours of `profile`.

    Relative colorimetric, in floating point; sRGB by the formula of IEC 61966-2-1. Nothing is clipped: colours beyond
    sRGB's have values below 0 or above 1. Raises ProfileError.
    """
    out = np.empty((*pixels.shape[:2], 3), np.float32)
    step = LAST // np.iinfo(pixels.dtype).max
    if profile == icc("srgb"):
        light = light_of_steps()[::step]
        return by_strips(lambda strip: light.take(strip, mode="clip"), pixels, out)
    if profile[16:20] == b"GRAY":
        light = _greys(profile)[::step]
        return by_strips(lambda strip: light.take(strip[..., 0], axis=0, mode="clip"), pixels, out)
    pixels = np.broadcast_to(pixels, out.shape)
    if any(element[:3] in (b"A2B", b"D2B") for element in _elements(profile)):
        return by_strips(lambda strip: _transform(strip, profile, _linear()), pixels, out)
    red, green, blue = (parts[::step] for parts in _parts(profile))

    def add(strip: NDArray[Any]) -> Picture:
        light = red.take(strip[..., 0], axis=0, mode="clip")
        light += green.take(strip[..., 1], axis=0, mode="clip")
        light += blue.take(strip[..., 2], axis=0, mode="clip")
        return light

    return by_strips(add, pixels, out)


def from_srgb(image: NDArray[np.floating], space: Space) -> Picture:
    """The values in `space` of an sRGB picture (H,W,3) in [0,1], clipped there; relative colorimetric, float32."""

    def convert(strip: NDArray[np.floating]) -> Picture:
        return _transform(np.clip(strip, 0, 1).astype(np.float32), icc("srgb"), icc(space))

    return by_strips(convert, image)


@lru_cache(maxsize=4)
def _parts(profile: bytes) -> Picture:
    """What each channel's 65536 steps add to the light: (3,65536,3).

    A profile of three curves and a matrix (ICC.1, F.3: one without A2B and D2B elements) is a sum of its channels, so
    that LittleCMS need not be asked for every pixel, which takes ten times as long.
    """
    steps = np.zeros((3, LAST + 1, 3), np.uint16)
    for channel in range(3):
        steps[channel, :, channel] = np.arange(LAST + 1)
    light = _transform(steps, profile, _linear())
    light[1:] -= light[0, 0]  # black counts once
    return light


@lru_cache(maxsize=4)
def _greys(profile: bytes) -> Picture:
    """The light of the 65536 steps of a grey profile: (65536,3)."""
    return _transform(np.arange(LAST + 1, dtype=np.uint16)[None], profile, _linear())[0]


def _transform(pixels: NDArray[Any], source: bytes, target: bytes) -> Picture:
    """LittleCMS in floating point; pixels (H,W,3), or (H,W) where `source` is grey. Raises ProfileError."""
    try:
        light = imagecodecs.cms_transform(
            np.ascontiguousarray(pixels),
            source,
            target,
            colorspace="gray" if pixels.ndim == 2 else "rgb",
            outcolorspace="rgb",
            outdtype=np.float32,
            intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
            # its optimised tables for whole numbers are off by up to .08 in dark saturated pixels
            flags=imagecodecs.CMS.FLAGS.NOOPTIMIZE,
        )
    except (RuntimeError, ValueError) as error:
        raise ProfileError(f"its ICC profile cannot be used: {error}") from error
    if not (np.abs(light) < BRIGHTEST).all():
        raise ProfileError(f"its ICC profile cannot be used: it leads to light beyond {BRIGHTEST} times white")
    return light


@cache
def _linear() -> bytes:
    """The profile of linear light with sRGB primaries."""
    return _rgb(D65, SRGB, 1.0)


def _rgb(white: tuple[float, float], primaries: tuple[tuple[float, float], ...], gamma: float) -> bytes:
    xyy = [number for x, y in primaries for number in (x, y, 1.0)]
    return _dated(imagecodecs.cms_profile("rgb", whitepoint=[*white, 1.0], primaries=xyy, gamma=gamma))


def _dated(profile: bytes) -> bytes:
    """Bytes 24-35 hold the time of creation: fixed, so that equal profiles have equal bytes."""
    return profile[:24] + b"\x07\xd0\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00" + profile[36:]


def _elements(profile: bytes) -> dict[bytes, bytes]:
    """The tagged elements of a profile by their signatures (ICC.1, 7.3)."""
    count = min(int.from_bytes(profile[128:132]), (len(profile) - 132) // 12)
    table = struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count])
    return {signature: profile[start : start + size] for signature, start, size in table}


def _rebuilt(profile: bytes, name: str, other: dict[bytes, bytes]) -> bytes:
    """The profile under a name of its own, with `other` elements in place of its own."""
    text = name.encode("utf-16-be")
    words = b"mluc" + struct.pack(">III4sII", 0, 1, 12, b"enUS", len(text), 28) + text  # ICC.1, 10.15
    elements = _elements(profile) | other | {b"desc": words}
    table, body, start = b"", b"", 132 + 12 * len(elements)
    for signature, element in elements.items():
        table += struct.pack(">4sII", signature, start + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    return struct.pack(">I", start + len(body)) + profile[4:128] + struct.pack(">I", len(elements)) + table + body
