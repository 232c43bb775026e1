"""decode: what is right is right by an outsider's measure, and what is broken is a row with a reason."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rawpy
import tifffile

from diffretouch.corpus.demo import write_demo
from diffretouch.corpus.layout import list_photos, read_card
from diffretouch.errors import PhotoError, UserError
from diffretouch.files import raw
from diffretouch.files.pictures import read_mask, read_srgb
from diffretouch.stages import decode
from tests import fake_chain

REAL_RAWS = "DIFFRETOUCH_REAL_RAWS"  # names a folder with raw/ (whole RAW files) and raw_bad/ (broken ones)
REAL = Path(os.environ.get(REAL_RAWS) or os.devnull)
GOOD, BAD = "a0002-flower_2", "a0001-flower_1"
PPR_GOOD, PPR_BAD = "9_0", "9_1"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos of each demo corpus."""
    root = tmp_path_factory.mktemp("demo")
    write_demo(root / "data", limit=2)
    return root


@pytest.fixture
def here(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of its own with those corpora (linked: replace files, do not write into them)."""
    shutil.copytree(demo / "data", tmp_path / "data", copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(dataset: str = "fivek", share: float = 0.5) -> pd.DataFrame:
    """The manifest by photo."""
    decode.run(fake_chain.params(decode={"max_quarantined_share": share}), dataset)
    return pd.read_parquet(f"work/decode/{dataset}/manifest.parquet").set_index("photo_id")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    put(path, content[: int(len(content) * share)])


def other_size(path: Path) -> None:
    path.unlink()
    tifffile.imwrite(path, np.zeros((20, 30, 3), np.uint16), photometric="rgb")


def noise(size: int) -> bytes:
    return np.random.default_rng(7).bytes(size)


FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "garbage": (f"dng/{BAD}.dng", lambda p: put(p, noise(300_000)), f"LibRaw cannot read {BAD}.dng: Unsupported file"),
    "garbage behind a TIFF header": (f"dng/{BAD}.dng", lambda p: put(p, p.read_bytes()[:8] + noise(300_000)), "LibRaw"),
    "empty": (f"dng/{BAD}.dng", lambda p: put(p, b""), f"LibRaw cannot read {BAD}.dng: .*ends too early"),
    "half a RAW": (f"dng/{BAD}.dng", lambda p: cut(p, 0.5), f"LibRaw cannot read {BAD}.dng: .*ends too early"),
    "RAW gone, still in photos.csv": (f"dng/{BAD}.dng", Path.unlink, f"^{BAD}.dng is missing$"),
    "expert gone": (f"tiff16_b/{BAD}.tif", Path.unlink, f"^tiff16_b/{BAD}.tif is missing$"),
    "expert is garbage": (f"tiff16_c/{BAD}.tif", lambda p: put(p, noise(1000)), f"tiff16_c/{BAD}.tif cannot be read"),
    "expert cut off": (f"tiff16_a/{BAD}.tif", lambda p: cut(p, 0.7), f"^tiff16_a/{BAD}.tif cannot be read: ."),
    "expert of another size": (
        f"tiff16_b/{BAD}.tif",
        other_size,
        r"^size mismatch: expert_b is 30x20, but the RAW decodes to \d+x\d+$",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_file_is_a_row_with_a_reason_and_the_run_goes_on(
    here: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, break_it, reason = FAULTS[fault]
    path = here / "data/fivek" / file
    kept = path.read_bytes()
    break_it(path)
    manifest = run()
    assert manifest["status"].to_dict() == {BAD: "quarantined", GOOD: "ok"}
    assert pd.Series([manifest.loc[BAD, "reason"]]).str.contains(reason, regex=True).all()
    assert f"quarantined {BAD}: {manifest.loc[BAD, 'reason']}" in capsys.readouterr().out
    assert list(Path("work").rglob(f"{BAD}*")) == []
    assert Path("work/decode/fivek", manifest.loc[GOOD, "input"]).exists()
    assert str(here) not in " ".join(manifest["reason"])

    put(path, kept)
    assert run()["status"].tolist() == ["ok", "ok"]


def test_after_mending_the_bytes_are_those_of_a_run_that_never_failed(here: Path) -> None:
    run()
    clean = digests(Path("work/decode/fivek"))
    path = here / f"data/fivek/tiff16_a/{BAD}.tif"
    kept = path.read_bytes()
    cut(path, 0.5)
    run()
    assert digests(Path("work/decode/fivek")) != clean
    put(path, kept)
    run()
    assert digests(Path("work/decode/fivek")) == clean


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n garbage"])
def test_a_broken_mask(here: Path, content: bytes) -> None:
    put(here / f"data/ppr10k/masks/{PPR_BAD}.png", content)
    manifest = run("ppr10k")
    assert manifest["status"].to_dict() == {PPR_BAD: "quarantined", PPR_GOOD: "ok"}
    assert manifest.loc[PPR_BAD, "reason"].startswith(f"masks/{PPR_BAD}.png cannot be read")


def test_an_id_without_a_number_is_a_row_too(here: Path) -> None:
    (here / f"data/fivek/dng/{BAD}.dng").rename(here / "data/fivek/dng/holiday.dng")
    manifest = run(share=0.9)
    assert manifest["status"].to_dict() == {BAD: "quarantined", GOOD: "ok", "holiday": "quarantined"}
    assert "no number" in manifest.loc["holiday", "reason"]


def test_too_many_broken_files_fail_the_stage(here: Path) -> None:
    put(here / f"data/fivek/dng/{BAD}.dng", b"")
    with pytest.raises(UserError, match=r"(?s)1 of 2 photos of fivek .*max_quarantined_share 0.2.*dvc repro decode@"):
        run(share=0.2)


def test_what_lies_beside_the_photos_is_no_photo(here: Path) -> None:
    for name in (f"{BAD}.xmp", ".DS_Store", "Thumbs.db"):
        (here / "data/fivek/dng" / name).write_bytes(b"x")
    (here / "data/fivek/dng/backup").mkdir()
    assert [photo.photo_id for photo in list_photos(here / "data/fivek", "abc")] == [BAD, GOOD]


def test_a_corpus_without_its_papers_is_answered_with_what_to_do(here: Path) -> None:
    put(here / "data/fivek/photos.csv", b"\xff\xfe\x00 no text")
    with pytest.raises(UserError, match=r"photos.csv is no table"):
        list_photos(here / "data/fivek", "abc")
    put(here / "data/fivek/corpus.yaml", b"name: [")
    with pytest.raises(UserError, match="does not fit"):
        read_card(here / "data/fivek")
    (here / "data/fivek/corpus.yaml").unlink()
    with pytest.raises(UserError, match="diffretouch demo-data"):
        read_card(here / "data/fivek")


def test_several_workers_give_the_same_bytes(here: Path) -> None:
    run()
    alone = digests(Path("work/decode/fivek"))
    decode.run(fake_chain.params(runtime={"workers": 2}), "fivek")
    assert digests(Path("work/decode/fivek")) == alone


def test_pictures_agree_with_rawpy_and_skimage(here: Path) -> None:
    """An outsider's way to the same picture: rawpy called directly, and scikit-image's sRGB curve."""
    from skimage.color import xyz2rgb
    from skimage.color.colorconv import xyz_from_rgb

    manifest = run()
    for photo_id in (GOOD, BAD):
        with rawpy.imread(f"data/fivek/dng/{photo_id}.dng") as photo:
            linear = photo.postprocess(
                gamma=(1, 1),
                no_auto_bright=True,
                output_bps=16,
                use_camera_wb=True,
                adjust_maximum_thr=0.0,
                demosaic_algorithm=rawpy.DemosaicAlgorithm.AHD,
                output_color=rawpy.ColorSpace.sRGB,
                highlight_mode=rawpy.HighlightMode.Clip,
            )
        expected = xyz2rgb(linear / 65535 @ xyz_from_rgb.T)
        read = tifffile.imread(Path("work/decode/fivek", manifest.loc[photo_id, "input"])) / 65535
        assert read.shape[:2] == (manifest.loc[photo_id, "height"], manifest.loc[photo_id, "width"])
        assert np.abs(read - expected).max() < 1 / 1000
    assert manifest.loc[GOOD, "height"] > manifest.loc[GOOD, "width"]  # this one stands upright in its DNG's tag
    assert manifest.loc[BAD, "height"] < manifest.loc[BAD, "width"]


def test_experts_agree_with_colour_science(here: Path) -> None:
    colour = pytest.importorskip("colour")
    manifest = run()
    stored = tifffile.imread(f"data/fivek/tiff16_b/{BAD}.tif") / 65535
    expected = colour.RGB_to_RGB(
        stored,
        colour.RGB_COLOURSPACES["ProPhoto RGB"],
        colour.RGB_COLOURSPACES["sRGB"],
        "Bradford",
        apply_cctf_decoding=True,
        apply_cctf_encoding=True,
    )
    read = tifffile.imread(Path("work/decode/fivek", manifest.loc[BAD, "expert_b"])) / 65535
    assert np.abs(read - expected.clip(0, 1)).max() < 2 / 255


def test_ppr10k_keeps_its_eight_bit_experts_and_its_masks(here: Path) -> None:
    manifest = run("ppr10k")
    target = tifffile.imread(f"data/ppr10k/target_b/{PPR_GOOD}.tif")
    assert target.dtype == np.uint8
    assert (tifffile.imread(Path("work/decode/ppr10k", manifest.loc[PPR_GOOD, "expert_b"])) == target * 257.0).all()
    mask = read_mask(Path("work/decode/ppr10k", manifest.loc[PPR_GOOD, "mask"]))
    assert (mask == read_mask(Path(f"data/ppr10k/masks/{PPR_GOOD}.png"))).all()
    assert mask.shape == read_srgb(Path("work/decode/ppr10k", manifest.loc[PPR_GOOD, "input"])).shape[:2]


# real RAW files, where this checkout lies beside a folder of them


@pytest.mark.skipif(not (REAL / "raw_bad").is_dir(), reason=f"{REAL_RAWS} names no folder with raw_bad/")
def test_real_broken_raws_are_rows(here: Path) -> None:
    broken = sorted((REAL / "raw_bad").iterdir())
    for number, file in enumerate(broken):
        photo_id = f"a{100 + number:04d}-{file.stem}"
        shutil.copyfile(file, here / f"data/fivek/dng/{photo_id}{file.suffix}")
        for x in "abc":
            os.link(here / f"data/fivek/tiff16_{x}/{BAD}.tif", here / f"data/fivek/tiff16_{x}/{photo_id}.tif")
    manifest = run(share=0.99)
    assert len(manifest) == len(broken) + 2
    bad = manifest[manifest["status"] == "quarantined"]
    assert len(bad) == len(broken)
    assert bad["reason"].str.match("LibRaw cannot read .*: [A-Z]").all()


@pytest.mark.skipif(not (REAL / "raw").is_dir(), reason=f"{REAL_RAWS} names no folder with raw/")
def test_real_raws_decode_plausibly() -> None:
    sizes = {"canon_g1_gmcy.crw": (1550, 2088), "cinema_gbrg.dng": (1112, 1952), "nikon_d1_bggr.nef": (1324, 2012)}
    for file in sorted((REAL / "raw").iterdir()):
        # which demosaicking does not matter here, and this one is quick
        light = raw.decode(file, demosaic="LINEAR").rgb_linear
        assert light.dtype == np.float32 and light.ndim == 3 and light.shape[2] == 3
        assert np.isfinite(light).all() and light.min() >= 0 and light.max() <= 1
        assert light.mean() > 0.005 and light.std() > 0.005
        assert light.shape[:2] == sizes.get(file.name, light.shape[:2])


def test_a_folder_in_a_raws_place_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "a0001.dng").mkdir()
    with pytest.raises(PhotoError, match=r"LibRaw cannot read a0001\.dng"):
        raw.decode(tmp_path / "a0001.dng")
