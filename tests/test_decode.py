"""decode: what is right is right by an outsider's measure, and what is broken is a row with a reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rawpy
import tifffile
from PIL import Image

from diffretouch.config import Params
from diffretouch.corpus.demo import write_demo
from diffretouch.corpus.demo_camera import BLACK, CAMERAS, Exposure, write_dng
from diffretouch.corpus.layout import list_photos, read_card
from diffretouch.decoding import task
from diffretouch.decoding.photo import Settings
from diffretouch.decoding.thumbnail import write_thumbnail
from diffretouch.errors import PhotoError, UserError
from diffretouch.files import raw
from diffretouch.files.icc import icc
from diffretouch.files.pictures import read_mask, read_srgb
from diffretouch.stages import decode
from tests import fake_chain
from tests.kill import digests
from tests.mutations import mutants
from tests.raw_twins import Twin, smooth_scene, write_twin

CORPUS = "DIFFRETOUCH_CORPUS"  # names a folder with raw/ (whole RAW files) and raw_bad/ (broken ones)
REAL = Path(os.environ.get(CORPUS) or os.devnull).resolve()
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


def run(dataset: str = "fivek", share: float = 0.5, corpus: dict | None = None, **settings: object) -> pd.DataFrame:
    """The manifest by photo; `settings` are of the section decode, `corpus` of the corpus."""
    tree = fake_chain.params(decode={"max_quarantined_share": share, **settings}).model_dump()
    tree["corpora"][dataset] |= corpus or {}
    decode.run(Params.model_validate(tree), dataset)
    return pd.read_parquet(f"work/decode/{dataset}/manifest.parquet").set_index("photo_id")


def put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    put(path, content[: int(len(content) * share)])


def other_size(path: Path) -> None:
    path.unlink()
    tifffile.imwrite(path, np.zeros((20, 30, 3), np.uint16), photometric="rgb")


def black(path: Path) -> None:
    """A whole DNG of a lens cap."""
    shot = Exposure(CAMERAS[0], "RGGB", 1, 1.0, (1.0, 1.0, 1.0), 100)
    path.unlink()
    write_dng(path, np.full((360, 540), BLACK, np.uint16), shot)


def noise(size: int) -> bytes:
    return np.random.default_rng(7).bytes(size)


def moved(path: Path) -> None:
    """Three pixels to the right, as after another crop."""
    image = tifffile.imread(path)
    rewrite(path, np.concatenate([image[:, :3], image[:, :-3]], 1))


def mirrored(path: Path) -> None:
    rewrite(path, tifffile.imread(path)[:, ::-1])


def turned(path: Path) -> None:
    rewrite(path, np.rot90(tifffile.imread(path)))


def rewrite(path: Path, image: np.ndarray) -> None:
    path.unlink()
    tifffile.imwrite(path, image, photometric="rgb", iccprofile=icc("prophoto"))


RAW, RESULT = f"dng/{BAD}.dng", f"tiff16_b/{BAD}.tif"
FAULTS: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "garbage": (RAW, lambda p: put(p, noise(300_000)), "unreadable", f"LibRaw cannot read {BAD}.dng: Unsupported file"),
    "garbage behind a TIFF header": (
        RAW,
        lambda p: put(p, p.read_bytes()[:8] + noise(300_000)),
        "unreadable",
        "LibRaw",
    ),
    "HEIC cut off": (
        RAW,
        lambda p: put(p, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0"),
        "unreadable",
        f"LibRaw cannot read {BAD}.dng",
    ),
    "JPEG XL that is none inside": (
        RAW,
        lambda p: put(p, b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypavif\0\0\0\0mif1"),
        "unreadable",
        f"LibRaw cannot read {BAD}.dng",
    ),
    "empty": (RAW, lambda p: put(p, b""), "unreadable", f"LibRaw cannot read {BAD}.dng: .*ends too early"),
    "half a RAW": (RAW, lambda p: cut(p, 0.5), "unstable|unreadable", "end"),
    "RAW gone, still in photos.csv": (RAW, Path.unlink, "missing", f"^{BAD}.dng is missing$"),
    "RAW black": (RAW, black, "empty", "."),
    "expert gone": (RESULT, Path.unlink, "missing", f"^tiff16_b/{BAD}.tif is missing$"),
    "expert is garbage": (RESULT, lambda p: put(p, noise(1000)), "unreadable", f"tiff16_b/{BAD}.tif cannot be read"),
    "expert cut off": (RESULT, lambda p: cut(p, 0.7), "unreadable", f"^tiff16_b/{BAD}.tif cannot be read: ."),
    "expert white": (RESULT, lambda p: rewrite(p, np.full_like(tifffile.imread(p), 65535)), "empty", "expert_b"),
    "expert moved": (RESULT, moved, "registration", "expert_b .*moved 3.0 px to the right"),
    "expert mirrored": (
        RESULT,
        lambda p: rewrite(p, tifffile.imread(p)[:, ::-1]),
        "orientation",
        "expert_b is mirrored",
    ),
    "expert turned": (
        RESULT,
        turned,
        "orientation",
        r"^orientation: expert_b is 360x540, but the RAW decodes to 540x360$",
    ),
    "expert of another size": (
        RESULT,
        other_size,
        "size",
        r"^size mismatch: expert_b is 30x20, but the RAW decodes to",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_file_is_a_row_with_a_reason_and_the_run_goes_on(
    here: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, break_it, kind, reason = FAULTS[fault]
    path = here / "data/fivek" / file
    kept = path.read_bytes()
    break_it(path)
    manifest = run()
    assert manifest["status"].to_dict() == {BAD: "quarantined", GOOD: "ok"}
    assert pd.Series([manifest.loc[BAD, "reason"]]).str.contains(reason, regex=True).all()
    assert f"quarantined {BAD}: {manifest.loc[BAD, 'reason']}" in capsys.readouterr().out
    assert manifest.loc[BAD, "kind"] in kind.split("|")
    left = [path.parent.name for path in Path("work").rglob(f"{BAD}*")]
    assert left in ([], ["quarantine"])  # a small picture for the report, where any could be read
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
    decode.run(fake_chain.params(decode={"max_quarantined_share": 0.5}, runtime={"workers": 2}), "fivek")
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


def test_reduced_in_linear_light(here: Path) -> None:
    """By an outsider: scikit-image's curve, and a plain mean of blocks of linear light."""
    from skimage.color import rgb2xyz, xyz2rgb

    run()
    full = {name: tifffile.imread(f"work/decode/fivek/{name}/{BAD}.tif") / 65535 for name in ("input", "expert_b")}
    manifest = run(corpus={"short_edge": 120}, half_size=False)
    assert (manifest.loc[BAD, "height"], manifest.loc[BAD, "width"]) == (120, 180)
    for name, image in full.items():
        read = tifffile.imread(f"work/decode/fivek/{name}/{BAD}.tif") / 65535
        blocks = rgb2xyz(image).reshape(120, 3, 180, 3, 3).mean((1, 3))
        # triangles reach twice as far as blocks, hence not equal; in gamma the mean itself would be off
        assert np.abs(read - xyz2rgb(blocks)).mean() < 0.01
        assert abs(rgb2xyz(read).mean() / blocks.mean() - 1) < 0.002


