"""Files in and out: whole or not at all, 16 bit throughout, upright, in the right colours."""

from __future__ import annotations

import errno
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image, ImageOps

from diffretouch.errors import PhotoError, UserError
from diffretouch.files import figures, pictures, tables, workspace
from diffretouch.files.atomic import whole, write_json, write_text

HEIGHT, WIDTH = 20, 31


@pytest.fixture(scope="module")
def image() -> pictures.Picture:
    """A picture whose eight orientations all differ, (H,W,3) in [0,1], without clipped values."""
    return np.random.default_rng(5).uniform(0.02, 0.98, (HEIGHT, WIDTH, 3)).astype(np.float32)


# whole files


def _fail_half_way(path: Path, error: Exception) -> None:
    with whole(path) as temporary:
        temporary.write_text("half of the n")
        raise error


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        _fail_half_way(path, ZeroDivisionError())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_write_is_invisible_and_the_next_one_stands(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.tif"
    with whole(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.suffix == ".tif" and temporary.parent == path.parent and not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_files_own_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    as_pyarrow_says_it = OSError(errno.ENOSPC, "Error writing bytes to file")
    with pytest.raises(OSError, match="No space left on device") as caught:
        _fail_half_way(path, as_pyarrow_says_it)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole(tmp_path / "a.txt"):
        (tmp_path / "source.txt").read_text()
    assert caught.value.filename == str(tmp_path / "source.txt")


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"psnr": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_publishing_copies_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = workspace.stage_dir("embed", "fivek") / "tsne.csv"
    write_text(source, "x,y\n")
    workspace.publish(source, "fivek")
    write_text(source, "x,y\n1,2\n")
    workspace.publish(source, "fivek")
    assert Path("reports/fivek/tsne.csv").read_bytes() == source.read_bytes()
    assert len(list(Path("reports/fivek").iterdir())) == 1


def test_tables_say_what_is_missing_and_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = workspace.stage_dir("sample", "ppr10k") / "samples.parquet"
    with pytest.raises(UserError, match="dvc repro sample@ppr10k"):
        tables.read_table(path)
    tables.write_table(path, pd.DataFrame({"photo_id": ["a"]}))
    with pytest.raises(UserError, match=r"lacks the columns \['sweep'\]"):
        tables.read_table(path, ["photo_id", "sweep"])


def test_a_figure_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        with figures.style():
            figure, axes = figures.plt.subplots(figsize=(2, 1))
            axes.plot([0, 1])
            figures.save(figure, tmp_path / name, dpi=40)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_expert_has_our_colour() -> None:
    colours = figures.expert_colours("abcde")
    assert len(set(colours.values())) == 5 and figures.AMBER not in colours.values()


# pictures


def test_whole_numbers_are_rounded_and_clipped() -> None:
    steps = np.arange(256) / 255
    assert (pictures.to_uint(steps, 8) == np.arange(256)).all()
    assert (pictures.to_uint(np.clip(steps + 0.49 / 255, 0, 1), 8) == np.arange(256)).all()
    assert (pictures.to_uint(np.clip(steps - 0.49 / 255, 0, 1), 8) == np.arange(256)).all()
    assert (pictures.to_uint(np.arange(65536) / 65535, 16) == np.arange(65536)).all()
    assert pictures.to_uint(np.array([-0.2, 1.3]), 8).tolist() == [0, 255]


def test_sixteen_bit_tiff_and_png_come_back_to_the_last_bit(tmp_path: Path, image: pictures.Picture) -> None:
    stored = pictures.to_uint(image, 16)
    pictures.write_tiff16(tmp_path / "a.tif", image)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(stored))
    for name in ("a.tif", "b.png"):
        read = pictures.read_srgb(tmp_path / name)
        assert read.dtype == np.float32
        assert (pictures.to_uint(read, 16) == stored).all()
    assert len(np.unique(stored & 255)) > 200  # so that 8 bits would show


def test_eight_bit_jpeg_and_png(tmp_path: Path, image: pictures.Picture) -> None:
    smooth = pictures.resize(image[:3, :4], (HEIGHT * 4, WIDTH * 4))
    (tmp_path / "a.jpg").write_bytes(pictures.jpeg8(smooth, 98))
    assert np.abs(pictures.read_srgb(tmp_path / "a.jpg") - smooth).mean() < 2 / 255
    pictures.write_png8(tmp_path / "b.png", image)
    assert np.abs(pictures.read_srgb(tmp_path / "b.png") - image).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("tag", range(1, 9))
def test_pictures_are_turned_upright_as_pillow_does(tmp_path: Path, image: pictures.Picture, tag: int) -> None:
    exif = Image.Exif()
    exif[274] = tag
    stored = Image.fromarray(pictures.to_uint(image, 8))
    upright = stored.copy()
    upright.getexif()[274] = tag
    expected = np.asarray(ImageOps.exif_transpose(upright))
    stored.save(tmp_path / "a.png", exif=exif)
    stored.save(tmp_path / "b.jpg", exif=exif, quality=100, subsampling=0)
    tifffile.imwrite(tmp_path / "c.tif", np.asarray(stored), photometric="rgb", extratags=[(274, 3, 1, tag, True)])
    for name, tolerance in (("a.png", 0), ("b.jpg", 40), ("c.tif", 0)):
        read = pictures.to_uint(pictures.read_srgb(tmp_path / name), 8)
        assert read.shape == expected.shape
        assert np.abs(read.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_and_alpha(tmp_path: Path, image: pictures.Picture, bits) -> None:
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


def test_prophoto_is_converted_as_colour_science_does(tmp_path: Path, image: pictures.Picture) -> None:
    colour = pytest.importorskip("colour")
    srgb, prophoto = colour.RGB_COLOURSPACES["sRGB"], colour.RGB_COLOURSPACES["ProPhoto RGB"]
    stored = colour.RGB_to_RGB(
        image, srgb, prophoto, "Bradford", apply_cctf_decoding=True, apply_cctf_encoding=True
    ).clip(0, 1)
    pictures.write_tiff16(tmp_path / "tagged.tif", stored, space="prophoto")
    tifffile.imwrite(tmp_path / "untagged.tif", pictures.to_uint(stored, 16), photometric="rgb")
    (tmp_path / "tagged.png").write_bytes(_with_profile(pictures.to_uint(stored, 16), pictures.icc("prophoto")))
    for name in ("tagged.tif", "untagged.tif", "tagged.png"):
        read = pictures.read_srgb(tmp_path / name, untagged="prophoto")
        assert np.abs(read - image).max() < 2 / 255
    assert np.abs(pictures.read_srgb(tmp_path / "untagged.tif") - image).max() > 0.1


def _with_profile(pixels: np.ndarray, profile: bytes) -> bytes:
    """A 16-bit PNG with an ICC profile: its iCCP chunk put behind the header."""
    import struct
    import zlib

    png = bytes(imagecodecs.png_encode(pixels))
    body = b"iCCP" + b"p\0\0" + zlib.compress(profile)
    return png[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


def test_profiles_are_the_same_bytes_whenever_they_are_made() -> None:
    for space in ("srgb", "prophoto"):
        first = pictures.icc(space)
        pictures.icc.cache_clear()
        assert pictures.icc(space) == first
        assert first[24:36] == bytes.fromhex("07d000010001000000000000")


def _broken(kind: str, image: pictures.Picture) -> tuple[str, bytes]:
    if kind.startswith("tif"):
        return "a.tif", b"II*\0" + bytes(40)
    if kind == "jpg":
        data = pictures.jpeg8(np.repeat(np.repeat(image, 5, 0), 5, 1), 90)
        return "a.jpg", data[: len(data) // 2]
    data = imagecodecs.png_encode(pictures.to_uint(image, 16))
    return "a.png", bytes(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("kind", ["tif", "jpg", "png"])
def test_what_is_cut_off_is_said_so(tmp_path: Path, image: pictures.Picture, kind: str) -> None:
    name, data = _broken(kind, image)
    folder = tmp_path / "expert_b"
    folder.mkdir()
    (folder / name).write_bytes(data)
    with pytest.raises(PhotoError, match=f"^expert_b/{name} cannot be read: ."):
        pictures.read_srgb(folder / name)


def test_a_tiff_cut_anywhere_is_a_photo_error(tmp_path: Path, image: pictures.Picture) -> None:
    pictures.write_tiff16(tmp_path / "a.tif", image)
    data = (tmp_path / "a.tif").read_bytes()
    for length in {0, 1, 5, 9, *(len(data) * part // 40 for part in range(40)), len(data) - 1}:
        (tmp_path / "b.tif").write_bytes(data[:length])
        with pytest.raises(PhotoError):
            pictures.read_srgb(tmp_path / "b.tif")


def test_other_colours_and_kinds_are_refused_by_name(tmp_path: Path, image: pictures.Picture) -> None:
    eight = Image.fromarray(pictures.to_uint(image, 8))
    eight.convert("CMYK").save(tmp_path / "cmyk.jpg")
    eight.convert("P").save(tmp_path / "palette.png")
    tifffile.imwrite(tmp_path / "float.tif", image, photometric="rgb")
    tifffile.imwrite(tmp_path / "inverted.tif", pictures.to_uint(image[..., 0], 8), photometric="miniswhite")
    tifffile.imwrite(
        tmp_path / "profile.tif", pictures.to_uint(image, 8), photometric="rgb", iccprofile=b"\0" * 16 + b"CMYK" * 40
    )
    tifffile.imwrite(
        tmp_path / "bad_profile.tif",
        pictures.to_uint(image, 8),
        photometric="rgb",
        iccprofile=b"\0" * 16 + b"RGB " * 40,
    )
    said = {
        "cmyk.jpg": "CMYK",
        "palette.png": "colours are P",
        "float.tif": "float32",
        "inverted.tif": "MINISWHITE",
        "profile.tif": "CMYK",
        "bad_profile.tif": "ICC profile that cannot be used",
        "absent.tif": "is missing",
    }
    for name, words in said.items():
        with pytest.raises(PhotoError, match=words):
            pictures.read_srgb(tmp_path / name)


def test_pictures_are_reduced_by_area_and_never_enlarged(image: pictures.Picture) -> None:
    assert pictures.reduce_to(image, long_edge=1000) is image
    assert pictures.reduce_to(image).shape == image.shape
    assert pictures.reduce_to(image, short_edge=10).shape == (10, round(WIDTH / 2), 3)
    assert pictures.resize(image, (1, 1)) == pytest.approx(image.mean((0, 1))[None, None], abs=0.05)
