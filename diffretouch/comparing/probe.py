"""What is measured on an arm beyond the evaluate stage: texture, and the best of many varied results."""

from __future__ import annotations

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
from diffretouch.config import Params, Sample
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


@dataclass(frozen=True)
class Scene:
    """One test photo with its experts' results and what the arm made of it, all (H,W,3) sRGB in [0,1]."""

    photo_id: str
    photo: Picture
    experts: dict[str, Picture]
    half: Tensor
    """(4,) half-range of its experts' scores."""
    own: dict[str, Picture]
    """By expert, ours told that expert's c; or under "" a peer's one result."""


@torch.no_grad()
def run(params: Params, dataset: str) -> None:
    """Samples and decoded pictures -> probe.parquet: photo_id, metric, slice, value."""
    torch.set_num_threads(params.runtime.threads)
    model = stage_dir("train", dataset) / MODEL
    pipe = None
    if model.exists():
        from diffretouch.model import RetouchPipeline  # heavy, and of no use to a peer

        pipe = RetouchPipeline.from_pretrained(model, local_files_only=True).to(pick_device(params.runtime.device))
    size = int(read_scales(dataset)["size"])
    rows = []
    scenes = _scenes(params, dataset)
    for scene in track(scenes, f"probe {dataset}", len(scenes)):
        found = scene()
        for metric, part, value in _measure(found, pipe, params, dataset, size):
            rows.append({"photo_id": found.photo_id, "metric": metric, "slice": part, "value": value})
    write_table(new_dir(stage_dir("probe", dataset)) / "probe.parquet", pd.DataFrame(rows))


def _measure(
    scene: Scene, pipe: RetouchPipeline | None, params: Params, dataset: str, size: int
) -> list[tuple[str, str, float]]:
    out = [("texture", "all", _mean(survival(scene.photo, made) for made in scene.own.values()))]
    out.append(("texture_experts", "all", _mean(survival(scene.photo, made) for made in scene.experts.values())))
    if pipe is not None:
        again = (reconstructed(pipe, made, params.train.network_size) for made in scene.experts.values())
        out.append(("texture_autoencoder", "all", _mean(survival(scene.photo, made) for made in again)))
    asked = draws(dataset, scene.photo_id, params.sample, params.compare.draws)
    if pipe is None:
        made = varied(scene, asked, size)
    else:
        from diffretouch.sampling.retouching import retouched

        made = [picture for _, picture in retouched(pipe, scene.photo, asked, params.sample)]
    best: dict[str, float] = {}
    for picture in made:
        for x, truth in scene.experts.items():
            best[x] = max(best.get(x, 0.0), psnr(picture, truth))
    return [*out, *(("psnr_best_of", f"expert_{x}", value) for x, value in best.items())]


def draws(dataset: str, photo_id: str, settings: Sample, count: int) -> list[Request]:
    """The random c of a photo, the same for every arm."""
    return [r for r in requests(dataset, photo_id, {}, settings.seed, count, 3) if r.sweep == DRAWN]


def varied(scene: Scene, asked: list[Request], size: int) -> list[Picture]:
    """A peer's one result, adjusted so that its scores move by c half-ranges of the photo, for the same random c."""
    base = _planes(scene.own[""])[None]
    c = torch.tensor([request.condition for request in asked], dtype=torch.float64)
    unit = scene.half.clamp(min=1e-6)
    made = vary(base, scores(base, size).double() + c * unit, unit, size)
    return [image.permute(1, 2, 0).numpy() for image in made]


def reconstructed(pipe: RetouchPipeline, picture: Picture, side: int) -> Picture:
    """What the autoencoder alone makes of a picture: squared to `side`, encoded, decoded, back at its own size."""
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
        table = truths.loc[truths["photo_id"] == photo_id, [f"score_{a}" for a in ATTRIBUTES]]
        s = torch.tensor(table.to_numpy(np.float64))
        own = {
            str(row["expert"]) if sweep == "expert" else "": sampled / row["path"] for row in part.to_dict("records")
        }
        line = manifest.loc[photo_id]
        decoded = stage_dir("decode", dataset)
        results = {x: decoded / line[f"expert_{x}"] for x in experts}
        out.append(partial(_read, str(photo_id), decoded / line["input"], results, (s.amax(0) - s.amin(0)) / 2, own))
    return out


def _read(photo_id: str, photo: Path, experts: dict[str, Path], half: Tensor, own: dict[str, Path]) -> Scene:
    opened = ({name: read_srgb(path) for name, path in paths.items()} for paths in (experts, own))
    return Scene(photo_id, read_srgb(photo), next(opened), half, next(opened))


def _planes(picture: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)


def _mean(values: Iterable[float]) -> float:
    """Over those that are known."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
