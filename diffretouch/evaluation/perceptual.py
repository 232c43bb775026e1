"""LPIPS (Zhang et al. 2018), only where its backbone's weights are given.

The `lpips` package brings the small linear heads; the AlexNet or VGG backbone is torchvision's file, named with its
checksum in `params.yaml`. Without it there is no LPIPS: a random backbone would be another metric under that name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from diffretouch import torchvision_ops
from diffretouch.errors import UserError


class Perceptual(nn.Module):
    """LPIPS of pictures in [0,1]."""

    def __init__(self, net: str, backbone: Path, sha256: str | None) -> None:
        super().__init__()
        state = _checked(backbone, sha256)
        torchvision_ops.declare_missing()
        import lpips

        # pnet_rand only builds the shape without a download: every one of its weights is replaced below
        self.model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval().requires_grad_(False)
        _fill(self.model.net, state, backbone)

    @torch.inference_mode()
    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """(N,3,H,W), (N,3,H,W) sRGB in [0,1] -> (N,); smaller is better."""
        return self.model(_signed(image), _signed(target)).flatten()


def _signed(image: Tensor) -> Tensor:
    """[0,1] -> [-1,1], the range LPIPS was trained on; ValueError for anything else."""
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"LPIPS wants pictures in [0,1], got [{image.min():.3f}, {image.max():.3f}]")
    return image * 2 - 1


def _checked(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """The state dict in `path`, whose bytes must match `sha256`."""
    if not path.is_file():
        raise UserError(f"evaluate.lpips.backbone: {path} not found; set it to null to leave LPIPS out")
    came = hashlib.sha256(path.read_bytes()).hexdigest()
    if came != sha256:
        raise UserError(f"evaluate.lpips.sha256 is {sha256}, but {path} has {came}")
    return torch.load(path, map_location="cpu", weights_only=True)


def _fill(net: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Give every parameter of the sliced backbone (`slice2.3.weight`) torchvision's value (`features.3.weight`)."""
    wanted = {name: f"features.{name.split('.', 1)[1]}" for name in net.state_dict()}
    missing = sorted(set(wanted.values()) - state.keys())
    if missing:
        raise UserError(f"{path} is not torchvision's backbone for evaluate.lpips.net: it lacks {', '.join(missing)}")
    net.load_state_dict({name: state[source] for name, source in wanted.items()}, strict=True)
