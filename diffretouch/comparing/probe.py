"""What is measured on an arm beyond the evaluate stage: texture, the best of many varied results, and its decoder.

An arm that is painted by the autoencoder's decoder can be no better than that alone makes of the experts' own results:
how near it comes, how much of the experts' differences it passes on, and of their texture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.comparing.adjust import vary
from diffretouch.condition import just_noticeable, photo_range
from diffretouch.config import Attributes, Params, Sample
from diffretouch.devices import pick_device
from diffretouch.evaluation.texture import survival
from diffretouch.files.pictures import Picture, read_srgb
from diffretouch.files.scales import read_scales
from diffretouch.files.tables import read_table, write_table
from diffretouch.files.workspace import new_dir, stage_dir
from diffretouch.metrics import psnr
from diffretouch.progress import track
from diffretouch.sampling.sweeps import Request, requests

if TYPE_CHECKING:
    from diffretouch.model import RetouchPipeline

DRAWN = "random_0_1"
"""The sweep whose c are the draws: anywhere in [-1,1]^4."""
MODEL = "model"
AT_A_TIME = 32
"""Adjustments that are solved together."""


@dataclass(frozen=True)
class Scene:
    """One test photo with its experts' results and what the arm made of it, all (H,W,3) sRGB in [0,1]."""

    photo_id: str
    photo: Picture
    experts: dict[str, Picture]
    scores: Tensor
    """(K,4) of its experts' results."""
    own: dict[str, Picture]
    """By expert, ours told that expert's c; or under "" a peer's one result."""


@torch.no_grad()
def run(params: Params, dataset: str, one: str) -> None:
    """Samples and decoded pictures -> probe.parquet: photo_id, metric, slice, value.

    `one`: the only expert that the arm learned, or "". Such an arm is not asked for many results: the others' experts
    are nothing that it was to come near.
    """
    torch.set_num_threads(params.runtime.threads)
    model = stage_dir("train", dataset) / MODEL
    pipe = None
    if model.exists():
        from diffretouch.sampling.retouching import open_model  # heavy, and of no use to a peer

        pipe = open_model(model, params.sample, pick_device(params.runtime.device))
    scales = read_scales(dataset)
    settings = Attributes(**{name: scales[name] for name in Attributes.model_fields})
    rows = []
    scenes = _scenes(params, dataset)
    for scene in track(scenes, f"probe {dataset}", len(scenes)):
        found = scene()
        measured = _measure(found, pipe, settings)
        if not one:
            measured += _best_of(found, pipe, params, dataset, settings)
        for metric, part, value in measured:
            rows.append({"photo_id": found.photo_id, "metric": metric, "slice": part, "value": value})
    write_table(new_dir(stage_dir("probe", dataset)) / "probe.parquet", pd.DataFrame(rows))


def _measure(scene: Scene, pipe: RetouchPipeline | None, settings: Attributes) -> list[tuple[str, str, float]]:
    out = [("texture", "all", _mean(survival(scene.photo, made) for made in scene.own.values()))]
    out.append(("texture_experts", "all", _mean(survival(scene.photo, made) for made in scene.experts.values())))
    if pipe is not None and pipe.config.output == "autoencoder":
        out += decoder(scene, pipe, settings)
    return out


def _best_of(
    scene: Scene, pipe: RetouchPipeline | None, params: Params, dataset: str, settings: Attributes
) -> list[tuple[str, str, float]]:
    asked, count = draws(dataset, scene.photo_id, params.sample, params.compare.draws), params.compare.best_of
    made: Iterable[Picture]
    if pipe is None:
        # some at a time: all of them, at the photo's own size, may take gigabytes
        parts = (asked[first : first + AT_A_TIME] for first in range(0, len(asked), AT_A_TIME))
        made = (picture for part in parts for picture in varied(scene, part, settings.size))
    else:
        from diffretouch.sampling.retouching import retouched

        made = (picture for _, picture in retouched(pipe, scene.photo, asked, params.sample))
    near = [[psnr(picture, truth) for truth in scene.experts.values()] for picture in made]
    columns = zip(scene.experts, zip(*near, strict=True), strict=True)
    return [("psnr_best_of", f"expert_{x}", expected_best(values, count)) for x, values in columns]


def expected_best(values: Iterable[float], count: int) -> float:
    """Mean of the greatest of `count` of the `values`, over every choice of `count` of them.

    It estimates what the best of `count` draws is on average, as the greatest of one choice does, but owes less to
    luck: of N sorted values the i-th is the greatest in C(i-1, count-1) of the C(N, count) choices.

    Raises ValueError where there are fewer values than `count`, or it is not positive.
    """
    ordered = sorted(values)
    if not 0 < count <= len(ordered):
        raise ValueError(f"the best of {count} of {len(ordered)} values: give 1 to {len(ordered)}")
    choices = math.comb(len(ordered), count)
    return math.fsum(value * (math.comb(i, count - 1) / choices) for i, value in enumerate(ordered))


