"""The demo corpora: layout, formats, splits, and bytes that never change."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import yaml

from diffretouch.corpus.demo import CORPORA, simulate, write_demo
from diffretouch.corpus.demo_scenes import PHOTOGRAPHS
from diffretouch.errors import UserError
from diffretouch.files.pictures import icc
from diffretouch.files.raw import decode
from tests.demo_fixture import demo_root, in_val


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return demo_root(tmp_path_factory)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "photos.csv").open() as file:
        return list(csv.DictReader(file))


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_runs_give_identical_bytes(root, tmp_path):
    write_demo(tmp_path, limit=3)
    again = digests(tmp_path)
    written = digests(root)
    pictures = {name for name in again if not name.endswith("photos.csv")}
    assert len(pictures) == 3 * 6 + 3 * 6 + 2
    assert {name: again[name] for name in pictures} == {name: written[name] for name in pictures}


def test_size_stays_under_250_mb(root):
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 250e6


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_splits_are_disjoint_by_scene_and_test_is_photographs(corpus):
    test = [shot for shot in corpus.shots if shot.split == "test"]
    train = [shot for shot in corpus.shots if shot.split == "train"]
    assert not {shot.view.scene for shot in test} & {shot.view.scene for shot in train}
    assert {shot.view.scene for shot in test} <= set(PHOTOGRAPHS)
    assert len({shot.group for shot in test}) >= 3
    assert 8 <= len(test) <= 10
    assert len({shot.photo_id for shot in corpus.shots}) == len(corpus.shots)


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_val_holds_a_photograph(corpus):
    val = [shot for shot in corpus.shots if shot.split == "train" and in_val(shot.group)]
    assert 3 <= len(val) <= 7
    assert len({shot.group for shot in val}) >= 2
    assert any(shot.view.scene in PHOTOGRAPHS for shot in val)


def test_ids_follow_the_datasets_rules():
    fivek, ppr10k = CORPORA
    assert len(fivek.shots) == 48
    assert len(ppr10k.shots) == 30
    assert all((int(shot.photo_id[1:5]) >= 4501) == (shot.split == "test") for shot in fivek.shots)
    assert all((int(shot.group) >= 1356) == (shot.split == "test") for shot in ppr10k.shots)
    assert all(shot.photo_id.split("_")[0] == shot.group for shot in ppr10k.shots)


def test_fivek_layout(root):
    folder = root / "fivek"
    table = rows(folder)
    assert len(table) == 48
    for row in table[::7]:
        size = decode(folder / "dng" / f"{row['photo_id']}.dng").rgb_linear.shape
        for expert in "abcde":
            with tifffile.TiffFile(folder / f"tiff16_{expert}" / f"{row['photo_id']}.tif") as tif:
                page = tif.pages[0]
                assert page.dtype == np.uint16
                assert page.shape == size
                assert page.tags[34675].value == icc("prophoto")
                assert "DateTime" not in page.tags


def test_ppr10k_layout(root):
    folder = root / "ppr10k"
    table = rows(folder)
    assert len(table) == 30
    for row in table[::5]:
        name = row["photo_id"]
        size = decode(folder / "raw" / f"{name}.dng").rgb_linear.shape
        assert tifffile.imread(folder / "source" / f"{name}.tif").dtype == np.uint16
        mask = imagecodecs.imread(folder / "masks" / f"{name}.png")
        assert mask.shape == size[:2]
        assert 0.05 < mask.mean() / 255 < 0.95
        for expert in "abc":
            target = tifffile.imread(folder / f"target_{expert}" / f"{name}.tif")
            assert target.dtype == np.uint8
            assert target.shape == size


def test_both_formats_and_all_rotations_occur(root):
    flips = {decode(path).facts.flip for path in sorted((root / "fivek" / "dng").glob("*.dng"))}
    assert flips == {0, 3, 5, 6}


def test_prophoto_files_hold_the_experts_picture(root):
    """LittleCMS undoes our encoding to within a 12-bit step or two (unoptimised: its 16-bit tables err in shadows)."""
    corpus = CORPORA[0]
    shot = corpus.shots[0]
    with tifffile.TiffFile(root / "fivek" / "tiff16_c" / f"{shot.photo_id}.tif") as tif:
        pixels, profile = tif.asarray(), tif.pages[0].tags[34675].value
    exact = imagecodecs.CMS.FLAGS.NOOPTIMIZE
    read = imagecodecs.cms_transform(
        pixels, profile, icc("srgb"), colorspace="rgb", outcolorspace="rgb", outdtype=np.uint16, intent=1, flags=exact
    )
    assert np.abs(read / 65535 - simulate(corpus, shot).experts["c"]).max() < 0.006


def test_the_corpora_say_that_they_are_simulated(root):
    for dataset in ("fivek", "ppr10k"):
        assert yaml.safe_load((root / dataset / "corpus.yaml").read_text())["provenance"] == "simulated"


def test_a_real_corpus_is_never_overwritten(tmp_path):
    photo = tmp_path / "ppr10k" / "raw" / "0_0.cr2"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine")
    with pytest.raises(UserError, match="no demo corpus"):
        write_demo(tmp_path, limit=1)
    assert photo.read_bytes() == b"mine"
    assert not (tmp_path / "fivek").exists()
