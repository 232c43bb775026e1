"""Ground truths for training, held as arrays: photos, experts' results, latents, scores and conditions.

A view is a photo seen whole (view 0) or through a crop, squeezed to a square as the network sees it; V views, K experts
each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffretouch.attributes import scores
from diffretouch.condition import photo_range
from diffretouch.files.pictures import Picture, read_srgb, resize
from diffretouch.progress import track
from diffretouch.seeds import generator

Conditions = Callable[[Tensor], Tensor]
"""Scores (K,4) to c (K,4)."""
Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pictures (K,3,S,S) in [0,1] to the mean and standard deviation of their latents, each (K,4,S/8,S/8)."""


@dataclass(frozen=True)
class GroundTruths:
    """Views of photos with their experts' results; pictures are uint16 sRGB."""

    photos: Tensor
    """(V,3,S,S), S = attributes.size."""
    results: Tensor
    """(V,K,3,S,S)."""
    conditions: Tensor
    """(V,K,4) in [-1,1]."""
    mid: Tensor
    """(V,4) middle of the experts' scores."""
    half: Tensor
    """(V,4) half-range of the experts' scores."""
    scores: Tensor
    """(V,K,4)."""
    latent_mean: Tensor
    """(V,K,4,h,h) mean of each ground truth's scaled posterior."""
    latent_std: Tensor
    """(V,K,4,h,h)."""

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def experts(self) -> int:
        """K."""
        return self.results.shape[1]

    def fingerprint(self) -> str:
        """Changes when anything here does."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(getattr(self, field.name).contiguous().numpy().tobytes())
        return digest.hexdigest()


def unit(pixels: Tensor) -> Tensor:
    """uint16 pixels to float32 in [0,1]."""
    return pixels.to(torch.float32) / 65535


@dataclass(frozen=True)
class Source:
    """Where ground truths are read from, and what is measured on each view itself."""

    folder: Path
    """The decode stage's folder."""
    experts: tuple[str, ...]
    size: int
    """S, where results are compared and scored."""
    network_size: int
    """Side of the square the autoencoder encodes."""
    make_c: Conditions
    encode: Encoder


def load_views(rows: pd.DataFrame, source: Source, views: int, seed: int) -> GroundTruths:
    """Read the manifest's `rows` into `views` views each."""
    columns = ("input", *(f"expert_{x}" for x in source.experts))
    photos, results, measured, latents = [], [], [], []
    for _, row in track(rows.iterrows(), "reading", len(rows)):
        pictures = [read_srgb(source.folder / row[name]) for name in columns]
        for window in _windows(pictures[0].shape[:2], views, seed, str(row["photo_id"])):
            planes = torch.stack([_square(picture[window], source.size) for picture in pictures])
            photos.append(planes[0])
            results.append(planes[1:])
            measured.append(scores(unit(planes[1:]), source.size).double())
            large = torch.stack([_square(picture[window], source.network_size) for picture in pictures[1:]])
            latents.append(source.encode(unit(large)))
    mid, half = zip(*(photo_range(s) for s in measured), strict=True)
    mean, std = zip(*latents, strict=True)
    return GroundTruths(
        photos=torch.stack(photos),
        results=torch.stack(results),
        conditions=torch.stack([source.make_c(s) for s in measured]).float(),
        mid=torch.stack(mid).float(),
        half=torch.stack(half).float(),
        scores=torch.stack(measured).float(),
        latent_mean=torch.stack(mean),
        latent_std=torch.stack(std),
    )


def some_results(rows: pd.DataFrame, folder: Path, experts: tuple[str, ...], size: int, count: int) -> Tensor:
    """`count` ground truths at most, spread over photos and experts: (M,3,size,size) float32 in [0,1]."""
    total = len(rows) * len(experts)
    # every expert in turn, while the photos pass evenly
    places = [(i * len(rows) // min(count, total), experts[i % len(experts)]) for i in range(min(count, total))]
    chosen = [folder / rows.iloc[photo][f"expert_{expert}"] for photo, expert in places]
    return unit(torch.stack([_square(read_srgb(path), size) for path in chosen]))


def _square(picture: Picture, size: int) -> Tensor:
    """(H,W,3) in [0,1] -> (3,size,size) uint16."""
    pixels = np.rint(np.clip(resize(np.ascontiguousarray(picture), (size, size)), 0, 1) * 65535).astype(np.uint16)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _windows(size: tuple[int, int], views: int, seed: int, photo_id: str) -> list[tuple[slice, slice]]:
    """The whole photo, then crops of 60 to 95 % of each side."""
    height, width = size
    windows = [(slice(0, height), slice(0, width))]
    for view in range(1, views):
        draw = torch.rand(4, generator=generator(seed, "crop", photo_id, view)).tolist()
        tall, wide = round(height * (0.6 + 0.35 * draw[0])), round(width * (0.6 + 0.35 * draw[1]))
        top, left = int((height - tall) * draw[2]), int((width - wide) * draw[3])
        windows.append((slice(top, top + tall), slice(left, left + wide)))
    return windows
