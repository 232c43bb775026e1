"""TIFF, PNG and JPEG files as they are stored: whole numbers, an ICC profile, an orientation.

Pillow opens 16-bit RGB TIFF as 8 bit, so TIFF goes through tifffile and the pixels of PNG through imagecodecs; Pillow
reads headers and JPEG.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from diffretouch.files.icc import icc

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

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
    Image.DecompressionBombError,
)
JPEG_QUALITY = 95
# EXIF/TIFF orientation -> (quarter turns counter-clockwise, mirrored afterwards), after TIFF 6.0, tag 274
_UPRIGHT = {1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}
_UPRIGHT[8] = (1, False)
# classic and big TIFF, of either byte order
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION, _ICC = 274, 34675


def read_pixels(path: Path) -> tuple[Pixels, bytes | None]:
    """Upright pixels as stored, (H,W,3) or grey (H,W,1), without alpha, and their ICC profile; raises UNREADABLE."""
    pixels, profile, orientation = _read_tiff(path) if _is_tiff(path) else _read_other(path)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"it is {pixels.dtype} {pixels.shape}, expected 8- or 16-bit RGB or grey")
    pixels = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]
    if profile is not None and profile[16:20] not in ([b"RGB ", b"GRAY"] if pixels.shape[2] == 1 else [b"RGB "]):
        raise ValueError(f"its ICC profile is of other colours than its own: {profile[16:20]!r}")
    turns, mirrored = _UPRIGHT.get(orientation, (0, False))
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirrored else pixels, profile


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the header alone; raises UNREADABLE."""
    if _is_tiff(path):
        with _tiff_page(path) as page:
            size, orientation = (page.imagelength, page.imagewidth), int(page.tags.valueof(_ORIENTATION, 1))
    else:
        with _header(path) as header:
            size, orientation = (header.height, header.width), _orientation(header, path)
    return size if _UPRIGHT.get(orientation, (0, False))[0] % 2 == 0 else size[::-1]


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _TIFF


@contextmanager
def _tiff_page(path: Path) -> Iterator[Any]:
    with tifffile.TiffFile(path) as tif:
        yield tif.pages[0]


def _header(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=("PNG", "JPEG"))
    except Image.UnidentifiedImageError as error:  # which tells the whole path
        raise ValueError("it is neither TIFF nor PNG nor JPEG") from error


def _orientation(header: Image.Image, path: Path) -> int:
    if header.format != "PNG":
        return int(header.getexif().get(_ORIENTATION, 1))
    exif = Image.Exif()  # Pillow would decode the pixels of a PNG to see whether an eXIf chunk stands behind them
    exif.load(_png_chunk(path, b"eXIf"))
    return int(exif.get(_ORIENTATION, 1))


def _png_chunk(path: Path, wanted: bytes) -> bytes:
    """Content of the first such chunk of a PNG, empty where there is none (PNG 3, section 5)."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            if kind == wanted:
                return file.read(size)
            file.seek(size + 4, 1)
    return b""


def _read_tiff(path: Path) -> tuple[NDArray[Any], bytes | None, int]:
    with _tiff_page(path) as page:
        if page.photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
            raise ValueError(f"its colours are {getattr(page.photometric, 'name', page.photometric)}, expected RGB")
        if not all(page.dataoffsets) or not all(page.databytecounts) or len(page.dataoffsets) < prod(page.chunked):
            raise ValueError("a part of it was never written")  # tifffile would fill it with black
        pixels = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, 2)
        return pixels, page.tags.valueof(_ICC), int(page.tags.valueof(_ORIENTATION, 1))


def _read_other(path: Path) -> tuple[NDArray[Any], bytes | None, int]:
    with _header(path) as header:
        if header.mode in ("CMYK", "YCCK", "P", "LAB"):
            raise ValueError(f"its colours are {header.mode}, expected RGB")
        profile, orientation = header.info.get("icc_profile"), _orientation(header, path)
        if header.format == "PNG":
            # a PNG may say sRGB in a chunk of its own
            profile = profile or (icc("srgb") if "srgb" in header.info else None)
            return imagecodecs.png_decode(path.read_bytes()), profile, orientation
        # libjpeg fills what is cut off with grey, and only Pillow objects
        return np.asarray(header), profile, orientation


def write_tiff(path: Path, pixels: Pixels, profile: bytes | None) -> None:
    """TIFF of 8- or 16-bit RGB (H,W,3) or grey (H,W)."""
    # deflate, which everything opens; its higher levels take longer and save nothing in 16-bit pictures
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb" if pixels.ndim == 3 else "minisblack",
        compression="zlib",
        compressionargs={"level": 1},
        predictor=2,
        iccprofile=profile,
        metadata=None,
        software=False,
    )


def write_png(path: Path, pixels: Pixels, profile: bytes | None) -> None:
    """PNG of 8- or 16-bit RGB (H,W,3) or grey (H,W)."""
    # libpng's own choices take four times as long and save nothing in 16-bit pictures
    png = imagecodecs.PNG
    data = imagecodecs.png_encode(pixels, png.COMPRESSION.SPEED, strategy=png.STRATEGY.RLE, filter=png.FILTER.SUB)
    chunk = b""
    if profile is not None:
        body = b"iCCP" + b"ICC profile\0\0" + imagecodecs.zlib_encode(profile)  # PNG 3, 11.3.2.3
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    start = 33  # after the signature and IHDR
    path.write_bytes(data[:start] + chunk + data[start:])


def write_jpeg(path: Path, pixels: Pixels, profile: bytes | None) -> None:
    """JPEG of 8-bit RGB (H,W,3) or grey (H,W), without chroma subsampling."""
    Image.fromarray(pixels).save(path, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=profile)
