"""What a model in training achieves on the validation photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.files.pictures import write_png8
from diffretouch.model import RetouchPipeline
from diffretouch.progress import track
from diffretouch.seeds import generator
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.resume import CutShort

SHOWN = 4
"""Photos on a sheet, at most."""


@dataclass(frozen=True)
class Validated:
    """V photos at training size, sampled with the pipeline's own default steps."""

    psnr: Tensor
    """(V,K) in dB: with each expert's own c against that expert."""
    slope: Tensor
    """(V,4): (s(c_i=1) - s(c_i=-1)) / 2 in the photo's half-ranges; NaN where experts agree."""
    sheet: Tensor
    """(3,H,W): two rows a photo, itself and its experts' results; ours with c = 0 and with each expert's c."""

    def means(self) -> dict[str, float]:
        """val_psnr, and val_slope_<attribute> where the experts differ on any photo."""
        out = {"val_psnr": float(self.psnr.mean())}
        for attribute, slope in zip(ATTRIBUTES, self.slope.nanmean(0).tolist(), strict=True):
            if slope == slope:  # not NaN
                out[f"val_slope_{attribute}"] = slope
        return out

    def write_sheet(self, path: Path) -> None:
        """The sheet as an 8-bit PNG."""
        write_png8(path, self.sheet.permute(1, 2, 0).contiguous().numpy())


@dataclass(frozen=True)
class Validation:
    """Validation photos, and how they are sampled."""

    data: GroundTruths
    noticeable: Tensor
    """(V,4) whether the experts differ noticeably."""
    seed: int

    @torch.no_grad()
    def measure(self, pipe: RetouchPipeline, stopping: Callable[[], bool] = lambda: False) -> Validated:
        """Sample every photo with its experts' c, along the sliders, and with c = 0.

        Raises CutShort when `stopping`, asked before each photo, says so.
        """
        data = self.data
        photos, results = unit(data.photos), unit(data.results)
        at_ease = torch.zeros(min(SHOWN, len(data)), 1, 4)
        own = torch.stack(list(_retouched(pipe, photos, data.conditions, self.seed, "expert", stopping)))
        neutral = torch.stack(list(_retouched(pipe, photos[:SHOWN], at_ease, self.seed, "expert", stopping)))
        moved = responses(pipe, photos, data.half, self.noticeable, self.seed, stopping)
        shown = zip(photos[:SHOWN], results[:SHOWN], neutral, own[:SHOWN], strict=True)
        return Validated(
            psnr=-10 * (own - results).square().mean((2, 3, 4)).clamp(min=1e-10).log10(),
            slope=moved.diagonal(dim1=1, dim2=2),
            sheet=torch.cat([row for photo in shown for row in _rows(*photo)], dim=1),
        )


def responses(
    pipe: RetouchPipeline,
    photos: Tensor,
    half: Tensor,
    noticeable: Tensor,
    seed: int,
    stopping: Callable[[], bool] = lambda: False,
    shown: str = "",
) -> Tensor:
    """How far each slider moves each attribute: (V,4 sliders,4 attributes), 1 as far as c asks of its own.

    From photos (V,3,S,S) in [0,1], half-ranges (V,4) and whether experts differ (V,4): half of what the scores differ
    between c_i = 1 and c_i = -1, all else 0 and the same noise, in the photo's half-ranges; NaN where its experts agree
    on either attribute. Progress is `shown` under that name. Raises CutShort when `stopping`, asked before each photo,
    says so.
    """
    ends = torch.cat([torch.eye(4), -torch.eye(4)])
    moved = _retouched(pipe, photos, ends.expand(len(photos), -1, -1), seed, "axis", stopping)
    if shown:
        moved = track(moved, shown, len(photos))
    s = torch.stack([scores(pictures, photos.shape[2]) for pictures in moved])
    found = (s[:, :4] - s[:, 4:]) / (2 * half)[:, None]
    return torch.where(noticeable[:, None] & noticeable[:, :, None], found, torch.nan)


def _retouched(
    pipe: RetouchPipeline, photos: Tensor, c: Tensor, seed: int, what: str, stopping: Callable[[], bool]
) -> Iterator[Tensor]:
    """(V,3,S,S), (V,M,4) -> (M,3,S,S) a photo; the same noise for every c of a photo."""
    for i, (photo, of_photo) in enumerate(zip(photos, c, strict=True)):
        if stopping():
            raise CutShort
        draws = [generator(seed, what, i) for _ in of_photo]
        yield torch.stack(pipe([photo] * len(draws), of_photo, generator=draws).images).cpu()


def _rows(photo: Tensor, results: Tensor, neutral: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([photo, *results], dim=2), torch.cat([*neutral, *own], dim=2)
