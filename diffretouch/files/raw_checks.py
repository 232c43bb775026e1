"""What a RAW must pass: the same sensor values at each reading, and a picture in them.

Of some damaged files LibRaw leaves parts of the mosaic as malloc gave them: another photo's pixels, or zeros. Filling
new memory with a byte of our own (glibc's M_PERTURB) shows them at once. Measured with LibRaw 0.22.2 on 3,200 mutants
of 18 DNG, NEF and CRW files: it refuses 1,617, develops 1,410 to one picture, and 173 to another one at another time.
Cost as a share of developing 24 megapixels by AHD (uncompressed 1.6 s, lossless JPEG 2.0 s):

    test                                                 caught   false alarms   cost
    the tags' data offsets lie inside the file           59       206            0.1 %
    unpacked twice in a fresh process                    48       0              5 to 25 %
    unpacked twice after other photos                    166      0              5 to 25 %
    memory filled, mosaic searched for the fill (this)   169      0              1 %
    memory filled with one byte, then with another       169      0              5 to 25 %

The other four have a damaged CFAPattern or CFAPlaneColor, of which LibRaw takes what is missing from its stack.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffretouch.errors import PhotoError

# no sensor of 14 bits gives 0xFEFE; in 16-bit data that value costs a second unpacking, nothing more
FILL, OTHER_FILL = 0xFE, 0x5A
_M_PERTURB = -6  # glibc's malloc.h


@contextmanager
def filled_memory(byte: int = FILL) -> Iterator[int | None]:
    """What the whole process gets from malloc in this block is filled with `byte` (1 to 254).

    Gives the byte, or None where the C library cannot do that (macOS, musl, Windows, another allocator).
    """
    perturb = _perturb()
    if perturb is None:
        yield None
        return
    perturb(byte)
    try:
        yield byte
    finally:
        perturb(0xFF)


@cache
def _perturb() -> Callable[[int], None] | None:
    """What sets the byte that fills new memory, 0xFF for none; tried out, for other allocators ignore mallopt."""
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc, free = libc.mallopt, libc.malloc, libc.free
    except (TypeError, OSError, AttributeError):
        return None
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

    def fill(byte: int) -> None:
        # mallopt(3): new memory gets the complement, and 0 turns it off
        mallopt(_M_PERTURB, byte ^ 0xFF)

    size = 4096
    fill(FILL)
    block = malloc(size)
    filled = ctypes.string_at(block, size) == bytes([FILL]) * size
    free(block)
    fill(0xFF)
    return fill if filled else None


def check_stable(path: Path, raw: Any, fill: int | None = None) -> None:
    """PhotoError when another unpacking of the RAW at `path` gives other values than `raw`, an unpacked rawpy.RawPy.

    `fill` is what `filled_memory` gave while `raw` was unpacked; without it, or where the mosaic holds it, the file is
    unpacked a second time.
    """
    mosaic = raw.raw_image_visible
    if fill is not None and not (mosaic == fill * 0x101).any():
        return
    with type(raw)() as again:
        again.open_file(str(path))
        with filled_memory(OTHER_FILL):
            again.unpack()
        other = again.raw_image_visible
        different = np.count_nonzero(mosaic != other) if mosaic.shape == other.shape else mosaic.size
    if different:
        raise PhotoError(
            f"{path.name} is cut off or damaged: {different:,} of its {mosaic.size:,} sensor values are not in the "
            "file and come out different at each reading",
            "unstable",
        )


def check_filled(rgb: NDArray[Any], what: str = "it") -> None:
    """PhotoError when every pixel of (H,W,C) `rgb` is the same, as of a black or a saturated picture.

    `what` is the picture's name in the reason.
    """
    first = rgb[0, 0]
    if (rgb[::16, ::16] != first).any() or (rgb != first).any():
        return
    full = np.iinfo(rgb.dtype).max if rgb.dtype.kind == "u" else 1
    colour = "black" if not first.any() else "white" if (first >= full).all() else "of one colour"
    raise PhotoError(f"{what} is {colour} everywhere", "empty", what)
