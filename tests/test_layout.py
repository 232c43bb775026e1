"""Layouts and split lists: every photo is listed once, whatever stands beside it, and a list says what it means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffretouch.config import Split
from diffretouch.corpus.layout import PPR10K, camera_of, find_layout, group_of, list_photos
from diffretouch.corpus.photo_table import PhotoTable, read_photo_table, write_photo_table
from diffretouch.corpus.split import list_warnings, read_split_list, split_by
from diffretouch.errors import PhotoError, UserError

RULE = Split(test_from=4501, val_share=0.0, list=None)


def make(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


# photos


def test_fivek_in_full(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "dng/a0002-kme_1.DNG",
        "dng/a0001-jmac_2.dng",
        "tiff16_a/a0001-jmac_2.tif",
        "tiff16_b/a0001-jmac_2.TIF",
        "tiff16_b/a0001-jmac_2.png",
        "rendered/a0001-jmac_2.jpg",
    )
    one, two = list_photos(root, "ab")
    assert (one.photo_id, one.group, one.camera, one.problem) == ("a0001-jmac_2", "a0001-jmac_2", "jmac_2", "")
    assert one.experts == {"a": root / "tiff16_a/a0001-jmac_2.tif", "b": root / "tiff16_b/a0001-jmac_2.TIF"}
    assert one.rendered == root / "rendered/a0001-jmac_2.jpg"
    assert one.mask is None
    assert two.raw == root / "dng/a0002-kme_1.DNG"
    assert two.experts == {"a": root / "tiff16_a/a0002-kme_1.tif", "b": root / "tiff16_b/a0002-kme_1.tif"}
    assert not any(path.exists() for path in two.experts.values())
    assert two.rendered is None


def test_ppr10k_in_full(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "raw/12_3.cr2",
        "raw/12_3.xmp",
        "target_c/12_3.tif",
        "masks/12_3.png",
        "source/12_3.tif",
        "source/4_0.tif",
    )
    make(tmp_path, "source_aug/12_3_1.tif")
    (photo,) = list_photos(root, "c")
    assert (photo.photo_id, photo.group, photo.camera) == ("12_3", "12", "")
    assert (photo.raw, photo.rendered, photo.mask) == (
        root / "raw/12_3.cr2",
        root / "source/12_3.tif",
        root / "masks/12_3.png",
    )
    assert photo.experts == {"c": root / "target_c/12_3.tif"}


def test_rendered_inputs_need_no_raw(tmp_path: Path) -> None:
    root = make(tmp_path, "source/4_0.tif", "target_a/4_0.tif")
    (root / "photos.csv").write_text("photo_id,licence\n9_9,ours\n")
    assert [(photo.photo_id, photo.rendered) for photo in list_photos(root, "a", rendered=True)] == [
        ("4_0", root / "source/4_0.tif"),
        ("9_9", None),
    ]
    with pytest.raises(UserError, match=r"raw/ not found: .*decode.input: rendered"):
        list_photos(root, "a")
    make(root, "raw/5_0.nef")
    assert [photo.photo_id for photo in list_photos(root, "a", rendered=True)] == ["4_0", "5_0", "9_9"]
    assert [photo.photo_id for photo in list_photos(root, "a")] == ["5_0", "9_9"]


def test_a_corpus_without_rendered_inputs_is_answered_with_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rendered/ not found: .*decode.input: raw"):
        list_photos(make(tmp_path, "dng/a0001-x.dng"), "a", rendered=True)


def test_two_raws_of_one_name_are_one_photo_with_a_problem(tmp_path: Path) -> None:
    root = make(tmp_path, "dng/a0001-x.dng", "dng/a0001-x.nef", "dng/a0001-x.xmp", "dng/a0002-y.dng")
    one, two = list_photos(root, "a")
    assert one.problem == "2 RAW files have its name: a0001-x.dng, a0001-x.nef: keep one of them"
    assert one.raw == root / "dng/a0001-x.dng"
    assert two.problem == ""
    make(root, "rendered/a0001-x.tif")
    assert list_photos(root, "a", rendered=True)[0].problem == "", "no RAW is asked for"


def test_names_that_are_no_text_are_set_aside_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path, "dng/a0001-x.dng", os.fsdecode(b"dng/a0002-\xe9.dng"))
    assert [photo.photo_id for photo in list_photos(root, "a")] == ["a0001-x"]
    said = capsys.readouterr().err
    assert said == f"NOTE: set aside in {root}/dng, for their names are no UTF-8: 1 (a0002-\\xe9.dng); rename them\n"


def test_facts_come_from_photos_csv_and_lost_raws_are_listed(tmp_path: Path) -> None:
    root = make(tmp_path, "dng/a0001-x.dng")
    (root / "photos.csv").write_text(
        "photo_id,group,licence,categories,camera,stars\n"
        'a0001-x,beach,"CC BY, Ann",outdoor day,Nikon D70,5\n'
        "a0002-lost,,,,,\n",
        encoding="utf-8-sig",
    )
    one, lost = list_photos(root, "a")
    assert (one.group, one.licence, one.categories, one.camera) == ("beach", "CC BY, Ann", "outdoor day", "Nikon D70")
    assert (lost.group, lost.licence, lost.camera) == ("a0002-lost", "", "lost")
    assert lost.raw == root / "dng/a0002-lost.dng"


def test_links_that_lead_nowhere_are_missing_files(tmp_path: Path) -> None:
    """What DVC leaves where a cache was emptied under symlinks."""
    root = make(tmp_path, "dng/a0001-x.dng", "tiff16_a/a0002-y.tif")
    (root / "dng/a0002-y.dng").symlink_to("nowhere")
    assert [photo.photo_id for photo in list_photos(root, "a")] == ["a0001-x"]


def test_what_is_no_corpus(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"neither dng/ .* nor raw/ .*diffretouch ingest"):
            find_layout(folder)
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="raw is empty"):
        list_photos(tmp_path, "a")
    assert find_layout(make(tmp_path / "other", "target_b/1_1.tif")) is PPR10K


def test_names_of_ids() -> None:
    assert group_of(PPR10K, "12_3") == "12"
    assert camera_of(PPR10K, "12_3") == ""


def test_folders_are_listed_once_and_no_file_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many photos: what makes 30,000 of them quick on a network disk."""
    names = [f"a{number:04d}-x" for number in range(50)]
    root = make(tmp_path, *(f"dng/{n}.dng" for n in names), *(f"tiff16_{x}/{n}.tif" for n in names for x in "abc"))
    looks, scan, stat = [], os.scandir, os.stat
    monkeypatch.setattr("os.scandir", lambda path: (looks.append(path), scan(path))[1])
    monkeypatch.setattr("os.stat", lambda *words, **more: (looks.append(words), stat(*words, **more))[1])
    assert len(list_photos(root, "abc")) == 50
    assert len(looks) < 30


