"""Sliders of a trained model: what they move by hand, and what untangles them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffretouch.attributes import scores
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import new_autoencoder, new_pipeline
from diffretouch.seeds import generator
from diffretouch.training.data import NAMES, GroundTruths, unit
from diffretouch.training.sliders import experts_correlation, mix_sliders, untangling
from diffretouch.training.validation import responses
from tests.test_model import tiny_train
from tests.test_training import ground_truths

MOVED = torch.tensor(
    [[0.7, 0.14, 0.08, -0.03], [0.09, 1.0, -0.03, 0.01], [0.08, -0.03, 0.8, 0.05], [0.06, -0.13, -0.04, 0.9]]
)
"""Four sliders with what they move, much like a trained model's."""
UNTIED = torch.eye(4)
"""Experts who tie no two attributes together."""


def pipeline(gain: float = 1.0) -> RetouchPipeline:
    """Away from the identity, so that c shows; blind with a gain of 0."""
    train = tiny_train()
    pipe = new_pipeline(train, new_autoencoder(train.autoencoder), "fixed_small", seed=1)
    nn.init.normal_(pipe.grid_head.layers[-1].weight, std=0.3, generator=generator("w"))
    pipe.register_to_config(condition_gain=gain)
    return pipe


def by_hand(pipe: RetouchPipeline, truths: GroundTruths, photo: int, seed: int) -> Tensor:
    """(4 sliders, 4 attributes), one picture at a time."""
    out = torch.zeros(4, 4)
    for slider in range(4):
        ends = []
        for end in (1.0, -1.0):
            c = torch.zeros(1, 4)
            c[0, slider] = end
            noise = [generator(seed, "axis", photo)]
            ends.append(scores(pipe(unit(truths.photos[photo : photo + 1]), c, generator=noise).images[0][None], 16)[0])
        out[slider] = (ends[0] - ends[1]) / 2 / truths.half[photo]
    return out


def test_what_each_slider_moves_by_a_loop() -> None:
    truths, pipe = ground_truths(), pipeline(40.0)
    noticeable = torch.ones(3, 4, dtype=torch.bool)
    noticeable[1, 2] = False
    found = responses(pipe, unit(truths.photos), truths.half, noticeable, seed=5)
    for photo in range(3):
        expected = by_hand(pipe, truths, photo, 5)
        if photo == 1:
            expected[2, :], expected[:, 2] = torch.nan, torch.nan
        torch.testing.assert_close(found[photo], expected, rtol=1e-3, atol=1e-4, equal_nan=True)


def test_the_experts_correlation_by_hand() -> None:
    draw = generator("experts")
    s, mid, half = (
        torch.rand(3, 5, 4, generator=draw),
        torch.rand(3, 4, generator=draw),
        1 + torch.rand(3, 4, generator=draw),
    )
    noticeable = torch.ones(3, 4, dtype=torch.bool)
    noticeable[1, 2], noticeable[:, 3] = False, False
    found = experts_correlation(s, mid, half, noticeable)
    for one in range(3):
        for other in range(3):
            photos = [v for v in range(3) if noticeable[v, one] and noticeable[v, other]]
            columns = [
                [float((s[v, k, i] - mid[v, i]) / half[v, i]) for v in photos for k in range(5)] for i in (one, other)
            ]
            assert found[one, other].item() == pytest.approx(np.corrcoef(columns)[0, 1], abs=1e-6)
    assert found[3].isnan().all() and found[:, 3].isnan().all()


def test_untangled_each_slider_moves_what_it_moved_of_its_own_and_nothing_else() -> None:
    mixing, works = untangling(MOVED, UNTIED, 1.0)
    assert all(works)
    # c becomes c x mixing, and that moves the scores by itself x MOVED
    torch.testing.assert_close(mixing @ MOVED, MOVED.diagonal().diag(), rtol=0, atol=1e-6)
    torch.testing.assert_close(untangling(MOVED.diagonal().diag(), UNTIED, 1.0)[0], torch.eye(4))


