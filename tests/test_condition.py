"""c against hand-worked experts, and its schemes' laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffretouch.condition import conditions, deviation, expert_range, photo_range, quantile, ternary
from diffretouch.config import Attributes, load

NONE = torch.zeros(4)


def _attributes(scheme: str) -> Attributes:
    return load().attributes.model_copy(update={"scheme": scheme})


def test_expert_range_by_hand() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.0, 150.0], [0.3, 0.5, 0.0, 170.0], [0.2, 0.8, 0.0, 180.0]])
    c = expert_range(scores, torch.tensor([0.01, 0.01, 0.01, 50.0]))
    assert torch.allclose(c[:, 0], torch.tensor([-1.0, 1.0, 0.0]), atol=1e-6)
    assert torch.allclose(c[:, 1], torch.tensor([-1.0, -0.5, 1.0]), atol=1e-6)
    assert not c[:, 2].any() and not c[:, 3].any()


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=2, max_size=6))
def test_expert_range_spans_one(rows: list[list[float]]) -> None:
    scores = torch.tensor(rows)
    c = expert_range(scores, torch.full((4,), 1e-3))
    differ = photo_range(scores)[1] >= 1e-3
    assert (c.abs() <= 1).all()
    assert torch.allclose(c.amax(0)[differ], torch.ones(int(differ.sum()))) and not c[:, ~differ].any()


def test_other_schemes() -> None:
    scores = torch.tensor([[1.0], [2.0], [6.0]]).expand(3, 4)
    assert ternary(scores, NONE)[:, 0].tolist() == [-1, 0, 1]
    assert deviation(scores, NONE)[:, 0].tolist() == pytest.approx([-2 / 3, -1 / 3, 1])
    assert quantile(scores, torch.arange(10.0)[:, None].expand(10, 4))[:, 0].tolist() == pytest.approx(
        [-0.7, -0.5, 0.3]
    )


def test_contrast_threshold_is_a_share_of_the_middle() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.100, 150.0], [0.3, 0.5, 0.104, 170.0]])
    assert not conditions(scores, scores, _attributes("expert_range"))[:, 2].any()
    scores[1, 2] = 0.12
    assert conditions(scores, scores, _attributes("expert_range"))[:, 2].tolist() == pytest.approx([-1, 1])


def test_one_expert_is_refused() -> None:
    with pytest.raises(ValueError, match="two experts"):
        expert_range(torch.ones(1, 4), NONE)
