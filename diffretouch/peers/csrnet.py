"""CSRNet: a three-layer perceptron on every pixel, modulated by the photo as a whole (He et al., ECCV 2020).

36,489 parameters, the published 37 K. Difference: the paper's condition network sees the photo itself (500 pixels
wide), ours sees it squared to 256, so that the retouch does not depend on the photo's size.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from diffretouch.peers.peer import Peer, in_bands, seen

CONDITION = 32
WIDTHS = (3, 64, 64, 3)


class CSRNet(Peer):
    """Photo -> condition vector -> scale and shift of each layer -> pixels, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = nn.Sequential(
            nn.Conv2d(3, CONDITION, 7, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(CONDITION, CONDITION, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(CONDITION, CONDITION, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(WIDTHS))
        self.modulations = nn.ModuleList(nn.Linear(CONDITION, 2 * width) for width in WIDTHS[1:])

    def forward(self, photo: Tensor) -> Tensor:
        """sRGB (N,3,H,W) in [0,1] -> (N,3,H,W), not clamped."""
        condition = self.condition(seen(photo, self.detail))
        scales_shifts = [modulation(condition)[:, :, None, None].chunk(2, dim=1) for modulation in self.modulations]

        def pixelwise(x: Tensor) -> Tensor:
            for place, (layer, (scale, shift)) in enumerate(zip(self.layers, scales_shifts, strict=True)):
                x = layer(x if place == 0 else x.relu())
                # global feature modulation, beside the feature itself: x + (scale x + shift)
                x = torch.addcmul(shift, x, 1 + scale)
            return x

        return in_bands(pixelwise, photo)
