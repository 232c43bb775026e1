"""What training does to a photo before the network sees it, and an expert's result with it."""

from __future__ import annotations

import torch
from torch import Tensor

from diffretouch.color import linear_to_srgb, srgb_to_linear


def mirror(mirrored: Tensor, *pictures: Tensor) -> tuple[Tensor, ...]:
    """Each of `pictures` (N,C,H,W), left and right swapped where `mirrored` (N,1,1,1) says so."""
    return tuple(torch.where(mirrored, picture.flip(3), picture) for picture in pictures)


def gains(count: int, stops: float, balance: float, draw: torch.Generator) -> Tensor:
    """Exposure and white-balance errors a camera might have made: `count` gains of red, green and blue, (count,3)."""
    uniform = torch.rand(count, 3, generator=draw) * 2 - 1
    red_blue = [1 + balance * uniform[:, 1:2], torch.ones(count, 1), 1 + balance * uniform[:, 2:]]
    return 2 ** (uniform[:, :1] * stops) * torch.cat(red_blue, dim=1)


def expose(photo: Tensor, factors: Tensor) -> Tensor:
    """`photo` (N,3,H,W), sRGB in [0,1], with `gains` (N,3) in linear light, clipped."""
    return linear_to_srgb((srgb_to_linear(photo) * factors[:, :, None, None]).clamp(0, 1))
