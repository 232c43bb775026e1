"""A trained model's sliders, mixed so that each drags others along no further than the experts tie them together.

A network learns sliders with the experts' styles, and moving one moves the others' attributes, too. What it moves is
measured on training photos; what goes beyond the correlation of the experts' own c is taken back by the other sliders.
"""

from __future__ import annotations

import sys

import pandas as pd
import torch
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Train
from diffretouch.model import RetouchPipeline
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.validation import responses

WORKS, TANGLED = 0.25, 0.7
"""A slider that moves its own attribute by less than WORKS of what c asks, or all others together by TANGLED or more of
what it moves of its own, is past help: it stays as it was trained."""


def mix_sliders(pipe: RetouchPipeline, data: GroundTruths, noticeable: Tensor, settings: Train) -> None:
    """Measure the sliders of a trained `pipe` on `settings.slider_photos` whole photos of `data`, and set its
    `slider_mixing`; `noticeable` (V,4) says where experts differ. Nothing where no photos are asked for, or c is not
    heard.
    """
    pipe.register_to_config(slider_mixing=None)
    if not settings.slider_photos or not pipe.config.condition_gain:
        return
    whole = torch.arange(0, len(data), settings.views)  # a photo's first view is the whole of it
    count = min(settings.slider_photos, len(whole))
    chosen = whole[[i * len(whole) // count for i in range(count)]]
    photos = unit(data.photos[chosen])
    found = responses(pipe, photos, data.half[chosen], noticeable[chosen], settings.seed, shown="measuring the sliders")
    moved = found.nanmean(0)
    tied = experts_correlation(data.scores[whole], data.mid[whole], data.half[whole], noticeable[whole])
    mixing, works = untangling(moved, tied, settings.slider_reach)
    own = ", ".join(f"{name} {moved[i, i]:.2f}" for i, name in enumerate(ATTRIBUTES))
    left = ", ".join(name for name, well in zip(ATTRIBUTES, works, strict=True) if not well)
    done = f"untangled, times {settings.slider_reach:g}" if any(works) else "left as trained"
    print(
        f"of what is asked, each moves its own attribute {own}; {_others(moved).max():.2f} at most all the others "
        f"together; {done}{', but for ' + left if left and any(works) else ''}",
        file=sys.stderr,
        flush=True,
    )
    pipe.register_to_config(slider_mixing=[[round(value, 4) for value in row] for row in mixing.tolist()])


def experts_correlation(scores: Tensor, mid: Tensor, half: Tensor, noticeable: Tensor) -> Tensor:
    """(4,4): Pearson correlation of the experts' own (score - mid) / half over photos; NaN where nothing tells it.

    From scores (V,K,4), middles and half-ranges (V,4); where a photo's experts agree on an attribute (not `noticeable`,
    (V,4)) it says nothing of it.
    """
    away = torch.where(noticeable, (scores - mid[:, None]).movedim(1, 0) / half, torch.nan)
    return torch.from_numpy(pd.DataFrame(away.reshape(-1, 4).double().numpy()).corr().to_numpy(copy=True))


def untangling(moved: Tensor, tied: Tensor, reach: float) -> tuple[Tensor, list[bool]]:
    """(4,4) that c, a row, is to be multiplied by, and which sliders work: those it changes.

    Of its own attribute each is to move `reach` times what it moved; of others as much as it then would, but no more
    than is `tied` to it and none the other way. `moved` (4 sliders, 4 attributes) is what each does by itself, `tied`
    (4,4) the experts' correlation; NaN, where unknown, counts as 0. A slider works by WORKS and TANGLED; one that does
    not is left alone and takes nothing back, so what the others drag of its attribute has no limit and grows with
    `reach`. Among those that work `moved` is strictly diagonally dominant, so it has an inverse (Levy-Desplanques).
    """
    known, tied = moved.double().nan_to_num(), tied.double().nan_to_num()
    own = known.diagonal()
    works = (own >= WORKS) & (_others(moved) < TANGLED * own)
    among = works[:, None] & works
    wanted = (reach * known).clamp(tied.clamp(max=0), tied.clamp(min=0))
    wanted.diagonal().copy_(reach * own)
    count, mixing = int(works.sum()), torch.eye(4, dtype=torch.float64)
    mixing[among] = (wanted[among].reshape(count, count) @ torch.linalg.inv(known[among].reshape(count, count))).ravel()
    return mixing.float(), works.tolist()


def _others(moved: Tensor) -> Tensor:
    """How far each slider moves all other attributes together, (4,)."""
    known = moved.double().nan_to_num()
    return (known - known.diagonal().diag()).abs().sum(1)
