"""A convolution grown wider than its trained weights, which can learn at a rate of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


class WidenedConv(nn.Module):
    """A convolution whose trained and new weights are parameters of their own, so that each can have its own rate.

    One rate for all would let the trained weights drift as fast as the new ones; scaling gradients does nothing under
    Adam, which divides the scale out again. It is saved and loaded under the names of the plain convolution.
    """

    def __init__(self, conv: nn.Conv2d, trained: int, dim: int) -> None:
        """`conv` holds all weights; along `dim` (0: outputs, 1: inputs) its first `trained` channels are old."""
        super().__init__()
        assert conv.bias is not None
        self.trained, self.dim, self.padding = trained, dim, conv.padding
        for name, whole in {"weight": conv.weight, "bias": conv.bias}.items():
            for part, value in self._parts(name, whole.detach()).items():
                self.register_parameter(part, nn.Parameter(value.clone()))

    def _parts(self, name: str, whole: Tensor) -> dict[str, Tensor]:
        """`weight` or `bias` in its trained and new parts; new inputs bring no bias."""
        if name == "bias" and self.dim == 1:
            return {"trained_bias": whole}
        old, new = whole.split([self.trained, whole.shape[self.dim] - self.trained], self.dim)
        return {f"trained_{name}": old, f"new_{name}": new}

    def _whole(self, name: str) -> Tensor:
        parts = [part for kind in ("trained", "new") if (part := getattr(self, f"{kind}_{name}", None)) is not None]
        return torch.cat(parts, self.dim) if len(parts) == 2 else parts[0]

    @property
    def weight(self) -> Tensor:
        """(outputs, inputs, 3, 3), old channels first."""
        return self._whole("weight")

    @property
    def bias(self) -> Tensor:
        """(outputs,), old channels first."""
        return self._whole("bias")

    def forward(self, x: Tensor) -> Tensor:
        """(N,inputs,h,w) -> (N,outputs,h,w)."""
        return conv2d(x, self.weight, self.bias, padding=self.padding)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name in ("weight", "bias"):
            destination[prefix + name] = self._whole(name) if keep_vars else self._whole(name).detach()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        whole = {name: state_dict[prefix + name] for name in ("weight", "bias") if prefix + name in state_dict}
        rest_of_it = {key: value for key, value in state_dict.items() if key.removeprefix(prefix) not in whole}
        parts = {prefix + part: v for name, value in whole.items() for part, v in self._parts(name, value).items()}
        super()._load_from_state_dict(rest_of_it | parts, prefix, *rest)
