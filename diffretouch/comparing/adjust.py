"""Four global adjustments with which any result can be varied: a baseline for variety, as strong as it honestly can be.

Exposure and colour temperature are gains in linear light, contrast stretches sRGB values about the picture's mean,
saturation stretches them about each pixel's grey: what four sliders of a photo editor do, the same for every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.color import linear_to_srgb, srgb_to_linear

STEPS = 30
CLOSE = 1e-9
"""In units of `unit`: nearer than this no step is needed."""
ROUNDS = 3
SIDE = 64
"""Of the square on which adjustments are solved; larger ones cost minutes a photo and tell nothing more."""
STEP = 1e-3
"""Of the finite differences, in each adjustment's own unit."""
LIMIT = 3.0
"""No adjustment goes further: eight times the light, twenty times the contrast."""
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Solved:
    """Adjustments and what they reach."""

    values: Tensor
    """(N,4) float64: saturation (log), exposure (stops), contrast (log), warmth (log of red over blue, halved)."""
    missed: Tensor
    """(N,4) scores reached minus scores asked for, in units of `unit`."""


def adjust(picture: Tensor, values: Tensor, pivot: Tensor) -> Tensor:
    """sRGB (N,3,H,W) in [0,1], (N,4) adjustments, (N,1,1,1) middle that contrast leaves alone -> (N,3,H,W) in [0,1]."""
    saturation, exposure, contrast, warmth = (value[:, None, None, None] for value in values.to(picture).unbind(1))
    gains = torch.cat([warmth.exp(), torch.ones_like(warmth), (-warmth).exp()], dim=1)
    out = linear_to_srgb((srgb_to_linear(picture) * 2**exposure * gains).clamp(0, 1))
    out = pivot.to(picture) + contrast.exp() * (out - pivot.to(picture))
    grey = (out * out.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return (grey + saturation.exp() * (out - grey)).clamp(0, 1)


def pivot_of(picture: Tensor) -> Tensor:
    """The mean of each picture (N,3,H,W): (N,1,1,1)."""
    return picture.mean((1, 2, 3), keepdim=True)


def vary(picture: Tensor, wanted: Tensor, unit: Tensor, size: int) -> list[Tensor]:
    """`picture` (1,3,H,W), sRGB in [0,1], adjusted so that its own scores become `wanted` (N,4): N of (3,H,W).

    Solved on a square of SIDE at most, where scoring is quick. What is clipped at full size scores a little otherwise
    there: what was missed is added to what is asked for, and it is solved again, ROUNDS times in all. A smaller square
    has other scores, contrast by a factor most of all: what moves them is asked for in its own terms.
    """
    side = min(size, SIDE)
    small = interpolate(picture, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    own, seen = scores(picture, size).double(), scores(small, side).double()
    ratio = torch.where(torch.tensor([name == "contrast" for name in ATTRIBUTES]), seen / own.clamp(min=1e-9), 1.0)
    pivot, asked = pivot_of(small), wanted.double()
    made: list[Tensor] = []
    best = torch.full((len(wanted),), torch.inf, dtype=torch.float64)
    for _ in range(ROUNDS):
        there = asked if side == size else seen + (asked - own) * ratio
        values = solve(small, there, unit * ratio[0]).values
        tried = [adjust(picture, one[None], pivot) for one in values]
        missed = torch.cat([scores(one, size) for one in tried]).double() - wanted
        error = (missed / unit).square().sum(1)
        better = error < best
        made = [new[0] if won or not made else old for new, won, old in zip(tried, better, made or tried, strict=True)]
        best, asked = torch.minimum(best, error), asked - missed
    return made


def solve(picture: Tensor, wanted: Tensor, unit: Tensor) -> Solved:
    """The adjustments that give one `picture` (1,3,S,S) the scores `wanted` (N,4), as nearly as they can.

    Levenberg-Marquardt (Marquardt 1963) on the errors in units of `unit` (4,), for all that are not there
    yet at once, by finite differences: a step is kept where it brings its picture nearer, else the damping grows.
    """
    small, size = picture.double(), picture.shape[2]
    pivot, wanted, unit = pivot_of(small), wanted.double(), unit.double()

    def miss(values: Tensor, wanted: Tensor) -> Tensor:
        parts = zip(values.split(64), wanted.split(64), strict=True)
        found = [scores(adjust(small.expand(len(part), -1, -1, -1), part, pivot), size) - goal for part, goal in parts]
        return torch.cat(found) / unit

    values = torch.zeros_like(wanted)
    error, damping = miss(values, wanted), torch.full((len(wanted), 1, 1), 1e-2, dtype=torch.float64)
    for _ in range(STEPS):
        left = (error.abs() > CLOSE).any(1).nonzero()[:, 0]
        if not len(left):
            break
        at, off, damp, goal = values[left], error[left], damping[left], wanted[left]
        nudged = (at + STEP * torch.eye(4, dtype=at.dtype)[:, None]).flatten(0, 1)
        slope = ((miss(nudged, goal.repeat(4, 1)).unflatten(0, (4, len(left))) - off) / STEP).permute(1, 2, 0)
        normal = slope.mT @ slope
        damped = normal + damp * (torch.diag_embed(normal.diagonal(dim1=1, dim2=2)) + 1e-9 * torch.eye(4))
        step = torch.linalg.solve(damped, -(slope.mT @ off[:, :, None]))[:, :, 0].clamp(-0.5, 0.5)
        tried = (at + step).clamp(-LIMIT, LIMIT)
        found = miss(tried, goal)
        better = (found.square().sum(1) < off.square().sum(1))[:, None]
        values[left], error[left] = torch.where(better, tried, at), torch.where(better, found, off)
        damping[left] = torch.where(better[:, :, None], damp / 5, damp * 4).clamp(1e-9, 1e6)
    return Solved(values, error)
