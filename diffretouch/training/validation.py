"""What a model in training achieves on the validation photos."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.model import RetouchPipeline
from diffretouch.seeds import generator
from diffretouch.training.data import GroundTruths, unit


def validator(data: GroundTruths, noticeable: Tensor, seed: int) -> Callable[[RetouchPipeline], dict[str, float]]:
    """A measurement of whole photos at training size: PSNR with each expert's own c, and the slope of each slider.

    Sampled with the pipeline's own default steps. The slope is (s(c_i=1) - s(c_i=-1)) / 2 in the photo's half-ranges,
    over photos whose experts differ (METHOD section 2).
    """
    photos, results = unit(data.photos), unit(data.results)
    ends = torch.cat([torch.eye(4), -torch.eye(4)])

    def measure(pipe: RetouchPipeline) -> dict[str, float]:
        def retouch(c: Tensor, what: str) -> Tensor:
            """(V,M,4) -> (V,M,3,S,S), photo by photo; the same noise for every c of a photo."""
            made = []
            for i, photo in enumerate(photos):
                draws = [generator(seed, what, i) for _ in c[i]]
                made.append(torch.stack(pipe([photo] * len(draws), c[i], generator=draws).images).cpu())
            return torch.stack(made)

        with torch.no_grad():
            error = (retouch(data.conditions, "expert") - results).square().mean((2, 3, 4))
            moved = retouch(ends.expand(len(data), -1, -1), "axis")
            s = scores(moved.flatten(0, 1), photos.shape[2]).unflatten(0, (len(data), 2, 4))
        slope = (s[:, 0] - s[:, 1]).diagonal(dim1=1, dim2=2) / (2 * data.half)
        out = {"val_psnr": float((-10 * error.clamp(min=1e-10).log10()).mean())}
        for i, attribute in enumerate(ATTRIBUTES):
            if noticeable[:, i].any():
                out[f"val_slope_{attribute}"] = float(slope[noticeable[:, i], i].mean())
        return out

    return measure
