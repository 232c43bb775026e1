"""Scores against a naive loop of the formulas, a published colour temperature, finite gradients; and the stage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.color import rgb2xyz
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES, scores, soft_clamp
from diffretouch.color import linear_to_srgb, srgb_to_linear
from diffretouch.errors import UserError
from diffretouch.files.tables import write_table
from diffretouch.stages import attributes
from tests import fake_chain

SIZE = 12


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_order_is_public() -> None:
    assert ATTRIBUTES == ("colorfulness", "brightness", "contrast", "temperature")


def test_against_a_naive_loop(picture: Tensor) -> None:
    red, green, blue = picture[0].numpy()
    rg, yb = np.abs(red - green).ravel(), np.abs((red + green) / 2 - blue).ravel()
    colorfulness = math.sqrt(rg.std() ** 2 + yb.std() ** 2) + 0.3 * math.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    brightness = math.sqrt(0.241 * red.mean() ** 2 + 0.691 * green.mean() ** 2 + 0.068 * blue.mean() ** 2)
    contrast = 0.0
    for plane in (red, green, blue):
        for y in range(SIZE):
            for x in range(SIZE):
                for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    neighbour = plane[min(max(y + dy, 0), SIZE - 1), min(max(x + dx, 0), SIZE - 1)]
                    contrast += (plane[y, x] - neighbour) ** 2
    contrast /= 4 * (SIZE - 2) ** 2 + 3 * 4 * (SIZE - 2) + 8
    measured = scores(picture, SIZE)[0]
    assert measured[:3].tolist() == pytest.approx([colorfulness, brightness, contrast], rel=1e-5)


def test_temperature_against_skimage_and_mccamy(picture: Tensor) -> None:
    linear = srgb_to_linear(picture).mean((2, 3))
    # rgb2xyz undoes the sRGB curve itself, so it is handed the curve's image of the mean
    xyz = rgb2xyz(linear_to_srgb(linear).numpy()[0])
    x, y = xyz[0] / xyz.sum(), xyz[1] / xyz.sum()
    n = (x - 0.3320) / (0.1858 - y)
    assert float(scores(picture, SIZE)[0, 3]) == pytest.approx(
        1e6 / (449 * n**3 + 3525 * n**2 + 6823.3 * n + 5520.33), rel=1e-3
    )


def test_grey_is_d65_and_warmer_is_larger() -> None:
    grey = torch.full((1, 3, 8, 8), 0.5)
    assert 1e6 / float(scores(grey, 8)[0, 3]) == pytest.approx(6504, abs=5)
    balance = torch.linspace(-0.45, 0.45, 31)[:, None, None, None]
    tint = torch.tensor([1.0, 0.0, -1.0])[None, :, None, None]
    mired = scores((0.5 + balance * tint).expand(-1, -1, 8, 8), 8)[:, 3]
    assert (mired.diff() > 0).all()


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0, -0.5, 1.7])
def test_gradients_stay_finite(level: float) -> None:
    picture = torch.full((1, 3, 8, 8), level, requires_grad=True)
    scores(soft_clamp(picture), 8).sum().backward()
    assert picture.grad is not None and torch.isfinite(picture.grad).all()


def test_soft_clamp_is_the_identity_inside() -> None:
    inside = torch.linspace(0.1, 0.9, 50)
    assert torch.allclose(soft_clamp(inside), inside, atol=2e-4)
    assert float(soft_clamp(torch.tensor(9.0))) == 1 and float(soft_clamp(torch.tensor(-9.0))) == 0


def test_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\(N,3,H,W\)"):
        scores(torch.zeros(3, 8, 8))


def test_srgb_round_trip() -> None:
    ramp = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert torch.allclose(linear_to_srgb(srgb_to_linear(ramp)), ramp, atol=1e-6)


# the stage


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A decoded corpus of four photos, the first two for training, and the table its maker foretells."""
    monkeypatch.chdir(tmp_path)
    fake_chain.build(tmp_path, "fivek")
    manifest = pd.read_parquet("work/decode/fivek/manifest.parquet")
    manifest.loc[:1, "split"] = "train"
    write_table(tmp_path / "work/decode/fivek/manifest.parquet", manifest)
    return manifest, pd.read_parquet("work/attributes/fivek/attributes.parquet")


def test_the_table_has_scores_c_and_the_facts_of_each_photo(here) -> None:
    manifest, foretold = here
    attributes.run(fake_chain.params(runtime={"threads": 1}), "fivek")
    table = pd.read_parquet("work/attributes/fivek/attributes.parquet")
    facts = ["split", "group", "licence", "camera", "categories"]
    numbers = [f"{kind}_{name}" for kind in ("score", "c") for name in ATTRIBUTES]
    assert list(table.columns) == ["photo_id", "expert", *facts, *numbers]
    usable = manifest[manifest["status"] == "ok"].set_index("photo_id")
    assert table["photo_id"].value_counts().to_dict() == dict.fromkeys(usable.index, 3)
    for name in facts:
        assert usable[name].nunique() > 1 and (table[name] == table["photo_id"].map(usable[name])).all()
    # the pictures went through 16-bit files
    assert table[numbers].to_numpy() == pytest.approx(foretold[numbers].to_numpy(), rel=2e-3, abs=2e-3)


def test_without_training_photos_it_says_so(here) -> None:
    manifest, _ = here
    manifest.assign(split="test").to_parquet("work/decode/fivek/manifest.parquet", index=False)
    with pytest.raises(UserError, match="fivek has no usable train photos"):
        attributes.run(fake_chain.params(), "fivek")
