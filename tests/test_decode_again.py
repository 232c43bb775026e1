"""decode, run again: what changed is redone, nothing else, and the bytes are those of a run never stopped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from diffretouch.corpus.demo import write_demo
from diffretouch.files.workspace import journal_file
from diffretouch.stages import decode
from tests import fake_chain
from tests.kill import digests, kill_while_decoding

OUT = Path("work/decode/fivek")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos of the fivek demo."""
    root = tmp_path_factory.mktemp("demo")
    write_demo(root / "data", limit=4)
    return root


@pytest.fixture
def here(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of its own with that corpus (linked: replace files, do not write into them)."""
    shutil.copytree(demo / "data", tmp_path / "data", copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(**settings: object) -> None:
    decode.run(fake_chain.params(decode={"max_quarantined_share": 0.9, **settings}, runtime={"workers": 2}), "fivek")


def inodes() -> dict[str, int]:
    """Of every picture; one that is written anew gets another."""
    return {str(path.relative_to(OUT)): path.stat().st_ino for path in OUT.glob("*/*")}


def photos() -> list[str]:
    return sorted(path.stem for path in Path("data/fivek/dng").iterdir())


def hide(photo_id: str, folder: Path) -> None:
    """Take a photo's files and its line of photos.csv out of the corpus, into `folder`."""
    for path in [*Path("data/fivek").glob(f"*/{photo_id}.*"), Path("data/fivek/photos.csv")]:
        place = folder / path.relative_to("data/fivek")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)
    lines = (folder / "photos.csv").read_text().splitlines(keepends=True)
    Path("data/fivek/photos.csv").write_text("".join(line for line in lines if not line.startswith(photo_id)))


def test_nothing_new_touches_no_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    before, bytes_before = inodes(), digests(OUT)
    run()
    assert inodes() == before and digests(OUT) == bytes_before
    assert "decode fivek: 4 up to date, 0 to do" in capsys.readouterr().err


def test_a_new_photo_is_the_only_one_decoded(here: Path, tmp_path: Path) -> None:
    run()
    whole, fourth = digests(OUT), photos()[3]
    hide(fourth, tmp_path / "aside")
    run()
    assert not list(OUT.glob(f"*/{fourth}.*"))
    assert len(pd.read_parquet(OUT / "manifest.parquet")) == 3
    before = inodes()
    shutil.copytree(tmp_path / "aside", "data/fivek", dirs_exist_ok=True)
    run()
    after = inodes()
    assert {name: after[name] for name in before} == before
    assert {Path(name).stem for name in after.keys() - before.keys()} == {fourth}
    assert digests(OUT) == whole


def test_a_file_with_a_new_time_but_the_same_content_is_read_and_left(here: Path) -> None:
    run()
    before = inodes()
    for path in Path("data/fivek/dng").iterdir():
        os.utime(path, ns=(1, 1))
    run()
    assert inodes() == before


def test_a_changed_experts_picture_is_one_photos_matter(here: Path) -> None:
    run()
    before = inodes()
    first, second = photos()[:2]
    path = Path(f"data/fivek/tiff16_a/{first}.tif")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    run()
    manifest = pd.read_parquet(OUT / "manifest.parquet").set_index("photo_id")
    assert manifest.loc[first, "status"] == "quarantined" and manifest.loc[second, "status"] == "ok"
    assert [Path(name).stem for name in before.keys() - inodes().keys()].count(first) >= 4
    assert {name: i for name, i in inodes().items() if first not in name} == {
        name: i for name, i in before.items() if first not in name
    }
    path.write_bytes(content)
    run()
    assert inodes().keys() == before.keys()


def test_a_picture_changed_by_hand_is_made_again(here: Path) -> None:
    run()
    whole = digests(OUT)
    victim, other = (OUT / f"input/{photo_id}.tif" for photo_id in photos()[:2])
    victim.write_bytes(b"painted over")
    other.unlink()
    run()
    assert digests(OUT) == whole


def test_another_profile_redoes_all_and_leaves_nothing_of_the_old(here: Path) -> None:
    run(demosaic="LINEAR", picture={"format": "png", "bits": 8})
    run()
    redone = digests(OUT)
    shutil.rmtree("work")
    run()
    assert digests(OUT) == redone
    assert not list(OUT.glob("*/*.png"))


def test_outputs_of_another_run_put_in_their_place_are_not_trusted(here: Path) -> None:
    """As `dvc checkout` of an older revision does, while the journal is of the newer run."""
    run(demosaic="LINEAR")
    shutil.copytree(OUT, "older")
    run()
    newer = digests(OUT)
    shutil.rmtree(OUT)
    shutil.copytree("older", OUT)
    run()
    assert digests(OUT) == newer


def test_without_its_journal_content_alone_is_asked(here: Path) -> None:
    """As in a fresh clone after `dvc pull`."""
    run()
    before, whole = inodes(), digests(OUT)
    journal_file("fivek").unlink()
    run()
    assert inodes() == before and digests(OUT) == whole


def test_a_torn_line_of_the_journal_costs_one_photo(here: Path) -> None:
    run()
    whole = digests(OUT)
    (OUT / "manifest.parquet").unlink()
    with journal_file("fivek").open("a") as journal:
        journal.write('{"photo_id": "a0001-fl')
    run()
    assert digests(OUT) == whole


@pytest.mark.slow
def test_killed_at_two_moments_and_run_again(here: Path) -> None:
    """`make soak` does it at twenty."""
    kill_while_decoding(here, kills=2, seed=0)
