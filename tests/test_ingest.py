"""ingest: every form of the downloads lands in one layout, by links, and no file is lost, mixed up or written into."""

from __future__ import annotations

import csv
import errno
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from diffretouch.corpus.demo import write_demo
from diffretouch.corpus.demo_camera import CAMERAS, Exposure, write_dng
from diffretouch.corpus.ingest_names import place_fivek, place_ppr10k
from diffretouch.corpus.layout import list_photos, read_card
from diffretouch.files.pictures import read_srgb, write_png8
from diffretouch.files.raw import decode
from tests.fake_chain import ROOT
from tests.test_cli import run

ONE, TWO = "a0001-jmac_DSC1459", "a0002-dgw_005"
SHOT = Exposure(CAMERAS[0], "RGGB", 1, 0.8, (0.5, 1.0, 0.6), 100)
SHELL = [sys.executable, "-c", "from diffretouch.cli import main; main()"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: Path, seed: int = 0) -> Path:
    """A real file of the kind that its suffix says; another seed gives another content of the same size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng([seed, *path.stem.encode()])
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, draws.integers(0, 65536, (24, 32, 3), dtype=np.uint16), photometric="rgb")
    elif path.suffix.lower() == ".png":
        write_png8(path, draws.random((24, 32), dtype=np.float32))
    else:
        write_dng(path, draws.integers(600, 16000, (24, 32), dtype=np.uint16), SHOT)
    return path


def site(source: Path, *bases: str) -> None:
    """FiveK as its site serves it."""
    for base in bases:
        put(source / f"img/dng/{base}.dng")
        for number, x in enumerate("abcde"):
            put(source / f"img/tiff16_{x}/{base}.tif", number)
    (source / "legal").mkdir(exist_ok=True)
    (source / "legal/filesAdobe.txt").write_text(f"{ONE}\na0003-else\n")
    (source / "legal/filesAdobeMIT.txt").write_text(f"{TWO}\n")
    (source / "legal/LicenseAdobe.txt").write_text("Licence of the first.\n")
    (source / "categories.txt").write_text(f"{ONE},outdoor,day,sun_sky,nature\n{TWO},indoor,None,artificial,people\n")


def pack(source: Path, split: str, *ids: str) -> None:
    """PPR10K's 360p pack."""
    for photo in ids:
        put(source / split / "source" / f"{photo}.tif", 1)
        for number, x in enumerate("abc"):
            put(source / split / f"target_{x}" / f"{photo}.tif", 2 + number)
        put(source / split / "masks" / f"{photo}.png")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def inode(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def table(dataset: str = "fivek") -> list[dict[str, str]]:
    with Path(f"data/{dataset}/photos.csv").open() as file:
        return list(csv.DictReader(file))


def counts(out: str) -> dict[str, tuple[int, ...]]:
    """Of the printed table: found, added, already there, changed and vanished by kind."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    return {row[0]: tuple(map(int, row[1:])) for row in rows if len(row) == 6}


# names: (path below the source) -> what it is


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (f"img/dng/{ONE}.dng", f"dng/{ONE}.dng"),
        (f"fivek_dataset/raw_photos/HQa1to700/photos/{ONE}.dng", f"dng/{ONE}.dng"),
        (f"{ONE}.DNG", f"dng/{ONE}.dng"),
        (f"{ONE} (1).dng", f"dng/{ONE}.dng"),
        (f"img/tiff16_c/{ONE}.tif", f"tiff16_c/{ONE}.tif"),
        (f"Expert A/{ONE}.TIFF", f"tiff16_a/{ONE}.tif"),
        (f"expertE/480p/{ONE}.png", f"tiff16_e/{ONE}.png"),
        (f"expert_d/{ONE} (1).tif", f"tiff16_d/{ONE}.tif"),
        (f"experts/b/{ONE}.tif", f"tiff16_b/{ONE}.tif"),
        (f"{ONE}_c.tif", f"tiff16_c/{ONE}.tif"),
        (f"{ONE}_c (2).tif", f"tiff16_c/{ONE}.tif"),
        (f"{ONE}-expertD.tif", f"tiff16_d/{ONE}.tif"),
        (f"tiff16_c/{ONE}_c.tif", f"tiff16_c/{ONE}.tif"),
        (f"input/{ONE}_c.tif", f"tiff16_c/{ONE}.tif"),
        (f"tiff16_c/{ONE}_d.tif", None),
        (f"tiff16_c/{TWO}.tif", f"tiff16_c/{TWO}.tif"),
        ("tiff16_c/a0009-kme_c.tif", "tiff16_c/a0009-kme_c.tif"),
        ("a0009-kme_c.tif", "tiff16_c/a0009-kme.tif"),
        ("a0007-ends_in_c.tif", None),
        (f"img/tiff16_inputAsShotZeroed/{ONE}.tif", f"rendered/{ONE}.tif"),
        (f"InputZeroed with ExpertC WhiteBalance/{ONE}.jpg", f"rendered/{ONE}.jpg"),
        (f"rendered/{ONE}.png", f"rendered/{ONE}.png"),
        ("legal/filesAdobeMIT.txt", "legal/filesAdobeMIT.txt"),
        ("fivek_dataset/LicenseAdobe.txt", "legal/LicenseAdobe.txt"),
        ("categories_2024.csv", "legal/categories.csv"),
        (f"{ONE}.tif", None),
        (f"{ONE} (1).tif", None),
        (f"thumbnails/{ONE}_C.jpg", None),
        (f"tiff16_f/{ONE}.tif", None),
        (f"dng/{ONE}.dng.part", None),
        (f"dng/{ONE}.xmp", None),
        ("dng/holiday.dng", None),
        ("raw_photos/fivek.lrcat", None),
    ],
)
def test_what_a_file_of_fivek_is(path: str, target: str | None) -> None:
    at = place_fivek(("download", *path.split("/")), {ONE, TWO, "a0007-ends_in_c"})
    assert (at and at.target) == target


def test_the_sources_own_name_tells_the_expert_but_not_by_a_single_letter() -> None:
    at = place_fivek(("tiff16_b", f"{ONE}.tif"), set())
    assert at is not None
    assert at.target == f"tiff16_b/{ONE}.tif"
    assert place_fivek(("b", f"{ONE}.tif"), set()) is None


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("raw/12_3.CR2", "raw/12_3.cr2"),
        ("part 4/raw/12_3.nef", "raw/12_3.nef"),
        ("12_3.ARW", "raw/12_3.arw"),
        ("train_val_images_tif_360p/source/12_3.tif", "source/12_3.tif"),
        ("train/source/12_3.tif", "source/12_3.tif"),
        ("train/source_aug_6/12_3_5.tif", "source_aug/12_3_5.tif"),
        ("train/source_aug/12_3_1.tif", "source_aug/12_3_1.tif"),
        ("train/source_aug_6/12_3.tif", "source/12_3.tif"),
        ("val/target_b/12_3.tif", "target_b/12_3.tif"),
        ("test/target_c/12_3.tif", "target_c/12_3.tif"),
        ("masks/360p/masks_360p/12_3.png", "masks/12_3.png"),
        ("masks_full/12_3.png", "masks/12_3.png"),
        ("train/masks/12_3.png", "masks/12_3.png"),
        ("masks_ins_360p/12_3_0.png", None),
        ("xmp_target_a/12_3.xmp", None),
        ("source/12_3_1.tif", None),
        ("target_d/12_3.tif", None),
        ("pictures/12_3.tif", None),
        ("masks/12_3.tif", None),
        ("source_aug/12_3_1.cr2", None),
        ("hists/all.png", None),
    ],
)
def test_what_a_file_of_ppr10k_is(path: str, target: str | None) -> None:
    at = place_ppr10k(("download", *path.split("/")))
    assert (at and at.target) == target


# whole downloads


def test_the_site_layout_by_links(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(here / "site", ONE, TWO)
    assert run("ingest", "fivek", "site") == 0
    for base in (ONE, TWO):
        assert inode(here / f"data/fivek/dng/{base}.dng") == inode(here / f"site/img/dng/{base}.dng")
        for x in "abcde":
            linked, own = here / f"data/fivek/tiff16_{x}/{base}.tif", here / f"site/img/tiff16_{x}/{base}.tif"
            assert inode(linked) == inode(own)
    assert Path("data/fivek/legal/LicenseAdobe.txt").read_text() == "Licence of the first.\n"
    assert table() == [
        {
            "photo_id": ONE,
            "group": ONE,
            "licence": "Adobe",
            "categories": "outdoor day sun_sky nature",
            "camera": "jmac_DSC1459",
        },
        {
            "photo_id": TWO,
            "group": TWO,
            "licence": "AdobeMIT",
            "categories": "indoor unknown artificial people",
            "camera": "dgw_005",
        },
    ]
    assert read_card(Path("data/fivek")).provenance == "real"
    photos = list_photos(Path("data/fivek"), "abcde")
    assert [(photo.photo_id, photo.licence, photo.problem) for photo in photos] == [
        (ONE, "Adobe", ""),
        (TWO, "AdobeMIT", ""),
    ]
    assert decode(photos[0].raw).rgb_linear.shape == (24, 32, 3)
    assert read_srgb(photos[0].experts["c"], untagged="srgb").shape == (24, 32, 3)

    out, err = capsys.readouterr()
    assert "bring in fivek: 16/16" in err
    assert [line.split()[1:4:2] for line in out.splitlines() if "photos" in line or "complete" in line] == [
        ["photos", "2"],
        ["complete", "2"],
    ]
    assert "`dvc add data` (`dvc add --no-relink data` on ext4), then `dvc repro decode@fivek`" in out
    Path("data/fivek.dvc").touch()
    assert run("ingest", "fivek", "site") == 0
    assert "`dvc add data/fivek` (`dvc add --no-relink data/fivek` on ext4), then" in capsys.readouterr().out


def test_the_tar_beside_single_downloads_is_one_corpus(here: Path) -> None:
    tar = here / "download/fivek_dataset"
    put(tar / f"raw_photos/HQa1to700/photos/{ONE}.dng")
    put(tar / f"raw_photos/HQa701to1400/photos/{TWO}.DNG")
    (tar / "filesAdobe.txt").write_text(f"{ONE}\r\n{TWO}\r\n")
    put(here / f"download/browser/expertC/{ONE} (1).tif")
    put(here / f"download/browser/{TWO}_c.tif")
    put(here / f"download/Lightroom/InputAsShotZeroed/{ONE}.tif", 7)
    assert run("ingest", "fivek", "download") == 0
    photos = list_photos(Path("data/fivek"), "c", rendered=True)
    assert [(photo.photo_id, photo.licence) for photo in photos] == [(ONE, "Adobe"), (TWO, "Adobe")]
    assert all(photo.raw.exists() and photo.experts["c"].exists() for photo in photos)
    assert photos[0].rendered == Path(f"data/fivek/rendered/{ONE}.tif")
    assert photos[1].rendered is None


def test_ppr10ks_raw_tree_and_its_360p_pack(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0_0.CR2", "0_1.nef", "1356_2.ARW"):
        put(here / "ppr/raw" / name)
    pack(here / "ppr/train_val_images_tif_360p", "train", "0_0", "0_1")
    pack(here / "ppr/train_val_images_tif_360p", "val", "1356_2")
    for k in range(1, 6):
        put(here / f"ppr/train_val_images_tif_360p/train/source_aug/0_0_{k}.tif", k)
    put(here / "ppr/masks_full/0_0.png", 9)
    put(here / "ppr/train_val_images_tif_360p/train/source_aug/0_0.tif", 9)
    assert run("ingest", "ppr10k", "ppr") == 0
    photos = list_photos(Path("data/ppr10k"), "abc")
    assert [photo.photo_id for photo in photos] == ["0_0", "0_1", "1356_2"]
    assert [photo.group for photo in photos] == ["0", "0", "1356"]
    assert [photo.raw.name for photo in photos] == ["0_0.cr2", "0_1.nef", "1356_2.arw"]
    for photo in photos:
        split = "val" if photo.group == "1356" else "train"
        assert photo.rendered is not None
        assert photo.mask is not None
        for path in (photo.rendered, photo.mask, *photo.experts.values()):
            own = here / "ppr/train_val_images_tif_360p" / split / path.parent.name / path.name
            assert inode(path) == inode(own)
    assert sorted(path.name for path in Path("data/ppr10k/source_aug").iterdir()) == [
        f"0_0_{k}.tif" for k in range(1, 6)
    ]
    assert {row["licence"] for row in table("ppr10k")} == {"PPR10K, non-commercial research only"}
    # the full-size mask and the unaugmented copy give way, and are told of
    out = capsys.readouterr().out
    assert "left alone, no part of the release: 2" in out
    assert "masks_full/0_0.png" in out


def test_the_360p_pack_alone_is_a_corpus_of_rendered_inputs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(here / "flat", ".", "0_0", "1400_1")
    put(here / "flat/masks_full/0_0.png", 9)
    shutil.rmtree(here / "flat/masks")
    assert run("ingest", "ppr10k", "flat") == 0
    out = capsys.readouterr().out
    assert "set decode.input to rendered" in out
    assert "RAW missing" in out
    photos = list_photos(Path("data/ppr10k"), "abc", rendered=True)
    assert [photo.rendered for photo in photos] == [
        Path(f"data/ppr10k/source/{name}.tif") for name in ("0_0", "1400_1")
    ]
    assert inode(Path("data/ppr10k/masks/0_0.png")) == inode(here / "flat/masks_full/0_0.png")


def test_nothing_is_dropped_in_silence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(here / "site", ONE)
    strangers = ["raw_photos/fivek.lrcat", f"{ONE}.tif", f"img/tiff16_c/{TWO}.xmp", "img/.DS_Store", ".git/config"]
    for name in strangers:
        (here / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "site" / name).write_bytes(b"x")
    (here / "site/lost.dng").symlink_to("nowhere")
    assert run("ingest", "fivek", "site") == 0
    out = capsys.readouterr().out
    assert "left alone, no part of the release: 6" in out
    for name in ("fivek.lrcat", f"{ONE}.tif", f"{TWO}.xmp", ".DS_Store", ".git", "lost.dng"):
        assert name in out
    assert (here / "site/raw_photos/fivek.lrcat").read_bytes() == b"x"
    assert len(tree(here / "data/fivek")) == 10 + 2


def test_links_in_the_source_are_followed_and_circles_are_not(here: Path) -> None:
    site(here / "disk", ONE)
    (here / "site").mkdir()
    (here / "site/img").symlink_to(here / "disk/img")
    (here / "site/again").symlink_to(here / "site")
    put(here / f"elsewhere/{TWO}.dng")
    (here / f"site/{TWO}.dng").symlink_to(here / f"elsewhere/{TWO}.dng")
    assert run("ingest", "fivek", "site") == 0
    assert inode(Path(f"data/fivek/dng/{TWO}.dng")) == inode(here / f"elsewhere/{TWO}.dng")
    assert not Path(f"data/fivek/dng/{TWO}.dng").is_symlink()
    assert inode(Path(f"data/fivek/tiff16_a/{ONE}.tif")) == inode(here / f"disk/img/tiff16_a/{ONE}.tif")


def test_a_demo_corpus_laid_out_as_the_site_comes_back_as_it_was(here: Path) -> None:
    write_demo(here / "demo", limit=2)
    source = here / "demo/fivek"
    rows = list(csv.DictReader((source / "photos.csv").open()))
    for folder in source.iterdir():
        if folder.is_dir():
            shutil.copytree(folder, here / "site/img" / folder.name)
    (here / "site/categories.csv").write_text(
        "base,kind\n" + "".join(f"{row['photo_id']},{row['categories']}\n" for row in rows)
    )
    assert run("ingest", "fivek", "site") == 0

    def facts(root: Path) -> list[tuple]:
        photos = list_photos(root, "abcde")
        files = [[path.relative_to(root) for path in (photo.raw, *photo.experts.values())] for photo in photos]
        return [
            (photo.photo_id, photo.mask, photo.rendered, photo.categories, *paths)
            for photo, paths in zip(photos, files, strict=True)
        ]

    assert facts(Path("data/fivek")) == facts(source)
    assert len(facts(source)) == 2


# again and again


def test_again_adds_what_is_new_and_tells_what_changed_and_what_vanished(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site(here / "site", ONE)
    assert run("ingest", "fivek", "site") == 0
    times = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")}
    first = tree(here / "data")
    assert run("ingest", "fivek", "site") == 0
    assert tree(here / "data") == first
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")} == times

    site(here / "site", TWO)
    (here / f"site/img/tiff16_a/{ONE}.tif").unlink()
    other = here / f"site/img/tiff16_b/{ONE}.tif"
    other.unlink()
    put(other, 77)
    capsys.readouterr()
    assert run("ingest", "fivek", "site") == 0
    out = capsys.readouterr().out
    assert counts(out) == {
        "RAW": (2, 1, 1, 0, 0),
        "expert a": (1, 1, 0, 0, 1),
        "expert b": (2, 1, 0, 1, 0),
        "expert c": (2, 1, 1, 0, 0),
        "expert d": (2, 1, 1, 0, 0),
        "expert e": (2, 1, 1, 0, 0),
        "lists and licences": (4, 0, 4, 0, 0),
    }
    assert f"replaced in data/fivek: 1 (tiff16_b/{ONE}.tif)" in out
    assert f"kept: 1 (tiff16_a/{ONE}.tif)" in out
    assert inode(Path(f"data/fivek/tiff16_b/{ONE}.tif")) == inode(other)
    assert Path(f"data/fivek/tiff16_a/{ONE}.tif").read_bytes() == first[f"fivek/tiff16_a/{ONE}.tif"]


def test_a_second_source_adds_to_the_first(here: Path) -> None:
    site(here / "site", ONE)
    shutil.copytree(here / "site/legal", here / "papers")
    shutil.rmtree(here / "site/legal")
    assert run("ingest", "fivek", "site") == 0
    assert [row["licence"] for row in table()] == [""]
    assert run("ingest", "fivek", "papers") == 0
    assert [row["licence"] for row in table()] == ["Adobe"]
    put(here / f"more/{TWO}.dng")
    assert run("ingest", "fivek", "more") == 0
    assert [row["licence"] for row in table()] == ["Adobe", "AdobeMIT"]


@pytest.mark.parametrize("same_time", [True, False])
def test_a_copy_that_is_there_already_stays(here: Path, same_time: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """What `dvc add` or `dvc pull` leaves in the place of a link."""
    site(here / "site", ONE)
    assert run("ingest", "fivek", "site") == 0
    path = Path(f"data/fivek/dng/{ONE}.dng")
    content = path.read_bytes()
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.unlink()
    path.write_bytes(content)
    if same_time:
        os.utime(path, ns=times)
    copy = inode(path)
    capsys.readouterr()
    assert run("ingest", "fivek", "site") == 0
    assert inode(path) == copy
    out, err = capsys.readouterr()
    assert counts(out)["RAW"] == (1, 0, 1, 0, 0)
    assert ("compare with what is there: 1/1" in err) is not same_time


def test_what_people_wrote_into_photos_csv_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(here / "site", ONE)
    assert run("ingest", "fivek", "site") == 0
    Path("data/fivek/photos.csv").write_text(
        f'stars,photo_id,licence,group,categories\n5,{ONE},of my own,beach,\n3,a0005-mine,"CC0, mine",,\n'
    )
    capsys.readouterr()
    site(here / "site", TWO)
    assert run("ingest", "fivek", "site") == 0
    assert "licence differs from the release's list in 1 rows" in capsys.readouterr().out
    own, two, mine = table()
    assert list(own) == ["stars", "photo_id", "licence", "group", "categories", "camera"]
    assert (own["stars"], own["licence"], own["group"]) == ("5", "of my own", "beach")
    assert own["categories"] == "outdoor day sun_sky nature"
    assert (two["stars"], two["licence"]) == ("", "AdobeMIT")
    assert (mine["photo_id"], mine["stars"], mine["licence"]) == ("a0005-mine", "3", "CC0, mine")
    assert [photo.group for photo in list_photos(Path("data/fivek"), "a")] == ["beach", TWO, "a0005-mine"]


def test_a_card_of_your_own_stays(here: Path) -> None:
    site(here / "site", ONE)
    Path("data/fivek").mkdir(parents=True)
    card = Path("data/fivek/corpus.yaml")
    card.write_text("name: ours\nprovenance: real\nlicence: ask Ann\n")
    assert run("ingest", "fivek", "site") == 0
    assert card.read_text() == "name: ours\nprovenance: real\nlicence: ask Ann\n"


# mistakes


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int = 1) -> str:
    """The message on stderr of a run that must fail and write nothing."""
    before = tree(Path("data")) if Path("data").exists() else None
    assert run("ingest", *words) == code
    assert (tree(Path("data")) if Path("data").exists() else None) == before
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


def test_two_files_for_one_place_are_both_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(here / "site", ONE)
    put(here / f"site/Downloads/{ONE} (1).dng")
    (here / "site/Downloads/copy").mkdir()
    shutil.copy(here / f"site/img/dng/{ONE}.dng", here / f"site/Downloads/copy/{ONE}.dng")
    text = refused(capsys, "fivek", "site")
    assert f"dng/{ONE}.dng: site/Downloads/{ONE} (1).dng and site/Downloads/copy/{ONE}.dng" in text
    (here / f"site/Downloads/{ONE} (1).dng").unlink()
    assert run("ingest", "fivek", "site") == 0
    assert "there twice with the same content, one taken: 1" in capsys.readouterr().out


def test_a_source_without_photos_is_answered_with_what_was_expected(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    assert "Expected: a0001-NAME.dng anywhere" in refused(capsys, "fivek", "empty")
    site(here / "site", ONE)
    assert "RAW files 12_3.CR2" in refused(capsys, "ppr10k", "site")
    assert "site2 not found" in refused(capsys, "fivek", "site2")
    (here / "fivek.tar").write_bytes(b"x")
    assert "unpack it" in refused(capsys, "fivek", "fivek.tar")
    assert "'fivk'" in (text := refused(capsys, "fivk", "site", code=2))
    assert "fivek, ppr10k" in text
    assert not Path("data").exists()


def test_the_demo_is_not_mixed_with_real_photos(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_demo(here / "data", limit=1)
    site(here / "site", ONE)
    text = refused(capsys, "fivek", "site")
    assert "rm -r data/fivek" in text
    assert "--root" in text
    assert run("ingest", "fivek", "site", "--root", "real") == 0
    assert read_card(Path("real/fivek")).provenance == "real"


def test_a_simulated_corpus_deeper_in_a_download_is_not_mixed_in_either(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_demo(here / "site/old", limit=1)
    text = refused(capsys, "fivek", "site")
    assert "site/old/fivek/corpus.yaml says that its photos are simulated" in text
    site(here / "site/new", ONE)
    write_demo(here / "data", limit=1)
    assert "real photos must not mix" in refused(capsys, "fivek", "site")
    assert run("ingest", "fivek", "site/old") == 0
    shutil.rmtree(here / "site/old/fivek")
    assert run("ingest", "fivek", "site", "--root", "real") == 0, "what PPR10K's demo says concerns no photo of FiveK"


def test_names_that_are_no_text_are_set_aside_and_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(b"a0003-caf\xe9.dng")
    (here / odd).touch()
    assert r"set aside in ., for their names are no UTF-8: 1 (a0003-caf\xe9.dng); rename them" in refused(
        capsys, "fivek", "."
    )
    site(here / "site", ONE)
    (here / odd).rename(here / "site" / odd)
    assert run("ingest", "fivek", "site") == 0
    out = capsys.readouterr().out
    assert r"set aside in site, for their names are no UTF-8: 1 (a0003-caf\xe9.dng); rename them" in out
    assert counts(out)["RAW"][0] == 1
    (here / "site" / odd).rename(here / "data/fivek/dng" / odd)
    assert run("ingest", "fivek", "site") == 0
    assert r"(vanished, or from another source), kept: 1 (dng/a0003-caf\xe9.dng)" in capsys.readouterr().out


def test_the_corpus_is_not_its_own_source(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(here / "site", ONE)
    assert run("ingest", "fivek", "site") == 0
    capsys.readouterr()
    assert "is the corpus itself" in refused(capsys, "fivek", "data/fivek")
    assert "is the corpus itself" in refused(capsys, "fivek", "data/fivek/dng")
    assert run("ingest", "fivek", ".") == 0
    out = capsys.readouterr().out
    assert counts(out)["RAW"] == (1, 0, 1, 0, 0)
    assert "there twice" not in out
    assert "data/fivek" in out.split("left alone")[1]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("site/legal/filesAdobe.txt", f"{ONE}\nnobody\n", r"filesAdobe.txt:2 must begin with a photo's name"),
        ("site/categories.txt", b"\xff\xfe\x00", r"categories.txt is no text"),
        ("data/fivek/photos.csv", "photo_id,licence\na0001-x,a,b\n", r"photos.csv:2 has more cells"),
        ("data/fivek/photos.csv", "photo_id\na0001-x\na0001-x\n", r"photos.csv:3 is a second row for a0001-x"),
        ("data/fivek/photos.csv", "name\na0001-x\n", r"photos.csv lacks the column photo_id"),
        ("data/fivek/corpus.yaml", "name: [", r"corpus.yaml does not fit"),
    ],
)
def test_a_list_that_cannot_be_read_is_named_before_anything_is_written(
    here: Path, file: str, content: str | bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site(here / "site", ONE)
    Path("data/fivek").mkdir(parents=True)
    Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert words in refused(capsys, "fivek", "site")


def test_a_dry_run_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(here / "site", ONE)
    before = sorted(here.rglob("*"))
    assert run("ingest", "fivek", "site", "--dry-run") == 0
    assert sorted(here.rglob("*")) == before
    out = capsys.readouterr().out
    assert counts(out)["expert e"] == (1, 1, 0, 0, 0)
    assert "nothing was written" in out


# other file systems, and DVC's links


@pytest.fixture
def other_disk() -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not shared.is_dir() or not os.access(shared, os.W_OK) or shared.stat().st_dev == Path.cwd().stat().st_dev:
        pytest.skip("/dev/shm is no other file system here")
    folder = shared / f"diffretouch-ingest-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_from_another_file_system_files_are_copied_once_a_person_agrees(
    here: Path, other_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site(other_disk, ONE)
    text = refused(capsys, "fivek", str(other_disk))
    assert re_size("10 files (", text)
    assert "where hard links into data/fivek cannot reach" in text
    assert "add --yes" in text
    assert run("ingest", "fivek", str(other_disk), "--dry-run") == 0
    assert "would be asked: 10 files" in capsys.readouterr().out
    assert run("ingest", "fivek", str(other_disk), "--yes") == 0
    copied, own = Path(f"data/fivek/dng/{ONE}.dng"), other_disk / f"img/dng/{ONE}.dng"
    assert copied.read_bytes() == own.read_bytes()
    assert copied.stat().st_mtime_ns == own.stat().st_mtime_ns
    capsys.readouterr()
    assert run("ingest", "fivek", str(other_disk)) == 0  # nothing to copy, nothing to ask
    assert counts(capsys.readouterr().out)["RAW"] == (1, 0, 1, 0, 0)


def re_size(before: str, text: str) -> bool:
    """A size in MiB stands right after `before`."""
    return text.split(before)[1].split(" MiB)")[0].replace(".", "").isdigit()


def test_only_what_cannot_be_linked_is_copied(here: Path, other_disk: Path) -> None:
    site(here / "site", ONE)
    put(other_disk / f"{TWO}.dng")
    (here / "site/more").symlink_to(other_disk)
    assert run("ingest", "fivek", "site", "--yes") == 0
    assert inode(Path(f"data/fivek/dng/{ONE}.dng")) == inode(here / f"site/img/dng/{ONE}.dng")
    assert Path(f"data/fivek/dng/{TWO}.dng").read_bytes() == (other_disk / f"{TWO}.dng").read_bytes()


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM])
def test_where_the_system_refuses_links_it_is_asked_too(
    here: Path, reason: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file system mounted twice; files of another owner under fs.protected_hardlinks."""

    def refuse(source: str, target: Path) -> None:
        raise OSError(reason, os.strerror(reason), source)

    site(here / "site", ONE)
    monkeypatch.setattr("os.link", refuse)
    assert "cannot reach" in refused(capsys, "fivek", "site")
    assert run("ingest", "fivek", "site", "--yes") == 0
    assert Path(f"data/fivek/dng/{ONE}.dng").read_bytes() == (here / f"site/img/dng/{ONE}.dng").read_bytes()
    assert Path(f"data/fivek/dng/{ONE}.dng").stat().st_nlink == 1


def test_copies_that_do_not_fit_are_not_begun(
    here: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site(other_disk, ONE)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    assert "0.0 MiB are free: make room" in refused(capsys, "fivek", str(other_disk), "--yes")


def test_copies_are_nobodys_own_files_so_dvc_may_have_them(
    here: Path, other_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[cache]\n    type = hardlink\n")
    site(other_disk, ONE)
    assert run("ingest", "fivek", str(other_disk), "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.count("would be asked") == 1
    assert "read-only" not in out


def dvc(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("types", "asks"),
    [
        ("", False),
        ("reflink,copy", False),
        ("hardlink", True),
        ("hardlink,symlink", True),
        ("symlink", False),
        ("reflink,hardlink,symlink,copy", False),
    ],
)
def test_it_asks_exactly_where_dvc_makes_your_own_files_read_only(
    here: Path, types: str, asks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outsider's answer: what the DVC that is installed does to them."""
    site(here / "site", ONE)
    dvc("init", "-q", "--no-scm")
    if types:
        dvc("config", "cache.type", types)
    if asks:
        text = refused(capsys, "fivek", "site")
        assert f".dvc/config sets cache.type = {types}" in text
        assert "`dvc add` will make the linked files read-only, and they are your own files in site" in text
        assert run("ingest", "fivek", "site", "--yes") == 0
    else:
        assert run("ingest", "fivek", "site") == 0
    dvc("add", "-q", "data")
    own = here / f"site/img/dng/{ONE}.dng"
    assert (own.stat().st_mode & 0o222 == 0) is asks
    assert run("ingest", "fivek", "site") == 0  # nothing to link, nothing to ask
    assert Path(f"data/fivek/dng/{ONE}.dng").read_bytes() == own.read_bytes()


@pytest.mark.parametrize(
    ("files", "asks"),
    [
        ({".dvc/config": "copy", ".dvc/config.local": "hardlink"}, True),
        ({".dvc/config": "hardlink", ".dvc/config.local": "copy"}, False),
        ({".dvc/config": "", "home/config": "hardlink"}, True),
        ({".dvc/config": "", "home/config": "reflink", "machine/config": "hardlink"}, False),
        ({"home/config": "hardlink"}, False),  # no repository, no `dvc add`
    ],
)
def test_dvcs_configuration_files_go_before_one_another_as_in_dvc(
    here: Path, files: dict[str, str], asks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(here / "home"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(here / "machine"))
    for name, types in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        cache = f"[cache]\n    type = {types}\n" if types else ""
        Path(name).write_text(
            f"[core]\n    remote = s\n['remote \"s\"']\n    url = s3://x\n    password = 5%o\n{cache}"
        )
    site(here / "site", ONE)
    assert run("ingest", "fivek", "site") == int(asks)
    assert ("read-only" in capsys.readouterr().err) is asks


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_at_a_terminal_the_answer_counts(here: Path, answer: str, code: int) -> None:
    site(here / "site", ONE)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[cache]\n    type = hardlink\n")
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [*SHELL, "ingest", "fivek", "site"], stdin=its_end, stdout=its_end, stderr=subprocess.PIPE, env=environment()
    )
    os.write(terminal, f"{answer}\n".encode())
    _, err = process.communicate(timeout=120)
    os.close(its_end)
    os.close(terminal)
    assert process.returncode == code
    assert Path("data/fivek/corpus.yaml").exists() is (code == 0)
    assert (b"nothing was written" in err) is (code == 1)


# killed


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


KILL = """
import os, shutil, signal, sys
place, count, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
module = {"os": os, "shutil": shutil}[place.split(".")[0]]
name = place.split(".")[1]
real, calls = getattr(module, name), 0

def killed(*arguments, **words):
    global calls
    calls += 1
    if calls == count and when == "half":
        content = open(arguments[0], "rb").read()
        open(arguments[1], "wb").write(content[: len(content) // 2])
    elif calls == count and when == "after":
        real(*arguments, **words)
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **words)

setattr(module, name, killed)
sys.argv[:] = ["diffretouch", *sys.argv[4:]]
from diffretouch.cli import main
main()
"""


@pytest.mark.parametrize(
    ("place", "count", "when"),
    [
        ("os.link", 2, "before"),  # the first is the trial
        ("os.link", 9, "after"),
        ("os.replace", 9, "before"),
        ("os.replace", 16, "after"),
        ("os.replace", 17, "before"),  # photos.csv
        ("os.replace", 18, "before"),  # corpus.yaml
        ("shutil.copyfile", 5, "half"),
    ],
)
def test_killed_at_any_moment_and_run_again_nothing_shows_it(here: Path, place: str, count: int, when: str) -> None:
    site(here / "site", ONE, TWO)
    if place == "shutil.copyfile":  # elsewhere, so that it copies
        refuse = KILL.replace(
            "setattr(module", "def refuse(*_): raise OSError(18, 'no')\nos.link = refuse\nsetattr(module"
        )
    else:
        refuse = KILL
    assert run("ingest", "fivek", "site", "--root", "quiet") == 0
    script = [sys.executable, "-c", refuse, place, str(count), when, "ingest", "fivek", "site", "--yes"]
    killed = subprocess.run(script, capture_output=True, text=True, env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left, whole = tree(here / "data"), tree(here / "quiet")
    assert left != whole
    assert all(whole[name] == content for name, content in left.items() if not Path(name).name.startswith("."))
    assert run("ingest", "fivek", "site") == 0
    assert tree(here / "data") == whole
    assert yaml.safe_load(Path("data/fivek/corpus.yaml").read_text())["provenance"] == "real"