def test_half_size_gives_nearly_the_same_small_picture(here: Path) -> None:
    small = {}
    for half in (False, True):
        run(corpus={"short_edge": 120}, half_size=half)
        small[half] = tifffile.imread(f"work/decode/fivek/input/{BAD}.tif") / 65535
    assert small[True].shape == small[False].shape
    assert 0 < np.abs(small[True] - small[False]).mean() < 0.02


def test_smaller_targets_fit_when_their_short_edge_is_the_wanted_one(here: Path) -> None:
    """PPR10K's 360p pack beside its RAWs, on a smaller scale."""
    for path in Path("data/ppr10k").glob("target_*/*.tif"):
        image = tifffile.imread(path)
        path.unlink()
        tifffile.imwrite(path, image[1::3, 1::3], photometric="rgb")
    manifest = run("ppr10k", corpus={"short_edge": 120})
    assert (manifest["status"] == "ok").all()
    assert set(manifest["height"]) | set(manifest["width"]) == {120, 180}
    assert (run("ppr10k", share=1.0)["kind"] == "size").all()


def test_rendered_inputs(here: Path) -> None:
    shutil.rmtree("data/ppr10k/raw")
    manifest = run("ppr10k", input="rendered")
    assert (manifest["status"] == "ok").all() and (manifest["white_balance"] == "rendered").all()
    source = read_srgb(Path(f"data/ppr10k/source/{PPR_GOOD}.tif"))
    read = read_srgb(Path("work/decode/ppr10k", manifest.loc[PPR_GOOD, "input"]))
    assert np.abs(read - source).max() < 2 / 65535


