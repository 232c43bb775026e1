"""Ground truths in files: what a loop over the pictures would give, made once, and made again when anything changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from diffretouch.attributes import scores
from diffretouch.condition import conditions
from diffretouch.config import Params
from diffretouch.files.pictures import read_srgb, resize, write_picture
from diffretouch.seeds import generator
from diffretouch.training import autoencoder, data, prepare
from tests import fake_chain
from tests.test_model import tiny_train

EXPERTS = ("a", "b", "c")
CPU = torch.device("cpu")
SMALL = tiny_train()


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Two train photos and a val photo in the current folder, and settings of the smallest size."""
    monkeypatch.chdir(tmp_path)
    fake_chain.build(tmp_path, "fivek")
    for table in ("work/decode/fivek/manifest.parquet", "work/attributes/fivek/attributes.parquet"):
        rows = pd.read_parquet(table)
        ids = rows["photo_id"].unique()
        places = dict(zip(ids, ["train", "train", "val", "test", "train"][: len(ids)], strict=True))
        rows.assign(split=rows["photo_id"].map(places)).to_parquet(table)
    params = fake_chain.params()
    return params.model_copy(update={"train": SMALL.model_copy(update={"views": 3})})


def changed(params: Params, **train: object) -> Params:
    return params.model_copy(update={"train": params.train.model_copy(update=train)})


def made(folder: Path) -> int:
    return (folder / prepare.MARKS).stat().st_mtime_ns


def test_views_are_what_a_plain_loop_gives(params: Params) -> None:
    folder = Path("work/.resume/train-fivek/views")
    prepare.prepare(params, "fivek", folder, CPU)
    found = prepare.open_prepared(params, "fivek", folder, CPU)
    assert len(found.train) == 6 and len(found.val) == 1 and found.train.experts == 3
    manifest = pd.read_parquet("work/decode/fivek/manifest.parquet").set_index("photo_id")
    table = pd.read_parquet("work/attributes/fivek/attributes.parquet").query("split == 'train'")
    training = torch.tensor(table.filter(like="score_").to_numpy())
    size, side = params.attributes.size, params.train.network_size
    for number, photo_id in enumerate(manifest.query("split == 'train'").index[:2]):
        pictures = [read_srgb(Path("work/decode/fivek") / manifest.loc[photo_id, name]) for name in columns()]
        for view in range(3):
            row = 3 * number + view
            seen = [crop(picture, photo_id, view, params.train.seed) for picture in pictures]
            planes = [to16(resize(picture, (size, size))) for picture in seen]
            assert np.array_equal(found.train.photos[row], planes[0])
            assert np.array_equal(found.train.results[row], np.stack(planes[1:]))
            s = scores(torch.from_numpy(np.stack(planes[1:]) / np.float32(65535)), size).double()
            torch.testing.assert_close(found.train.scores[row], s.float())
            torch.testing.assert_close(
                found.train.conditions[row], conditions(s, training, params.attributes).float(), atol=1e-5, rtol=1e-5
            )
            large = np.stack([to16(resize(picture, (side, side))) for picture in seen[1:]]) / np.float32(65535)
            mean, std = autoencoder.encode(found.vae, torch.from_numpy(large))
            torch.testing.assert_close(found.train.latent_mean[row], mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found.train.latent_std[row], std, rtol=1e-3, atol=1e-4)


def columns() -> list[str]:
    return ["input", *(f"expert_{x}" for x in EXPERTS)]


def crop(picture: np.ndarray, photo_id: str, view: int, seed: int) -> np.ndarray:
    """The whole in view 0; else 60 to 95 % of each side at a drawn place."""
    if view == 0:
        return picture
    high, wide, down, across = torch.rand(4, generator=generator(seed, "crop", photo_id, view)).tolist()
    height, width = picture.shape[:2]
    tall, broad = round(height * (0.6 + 0.35 * high)), round(width * (0.6 + 0.35 * wide))
    top, left = int((height - tall) * down), int((width - broad) * across)
    return np.ascontiguousarray(picture[top : top + tall, left : left + broad])


def to16(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 65535).astype(np.uint16).transpose(2, 0, 1)


def marks_of(params: Params, folder: Path) -> dict[str, object]:
    """What a training on it is known by."""
    return dict(prepare.open_prepared(params, "fivek", folder, CPU).marks(params.train))


def test_they_are_made_once_and_again_when_a_picture_or_a_setting_changes(params: Params) -> None:
    folder = Path("views")
    prepare.prepare(params, "fivek", folder, CPU)
    first, marks = made(folder), marks_of(params, folder)
    prepare.prepare(changed(params, learning_rate=0.5), "fivek", folder, CPU)
    assert made(folder) == first
    prepare.prepare(changed(params, views=2), "fivek", folder, CPU)
    assert made(folder) > first and len(prepare.open_prepared(params, "fivek", folder, CPU).train) == 4
    prepare.prepare(params, "fivek", folder, CPU)
    second = made(folder)
    assert marks_of(params, folder) == marks
    path = Path("work/decode/fivek/expert_c/a4502-scene1.tif")
    write_picture(path, read_srgb(path) * np.float32(0.9))
    prepare.prepare(params, "fivek", folder, CPU)
    assert made(folder) > second
    now = marks_of(params, folder)
    # val as well: its latents are those of an autoencoder fitted to other pictures
    assert now.keys() == marks.keys()
    assert {name for name in now if now[name] != marks[name]} == {"data.train", "data.val"}


@pytest.mark.parametrize("photos", [0, 1], ids=["behind the autoencoder", "between two photos"])
def test_an_interrupted_preparation_leaves_the_earlier_one_and_goes_on(
    params: Params, monkeypatch: pytest.MonkeyPatch, photos: int
) -> None:
    folder, whole = Path("there/views"), Path("whole/views")
    prepare.prepare(params, "fivek", folder, CPU)
    first, other = made(folder), changed(params, views=2)
    prepare.prepare(other, "fivek", whole, CPU)
    real, seen = data._view, list[int]()

    def stopped(planes: list[torch.Tensor], source: data.Source) -> dict[str, torch.Tensor]:
        seen.append(1)
        if len(seen) > 2 * photos:
            raise KeyboardInterrupt
        return real(planes, source)

    monkeypatch.setattr(data, "SAFE_EVERY_S", 0.0)
    monkeypatch.setattr(data, "_view", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(other, "fivek", folder, CPU)
    assert made(folder) == first

    def counted(planes: list[torch.Tensor], source: data.Source) -> dict[str, torch.Tensor]:
        seen.append(1)
        return real(planes, source)

    def again(*_: object) -> None:
        raise AssertionError("it was fitted already")

    seen.clear()
    monkeypatch.setattr(data, "_view", counted)
    monkeypatch.setattr(autoencoder, "fit", again)
    prepare.prepare(other, "fivek", folder, CPU)
    assert len(seen) == 2 * (2 - photos) + 1  # two train photos of two views, a val photo of one
    assert list(folder.parent.iterdir()) == [folder]
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    assert [name for name in files if (whole / name).read_bytes() != (folder / name).read_bytes()] == []


def test_an_abandoned_preparation_is_never_taken_for_another(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("there/views")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "write_views", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(changed(params, views=2, seed=1), "fivek", folder, CPU)
    prepare.prepare(params, "fivek", folder, CPU)
    prepare.prepare(params, "fivek", Path("whole"), CPU)
    assert list(folder.parent.iterdir()) == [folder]
    weights = "autoencoder/diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (Path("whole") / weights).read_bytes()
