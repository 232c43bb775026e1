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

TANGLED = 0.7
"""A slider that moves all others together by more than this share of what it moves of its own is past help."""


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
    print(f"measuring the sliders on {count} training photos", file=sys.stderr, flush=True)
    moved = responses(pipe, unit(data.photos[chosen]), data.half[chosen], noticeable[chosen], settings.seed).nanmean(0)
    tied = experts_correlation(data.scores[whole], data.mid[whole], data.half[whole], noticeable[whole])
    mixing = untangling(moved, tied, settings.slider_reach)
    own, others = ", ".join(f"{name} {moved[i, i]:.2f}" for i, name in enumerate(ATTRIBUTES)), _others(moved).max()
    print(
        f"of what is asked, each moves its own attribute {own}; {others:.2f} at most all the others together: "
        f"{'left tangled' if mixing is None else 'untangled'}, times {settings.slider_reach:g}",
        file=sys.stderr,
        flush=True,
    )
    if mixing is None:
        mixing = settings.slider_reach * torch.eye(4)
    pipe.register_to_config(slider_mixing=[[round(value, 4) for value in row] for row in mixing.tolist()])


def experts_correlation(scores: Tensor, mid: Tensor, half: Tensor, noticeable: Tensor) -> Tensor:
    """(4,4): Pearson correlation of the experts' own (score - mid) / half over photos; NaN where nothing tells it.

    From scores (V,K,4), middles and half-ranges (V,4); where a photo's experts agree on an attribute (not `noticeable`,
    (V,4)) it says nothing of it.
    """
    away = torch.where(noticeable, (scores - mid[:, None]).movedim(1, 0) / half, torch.nan)
    return torch.from_numpy(pd.DataFrame(away.reshape(-1, 4).double().numpy()).corr().to_numpy(copy=True))


def untangling(moved: Tensor, tied: Tensor, reach: float) -> Tensor | None:
    """(4,4) that c, a row, is to be multiplied by, so that each slider moves `reach` times what it moved of its own,
    and of others what it then would, but no more than is `tied` to it and none the other way.

    `moved` (4 sliders, 4 attributes) is what each does by itself, `tied` (4,4) the experts' correlation; NaN where
    unknown. None where some slider moves all others together by more than TANGLED of its own, or its own the wrong way:
    one that hardly works cannot be set right by the others. Where none does, the matrix is strictly diagonally
    dominant, so it has an inverse (Levy-Desplanques).
    """
    known, tied = moved.double().nan_to_num(), tied.double().nan_to_num()
    if (_others(moved) >= TANGLED * known.diagonal()).any():
        return None
    wanted = (reach * known).clamp(tied.clamp(max=0), tied.clamp(min=0))
    wanted.diagonal().copy_(reach * known.diagonal())
    return (wanted @ torch.linalg.inv(known)).float()


def _others(moved: Tensor) -> Tensor:
    """How far each slider moves all other attributes together, (4,)."""
    known = moved.double().nan_to_num()
    return (known - known.diagonal().diag()).abs().sum(1)
