"""Ground truths for training, in files that are mapped into memory: photos, experts' results, latents, scores, c.

A view is a photo seen whole (view 0) or through a crop, squeezed to a square as the network sees it; V views, K experts
each. Everything that does not change from step to step is computed once, latents included: a step only gathers rows.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from diffretouch.attributes import scores
from diffretouch.condition import photo_range
from diffretouch.files.atomic import write_json
from diffretouch.files.pictures import Picture, read_srgb, resize
from diffretouch.progress import track
from diffretouch.seeds import generator

Conditions = Callable[[Tensor], Tensor]
"""Scores (K,4) to c (K,4)."""
Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pictures (K,3,S,S) in [0,1] to the mean and standard deviation of their latents, each (K,4,S/8,S/8)."""
DIGEST, PHOTOS = "digest.json", "photos.json"
"""Written when all views are there; until then how many photos' views are safe on disk."""
SAFE_EVERY_S = 30.0


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


NAMES = tuple(field.name for field in fields(GroundTruths))


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
    workers: int
    """Threads that read pictures."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The manifest's columns that name a photo's pictures: its input, then the experts' in their order."""
        return ("input", *(f"expert_{x}" for x in self.experts))


def write_views(rows: pd.DataFrame, source: Source, views: int, seed: int, out: Path) -> None:
    """Read the manifest's `rows` into `views` views each, an .npy file for each field of GroundTruths, in `out`.

    Stopped, the same call goes on behind the last photo that is safe on disk; nothing where all of them are.
    """
    if (out / DIGEST).exists():
        (out / PHOTOS).unlink(missing_ok=True)
        return
    done = json.loads((out / PHOTOS).read_text()) if (out / PHOTOS).exists() else 0
    files: dict[str, np.memmap] = {}
    digest = hashlib.sha256()
    if done:
        files = {name: open_memmap(out / f"{name}.npy", mode="r+") for name in NAMES}
        for number in range(done * views):
            for name in NAMES:
                digest.update(np.ascontiguousarray(files[name][number]).data)
    left, saved = _views(rows.iloc[done:], source, views, seed), time.monotonic()
    shown = track(left, "reading", len(rows) * views, done=done * views)
    for number, view in enumerate(shown, done * views):
        for name in NAMES:
            array = view[name].numpy()
            if name not in files:
                shape = (len(rows) * views, *array.shape)
                files[name] = open_memmap(out / f"{name}.npy", mode="w+", dtype=array.dtype, shape=shape)
            files[name][number] = array
            digest.update(np.ascontiguousarray(array).data)
        if (number + 1) % views == 0 and time.monotonic() - saved > SAFE_EVERY_S:
            _flush(files)
            write_json(out / PHOTOS, (number + 1) // views)
            saved = time.monotonic()
    _flush(files)
    write_json(out / DIGEST, {"sha256": digest.hexdigest()})
    (out / PHOTOS).unlink(missing_ok=True)


def _flush(files: dict[str, np.memmap]) -> None:
    for file in files.values():
        file.flush()


def open_views(folder: Path) -> GroundTruths:
    """What `write_views` wrote, mapped into memory: rows are read from disk when they are used, and kept by the system
    while there is memory to spare.
    """
    return GroundTruths(**{name: torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in NAMES})


def digest_of(folder: Path) -> str:
    """Changes when anything that `write_views` wrote does."""
    return str(json.loads((folder / DIGEST).read_text())["sha256"])


def _views(rows: pd.DataFrame, source: Source, views: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Fields of GroundTruths without their first dimension, photo by photo; pictures are read ahead in threads."""

    def read(row: dict[str, str]) -> list[list[Tensor]]:
        """For each view the photo and results at S, then the results at the network's size."""
        pictures = [read_srgb(source.folder / row[name]) for name in source.columns]
        windows = _windows(pictures[0].shape[:2], views, seed, row["photo_id"])
        sizes = [source.size] * len(pictures) + [source.network_size] * len(source.experts)
        return [
            [_square(picture[window], size) for picture, size in zip(pictures + pictures[1:], sizes, strict=True)]
            for window in windows
        ]

    with ThreadPoolExecutor(source.workers) as pool:
        records, ahead = rows[["photo_id", *source.columns]].to_dict("records"), 2 * source.workers
        for start in range(0, len(records), ahead):
            for of_photo in pool.map(read, records[start : start + ahead]):
                for planes in of_photo:
                    yield _view(planes, source)


def _view(planes: list[Tensor], source: Source) -> dict[str, Tensor]:
    count = len(source.experts)
    results, large = torch.stack(planes[1 : count + 1]), torch.stack(planes[count + 1 :])
    s = scores(unit(results), source.size).double()
    mid, half = photo_range(s)
    mean, std = source.encode(unit(large))
    small = {"conditions": source.make_c(s), "mid": mid, "half": half, "scores": s}
    return {
        "photos": planes[0],
        "results": results,
        **{name: value.float() for name, value in small.items()},
        "latent_mean": mean,
        "latent_std": std,
    }


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
