"""How a peer learns: the same draws of ground truths as our own model's training, and one mean squared error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffretouch.config import Train
from diffretouch.devices import moved
from diffretouch.peers.peer import Peer
from diffretouch.seeds import generator
from diffretouch.training.augment import expose, gains, mirror
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.objective import Part


@dataclass(frozen=True)
class PeerObjective:
    """Losses of a peer on ground truths of all experts, or of one.

    The error is the mean square, as HDRNet's and 3D-LUT's papers have it; CSRNet's takes the mean absolute error.
    """

    peer: Peer
    data: GroundTruths
    settings: Train
    expert: int | None = None
    """The one expert to learn from; None draws one for each ground truth."""

    def __post_init__(self) -> None:
        if self.expert is not None and not 0 <= self.expert < self.data.experts:
            raise ValueError(f"expert {self.expert} of ground truths by {self.data.experts}: count from 0, or None")

    def losses(self, net: nn.Module, part: Part) -> dict[str, Tensor]:
        """pixel (pictures in [-1,1]) and regulariser with their sum `loss`; `net` is the peer, wrapped or not."""
        settings, peer, total = self.settings, self.peer, part.total
        device = next(peer.parameters()).device
        draw = generator(settings.seed, "train", part.step)
        # in the order of our own model's training: a step of the same size sees the same photos
        view = torch.randint(len(self.data), (total,), generator=draw)
        expert = torch.randint(self.data.experts, (total,), generator=draw)
        mirrored = torch.rand(total, 1, 1, 1, generator=draw) < (0.5 if settings.flips else 0.0)
        errors = gains(total, settings.input_exposure, settings.input_white_balance, draw)
        chances = [torch.rand(total, *peer.chances, generator=draw)] if peer.chances else []
        if self.expert is not None:
            expert = torch.full_like(expert, self.expert)

        where = part.of(view), part.of(expert)
        photo, result = (unit(moved(x, device)) for x in (self.data.photos[where[0]], self.data.results[where]))
        photo, result = mirror(moved(part.of(mirrored), device), photo, result)
        if settings.input_exposure or settings.input_white_balance:
            photo = expose(photo, moved(part.of(errors), device))
        made = net(photo, *(moved(part.of(chance), device) for chance in chances))
        pixel = (2 * (made - result)).square().mean()
        # published beside errors of pictures in [0,1], a quarter of these
        regulariser = 4 * peer.regulariser()
        return {"loss": pixel + regulariser, "pixel": pixel, "regulariser": regulariser}