def test_an_empty_rendered_input_is_said_so(here: Path) -> None:
    path = here / f"data/ppr10k/source/{PPR_BAD}.tif"
    rewrite(path, np.zeros_like(tifffile.imread(path)))
    manifest = run("ppr10k", input="rendered")
    assert manifest.loc[PPR_BAD, ["kind", "reason"]].tolist() == ["empty", "input is black everywhere"]
    assert manifest.loc[PPR_GOOD, "status"] == "ok"


def test_two_raws_of_one_name_are_counted_as_such(here: Path) -> None:
    put(here / f"data/fivek/dng/{BAD}.nef", b"x")
    manifest = run()
    assert manifest.loc[BAD, "kind"] == "several" and f"{BAD}.dng, {BAD}.nef" in manifest.loc[BAD, "reason"]


def test_two_raws_of_one_name_are_no_fault_where_the_input_is_rendered(here: Path) -> None:
    put(here / f"data/ppr10k/raw/{PPR_BAD}.cr2", b"x")
    assert (run("ppr10k", input="rendered")["status"] == "ok").all()


def test_a_photo_that_cannot_be_used_keeps_its_camera(here: Path) -> None:
    known = run()["camera"].to_dict()
    (here / "data/fivek/photos.csv").unlink()  # which says it too
    (here / f"data/fivek/{RESULT}").unlink()
    cut(here / f"data/fivek/dng/{GOOD}.dng", 0.9)
    manifest = run(share=1.0)
    assert (manifest["status"] == "quarantined").all()
    assert manifest.loc[BAD, "camera"] == known[BAD] == "Simulated One"


def test_a_damaged_preview_costs_the_small_picture_alone(here: Path) -> None:
    """The preview of a RAW that cannot be used is damaged as well; an expert's picture stands in for it."""
    path = here / f"data/fivek/dng/{BAD}.dng"
    path.unlink()
    write_twin(path, Twin(nested=True), smooth_scene(360, 540))
    whole = path.read_bytes()
    start = whole.index(b"\xff\xd8\xff")
    frame = whole.index(b"\xff\xc0", start)
    thumbnail = Path(f"work/decode/fivek/quarantine/{BAD}.jpg")
    (here / f"data/fivek/{RESULT}").unlink()
    put(path, whole)
    assert run().loc[BAD, "kind"] == "missing" and read_srgb(thumbnail).shape == (32, 48, 3)
    for damaged in (bytes(400), b"\xff\xc0\x00\x11\x08\x00\x00\x00\x00"):
        put(path, whole[:frame] + damaged + whole[frame + len(damaged) :])
        assert run().loc[BAD, "kind"] == "missing"
        assert max(read_srgb(thumbnail).shape) == 320


def smaller(path: Path) -> None:
    rewrite(path, tifffile.imread(path)[:200, :300])


@pytest.mark.parametrize("break_it", [moved, smaller])
def test_the_picture_at_fault_is_the_one_shown(here: Path, break_it: Callable[[Path], None]) -> None:
    """Not the first expert's, and not the small picture in the RAW, which are as they should be."""
    if break_it is smaller:  # so that nothing has to lie on the photo
        (here / f"data/fivek/dng/{BAD}.dng").unlink()
        write_twin(here / f"data/fivek/dng/{BAD}.dng", Twin(nested=True), smooth_scene(360, 540))
    path = here / f"data/fivek/{RESULT}"
    break_it(path)
    assert "expert_b" in run().loc[BAD, "reason"]
    shown = read_srgb(Path(f"work/decode/fivek/quarantine/{BAD}.jpg"))
    guilty = Image.fromarray((read_srgb(path) * 255).round().astype(np.uint8))
    guilty.thumbnail((320, 320))
    assert shown.shape[:2] == guilty.size[::-1]
    # what JPEG costs; the first expert's is 0.05 and more away
    assert np.abs(shown - np.asarray(guilty) / 255).mean() < 0.02


def test_a_white_experts_picture_is_shown_as_that(here: Path) -> None:
    path = here / f"data/fivek/{RESULT}"
    rewrite(path, np.full_like(tifffile.imread(path), 65535))
    assert run().loc[BAD, "kind"] == "empty"
    assert read_srgb(Path(f"work/decode/fivek/quarantine/{BAD}.jpg")).min() > 0.98


