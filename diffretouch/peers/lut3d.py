"""Image-adaptive 3D lookup tables (Zeng et al., TPAMI 2020): a network weighs three learned tables of 33^3 colours.

593,516 parameters, the published 593 K. A table is (3,B,G,R): red, green, blue out at every node of blue, green, red.
Differences: the paper also adds 1e-4 of the mean squared weights to its loss (worth .003 of a picture at most); its
code smooths the outermost cells twice as strongly, and starts the last convolution so wide that the first weights are
1 +- .8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from diffretouch.peers.peer import Peer, in_bands, seen

NODES = 33
TABLES = 3
SMOOTH = 1e-4
MONOTONE = 10.0
DROPOUT = 0.5
NETWORK_SHARE = 0.05
START_GAIN = 0.05
"""Of the last convolution's Xavier width: the first weights are 1 +- .05, near the identity; at 0 two tables would
stay twins."""


class AdaptiveLut(Peer):
    """Photo -> weights (N,3) of the tables -> the photo through their sum."""

    chances = (128, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(  # 256 x 256 -> 8 x 8
            *_halved(3, 16),
            nn.InstanceNorm2d(16, affine=True),
            *_halved(16, 32),
            nn.InstanceNorm2d(32, affine=True),
            *_halved(32, 64),
            nn.InstanceNorm2d(64, affine=True),
            *_halved(64, 128),
            nn.InstanceNorm2d(128, affine=True),
            *_halved(128, 128),
        )
        self.weigh = nn.Conv2d(128, TABLES, 8)
        self.tables = nn.Parameter(torch.zeros(TABLES, 3, NODES, NODES, NODES))
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight)
        nn.init.xavier_normal_(self.weigh.weight, gain=START_GAIN)
        assert self.weigh.bias is not None
        nn.init.ones_(self.weigh.bias)
        with torch.no_grad():
            self.tables[0] = identity_table(NODES)

    def weights(self, photo: Tensor, chance: Tensor | None = None) -> Tensor:
        """sRGB (N,3,H,W) in [0,1] -> (N,3); with `chance` (N,128,8,8) in [0,1), half of the features drop out."""
        features = self.features(seen(photo, self.detail))
        if chance is not None:
            features = features * (chance >= DROPOUT) / (1 - DROPOUT)
        return self.weigh(features).flatten(1)

    def forward(self, photo: Tensor, chance: Tensor | None = None) -> Tensor:
        """sRGB (N,3,H,W) in [0,1] -> (N,3,H,W), not clamped."""
        # interpolation is linear in the table: weighing tables is weighing their results
        table = torch.einsum("nk,kcbgr->ncbgr", self.weights(photo, chance), self.tables)
        return in_bands(lambda pixels: look_up(table, pixels), photo)

    def regulariser(self) -> Tensor:
        """1e-4 smoothness + 10 monotonicity, summed over the tables."""
        return SMOOTH * roughness(self.tables) + MONOTONE * falls(self.tables)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """The tables learn at `rate`, the network at a twentieth (the paper: both at 1e-4).

        The last convolution sums 8,192 features, so a step of Adam at 2e-3 moves the tables' weights by several units.
        """
        network = [*self.features.parameters(), *self.weigh.parameters()]
        shares = (([self.tables], 1.0), (network, NETWORK_SHARE))
        return [{"params": params, "lr": rate * share, "weight_decay": 0.0} for params, share in shares]


def identity_table(nodes: int) -> Tensor:
    """The table that leaves every colour as it is: (3,nodes,nodes,nodes)."""
    blue, green, red = torch.meshgrid(*[torch.linspace(0, 1, nodes)] * 3, indexing="ij")
    return torch.stack([red, green, blue])


def look_up(table: Tensor, photo: Tensor) -> Tensor:
    """Trilinear: (N,3,B,G,R) tables, (N,3,H,W) -> (N,3,H,W); colours outside [0,1] count as the nearest inside."""
    where = photo.movedim(1, -1)[:, None] * 2 - 1
    return grid_sample(table, where, mode="bilinear", padding_mode="border", align_corners=True)[:, :, 0]


def roughness(tables: Tensor) -> Tensor:
    """R_TV: mean squared step between neighbouring nodes, summed over the three axes and K tables (K,3,B,G,R)."""
    return torch.stack([tables.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).sum() * len(tables)


def falls(tables: Tensor) -> Tensor:
    """R_m: mean step downwards (0 where a table rises) between neighbouring nodes, summed over axes and tables."""
    return torch.stack([(-tables.diff(dim=axis)).relu().mean() for axis in (2, 3, 4)]).sum() * len(tables)


def _halved(channels: int, out: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.LeakyReLU(0.2)
