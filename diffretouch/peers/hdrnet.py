"""HDRNet: a small network sees the photo and predicts the affine bilateral grid (Gharbi et al., SIGGRAPH 2017).

482,077 parameters; the published network has 482 K: ours is the same but for its guide, which is `model.grid`'s
(109 parameters, where theirs weighs the three curves: 112). As in their code's default, nothing is
normalised by batch. Differences: the first grid leaves the photo as it is (theirs is random); grid cells lie
as `bilateral_grid` says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffretouch.bilateral_grid import identity_affine, slice_and_apply
from diffretouch.model.grid import Guide
from diffretouch.peers.peer import Peer, in_bands, seen

DEPTH = 8
"""Guide bins; also the unit in which the paper counts channels."""


class HDRNet(Peer):
    """Photo -> grid (N,12,8,16,16) and guide -> photo."""

    def __init__(self) -> None:
        super().__init__()
        wide = 8 * DEPTH
        self.splat = nn.Sequential(  # 256 x 256 -> 16 x 16
            *_halved(3, DEPTH),
            *_halved(DEPTH, 2 * DEPTH),
            *_halved(2 * DEPTH, 4 * DEPTH),
            *_halved(4 * DEPTH, wide),
        )
        self.whole = nn.Sequential(  # one vector for the photo as a whole
            *_halved(wide, wide),
            *_halved(wide, wide),
            nn.Flatten(),
            nn.Linear(wide * 4 * 4, 4 * wide),
            nn.ReLU(),
            nn.Linear(4 * wide, 2 * wide),
            nn.ReLU(),
            nn.Linear(2 * wide, wide),
        )
        self.local = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        )
        self.predict = nn.Conv2d(wide, 12 * DEPTH, 1)
        self.guide = Guide()
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.predict.weight)
        assert self.predict.bias is not None
        with torch.no_grad():
            self.predict.bias.copy_(identity_affine().repeat_interleave(DEPTH))

    def grid(self, photo: Tensor) -> Tensor:
        """sRGB (N,3,H,W) in [0,1] -> (N,12,8,16,16)."""
        features = self.splat(seen(photo, self.detail))
        fused = (self.local(features) + self.whole(features)[:, :, None, None]).relu()
        return self.predict(fused).unflatten(1, (12, DEPTH))

    def forward(self, photo: Tensor) -> Tensor:
        """sRGB (N,3,H,W) in [0,1] -> (N,3,H,W), not clamped."""
        return slice_and_apply(self.grid(photo), in_bands(self.guide, photo), photo)


def _halved(channels: int, out: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.ReLU()
