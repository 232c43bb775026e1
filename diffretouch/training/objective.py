"""What the training loop asks of whatever it trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """The ground truths [first, last) of the `total` that a step draws.

    Every process and every accumulated batch has a part of its own. All random numbers of a step are drawn for `total`
    ground truths and then sliced, so however a step is cut into parts, it is the same step.
    """

    step: int
    first: int
    last: int
    total: int

    def of(self, drawn: Tensor) -> Tensor:
        """This part of something drawn for all of the step's ground truths: (total,...) -> (last-first,...)."""
        return drawn[self.first : self.last]


class Objective(Protocol):
    """The losses of one kind of network."""

    def losses(self, net: nn.Module, part: Part) -> dict[str, Tensor]:
        """Scalars that are means over the part's ground truths: `loss` is minimised, all are shown."""


def parts(step: int, batch: int, accumulation: int, rank: int, processes: int) -> Iterator[Part]:
    """The parts of one step that process `rank` of `processes` takes, `batch` ground truths each."""
    total = batch * accumulation * processes
    for turn in range(accumulation):
        first = (turn * processes + rank) * batch
        yield Part(step, first, first + batch, total)
