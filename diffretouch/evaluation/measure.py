"""Everything that is measured on the pictures of one photo, in a process of its own.

One photo is one task, with one torch thread, so the numbers do not depend on how many processes share the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from diffretouch import metrics
from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.errors import UserError
from diffretouch.evaluation.perceptual import Perceptual
from diffretouch.files.pictures import read_mask, read_srgb
from diffretouch.processes import map_in_processes
from diffretouch.progress import track

Row = dict[str, object]
SCORES = tuple(f"score_{name}" for name in ATTRIBUTES)
METRIC_COLUMNS = (
    *("psnr", "ssim", "ciede2000", "lpips", "psnr_hc", "delta_e_hc", "style_mse", "mean_a", "mean_b"),
    *SCORES,
)


@dataclass(frozen=True)
class Sampled:
    """One picture of the sampling stage."""

    key: int
    """Its row in the samples table."""
    sweep: str
    expert: str | None
    path: Path


@dataclass(frozen=True)
class Photo:
    """One photo, its experts' results and everything sampled for it."""

    photo_id: str
    input: Path
    experts: dict[str, Path]
    mask: Path | None
    sampled: tuple[Sampled, ...]


@dataclass(frozen=True)
class Ruler:
    """What all photos are measured with."""

    score_size: int
    """Side in pixels of the square that attributes are scored on (scales.json)."""
    lpips: tuple[str, Path, str | None] | None
    """Backbone's name, weights file and checksum; None leaves LPIPS out."""


def measure_all(photos: Iterable[Photo], ruler: Ruler, *, workers: int, label: str) -> list[Row]:
    """Rows of every photo, in the order of `photos` and of their samples, whatever the number of workers."""
    tasks = list(photos)
    parts = map_in_processes(partial(measure, ruler=ruler), tasks, workers)
    return [row for rows in track(parts, label, len(tasks)) for row in rows]


def measure(photo: Photo, ruler: Ruler) -> list[Row]:
    """One row for each (picture, expert it is compared with); pictures of the axis sweeps get scores only.

    The photo's own input and the mean of its experts' pictures (in sRGB values) are measured like samples, under the
    sweeps `input` and `mean_expert`, with `key` -1.
    """
    torch.set_num_threads(1)
    source = read_srgb(photo.input)
    targets = {x: _Target(_same_size(read_srgb(path), source, path)) for x, path in sorted(photo.experts.items())}
    mean_expert = np.stack([target.image for target in targets.values()]).mean(axis=0, dtype=np.float32)
    weight = metrics.human_centred_weight(read_mask(photo.mask)) if photo.mask else None
    perceptual = _perceptual(*ruler.lpips) if ruler.lpips else None

    results = {s.expert: read_srgb(s.path) for s in photo.sampled if s.sweep == "expert" and s.expert}
    style = _style_mse(results, targets)
    rows = []
    for sampled, image in _pictures(photo, source, mean_expert):
        own: Row = {"photo_id": photo.photo_id, "key": sampled.key, "sweep": sampled.sweep}
        own |= dict(zip(SCORES, _scores(image, ruler.score_size), strict=True))
        if sampled.sweep.startswith("axis_"):
            rows.append(own | {"expert": None})
            continue
        image_lab = metrics.lab(image)
        own |= {"mean_a": float(image_lab[..., 1].mean()), "mean_b": float(image_lab[..., 2].mean())}
        for x in [sampled.expert] if sampled.expert else targets:
            row = own | {"expert": x} | _compare(image, image_lab, targets[x], weight, perceptual)
            if sampled.sweep == "expert":
                row["style_mse"] = style.get(x)
            rows.append(row)
    return rows


@cache
def _perceptual(net: str, backbone: Path, sha256: str | None) -> Perceptual:
    """Read and checked once a process, not once a photo."""
    return Perceptual(net, backbone, sha256)


class _Target:
    """An expert's picture with its Lab, needed again for every comparison."""

    def __init__(self, image: metrics.Picture) -> None:
        self.image, self.lab = image, metrics.lab(image)


def _pictures(
    photo: Photo, source: metrics.Picture, mean_expert: metrics.Picture
) -> Iterator[tuple[Sampled, metrics.Picture]]:
    yield Sampled(-1, "input", None, photo.input), source
    yield Sampled(-1, "mean_expert", None, photo.input), mean_expert
    for sampled in photo.sampled:
        yield sampled, _same_size(read_srgb(sampled.path), source, sampled.path)


def _same_size(image: metrics.Picture, source: metrics.Picture, path: Path) -> metrics.Picture:
    if image.shape != source.shape:
        raise UserError(f"{path} is {image.shape[1]}x{image.shape[0]}, its photo {source.shape[1]}x{source.shape[0]}")
    return image


def _scores(image: metrics.Picture, size: int) -> list[float]:
    return scores(torch.from_numpy(image).permute(2, 0, 1)[None], size)[0].tolist()


def _compare(
    image: metrics.Picture,
    image_lab: metrics.Picture,
    target: _Target,
    weight: metrics.Picture | None,
    perceptual: Perceptual | None,
) -> Row:
    row: Row = {
        "psnr": metrics.psnr(image, target.image),
        "ssim": metrics.ssim(image, target.image),
        "ciede2000": metrics.ciede2000(image_lab, target.lab),
    }
    if weight is not None:
        row["psnr_hc"] = metrics.psnr_hc(image, target.image, weight)
        row["delta_e_hc"] = metrics.delta_e_hc(image_lab, target.lab, weight)
    if perceptual is not None:
        a, b = (torch.from_numpy(p).permute(2, 0, 1)[None] for p in (image, target.image))
        row["lpips"] = float(perceptual(a, b))
    return row


def _style_mse(results: dict[str, metrics.Picture], targets: dict[str, _Target]) -> dict[str, float]:
    """How far our deviations from our own mean are from the experts' deviations from theirs, a value an expert.

    mse((D_x - mean D) - (X_x - mean X)): what is missed of the differences between experts, whatever all results of a
    photo have in common. Empty unless there is a result for every expert.
    """
    if results.keys() != targets.keys():
        return {}
    ours = np.mean(list(results.values()), axis=0, dtype=np.float32)
    theirs = np.mean([target.image for target in targets.values()], axis=0, dtype=np.float32)
    return {x: metrics.mse(results[x] - ours, targets[x].image - theirs) for x in targets}
