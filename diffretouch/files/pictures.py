"""Pictures in and out at 8 and 16 bit, in sRGB or linear light whatever the file's colours; never silently 8 bit."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffretouch.errors import PhotoError, UserError
from diffretouch.files import formats
from diffretouch.files.atomic import whole
from diffretouch.files.formats import UNREADABLE, Pixels
from diffretouch.files.icc import ProfileError, Space, from_srgb, icc, to_linear
from diffretouch.files.srgb import Picture, by_strips, srgb_decode, srgb_encode

Bits = Literal[8, 16]
WRITERS = {
    ".tif": formats.write_tiff,
    ".tiff": formats.write_tiff,
    ".png": formats.write_png,
    ".jpg": formats.write_jpeg,
    ".jpeg": formats.write_jpeg,
}


@dataclass(frozen=True)
class Opened:
    """The light of a picture file."""

    rgb_linear: Picture
    """(H,W,3), upright, linear light with sRGB primaries, 1 = white; not clipped: colours beyond sRGB lie outside."""
    tagged: bool
    """Whether the file says what its colours are; where it does not, they were taken to be those asked for."""


def read_linear(path: Path, untagged: Space = "srgb") -> Opened:
    """The light of a TIFF, PNG or JPEG of 8 or 16 bit; without an ICC profile its colours are taken to be `untagged`.

    Relative colorimetric, in floating point. Beside the result only the file's own pixels are held. Raises PhotoError
    of kind missing or unreadable.
    """
    pixels, profile = _read(path)
    return Opened(_light(pixels, profile or icc(untagged), path), profile is not None)


def read_srgb(path: Path, untagged: Space = "srgb") -> Picture:
    """Upright sRGB in [0,1], (H,W,3), of what `read_linear` reads; a file's own sRGB values are not touched."""
    pixels, profile = _read(path)
    profile = profile or icc(untagged)
    if profile == icc("srgb"):
        return by_strips(_shares, pixels, np.empty((*pixels.shape[:2], 3), np.float32))
    light = _light(pixels, profile, path)
    return srgb_encode(light, out=light)


def read_srgb16(path: Path, untagged: Space = "srgb") -> tuple[NDArray[np.uint16], bool]:
    """What `read_srgb` reads as 16-bit steps, (H,W,3), and whether the file says what its colours are.

    Beside the result only the file's own pixels are held.
    """
    pixels, profile = _read(path)
    colours = profile or icc(untagged)

    def convert(strip: Pixels) -> Pixels:
        if colours == icc("srgb"):
            return _at_depth(strip, 16)
        light = _light(strip, colours, path)
        return to_uint(srgb_encode(light, out=light), 16)

    out = np.empty((*pixels.shape[:2], 3), np.uint16)
    by_strips(convert, pixels, out)
    return out, profile is not None


