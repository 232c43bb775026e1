"""What a model in training achieves on the validation photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.files.pictures import write_png8
from diffretouch.model import RetouchPipeline
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
        ends = torch.cat([torch.eye(4), -torch.eye(4)])
        at_ease = torch.zeros(min(SHOWN, len(data)), 1, 4)
        own = self._retouch(pipe, photos, data.conditions, "expert", stopping)
        neutral = self._retouch(pipe, photos[:SHOWN], at_ease, "expert", stopping)
        moved = self._retouch(pipe, photos, ends.expand(len(data), -1, -1), "axis", stopping)
        s = scores(moved.flatten(0, 1), photos.shape[2]).unflatten(0, (len(data), 2, 4))
        slope = (s[:, 0] - s[:, 1]).diagonal(dim1=1, dim2=2) / (2 * data.half)
        shown = zip(photos[:SHOWN], results[:SHOWN], neutral, own[:SHOWN], strict=True)
        return Validated(
            psnr=-10 * (own - results).square().mean((2, 3, 4)).clamp(min=1e-10).log10(),
            slope=torch.where(self.noticeable, slope, torch.nan),
            sheet=torch.cat([row for photo in shown for row in _rows(*photo)], dim=1),
        )

    def _retouch(
        self, pipe: RetouchPipeline, photos: Tensor, c: Tensor, what: str, stopping: Callable[[], bool]
    ) -> Tensor:
        """(V,3,S,S), (V,M,4) -> (V,M,3,S,S), photo by photo; the same noise for every c of a photo."""
        made = []
        for i, (photo, of_photo) in enumerate(zip(photos, c, strict=True)):
            if stopping():
                raise CutShort
            draws = [generator(self.seed, what, i) for _ in of_photo]
            made.append(torch.stack(pipe([photo] * len(draws), of_photo, generator=draws).images).cpu())
        return torch.stack(made)


def _rows(photo: Tensor, results: Tensor, neutral: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([photo, *results], dim=2), torch.cat([*neutral, *own], dim=2)