@pytest.mark.parametrize("content", [b"\xff\xd8 no JPEG", b"\xff\xd8\xff\xdb\x00\x04\x00\x10", b""], ids=str)
def test_a_preview_that_pillow_refuses_is_none(here: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """LibRaw hands out a JPEG's bytes unchecked."""
    photo = list_photos(here / "data/fivek", "abc")[0]
    monkeypatch.setattr(raw, "preview", lambda _: content)
    assert write_thumbnail(photo, here / "shown.jpg") and max(read_srgb(here / "shown.jpg").shape) == 320
    assert not write_thumbnail(replace(photo, experts={}), here / "none.jpg")


def test_what_nobody_expected_names_its_photo(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = list_photos(here / "data/fivek", "abc")[0]
    params = fake_chain.params()
    settings = Settings(here / "out", params.decode, params.corpora["fivek"])
    monkeypatch.setattr(task, "decode_photo", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        task.work(task.Task(photo, settings, "", {}, None), lambda _: None)
    assert BAD in caught.value.__notes__[0]


def test_mutants_go_through_the_stage(here: Path) -> None:
    """Whatever is damaged is a row: the stage itself goes on."""
    sources = []
    for sensor in ("RGGB", "GMCY", "linear", "monochrome"):
        sources.append(here / f"{sensor}.dng")
        write_twin(sources[-1], Twin(sensor, nested=True), smooth_scene())
    real = sorted((REAL / "raw").iterdir()) if (REAL / "raw").is_dir() else []
    names = set()
    for name, content in mutants(sources + real, 20, seed=12):
        names.add(Path(name).stem)
        put(here / "data/fivek/dng" / f"{Path(name).stem}{Path(name).suffix}", content)
    manifest = run(share=1.0, demosaic="LINEAR")
    assert names <= set(manifest.index) and manifest.loc[GOOD, "status"] == "ok"
    assert set(manifest["kind"]) <= {"", "missing", "unreadable"}


def test_a_split_list_replaces_the_rule(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/fivek/lists.csv").write_text(f"photo_id,split\n{BAD},test\na9999-gone,val\n")
    manifest = run(corpus={"split": {"test_from": 4501, "val_share": 0.1, "list": "lists.csv"}})
    assert manifest["split"].to_dict() == {BAD: "test", GOOD: ""}
    assert manifest.loc[GOOD, ["status", "kind"]].tolist() == ["left_out", "split"]
    out, err = capsys.readouterr()
    assert "1 photos are left out" in out and "a9999-gone" in err
    assert not list(Path("work/decode/fivek").glob(f"*/{GOOD}*"))


def test_eight_bit_png(here: Path) -> None:
    sixteen = read_srgb(Path("work/decode/fivek", run().loc[BAD, "expert_a"]))
    path = Path("work/decode/fivek", run(picture={"format": "png", "bits": 8}).loc[BAD, "expert_a"])
    assert path.suffix == ".png" and np.abs(read_srgb(path) - sixteen).max() <= 0.5 / 255 + 1e-5


def test_a_file_that_keeps_libraw_busy_for_ever_is_given_up(here: Path) -> None:
    """A lossy DNG whose list of opcodes claims to hold four thousand million of them."""
    path = here / f"data/fivek/dng/{BAD}.dng"
    path.unlink()
    write_twin(path, Twin("linear", packing="lossy jpeg"), smooth_scene())
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags["OpcodeList2"].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 4] = b"\xff" * 4
    put(path, bytes(content))
    manifest = run(cpu_seconds=3)
    assert manifest.loc[BAD, ["kind", "reason"]].tolist() == ["crashed", "it took more than 3 s of CPU time"]
    assert manifest.loc[GOOD, "status"] == "ok"


def test_a_lossy_dng_without_its_end_is_not_taken_for_a_grey_picture(here: Path) -> None:
    path = here / f"data/fivek/dng/{BAD}.dng"
    path.unlink()
    write_twin(path, Twin("linear", packing="lossy jpeg"), smooth_scene())
    cut(path, 0.8)
    assert run().loc[BAD, "reason"].endswith("bytes of its data lie beyond its end")


# real RAW files, where this checkout lies beside a folder of them


@pytest.mark.skipif(not (REAL / "raw_bad").is_dir(), reason=f"{CORPUS} names no folder with raw_bad/")
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
    assert bad["kind"].isin(["unreadable", "unstable"]).all()
    assert bad["reason"].str.len().min() > 30


def test_a_folder_in_a_raws_place_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "a0001.dng").mkdir()
    with pytest.raises(PhotoError, match=r"LibRaw cannot read a0001\.dng"):
        raw.decode(tmp_path / "a0001.dng")
