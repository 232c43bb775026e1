"""Picture files in and out: every depth and kind, upright, nothing silently 8 bit, nothing broken taken for whole."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from diffretouch.errors import PhotoError, UserError
from diffretouch.files import pictures
from diffretouch.files.icc import SPACES, Space, icc
from tests.mutations import mutants

HEIGHT, WIDTH = 20, 31
FILES: list[tuple[str, pictures.Bits]] = [("tif", 16), ("tiff", 8), ("png", 16), ("png", 8), ("jpg", 8)]


@pytest.fixture(scope="module")
def image() -> pictures.Picture:
    """A picture whose eight orientations all differ, (H,W,3) in [0,1], without clipped values."""
    return np.random.default_rng(5).uniform(0.02, 0.98, (HEIGHT, WIDTH, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def smooth(image: pictures.Picture) -> pictures.Picture:
    """A picture without sharp edges and saturated colours, which JPEG and wide spaces in few bits keep well."""
    return 0.4 + 0.4 * pictures.resize(image[:3, :4], (HEIGHT * 4, WIDTH * 4))


def test_whole_numbers_are_rounded_and_clipped() -> None:
    steps = np.arange(256) / 255
    assert (pictures.to_uint(steps, 8) == np.arange(256)).all()
    assert (pictures.to_uint(np.clip(steps + 0.49 / 255, 0, 1), 8) == np.arange(256)).all()
    assert (pictures.to_uint(np.clip(steps - 0.49 / 255, 0, 1), 8) == np.arange(256)).all()
    assert (pictures.to_uint(np.arange(65536) / 65535, 16) == np.arange(65536)).all()
    assert pictures.to_uint(np.array([-0.2, 1.3]), 8).tolist() == [0, 255]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("suffix", "bits"), FILES)
def test_every_kind_comes_back_in_its_depth_with_its_profile(
    tmp_path: Path, smooth: pictures.Picture, suffix: str, bits: pictures.Bits, space: Space
) -> None:
    path = tmp_path / f"a.{suffix}"
    pictures.write_picture(path, smooth, space=space, bits=bits)
    with Image.open(path) as header:
        assert header.info["icc_profile"] == icc(space)
    if suffix.startswith("tif"):
        with tifffile.TiffFile(path) as tif:
            assert tif.pages[0].iccprofile == icc(space)
            assert tif.pages[0].bitspersample == bits
    off = np.abs(pictures.read_srgb(path) - smooth) * (2**bits - 1)
    # half a step where it is stored; more of sRGB's steps where a wide space has fewer of them
    assert off.max() <= (2.5 if suffix != "jpg" else 12)
    assert off.mean() <= (0.5 if suffix != "jpg" else 1)
    if bits == 16:
        assert len(np.unique(pictures.to_uint(pictures.read_srgb(path), 16) & 255)) > 200  # so that 8 bits would show
    again = tmp_path / f"b.{suffix}"
    pictures.write_picture(again, smooth, space=space, bits=bits)
    assert again.read_bytes() == path.read_bytes()


def test_whole_numbers_are_stored_as_they_are(tmp_path: Path, image: pictures.Picture) -> None:
    for bits, path in (
        (16, tmp_path / "a.tif"),
        (16, tmp_path / "a.png"),
        (8, tmp_path / "b.tif"),
        (8, tmp_path / "b.png"),
    ):
        stored = pictures.to_uint(image, 8 if bits == 8 else 16)
        pictures.write_picture(path, stored, space="prophoto", bits=8 if bits == 8 else 16)
        read = tifffile.imread(path) if path.suffix == ".tif" else imagecodecs.imread(path)
        assert read.dtype == stored.dtype
        assert (read == stored).all()
    steps = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pictures.write_picture(tmp_path / "c.png", steps, bits=8)
    assert (imagecodecs.imread(tmp_path / "c.png") == np.rint(steps / 257)).all()
    pictures.write_picture(tmp_path / "d.png", steps[:, :3].astype(np.uint8), bits=16)
    assert (imagecodecs.imread(tmp_path / "d.png") == steps[:, :3].astype(np.uint8) * 257.0).all()


def test_grey_is_written_without_colours(tmp_path: Path, image: pictures.Picture) -> None:
    for suffix, bits in FILES:
        path = tmp_path / f"{bits}.{suffix}"
        pictures.write_picture(path, image[..., 0], bits=bits)
        with Image.open(path) as header:
            assert header.mode in ("L", "I;16") and "icc_profile" not in header.info
        tolerance = 0.5 / (2**bits - 1) if suffix != "jpg" else 0.1
        assert np.abs(pictures.read_mask(path) - image[..., 0]).max() <= tolerance + 1e-7


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, image: pictures.Picture) -> None:
    with pytest.raises(UserError, match="JPEG has 8 bits, not 16"):
        pictures.write_picture(tmp_path / "a.jpg", image)
    with pytest.raises(UserError, match=r"a\.webp cannot be written: expected a name ending in \.tif"):
        pictures.write_picture(tmp_path / "a.webp", image, bits=8)
    assert list(tmp_path.iterdir()) == []


def test_steps_of_srgb_files_are_not_touched(tmp_path: Path, image: pictures.Picture) -> None:
    stored = pictures.to_uint(image, 16)
    pictures.write_picture(tmp_path / "a.tif", image)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(stored))
    tifffile.imwrite(tmp_path / "separate.tif", np.moveaxis(stored, 2, 0), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "big_endian.tif", stored, photometric="rgb", byteorder=">", tile=(16, 16))
    for name in ("a.tif", "b.png", "separate.tif", "big_endian.tif"):
        read = pictures.read_srgb(tmp_path / name)
        assert read.dtype == np.float32
        assert (pictures.to_uint(read, 16) == stored).all()
    pictures.write_png8(tmp_path / "c.png", image)
    assert np.abs(pictures.read_srgb(tmp_path / "c.png") - image).max() <= 0.5 / 255 + 1e-6


def test_a_jpeg_of_the_study(tmp_path: Path, smooth: pictures.Picture) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures.jpeg8(smooth, 98))
    assert np.abs(pictures.read_srgb(tmp_path / "a.jpg") - smooth).mean() < 2 / 255


@pytest.mark.parametrize("tag", range(1, 9))
def test_pictures_are_turned_upright_as_pillow_does(tmp_path: Path, image: pictures.Picture, tag: int) -> None:
    exif = Image.Exif()
    exif[274] = tag
    stored = Image.fromarray(pictures.to_uint(image, 8))
    upright = stored.copy()
    upright.getexif()[274] = tag
    expected = np.asarray(ImageOps.exif_transpose(upright))
    stored.save(tmp_path / "a.png", exif=exif, icc_profile=icc("prophoto"))
    stored.save(tmp_path / "b.jpg", exif=exif, quality=100, subsampling=0)
    tifffile.imwrite(tmp_path / "c.tif", np.asarray(stored), photometric="rgb", extratags=[(274, 3, 1, tag, True)])
    (tmp_path / "upright.png").write_bytes(_with_profile(expected, icc("prophoto")))
    (tmp_path / "d.png").write_bytes(_with_exif_last(imagecodecs.png_encode(np.asarray(stored)), exif.tobytes()))
    for name, tolerance in (("b.jpg", 40), ("c.tif", 0), ("d.png", 0)):
        read = pictures.to_uint(pictures.read_srgb(tmp_path / name), 8)
        assert read.shape == expected.shape
        assert np.abs(read.astype(int) - expected).max() <= tolerance
        assert pictures.read_size(tmp_path / name) == expected.shape[:2]
    assert (
        pictures.read_linear(tmp_path / "a.png").rgb_linear == pictures.read_linear(tmp_path / "upright.png").rgb_linear
    ).all()


def _with_profile(pixels: np.ndarray, profile: bytes) -> bytes:
    """A PNG with an ICC profile: its iCCP chunk put behind the header."""
    return _with_chunk(pixels, b"iCCP" + b"p\0\0" + zlib.compress(profile))


def _with_chunk(pixels: np.ndarray, body: bytes) -> bytes:
    png = bytes(imagecodecs.png_encode(pixels))
    return png[:33] + _chunk(body) + png[33:]


def _with_exif_last(png: bytes, exif: bytes) -> bytes:
    """An eXIf chunk behind the pixels, where PNG allows it too."""
    return png[:-12] + _chunk(b"eXIf" + exif.removeprefix(b"Exif\0\0")) + png[-12:]


def _chunk(body: bytes) -> bytes:
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_and_alpha(tmp_path: Path, image: pictures.Picture, bits: pictures.Bits) -> None:
    grey, opaque = pictures.to_uint(image[..., 0], bits), np.full((HEIGHT, WIDTH, 1), 2**bits - 1, f"uint{bits}")
    rgba = np.concatenate([pictures.to_uint(image, bits), opaque], 2)
    (tmp_path / "grey.png").write_bytes(imagecodecs.png_encode(grey))
    (tmp_path / "grey_alpha.png").write_bytes(imagecodecs.png_encode(np.concatenate([grey[..., None], opaque], 2)))
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="minisblack")
    (tmp_path / "rgba.png").write_bytes(imagecodecs.png_encode(rgba))
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("grey.png", "grey_alpha.png", "grey.tif"):
        assert (pictures.to_uint(pictures.read_srgb(tmp_path / name), bits) == grey[..., None]).all()
        assert (pictures.to_uint(pictures.read_mask(tmp_path / name), bits) == grey).all()
    for name in ("rgba.png", "rgba.tif"):
        assert (pictures.to_uint(pictures.read_srgb(tmp_path / name), bits) == rgba[..., :3]).all()


def test_a_picture_without_a_profile_is_what_it_is_taken_for(tmp_path: Path, image: pictures.Picture) -> None:
    stored = pictures.to_uint(image, 16)
    tifffile.imwrite(tmp_path / "untagged.tif", stored, photometric="rgb")
    for space in SPACES:
        pictures.write_picture(tmp_path / "tagged.tif", stored, space=space)
        untagged = pictures.read_linear(tmp_path / "untagged.tif", space)
        tagged = pictures.read_linear(tmp_path / "tagged.tif", "adobe_rgb")
        assert (untagged.tagged, tagged.tagged) == (False, True)
        assert (untagged.rgb_linear == tagged.rgb_linear).all()
    (tmp_path / "chunk.png").write_bytes(_with_chunk(stored, b"sRGB\0"))
    opened = pictures.read_linear(tmp_path / "chunk.png", "prophoto")
    assert opened.tagged
    assert (opened.rgb_linear == pictures.read_linear(tmp_path / "untagged.tif").rgb_linear).all()


def test_reading_holds_little_beside_the_pixels_and_the_light(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 65536, (1600, 2000, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", iccprofile=icc("prophoto"))
    tracemalloc.start()
    light = pictures.read_linear(tmp_path / "a.tif").rgb_linear
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stored.nbytes + light.nbytes < peak < 1.75 * light.nbytes


# what cannot be read


def _broken(kind: str, image: pictures.Picture) -> tuple[str, bytes]:
    if kind.startswith("tif"):
        return "a.tif", b"II*\0" + bytes(40)
    if kind == "jpg":
        data = pictures.jpeg8(np.repeat(np.repeat(image, 5, 0), 5, 1), 90)
        return "a.jpg", data[: len(data) // 2]
    data = imagecodecs.png_encode(pictures.to_uint(image, 16))
    return "a.png", bytes(data[: len(data) * 2 // 3])


def test_a_size_is_known_from_the_header_alone(tmp_path: Path, smooth: pictures.Picture) -> None:
    for suffix, bits in FILES[2:]:
        path = tmp_path / f"{bits}.{suffix}"
        pictures.write_picture(path, smooth, bits=bits)
        path.write_bytes(path.read_bytes()[:1500])
        assert pictures.read_size(path) == smooth.shape[:2]
        with pytest.raises(PhotoError):
            pictures.read_srgb(path)


@pytest.mark.parametrize("kind", ["tif", "jpg", "png"])
def test_what_is_cut_off_is_said_so(tmp_path: Path, image: pictures.Picture, kind: str) -> None:
    name, data = _broken(kind, image)
    folder = tmp_path / "expert_b"
    folder.mkdir()
    (folder / name).write_bytes(data)
    with pytest.raises(PhotoError, match=f"^expert_b/{name} cannot be read: .") as caught:
        pictures.read_srgb(folder / name)
    assert caught.value.kind == "unreadable"


def test_a_tiff_cut_anywhere_is_a_photo_error(tmp_path: Path, image: pictures.Picture) -> None:
    pictures.write_picture(tmp_path / "a.tif", image)
    data = (tmp_path / "a.tif").read_bytes()
    for length in {0, 1, 5, 9, *(len(data) * part // 40 for part in range(40)), len(data) - 1}:
        (tmp_path / "b.tif").write_bytes(data[:length])
        with pytest.raises(PhotoError):
            pictures.read_srgb(tmp_path / "b.tif")


@pytest.mark.parametrize("tag", ["StripOffsets", "StripByteCounts"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_with_a_hole_is_not_filled_with_black(
    tmp_path: Path, image: pictures.Picture, compression: str | None, tag: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pictures.to_uint(image, 16), photometric="rgb", rowsperstrip=5, compression=compression)
    with tifffile.TiffFile(path) as tif:
        place = tif.pages[0].tags[tag]
    data = bytearray(path.read_bytes())
    size = place.valuebytecount // place.count
    data[place.valueoffset + size : place.valueoffset + 2 * size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(PhotoError, match="never written"):
        pictures.read_srgb(path)


def test_other_colours_and_kinds_are_refused_by_name(tmp_path: Path, image: pictures.Picture) -> None:
    stored = pictures.to_uint(image, 8)
    eight = Image.fromarray(stored)
    eight.convert("CMYK").save(tmp_path / "cmyk.jpg")
    eight.convert("P").save(tmp_path / "palette.png")
    eight.save(tmp_path / "a.bmp")
    tifffile.imwrite(tmp_path / "float.tif", image, photometric="rgb")
    tifffile.imwrite(tmp_path / "inverted.tif", stored[..., 0], photometric="miniswhite")
    cmyk, broken = b"\0" * 16 + b"CMYK" * 40, b"\0" * 16 + b"RGB " * 40
    tifffile.imwrite(tmp_path / "profile.tif", stored, photometric="rgb", iccprofile=cmyk)
    tifffile.imwrite(tmp_path / "bad_profile.tif", stored, photometric="rgb", iccprofile=broken)
    (tmp_path / "folder.png").mkdir()
    said = {
        "cmyk.jpg": "CMYK",
        "palette.png": "colours are P",
        "a.bmp": f"^{tmp_path.name}/a.bmp cannot be read: it is neither TIFF nor PNG nor JPEG$",
        "float.tif": "float32",
        "inverted.tif": "MINISWHITE",
        "profile.tif": "CMYK",
        "bad_profile.tif": "its ICC profile cannot be used",
        "folder.png": f"^{tmp_path.name}/folder.png cannot be read: Is a directory$",
        "absent.tif": "is missing",
    }
    for name, words in said.items():
        with pytest.raises(PhotoError, match=words) as caught:
            pictures.read_srgb(tmp_path / name)
        assert caught.value.kind == ("missing" if name == "absent.tif" else "unreadable")
    for name in ("a.bmp", "folder.png", "absent.tif"):
        with pytest.raises(PhotoError, match=said[name]):
            pictures.read_size(tmp_path / name)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of absurd sizes
def test_damaged_files_are_refused_or_read_as_a_picture(tmp_path: Path, smooth: pictures.Picture) -> None:
    whole = [tmp_path / f"{bits}.{suffix}" for suffix, bits in FILES]
    for path, (_, bits) in zip(whole, FILES, strict=True):
        pictures.write_picture(path, smooth, space="prophoto", bits=bits)
    refused: list[PhotoError] = []
    for name, content in mutants(whole, 240, seed=3):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            light = pictures.read_linear(path).rgb_linear
        except PhotoError as error:
            refused.append(error)
        else:
            assert light.shape == (*pictures.read_size(path), 3)
            assert (np.abs(light) < 100).all()
    assert len(refused) > 120
    assert {error.kind for error in refused} == {"unreadable"}
    assert max(len(str(error)) for error in refused) < 300


# sizes


@pytest.mark.parametrize("size", [(7, 9), (20, 31), (1, 1), (33, 50), (11, 62)])
def test_resizing_agrees_with_torch(image: pictures.Picture, size: tuple[int, int]) -> None:
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)[0]
    assert np.abs(pictures.resize(image, size) - expected.permute(1, 2, 0).numpy()).max() < 1e-5
    assert np.abs(pictures.resize(image[..., 0], size) - expected[0].numpy()).max() < 1e-5


def test_a_box_is_resized_as_what_is_cut_out(image: pictures.Picture) -> None:
    cut = pictures.resize(image[4:16, 3:27], (5, 8))
    assert (pictures.resize(image, (5, 8), (3, 4, 27, 16)) == cut).all()
    half = pictures.resize(image[:1, :2], (1, 1), (0.5, 0, 1.5, 1))
    assert half == pytest.approx(image[:1, :2].mean(1, keepdims=True), abs=1e-6)


def test_in_linear_light_a_chequerboard_keeps_its_light() -> None:
    board = (np.indices((40, 40)).sum(0) % 2).astype(np.float32)
    small = pictures.resize_linear_light(np.repeat(board[..., None], 3, 2), (10, 10))
    # half the light of white is 188 of 255 in sRGB, as the well-known test picture has it
    assert (pictures.to_uint(small[2:-2, 2:-2], 8) == 188).all()
    assert (pictures.to_uint(pictures.resize_linear_light(board, (10, 10))[2:-2, 2:-2], 8) == 188).all()


def test_pictures_are_reduced_by_area_and_never_enlarged(image: pictures.Picture) -> None:
    assert pictures.reduce_to(image, long_edge=1000) is image
    assert pictures.reduce_to(image).shape == image.shape
    assert pictures.reduce_to(image, short_edge=10).shape == (10, round(WIDTH / 2), 3)
    assert pictures.resize(image, (1, 1)) == pytest.approx(image.mean((0, 1))[None, None], abs=0.05)


def test_pictures_do_not_wait_for_torch() -> None:
    code = "import sys, diffretouch.files.pictures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