def test_sliders_may_drag_others_along_as_far_as_the_experts_tie_them_together() -> None:
    tied = torch.full((4, 4), torch.nan)
    tied[0] = torch.tensor([1.0, 0.6, 0.05, 0.3])
    tied[3, 1] = -0.1
    mixing, _works = untangling(MOVED, tied, 1.2)
    wanted = 1.2 * MOVED.diagonal().diag()
    wanted[0, 1] = 1.2 * 0.14  # less than theirs: as it was
    wanted[0, 2] = 0.05  # further than theirs: as theirs
    wanted[0, 3] = 0.0  # the other way round than theirs: not at all
    wanted[3, 1] = -0.1
    torch.testing.assert_close(mixing @ MOVED, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("slider", "row", "works"),
    [
        (0, [0.2, 0.05, 0.05, 0.0], False),
        (0, [0.26, 0.05, 0.05, 0.0], True),
        (1, [0.0, -0.8, 0.0, 0.1], False),
        (2, [0.0, 0.0, float("nan"), 0.0], False),
        (3, [-0.3, 0.3, -0.01, 0.85], False),
        (3, [-0.3, 0.3, -0.01, 0.89], True),
        (3, [0.01, 0.01, 0.0, 0.03], False),
    ],
    ids=["weak", "just enough", "the wrong way", "unknown", "tangled", "tangled less", "as good as none"],
)
def test_a_slider_that_hardly_works_stays_as_it_is_and_the_others_are_set_right(
    slider: int, row: list[float], works: bool
) -> None:
    moved = MOVED.clone()
    moved[slider] = torch.tensor(row)
    mixing, found = untangling(moved, UNTIED, 1.5)
    assert found == [works or other != slider for other in range(4)]
    well = [other for other in range(4) if found[other]]
    among = (mixing @ moved.nan_to_num())[well][:, well]
    torch.testing.assert_close(among, 1.5 * moved.diagonal()[well].diag(), rtol=0, atol=1e-6)
    if not works:
        alone = torch.eye(4)[slider]
        assert torch.equal(mixing[slider], alone) and torch.equal(mixing[:, slider], alone)
    assert mixing.abs().max() < 2.5  # nothing is asked of the network that lies far outside what it was trained on


def test_sliders_of_which_none_works_stay_as_they_are() -> None:
    mixing, works = untangling(torch.full((4, 4), torch.nan), UNTIED, 1.5)
    assert torch.equal(mixing, torch.eye(4)) and not any(works)


def test_what_is_unknown_of_others_counts_as_nothing() -> None:
    moved = MOVED.diagonal().diag()
    moved[0, 3] = torch.nan
    torch.testing.assert_close(untangling(moved, UNTIED, 1.0)[0], torch.eye(4))


def dragging(
    _pipe: RetouchPipeline, seen: Tensor, c: Tensor, _calls: int, _last: int, _noise: object
) -> tuple[Tensor, Tensor]:
    """In place of a network: saturation, brightness, contrast and warmth as grids, each dragging the others along."""
    saturation, brightness, contrast, warmth = (c * torch.tensor([0.3, 0.06, 0.3, 0.06])).unbind(1)
    saturation, contrast = saturation - 0.9 * contrast, contrast - 0.6 * saturation
    grey = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    matrix = torch.eye(3) + saturation[:, None, None] * (torch.eye(3) - grey)
    gains = 1 + torch.stack([contrast + warmth, contrast, contrast - warmth], 1)
    offset = (brightness - 0.3 * contrast)[:, None, None].expand(-1, 3, 1)
    grid = torch.cat([gains[:, :, None] * matrix, offset], 2).flatten(1)[:, :, None, None, None]
    return grid.expand(-1, -1, 8, 2, 2), seen


def test_sliders_that_drag_others_along_are_set_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RetouchPipeline, "denoise", dragging)
    pipe, every = pipeline(), torch.ones(3, 4, dtype=torch.bool)
    half = torch.tensor([0.05, 0.08, 0.003, 30.0]).expand(3, 4)
    truths = dataclasses.replace(ground_truths(), half=half)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)  # experts who tie nothing together
    truths = dataclasses.replace(truths, scores=truths.mid[:, None] + half[:, None] * corners)
    settings = tiny_train().model_copy(update={"slider_photos": 9, "slider_reach": 0.5, "views": 1})

    def moved() -> Tensor:
        return responses(pipe, unit(truths.photos), truths.half, every, settings.seed).mean(0)

    before = moved()
    mix_sliders(pipe, truths, every, settings)
    assert "untangled, times 0.5\n" in capsys.readouterr().err
    after, own = moved() / before.diagonal(), before / before.diagonal()
    torch.testing.assert_close(after.diagonal(), torch.full((4,), 0.5), rtol=0, atol=0.02)
    dragged = [(matrix - matrix.diagonal().diag()).abs().max() for matrix in (own / 2, after)]
    assert dragged[1] < dragged[0] / 5
    # of two views a photo, the first, whole one counts
    twice = torch.tensor([0, 2, 1, 0, 2, 1])
    views = GroundTruths(*(getattr(truths, name)[twice] for name in NAMES))
    mixing, whole = pipe.config.slider_mixing, torch.ones(6, 4, dtype=torch.bool)
    mix_sliders(pipe, views, whole, settings.model_copy(update={"views": 2}))
    assert "measuring the sliders: 3/3" in capsys.readouterr().err
    torch.testing.assert_close(torch.tensor(pipe.config.slider_mixing), torch.tensor(mixing), rtol=0, atol=2e-4)


def test_a_model_that_does_not_hear_c_or_asks_for_no_photos_is_left_as_it_is() -> None:
    truths, every, train = ground_truths(), torch.ones(3, 4, dtype=torch.bool), tiny_train()
    for gain, photos in ((0.0, 3), (1.0, 0)):
        pipe = pipeline(gain)
        mix_sliders(pipe, truths, every, train.model_copy(update={"slider_photos": photos}))
        assert pipe.config.slider_mixing is None
