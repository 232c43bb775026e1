"""Pictures in and out at 16 bit, with their ICC profiles; never silently 8 bit.

Pillow opens 16-bit RGB TIFF as 8 bit and its colour management is 8-bit, so TIFF goes through tifffile, the pixels of
PNG through imagecodecs, and colour through LittleCMS (imagecodecs); Pillow reads headers and JPEG.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from diffretouch.errors import PhotoError
from diffretouch.files.atomic import whole

Picture = NDArray[np.float32]
Space = Literal["srgb", "prophoto"]

# EXIF/TIFF orientation -> (quarter turns counter-clockwise, mirrored afterwards), after TIFF 6.0, tag 274
_UPRIGHT = {1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}
_UPRIGHT[8] = (1, False)
# what tifffile, imagecodecs and Pillow raise for a file that is cut off or is something else
UNREADABLE = (
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
    struct.error,
    LookupError,
    TypeError,
    SyntaxError,
    MemoryError,
)


@cache
def icc(space: Space) -> bytes:
    """The ICC profile of a colour space: sRGB (IEC 61966-2-1) or ProPhoto RGB (ISO 22028-2: D50, gamma 1.8)."""
    if space == "srgb":
        profile = imagecodecs.cms_profile("srgb")
    else:
        profile = imagecodecs.cms_profile(
            "rgb",
            whitepoint=[0.3457, 0.3585, 1.0],
            primaries=[0.7347, 0.2653, 1.0, 0.1596, 0.8404, 1.0, 0.0366, 0.0001, 1.0],
            gamma=1.8,
        )
    # bytes 24-35 hold the time of creation: fixed, so that equal profiles have equal bytes
    return profile[:24] + b"\x07\xd0\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00" + profile[36:]


def read_srgb(path: Path, untagged: Space = "srgb") -> Picture:
    """Upright sRGB in [0,1], (H,W,3), from a TIFF, PNG or JPEG of 8 or 16 bit.

    A picture with an ICC profile is converted through it (relative colorimetric, 16 bit); one without is taken to be
    `untagged`. Raises PhotoError naming what could not be read.
    """
    pixels, profile, orientation = _read(path)
    profile = profile or (icc("prophoto") if untagged == "prophoto" else None)
    if profile is not None and profile != icc("srgb"):
        pixels = _through(profile, pixels, path)
    turns, mirrored = _UPRIGHT[orientation]
    pixels = np.rot90(pixels, turns)
    if mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels, dtype=np.float32) / np.float32(65535)


def _through(profile: bytes, pixels: NDArray[np.uint16], path: Path) -> NDArray[np.uint16]:
    """From the colours of an ICC profile to sRGB, 16 bit."""
    grey = profile[16:20] == b"GRAY"
    try:
        # unoptimised: LittleCMS' default 16-bit tables are off by up to .08 in dark saturated pixels
        return imagecodecs.cms_transform(
            np.ascontiguousarray(pixels[..., 0]) if grey else pixels,
            profile,
            icc("srgb"),
            colorspace="gray" if grey else "rgb",
            outcolorspace="rgb",
            outdtype=np.uint16,
            intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
            flags=imagecodecs.CMS.FLAGS.NOOPTIMIZE,
        )
    except (RuntimeError, ValueError) as error:
        raise PhotoError(f"{_name(path)} has an ICC profile that cannot be used: {error}") from error


def read_mask(path: Path) -> Picture:
    """A subject mask in [0,1], (H,W), of a PNG, JPEG or TIFF; of a coloured one the red channel."""
    return _read(path)[0][..., 0].astype(np.float32) / np.float32(65535)


def _read(path: Path) -> tuple[NDArray[np.uint16], bytes | None, int]:
    """16-bit RGB as stored, its ICC profile, its orientation tag."""
    if not path.exists():
        raise PhotoError(f"{_name(path)} is missing")
    try:
        pixels, profile, orientation = (
            _open_tiff(path) if path.suffix.lower() in {".tif", ".tiff"} else _open_other(path)
        )
    except UNREADABLE as error:
        words = str(error).splitlines() or [type(error).__name__]
        raise PhotoError(f"{_name(path)} cannot be read: {words[0]}") from error
    spaces = [b"RGB "]
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):  # grey, or grey with alpha
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
        spaces.append(b"GRAY")
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.dtype not in (np.uint8, np.uint16):
        raise PhotoError(f"{_name(path)} is {pixels.dtype} {pixels.shape}: expected 8- or 16-bit RGB")
    if profile is not None and profile[16:20] not in spaces:
        raise PhotoError(f"{_name(path)} has an ICC profile of other colours than its own: {profile[16:20]!r}")
    pixels = pixels[..., :3]
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * np.uint16(257)
    return np.ascontiguousarray(pixels), profile, orientation if orientation in _UPRIGHT else 1


def _name(path: Path) -> str:
    """With its folder, which tells whose picture it is."""
    return "/".join(path.parts[-2:])


def _open_tiff(path: Path) -> tuple[NDArray[Any], bytes | None, int]:
    with tifffile.TiffFile(path) as tif:
        page: Any = tif.pages[0]
        if page.photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
            raise ValueError(f"its colours are {getattr(page.photometric, 'name', page.photometric)}, expected RGB")
        return page.asarray(), page.tags.valueof(34675), int(page.tags.valueof(274, 1))


def _open_other(path: Path) -> tuple[NDArray[Any], bytes | None, int]:
    with Image.open(path) as header:
        if header.mode in ("CMYK", "YCCK", "P", "LAB"):
            raise ValueError(f"its colours are {header.mode}, expected RGB")
        profile, orientation = header.info.get("icc_profile"), int(header.getexif().get(274, 1))
        # libjpeg fills what is cut off with grey, and only Pillow objects; a JPEG has 8 bits anyhow
        pixels = np.asarray(header) if header.format == "JPEG" else imagecodecs.imread(path)
    return pixels, profile, orientation


def to_uint(image: NDArray[np.floating], bits: Literal[8, 16]) -> NDArray[Any]:
    """[0,1] to whole numbers, clipped and rounded (never truncated)."""
    top = 255 if bits == 8 else 65535
    return np.rint(np.clip(image, 0, 1) * top).astype(np.uint8 if bits == 8 else np.uint16)


def write_tiff16(path: Path, image: NDArray[np.floating], space: Space = "srgb") -> None:
    """16-bit TIFF, deflate with a horizontal predictor, tagged with the profile of `space`; image (H,W,3) in [0,1]."""
    with whole(path) as temporary:
        tifffile.imwrite(
            temporary,
            to_uint(image, 16),
            photometric="rgb",
            compression="zlib",
            compressionargs={"level": 4},
            predictor=2,
            iccprofile=icc(space),
            metadata=None,
            software=False,
        )


def write_png8(path: Path, image: NDArray[np.floating]) -> None:
    """8-bit PNG, rounded; image (H,W,3) or (H,W) in [0,1], sRGB."""
    with whole(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(to_uint(image, 8), level=4))


def jpeg8(image: NDArray[np.floating], quality: int) -> bytes:
    """A JPEG file's bytes without metadata or chroma subsampling; image (H,W,3) in [0,1], sRGB."""
    return bytes(imagecodecs.jpeg8_encode(to_uint(image, 8), level=quality, subsampling="444"))


def resize(image: Picture, size: tuple[int, int]) -> Picture:
    """To (height, width), bilinear with antialiasing on the values as they are; image (H,W,C) or (H,W)."""
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(image if image.ndim == 3 else image[..., None])).permute(2, 0, 1)
    out = interpolate(planes[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    result = out.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(result if image.ndim == 3 else result[..., 0])


def reduce_to(image: Picture, *, long_edge: int | None = None, short_edge: int | None = None) -> Picture:
    """Reduced so that the named edge has that many pixels; never enlarged; None leaves it."""
    height, width = image.shape[:2]
    target, edge = (long_edge, max(height, width)) if long_edge is not None else (short_edge, min(height, width))
    if target is None or edge <= target:
        return image
    return resize(image, (max(1, round(height * target / edge)), max(1, round(width * target / edge))))
