"""Which c each photo is retouched with (figure 1 of Duan 2025, and the sliders)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffretouch.attributes import ATTRIBUTES
from diffretouch.seeds import generator

RANGES = {"random_0_1": (0.0, 1.0), "random_1_2": (1.0, 2.0), "random_2_3": (2.0, 3.0)}


@dataclass(frozen=True)
class Request:
    """One picture to make."""

    photo_id: str
    sweep: str
    expert: str | None
    sample: int
    condition: tuple[float, ...]
    noise: tuple[str | int, ...]
    """Name of the starting noise: points along one axis share theirs."""


def requests(
    dataset: str, photo_id: str, experts: dict[str, tuple[float, ...]], seed: int, draws: int, points: int
) -> list[Request]:
    """Every request for one photo: its experts' own c, c = 0, random c of growing size, and a walk along each axis."""

    def request(
        sweep: str, sample: int, c: tuple[float, ...], expert: str | None = None, walk: bool = False
    ) -> Request:
        noise = (seed, dataset, photo_id, sweep, *(() if walk else (expert or "", sample)))
        return Request(photo_id, sweep, expert, sample, c, noise)

    out = [request("expert", 0, c, expert) for expert, c in experts.items()]
    out.append(request("neutral", 0, (0.0,) * 4))
    for sweep, (low, high) in RANGES.items():
        for i in range(draws):
            draw = generator(seed, dataset, photo_id, sweep, i, "c")
            # rand is in [0,1): measured down from the top, the lower end stays out
            size = high - (high - low) * torch.rand(4, generator=draw, dtype=torch.float64)
            sign = torch.randint(2, (4,), generator=draw) * 2 - 1
            out.append(request(sweep, i, tuple((size * sign).tolist())))
    for axis, attribute in enumerate(ATTRIBUTES):
        for i, value in enumerate(torch.linspace(-1, 1, points, dtype=torch.float64).tolist()):
            c = tuple(value if j == axis else 0.0 for j in range(4))
            out.append(request(f"axis_{attribute}", i, c, walk=True))
    return out
