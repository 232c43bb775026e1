"""The control loss L_cl in its named variants (METHOD section 3); scores (N,4), c (N,4), half-ranges (N,4).

All compare scores in units of `scale`, the experts' mean half-range over the training photos (4,).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss


def published(
    own: Tensor, other_noise: Tensor, opposite: Tensor, condition: Tensor, scale: Tensor, tau: float
) -> Tensor:
    """Sum over c_i != 0 of -log of the softmax share of D+ (same c, other noise) against D- (same noise, -c); mean."""
    near = -(own - other_noise).abs() / scale / tau
    far = -(own - opposite).abs() / scale / tau
    contrast = torch.nn.functional.softplus(far - near)
    return (contrast * (condition != 0)).sum(1).mean()


def ours(measured: Tensor, condition: Tensor, mid: Tensor, half: Tensor, noticeable: Tensor, scale: Tensor) -> Tensor:
    """Distance of measured scores from the ones c asks for, mid + c half: signed, and anchored on the photo's experts.

    Between D(c) and D(-c) this is a margin of 2 |c_i| half-ranges that can neither flip its sign nor saturate. Huber
    with its knee at half a mean half-range; attributes on which the photo's experts agree (not `noticeable`) are free.
    """
    error = (measured - (mid + condition * half)) / scale
    penalty = huber_loss(error, torch.zeros_like(error), delta=0.5, reduction="none")
    return (penalty * noticeable).sum(1).mean()


def draw_conditions(count: int, draw: torch.Generator) -> Tensor:
    """Conditions to practise control on, (count,4) in [-1,1]: half of them along a single axis, half anywhere."""
    anywhere = torch.rand(count, 4, generator=draw) * 2 - 1
    axis = torch.nn.functional.one_hot(torch.randint(4, (count,), generator=draw), 4)
    single = torch.rand(count, 1, generator=draw) < 0.5
    return torch.where(single, anywhere * axis, anywhere)
