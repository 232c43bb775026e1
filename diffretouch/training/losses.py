"""The control loss L_cl in its named variants (Duan 2025, and ours); scores (N,4), c (N,4), half-ranges (N,4).

`scale` is the experts' mean half-range over the training photos (4,).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss


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

    Their scores are asked to be mid + c half and mid + c' half. What that asks of the two together and of the step
    between them are judged apart: where their average lies, and, `difference` times, how far s(D(c')) - s(D(c)) is from
    (c' - c) half; each in units of `scale`, Huber with its knee at a half. The middle, which is hard to know from a
    photo, is missed by half a range or more at first: were each branch judged for itself, both would be pulled the
    same way by the same flat slope, and nothing would part them. Between D(c) and D(-c) the second part is a margin of
    2 |c_i| half-ranges that can neither flip its sign nor saturate. Attributes on which the photo's experts agree (not
    `noticeable`) are free.
    """
    asked = tuple(mid + c * half for c in condition)
    one, other = ((s - wanted) / scale for s, wanted in zip(measured, asked, strict=True))
    return ((_huber((one + other) / 2) + difference * _huber(other - one)) * noticeable).sum(1)


def _huber(error: Tensor) -> Tensor:
    return huber_loss(error, torch.zeros_like(error), delta=0.5, reduction="none")


def draw_conditions(count: int, draw: torch.Generator) -> Tensor:
    """Conditions to practise control on, (count,4) in [-1,1]: half of them along a single axis, half anywhere."""
    anywhere = torch.rand(count, 4, generator=draw) * 2 - 1
    axis = torch.nn.functional.one_hot(torch.randint(4, (count,), generator=draw), 4)
    single = torch.rand(count, 1, generator=draw) < 0.5
    return torch.where(single, anywhere * axis, anywhere)
