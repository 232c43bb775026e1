"""A trained model's sliders, mixed so that each moves its own attribute alone and as far as c asks.

Experts tie attributes together - who brightens also makes more colourful - and a network learns that with their styles:
a slider drags others along. What it drags is measured on training photos and taken back by the other sliders.
"""

from __future__ import annotations

import sys

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
    whole = len(data) // settings.views  # a photo's first view is the whole of it
    count = min(settings.slider_photos, whole)
    chosen = torch.tensor([i * whole // count * settings.views for i in range(count)])
    print(f"measuring the sliders on {count} training photos", file=sys.stderr, flush=True)
    found = responses(pipe, unit(data.photos[chosen]), data.half[chosen], noticeable[chosen], settings.seed)
    moved = found.nanmean(0)
    own, others = ", ".join(f"{name} {moved[i, i]:.2f}" for i, name in enumerate(ATTRIBUTES)), _others(moved).max()
    untangling = settled(moved)
    print(
        f"of what is asked, each moves its own attribute {own}; {others:.2f} at most all the others together: "
        f"{'left tangled' if untangling is None else 'untangled'}, times {settings.slider_reach:g}",
        file=sys.stderr,
        flush=True,
    )
    mixing = settings.slider_reach * (torch.eye(4) if untangling is None else untangling)
    pipe.register_to_config(slider_mixing=[[round(value, 4) for value in row] for row in mixing.tolist()])


def settled(moved: Tensor) -> Tensor | None:
    """(4,4) that c, a row, is to be multiplied by, so that each slider moves what it moved of its own and nothing else.

    `moved` (4 sliders, 4 attributes) is what each does by itself, NaN where unknown. None where some slider moves all
    others together by more than TANGLED of its own, or its own the wrong way: one that hardly works cannot be set right
    by the others. Where none does, the matrix is strictly diagonally dominant, so it has an inverse (Levy-Desplanques).
    """
    known = moved.double().nan_to_num()
    if (_others(moved) >= TANGLED * known.diagonal()).any():
        return None
    return (known.diagonal().diag() @ torch.linalg.inv(known)).float()


def _others(moved: Tensor) -> Tensor:
    """How far each slider moves all other attributes together, (4,)."""
    known = moved.double().nan_to_num()
    return (known - known.diagonal().diag()).abs().sum(1)
