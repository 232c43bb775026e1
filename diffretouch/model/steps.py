"""Where a sampling starts, and the timesteps it calls the U-Net at."""

from __future__ import annotations

import torch
from torch import Tensor

from diffretouch.config import FIRST_TIMESTEP


def timesteps(calls: int, last: int) -> list[int]:
    """`calls` timesteps, evenly spaced from 999 down to `last`; one call is made at `last` itself."""
    if calls == 1:
        return [last]
    return [round(FIRST_TIMESTEP + (last - FIRST_TIMESTEP) * call / (calls - 1)) for call in range(calls)]


def starting_noise(
    shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator] | None, like: Tensor
) -> Tensor:
    """Standard normal noise of `like`'s type and device, drawn on the CPU by one generator, or by one a photo."""
    if not isinstance(generator, list):
        return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for {shape[0]} photos: give one, or one a photo")
    return torch.cat([torch.randn((1, *shape[1:]), generator=one, dtype=like.dtype) for one in generator]).to(
        like.device
    )
