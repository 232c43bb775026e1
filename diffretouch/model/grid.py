"""From U-Net features to an affine bilateral grid, and from a photo to its guide (Duan 2025, after Gharbi 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from diffretouch.bilateral_grid import identity_affine


class _FullPrecision(ModelMixin, ConfigMixin):
    """Weights that stay fp32 where a pipeline's become 16-bit: a picture's colours are no better than these."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def kept(weight: Tensor) -> Tensor:
            made = fn(weight)
            return made if made.dtype.itemsize >= weight.dtype.itemsize else weight.to(made.device)

        return super()._apply(kept, recurse)


class GridHead(_FullPrecision):
    """Features (N,4,h,w) to a grid (N,12,depth,h/4,w/4): two strided 3x3, two 1x1 convolutions; identity at first.

    `last_relu`: whether a ReLU stands between the two 1x1 convolutions; nothing published names one.
    """

    _keep_in_fp32_modules: ClassVar[list[str]] = ["layers"]

    @register_to_config
    def __init__(self, depth: int = 8, last_relu: bool = True) -> None:
        super().__init__()
        self.depth = depth
        self.layers = nn.Sequential(
            nn.Conv2d(4, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 1),
            nn.ReLU() if last_relu else nn.Identity(),
            nn.Conv2d(64, 12 * depth, 1),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(identity_affine().repeat_interleave(depth))

    def forward(self, features: Tensor) -> Tensor:
        """(N,4,h,w) -> (N,12,depth,h/4,w/4)."""
        return self.layers(features).unflatten(1, (12, self.depth))


class Guide(_FullPrecision):
    """A photo's guide: a colour matrix, one piecewise-linear curve a channel, their mean (109 parameters).

    `input_range` is "unit" for photos fed in [0,1]; "symmetric" feeds them as [-1,1], as the released weights expect.
    """

    _keep_in_fp32_modules: ClassVar[list[str]] = ["matrix", "matrix_bias", "thresholds", "slopes", "bias"]

    @register_to_config
    def __init__(self, knots: int = 16, input_range: str = "unit") -> None:
        super().__init__()
        if input_range not in ("unit", "symmetric"):
            raise ValueError(f"input_range is 'unit' or 'symmetric', got {input_range!r}")
        self.symmetric = input_range == "symmetric"
        self.matrix = nn.Parameter(torch.eye(3))
        self.matrix_bias = nn.Parameter(torch.zeros(3))
        self.thresholds = nn.Parameter((torch.arange(knots) / knots).expand(3, knots).clone())
        self.slopes = nn.Parameter(torch.eye(1, knots).expand(3, knots).clone())
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, photo: Tensor) -> Tensor:
        """sRGB in [0,1], (N,3,H,W) -> (N,1,H,W) in [0,1]."""
        x = photo * 2 - 1 if self.symmetric else photo
        x = torch.einsum("oi,nihw->nohw", self.matrix, x) + self.matrix_bias[:, None, None]
        curve = sum(
            self.slopes[:, k, None, None] * (x - self.thresholds[:, k, None, None]).relu()
            for k in range(self.thresholds.shape[1])
        )
        assert isinstance(curve, Tensor)
        return (curve.mean(1, keepdim=True) + self.bias).clamp(0, 1)
