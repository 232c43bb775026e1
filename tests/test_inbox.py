"""An inbox: only whole photos come in, none replaces another, none becomes a test photo."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from diffretouch.config import Corpus
from diffretouch.corpus.inbox import boxes, take_in
from diffretouch.corpus.photo_table import read_photo_table
from diffretouch.corpus.split import split_of
from diffretouch.errors import UserError
from tests.model_project import CARD, ROOT, add_photo

HOSTILE = "a0009-$(touch hacked); 'x' `touch hacked`"


def corpus(**changes: object) -> Corpus:
    return Corpus.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text())["corpora"]["fivek"] | changes)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """data/fivek with one photo, and inbox/."""
    add_photo(tmp_path / "data/fivek", "a0001-old")
    (tmp_path / "data/fivek/corpus.yaml").write_text(CARD)
    (tmp_path / "inbox").mkdir()
    return tmp_path


def names(lab: Path) -> list[str]:
    return sorted(path.name for path in (lab / "data").rglob("*") if path.is_file())


def test_whole_photos_come_in_as_copies_and_others_wait(lab: Path) -> None:
    for photo in ("a0002-new", HOSTILE, "a0003-half"):
        add_photo(lab / "inbox", photo)
    (lab / "inbox/tiff16_c/a0003-half.tif").unlink()
    found = take_in("fivek", lab / "inbox", lab / "data", corpus())
    assert found.photos == {photo: split_of(photo, photo, 4501, 0.15) for photo in ("a0002-new", HOSTILE)}
    assert found.waiting == {"a0003-half": ["expert c's picture"]}
    raw = lab / "data/fivek/dng/a0002-new.dng"
    assert raw.read_text() == "dng/a0002-new.dng \n" and raw.stat().st_nlink == 1
    assert not [name for name in names(lab) if "half" in name]
    listed = {row["photo_id"] for row in read_photo_table(lab / "data/fivek/photos.csv").rows}
    assert listed == {"a0001-old", "a0002-new", HOSTILE}
    # the rest arrives, and what is there is not new
    add_photo(lab / "inbox", "a0003-half")
    os.utime(lab / "inbox/tiff16_c/a0003-half.tif", (0, 0))  # as a copy may that keeps its time
    (fresh,) = take_in("fivek", lab / "inbox", lab / "data", corpus(), settle_s=60).waiting.items()
    assert fresh == ("a0003-half", ["time: it was written a moment ago"])
    again = take_in("fivek", lab / "inbox", lab / "data", corpus())
    assert list(again.photos) == ["a0003-half"] and again.waiting == {}


def test_a_name_that_is_no_text_is_told(lab: Path) -> None:
    (lab / "box/fivek").mkdir(parents=True)
    assert boxes(["fivek"], None, str(lab / "box")) == {"fivek": None}
    (lab / "box/fivek" / os.fsdecode(b"a0003-\xe9.dng")).touch()
    box = boxes(["fivek"], None, str(lab / "box"))["fivek"]
    assert box is not None
    with pytest.raises(UserError, match=r"no UTF-8: 1 \(a0003-\\xe9.dng\)"):
        take_in("fivek", box, lab / "data", corpus())
    add_photo(box, "a0002-new")
    found = take_in("fivek", box, lab / "data", corpus())
    assert list(found.photos) == ["a0002-new"] and r"a0003-\xe9.dng" in found.remarks[0]


def test_what_would_move_the_test_photos_or_replace_one_is_refused_before_anything_is_written(lab: Path) -> None:
    before = names(lab)
    add_photo(lab / "inbox", "a0002-new")
    add_photo(lab / "inbox", "a4600-test")
    with pytest.raises(UserError, match=r"1 photos that would be test photos.*a4600-test"):
        take_in("fivek", lab / "inbox", lab / "data", corpus())
    (lab / "data/fivek/splits.csv").write_text("photo_id,split\na0002-new,test\n")
    with pytest.raises(UserError, match="a0002-new"):
        take_in(
            "fivek",
            lab / "inbox",
            lab / "data",
            corpus(split={"test_from": 9999, "val_share": 0, "list": "splits.csv"}),
        )
    (lab / "data/fivek/splits.csv").unlink()
    add_photo(lab / "inbox", "a0001-old", "other bytes")
    with pytest.raises(UserError, match="other bytes for 6 files"):
        take_in("fivek", lab / "inbox", lab / "data", corpus())
    assert names(lab) == before


@pytest.mark.parametrize(
    ("new", "old"),
    [("raw/1357_0.CR2", "raw/1357_0.nef"), ("target_a/1357_0.tif", "target_a/1357_0.png")],
)
def test_a_second_file_of_a_photo_under_another_suffix_is_refused(tmp_path: Path, new: str, old: str) -> None:
    for file in (tmp_path / "data/ppr10k" / old, tmp_path / "data/ppr10k/raw/9_0.xmp", tmp_path / "inbox" / new):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    (tmp_path / "inbox/raw").mkdir(exist_ok=True)
    (tmp_path / "inbox/raw/9_0.arw").touch()
    (tmp_path / "data/ppr10k/corpus.yaml").write_text(CARD)
    before = names(tmp_path)
    there = str(Path(new).with_suffix(Path(new).suffix.lower()))
    with pytest.raises(UserError, match=rf"second files for 1 places .*\({there} beside {old}\)"):
        take_in("ppr10k", tmp_path / "inbox", tmp_path / "data", corpus())
    assert names(tmp_path) == before
    (tmp_path / "data/ppr10k" / old).unlink()
    assert take_in("ppr10k", tmp_path / "inbox", tmp_path / "data", corpus()).photos == {}


@pytest.mark.parametrize(("here", "there"), [("real", "simulated"), ("simulated", "real")])
def test_simulated_and_real_photos_do_not_mix(lab: Path, here: str, there: str) -> None:
    add_photo(lab / "inbox", "a0002-new")
    (lab / "data/fivek/corpus.yaml").write_text(CARD.replace("real", here))
    (lab / "inbox/corpus.yaml").write_text(CARD.replace("real", there))
    with pytest.raises(UserError, match="must not mix"):
        take_in("fivek", lab / "inbox", lab / "data", corpus())
    (lab / "inbox/corpus.yaml").write_text(CARD.replace("real", here))
    assert list(take_in("fivek", lab / "inbox", lab / "data", corpus()).photos) == ["a0002-new"]