def decoder(scene: Scene, pipe: RetouchPipeline, settings: Attributes) -> list[tuple[str, str, float]]:
    """What the autoencoder alone makes of the experts' results: metric, slice, value.

    Its slope in an attribute is that of the scores it returns over the experts' own, both away from their means over
    the experts; where these differ by less than is noticeable there is none.
    """
    made = {x: reconstructed(pipe, truth) for x, truth in scene.experts.items()}
    near = _mean(psnr(picture, scene.experts[x]) for x, picture in made.items())
    out = [("psnr_autoencoder", "all", near)]
    out.append(("texture_autoencoder", "all", _mean(survival(scene.photo, picture) for picture in made.values())))
    again = torch.cat([scores(_planes(picture)[None], settings.size) for picture in made.values()]).double()
    found, own = (s - s.mean(0) for s in (again, scene.scores))
    mid, half = photo_range(scene.scores)
    slope = torch.where(half < just_noticeable(mid, settings), torch.nan, (found * own).sum(0) / own.square().sum(0))
    out += [("slope_autoencoder", name, value) for name, value in zip(ATTRIBUTES, slope.tolist(), strict=True)]
    return [*out, ("slope_autoencoder", "all", _mean(slope.tolist()))]


def draws(dataset: str, photo_id: str, settings: Sample, count: int) -> list[Request]:
    """The random c of a photo, the same for every arm."""
    return [r for r in requests(dataset, photo_id, {}, settings.seed, count, 3) if r.sweep == DRAWN]


def varied(scene: Scene, asked: list[Request], size: int) -> list[Picture]:
    """A peer's one result, adjusted so that its scores move by c half-ranges of the photo, for the same random c."""
    base = _planes(scene.own[""])[None]
    c = torch.tensor([request.condition for request in asked], dtype=torch.float64)
    unit = photo_range(scene.scores)[1].clamp(min=1e-6)
    made = vary(base, scores(base, size).double() + c * unit, unit, size)
    return [image.permute(1, 2, 0).numpy() for image in made]


def reconstructed(pipe: RetouchPipeline, picture: Picture) -> Picture:
    """What the autoencoder alone makes of a picture: squared as in training, encoded, decoded, at its own size."""
    side = pipe.picture_size
    square = partial(interpolate, mode="bilinear", antialias=True, align_corners=False)
    seen = square(_planes(picture)[None], size=(side, side)).to(pipe.device)
    latent = pipe.vae.encode(seen * 2 - 1).latent_dist.mode() * pipe.vae.config.scaling_factor
    made = square(pipe.decode(latent), size=picture.shape[:2])
    return made[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def _scenes(params: Params, dataset: str) -> list[partial[Scene]]:
    """Readers of the sampled photos, sorted by id."""
    experts = params.corpus(dataset).experts
    sampled = stage_dir("sample", dataset)
    samples = read_table(sampled / "samples.parquet", ["photo_id", "split", "sweep", "expert", "path"])
    truths = read_table(stage_dir("attributes", dataset) / "attributes.parquet", ["photo_id", "expert"])
    manifest = read_table(stage_dir("decode", dataset) / "manifest.parquet", ["photo_id", "input"]).set_index(
        "photo_id"
    )
    sweep = "expert" if (samples["sweep"] == "expert").any() else "neutral"
    chosen = samples[(samples["split"] == "test") & (samples["sweep"] == sweep)]
    out = []
    for photo_id, part in chosen.groupby("photo_id", sort=True):
        table = truths[truths["photo_id"] == photo_id].set_index("expert").loc[list(experts)]
        s = torch.tensor(table[[f"score_{a}" for a in ATTRIBUTES]].to_numpy(np.float64))
        own = {
            str(row["expert"]) if sweep == "expert" else "": sampled / row["path"] for row in part.to_dict("records")
        }
        line = manifest.loc[photo_id]
        decoded = stage_dir("decode", dataset)
        results = {x: decoded / line[f"expert_{x}"] for x in experts}
        out.append(partial(_read, str(photo_id), decoded / line["input"], results, s, own))
    return out


def _read(photo_id: str, photo: Path, experts: dict[str, Path], scored: Tensor, own: dict[str, Path]) -> Scene:
    opened = ({name: read_srgb(path) for name, path in paths.items()} for paths in (experts, own))
    return Scene(photo_id, read_srgb(photo), next(opened), scored, next(opened))


def _planes(picture: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)


def _mean(values: Iterable[float]) -> float:
    """Over those that are known."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
