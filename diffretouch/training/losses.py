"""The control loss L_cl in its named variants (METHOD section 3); scores (N,4), c (N,4), half-ranges (N,4).

`scale` is the experts' mean half-range over the training photos (4,).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

SMALLEST_HALF = 0.25
"""A photo's half-range counts as this share of the mean at least: the smallest are the noisiest."""


def published(
    own: Tensor, other_noise: Tensor, opposite: Tensor, condition: Tensor, scale: Tensor, tau: float
) -> Tensor:
    """Sum over c_i != 0 of -log of the softmax share of D+ (same c, other noise) against D- (same noise, -c): (N,)."""
    near = -(own - other_noise).abs() / scale / tau
    far = -(own - opposite).abs() / scale / tau
    contrast = torch.nn.functional.softplus(far - near)
    return (contrast * (condition != 0)).sum(1)


def ours(
    measured: tuple[Tensor, Tensor],
    condition: tuple[Tensor, Tensor],
    mid: Tensor,
    half: Tensor,
    noticeable: Tensor,
    scale: Tensor,
    difference: float,
) -> Tensor:
    """Two branches of one photo and noise, D(c) and D(c'), against the scores c and c' ask for; signed: (N,).

    Where they lie: each branch's distance from mid + c half, in units of `scale`. How they differ, `difference` times:
    s(D(c')) - s(D(c)) against (c' - c) half, in the photo's own half-ranges; what is hard to know, the middle, cancels
    there, and small ranges count as much as large ones, as in the slope that judges a slider. Between D(c) and D(-c)
    it is a margin of 2 |c_i| half-ranges that can neither flip its sign nor saturate. Huber with its knee at a half;
    attributes on which the photo's experts agree (not `noticeable`) are free.
    """
    asked = tuple(mid + c * half for c in condition)
    apart = [_huber((s - wanted) / scale) for s, wanted in zip(measured, asked, strict=True)]
    moved, wanted = measured[1] - measured[0], asked[1] - asked[0]
    along = _huber((moved - wanted) / torch.maximum(half, SMALLEST_HALF * scale))
    return (((apart[0] + apart[1]) / 2 + difference * along) * noticeable).sum(1)


def _huber(error: Tensor) -> Tensor:
    return huber_loss(error, torch.zeros_like(error), delta=0.5, reduction="none")


def draw_conditions(count: int, draw: torch.Generator) -> Tensor:
    """Conditions to practise control on, (count,4) in [-1,1]: half of them along a single axis, half anywhere."""
    anywhere = torch.rand(count, 4, generator=draw) * 2 - 1
    axis = torch.nn.functional.one_hot(torch.randint(4, (count,), generator=draw), 4)
    single = torch.rand(count, 1, generator=draw) < 0.5
    return torch.where(single, anywhere * axis, anywhere)
