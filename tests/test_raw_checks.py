"""A RAW that reads differently each time is told from a whole one; a picture of one value from a picture."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import rawpy
import tifffile
from numpy.typing import NDArray

from diffretouch.corpus.demo_camera import BLACK, CAMERAS, PHASES, WHITE, Exposure, write_dng
from diffretouch.errors import PhotoError
from diffretouch.files import raw_checks
from diffretouch.files.raw_checks import FILL, check_filled, check_stable, filled_memory

HEIGHT, WIDTH, TILE = 256, 384, 128
TILES = (HEIGHT // TILE) * (WIDTH // TILE)
SHOT = Exposure(CAMERAS[0], "RGGB", 1, 1.0, (0.6, 1.0, 0.7), 100)

fills = pytest.mark.skipif(raw_checks._perturb() is None, reason="this C library cannot fill new memory")


@pytest.fixture(scope="module")
def bayer() -> NDArray[np.uint16]:
    return np.random.default_rng(6).integers(BLACK, WHITE, (HEIGHT, WIDTH)).astype(np.uint16)


def write_tiles(path: Path, bayer: NDArray[np.uint16]) -> None:
    """A DNG of lossless JPEG tiles, as cameras and Adobe's converter write them."""
    tiles = (bayer[y : y + TILE, x : x + TILE] for y in range(0, HEIGHT, TILE) for x in range(0, WIDTH, TILE))
    tifffile.imwrite(
        path,
        (imagecodecs.ljpeg_encode(np.ascontiguousarray(tile), bitspersample=14) for tile in tiles),
        shape=bayer.shape,
        dtype=bayer.dtype,
        photometric="CFA",
        tile=(TILE, TILE),
        compression="jpeg",
        metadata=None,
        extratags=[
            (33421, "H", 2, (2, 2), True),
            (33422, "B", 4, PHASES["RGGB"], True),
            (50706, "B", 4, (1, 4, 0, 0), True),
            (50714, "H", 1, BLACK, True),
            (50717, "H", 1, WHITE, True),
        ],
    )


def change(path: Path, tag: str, new: Callable[[list[int], int], list[int]]) -> None:
    """Other values for a tag that a file has; `new` gets the old ones and the file's size."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        entry = tif.pages[0].tags[tag]
        entry.overwrite(new(list(np.atleast_1d(entry.value)), path.stat().st_size))


def one_tile_beyond_the_end(path: Path) -> None:
    change(path, "TileOffsets", lambda old, size: [*old[:-1], size + 1000])


def first_tile_into_the_header(path: Path) -> None:
    change(path, "TileOffsets", lambda old, _: [8, *old[1:]])


def tail_never_downloaded(path: Path) -> None:
    """The file has its full length, but zeros from its fourth tile on."""
    with tifffile.TiffFile(path) as tif:
        kept = tif.pages[0].dataoffsets[3]
    content = path.read_bytes()
    path.write_bytes(content[:kept] + bytes(len(content) - kept))


DAMAGE = {"offset": one_tile_beyond_the_end, "header": first_tile_into_the_header, "zeros": tail_never_downloaded}


@pytest.fixture(params=DAMAGE)
def damaged(request: pytest.FixtureRequest, tmp_path: Path, bayer: NDArray[np.uint16]) -> Path:
    """A DNG that LibRaw opens, unpacks and develops without a word."""
    path = tmp_path / "a.dng"
    write_tiles(path, bayer)
    DAMAGE[request.param](path)
    return path


def unpack_and_check(path: Path) -> None:
    with rawpy.RawPy() as raw:
        raw.open_file(str(path))
        with filled_memory() as fill:
            raw.unpack()
        check_stable(path, raw, fill)


@fills
def test_the_damage_is_what_this_is_about(damaged: Path) -> None:
    mosaics = []
    for byte in (1, 2):
        with filled_memory(byte), rawpy.imread(str(damaged)) as raw:
            mosaics.append(raw.raw_image.copy())
    assert (mosaics[0] == 0x0101).sum() == (mosaics[0] != mosaics[1]).sum() >= TILE * TILE


@fills
def test_what_reads_differently_each_time_is_refused(damaged: Path) -> None:
    with pytest.raises(
        PhotoError, match=r"^a\.dng is cut off or damaged: [0-9,]+ of its 98,304 sensor values"
    ) as caught:
        unpack_and_check(damaged)
    assert caught.value.kind == "unstable"


@fills
def test_one_tile_of_six_is_counted(tmp_path: Path, bayer: NDArray[np.uint16]) -> None:
    write_tiles(tmp_path / "a.dng", bayer)
    one_tile_beyond_the_end(tmp_path / "a.dng")
    with pytest.raises(PhotoError, match=f" {TILE * TILE:,} of its {TILES * TILE * TILE:,} "):
        unpack_and_check(tmp_path / "a.dng")


@fills
def test_without_the_fill_a_second_unpacking_tells(damaged: Path) -> None:
    """As when the first one found another photo's pixels in its memory."""
    with rawpy.RawPy() as raw:
        raw.open_file(str(damaged))
        with filled_memory(0x11):
            raw.unpack()
        with pytest.raises(PhotoError, match="come out different"):
            check_stable(damaged, raw)


