"""The condition c of a ground truth: where an expert's result lies in the range the experts span.

K experts of one photo, attributes in the order of `diffretouch.attributes.ATTRIBUTES`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Attributes


def photo_range(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and half-range of one photo's experts: (K,4) -> (4,), (4,); ValueError for a single expert."""
    if scores.ndim != 2 or scores.shape[0] < 2:
        raise ValueError(f"a range needs two experts at least: expected (K,4) with K >= 2, got {tuple(scores.shape)}")
    high, low = scores.amax(0), scores.amin(0)
    return (high + low) / 2, (high - low) / 2


def just_noticeable(mid: Tensor, settings: Attributes) -> Tensor:
    """Half-ranges under which experts count as agreeing, absolute: mid (...,4) -> (...,4); contrast's is a share."""
    limits = torch.tensor([getattr(settings.just_noticeable, a) for a in ATTRIBUTES], dtype=mid.dtype)
    relative = torch.tensor([a == "contrast" for a in ATTRIBUTES])
    return torch.where(relative, limits * mid, limits)


def expert_range(scores: Tensor, just_noticeable: Tensor) -> Tensor:
    """(s - mid) / half: (K,4), (4,) absolute half-ranges -> (K,4) in [-1,1]; 0 for all where half is under them."""
    mid, half = photo_range(scores)
    c = (scores - mid) / half.clamp(min=torch.finfo(scores.dtype).tiny)
    return torch.where(half < just_noticeable, torch.zeros_like(c), c).clamp(-1, 1)


def ternary(scores: Tensor, just_noticeable: Tensor) -> Tensor:
    """+1 for the largest score of the photo, -1 for the smallest, else 0; shapes as `expert_range`."""
    c = (scores == scores.amax(0)).to(scores.dtype) - (scores == scores.amin(0)).to(scores.dtype)
    return torch.where(photo_range(scores)[1] < just_noticeable, torch.zeros_like(c), c)


def deviation(scores: Tensor, just_noticeable: Tensor) -> Tensor:
    """Signed deviation from the experts' mean over the largest deviation; shapes as `expert_range`."""
    away = scores - scores.mean(0)
    c = away / away.abs().amax(0).clamp(min=torch.finfo(scores.dtype).tiny)
    return torch.where(photo_range(scores)[1] < just_noticeable, torch.zeros_like(c), c)


def quantile(scores: Tensor, reference: Tensor) -> Tensor:
    """Rank of each score in the whole training set, mapped to [-1,1]: (K,4), (M,4) -> (K,4). Works for one expert."""
    below = (reference[None] < scores[:, None]).sum(1) + 0.5 * (reference[None] == scores[:, None]).sum(1)
    return (2 * below / reference.shape[0] - 1).to(scores.dtype)


PER_PHOTO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "expert_range": expert_range,
    "ternary": ternary,
    "deviation": deviation,
}


def conditions(scores: Tensor, training: Tensor, settings: Attributes) -> Tensor:
    """c of one photo's experts by the configured scheme: scores (K,4), those of the training set (M,4) -> (K,4)."""
    if settings.scheme == "quantile":
        return quantile(scores, training)
    return PER_PHOTO[settings.scheme](scores, just_noticeable(photo_range(scores)[0], settings))