# photos.csv


def test_a_table_written_is_the_table_read(tmp_path: Path) -> None:
    rows = [{"photo_id": "b", "licence": 'a "b", c'}, {"photo_id": "a", "licence": "ä\n2"}]
    path = tmp_path / "photos.csv"
    write_photo_table(path, PhotoTable(["licence", "photo_id"], rows))
    assert read_photo_table(path) == PhotoTable(["licence", "photo_id"], rows[::-1])
    before = path.stat()
    write_photo_table(path, PhotoTable(["licence", "photo_id"], rows))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photo_id\na\n\nb\na\n", r"photos.csv:5 is a second row for a, after line 2: keep one"),
        ("photo_id,licence\n,x\n", r"photos.csv:2 lacks its photo_id"),
        ("photo_id\na,b\n", r"photos.csv:2 has more cells than the first line names columns \(1\)"),
        ("id\na\n", r"lacks the column photo_id: it has \['id'\]"),
        ('photo_id\n"a\n', r"is no table in UTF-8 with commas"),
    ],
)
def test_a_table_that_does_not_fit_is_answered_with_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "photos.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_photo_table(tmp_path / "photos.csv")


# split lists


def test_a_list_takes_the_rules_place(tmp_path: Path) -> None:
    path = tmp_path / "dpe.csv"
    path.write_text("split, photo_id, note\n train, a4999-x, odd\ntest,a0001-y\nval,a0002-z,\n", encoding="utf-8-sig")
    listed = read_split_list(path)
    assert listed == {"a4999-x": "train", "a0001-y": "test", "a0002-z": "val"}
    assert split_by("a4999-x", "a4999-x", RULE, listed) == "train"
    assert split_by("a0003-w", "a0003-w", RULE, listed) is None
    assert split_by("holiday", "holiday", RULE, listed) is None


def test_without_a_list_the_rule_holds() -> None:
    assert split_by("a4501-x", "a4501-x", RULE, None) == "test"
    assert split_by("a4500-x", "a4500-x", RULE, None) == "train"
    assert split_by("a4500-x", "a4500-x", RULE.model_copy(update={"val_share": 1.0}), None) == "val"
    with pytest.raises(PhotoError, match="no number"):
        split_by("holiday", "holiday", RULE, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photo_id,split\na,train\nb,Test\n", r"dpe.csv:3, b: split is 'Test', must be one of train, val, test"),
        ("photo_id,split\na\n", r"dpe.csv:2, a: split is ''"),
        ("photo_id,split\na,test\nb,val\na,test\n", r"dpe.csv:4 names a a second time"),
        ("photo_id,split\n,test\n", r"dpe.csv:2 names no photo \(split 'test'\)"),
        ("a,train\n", r"dpe.csv:1 must name the columns photo_id and split: it has \['a', 'train'\]"),
        ("", r"dpe.csv:1 must name the columns photo_id and split: it has none"),
        ("photo_id,split\n", r"dpe.csv names no photo"),
        (b"photo_id,split\n\xff\xfe,train\n", r"dpe.csv is no table in UTF-8"),
    ],
)
def test_a_list_that_does_not_fit_is_answered_with_line_and_value(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    (tmp_path / "dpe.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words):
        read_split_list(tmp_path / "dpe.csv")


def test_an_absent_list_is_answered_with_where_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dpe.csv not found: it is what split.list in params.yaml names"):
        read_split_list(tmp_path / "dpe.csv")


def test_a_list_is_held_against_the_corpus(tmp_path: Path) -> None:
    groups = {"1_0": "1", "1_1": "1", "2_0": "2", "3_0": "3"}
    assert list_warnings({"1_0": "train", "1_1": "train", "2_0": "test"}, groups) == []
    assert list_warnings({"1_0": "train", "1_1": "test", **dict.fromkeys(map(str, range(7)), "val")}, groups) == [
        "the split list names photos that the corpus does not have: 0, 1, 2, 3, 4 and 2 more",
        "the split list puts photos of one scene into several splits: 1",
    ]