def read_mask(path: Path) -> Picture:
    """A subject mask in [0,1], (H,W), of a PNG, JPEG or TIFF; of a coloured one the red channel. Raises PhotoError."""
    return _shares(_read(path)[0][..., 0])


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the file's header alone. Raises PhotoError."""
    _present(path)
    try:
        return formats.read_size(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> tuple[Pixels, bytes | None]:
    _present(path)
    try:
        return formats.read_pixels(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _light(pixels: Pixels, profile: bytes, path: Path) -> Picture:
    try:
        return to_linear(pixels, profile)
    except ProfileError as error:
        raise _unreadable(path, error) from error


def _present(path: Path) -> None:
    if not path.exists():
        raise PhotoError(f"{_name(path)} is missing", "missing")


def _unreadable(path: Path, error: BaseException) -> PhotoError:
    # an OSError's own text repeats the whole path
    words = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return PhotoError(f"{_name(path)} cannot be read: {words}", "unreadable")


def _name(path: Path) -> str:
    """With its folder, which tells whose picture it is."""
    return "/".join(path.parts[-2:])


def _shares(steps: Pixels) -> Picture:
    return steps.astype(np.float32) / np.float32(np.iinfo(steps.dtype).max)


def to_uint(image: NDArray[np.floating], bits: Bits) -> NDArray[Any]:
    """[0,1] to whole numbers, clipped and rounded (never truncated)."""
    top = 2**bits - 1
    out = np.empty(image.shape, np.uint8 if bits == 8 else np.uint16)
    return by_strips(lambda strip: np.rint(np.clip(strip, 0, 1) * top), image, out)


def write_picture(path: Path, image: NDArray[Any], *, space: Space = "srgb", bits: Bits = 16) -> None:
    """A .tif, .tiff or .png of 8 or 16 bit, or a .jpg of 8, with the ICC profile of `space`; the same bytes each time.

    image: sRGB (H,W,3) in [0,1], which is converted to `space` and rounded; or uint8 or uint16 that are in `space`
    already, which are written as they are (rounded where 8 bits are asked of 16). Grey (H,W) gets no profile. Raises
    UserError for another kind of file, and for 16 bits in a JPEG.
    """
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise UserError(f"{path} cannot be written: expected a name ending in {', '.join(WRITERS)}")
    if write is formats.write_jpeg and bits != 8:
        raise UserError(f"{path} cannot be written: JPEG has 8 bits, not {bits}; ask for 8, or for a .png or .tif")
    if image.dtype.kind == "u":
        pixels = _at_depth(image, bits)
    else:
        pixels = to_uint(image if space == "srgb" or image.ndim == 2 else from_srgb(image, space), bits)
    with whole(path) as temporary:
        write(temporary, pixels, icc(space) if pixels.ndim == 3 else None)


def _at_depth(steps: Pixels, bits: Bits) -> Pixels:
    if steps.dtype == np.uint8:
        return steps if bits == 8 else steps * np.uint16(257)
    return steps if bits == 16 else ((steps.astype(np.uint32) + 128) // 257).astype(np.uint8)


def write_png8(path: Path, image: NDArray[np.floating]) -> None:
    """8-bit PNG without a profile, rounded; image (H,W,3) or (H,W) in [0,1], sRGB."""
    with whole(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(to_uint(image, 8), level=4))


def jpeg8(image: NDArray[np.floating], quality: int) -> bytes:
    """A JPEG file's bytes without metadata or chroma subsampling; image (H,W,3) in [0,1], sRGB."""
    return bytes(imagecodecs.jpeg8_encode(to_uint(image, 8), level=quality, subsampling="444"))


def resize(image: Picture, size: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> Picture:
    """To (height, width), bilinear with antialiasing on the values as they are; image (H,W,C) or (H,W).

    `box` (left, top, right, bottom, in pixels) is cut out first; a pixel on its edge counts in part.
    """
    if image.ndim == 3:
        return np.stack([resize(image[..., channel], size, box) for channel in range(image.shape[2])], axis=2)
    if box is not None:
        # cut out here, because Pillow lets the pixels beside its box shine in
        left, top = floor(box[0]), floor(box[1])
        image = image[top : ceil(box[3]), left : ceil(box[2])]
        box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    plane = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.array(plane.resize(size[::-1], Image.Resampling.BILINEAR, box))


def resize_linear_light(image_srgb: Picture, size: tuple[int, int]) -> Picture:
    """To (height, width), antialiased in linear light, where light adds up; sRGB in [0,1] in and out, any channels."""
    light = resize(srgb_decode(image_srgb), size)
    return srgb_encode(light, out=light)


def reduce_to(image: Picture, *, long_edge: int | None = None, short_edge: int | None = None) -> Picture:
    """Reduced so that the named edge has that many pixels; never enlarged; None leaves it."""
    height, width = image.shape[:2]
    target, edge = (long_edge, max(height, width)) if long_edge is not None else (short_edge, min(height, width))
    if target is None or edge <= target:
        return image
    return resize(image, (max(1, round(height * target / edge)), max(1, round(width * target / edge))))