@pytest.mark.parametrize("write", [write_tiles, lambda path, bayer: write_dng(path, bayer, SHOT)])
@pytest.mark.parametrize("able", [True, False])
def test_a_whole_file_passes(
    tmp_path: Path, bayer: NDArray[np.uint16], write: Callable[..., None], able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not able:
        monkeypatch.setattr(raw_checks, "_perturb", lambda: None)
    write(tmp_path / "a.dng", bayer)
    unpack_and_check(tmp_path / "a.dng")


def test_a_sensor_value_that_looks_like_the_fill_is_no_damage(tmp_path: Path, bayer: NDArray[np.uint16]) -> None:
    bright = bayer.copy()
    bright[10:20, 30:40] = FILL * 0x101
    write_dng(tmp_path / "a.dng", bright, SHOT)
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        assert (raw.raw_image == FILL * 0x101).sum() == 100
    unpack_and_check(tmp_path / "a.dng")


def new_memory(size: int) -> set[int]:
    """The values found in `size` bytes of new memory, at every 99th place."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    block = libc.malloc(size)
    found = set(ctypes.string_at(block, size)[::99])
    libc.free(block)
    return found


LARGE = 60_000_000  # from the kernel, or from the heap where a process has freed as much


@fills
@pytest.mark.parametrize("byte", [FILL, 0x5A, 1, 254])
@pytest.mark.parametrize("size", [5_000, 200_000, LARGE])
def test_memory_is_filled_inside_the_block_and_not_after(byte: int, size: int) -> None:
    with filled_memory(byte) as fill:
        assert fill == byte
        assert new_memory(size) == {byte}
    assert new_memory(LARGE) != {byte}


@fills
def test_after_an_error_memory_is_not_filled_either() -> None:
    with pytest.raises(ZeroDivisionError), filled_memory():
        raise ZeroDivisionError
    assert new_memory(LARGE) != {FILL}


def test_an_allocator_that_ignores_the_wish_is_found_out() -> None:
    """An LD_PRELOADed allocator may have mallopt and do nothing; without libc there is none at all."""
    code = (
        "import ctypes\n"
        "from diffretouch.files import raw_checks\n"
        "real = ctypes.CDLL\n"
        "class Deaf:\n"
        "    def __init__(self, name): self.malloc, self.free = real(name).malloc, real(name).free\n"
        "    def mallopt(self, *_): return 1\n"
        "ctypes.CDLL = Deaf\n"
        "with raw_checks.filled_memory() as fill: print(fill)\n"
        "del Deaf.mallopt\n"
        "raw_checks._perturb.cache_clear()\n"
        "with raw_checks.filled_memory() as fill: print(fill)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "None"]


# pictures with nothing in them


@pytest.mark.parametrize(
    ("colour", "words"),
    [
        ((0, 0, 0), "black"),
        ((65535, 65535, 65535), "white"),
        ((300, 300, 300), "of one colour"),
        ((65535, 0, 7), "of one colour"),
    ],
)
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_one_value_everywhere_is_empty(colour: tuple[int, int, int], words: str, kind: type) -> None:
    image = np.empty((30, 40, 3), kind)
    image[:] = np.array(colour) / (1 if kind is np.uint16 else 65535)
    with pytest.raises(PhotoError, match=f"^expert_b is {words} everywhere$") as caught:
        check_filled(image, "expert_b")
    assert caught.value.kind == "empty"


@pytest.mark.parametrize("place", [(0, 0), (29, 39), (16, 16), (7, 3)])
def test_one_pixel_makes_a_picture(place: tuple[int, int]) -> None:
    image = np.zeros((30, 40, 1), np.uint16)
    image[place] = 1
    check_filled(image)
