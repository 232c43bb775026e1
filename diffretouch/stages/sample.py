"""sample: every sweep's pictures for the photos of the configured splits."""

from __future__ import annotations

import pandas as pd
import torch

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Params, Sample
from diffretouch.devices import pick_device
from diffretouch.errors import UserError
from diffretouch.files.pictures import read_srgb, write_png8
from diffretouch.files.tables import FACTS, read_table, write_table
from diffretouch.files.workspace import new_dir, require, stage_dir
from diffretouch.model import RetouchPipeline
from diffretouch.progress import track
from diffretouch.sampling.sweeps import Request, requests
from diffretouch.seeds import generator, seed_of

OF_PHOTO = ["split", *FACTS]
"""Of the photo, carried into the table."""


def run(params: Params, dataset: str) -> None:
    """Sample `dataset`: 8-bit sRGB PNG pictures at the photos' own sizes, and samples.parquet."""
    torch.set_num_threads(params.runtime.threads)
    settings, experts = params.sample, params.corpus(dataset).experts
    decoded = stage_dir("decode", dataset)
    manifest = read_table(decoded / "manifest.parquet", ["photo_id", "status", "input", *OF_PHOTO])
    photos = manifest[(manifest["status"] == "ok") & manifest["split"].isin(settings.splits)]
    if photos.empty:
        raise UserError(f"{dataset} has no usable photos in the splits {list(settings.splits)}: see {decoded}")
    table = read_table(stage_dir("attributes", dataset) / "attributes.parquet", ["photo_id", "expert"])
    own = table.set_index(["photo_id", "expert"])[[f"c_{a}" for a in ATTRIBUTES]]
    model = require(stage_dir("train", dataset) / "model", f"dvc repro train@{dataset}")
    pipe = RetouchPipeline.from_pretrained(model, local_files_only=True).to(pick_device(params.runtime.device))
    out = new_dir(stage_dir("sample", dataset))
    rows = []
    for _, photo in track(photos.iterrows(), f"sample {dataset}", len(photos)):
        photo_id = str(photo["photo_id"])
        conditions = {x: tuple(own.loc[(photo_id, x)].tolist()) for x in experts}
        wanted = requests(dataset, photo_id, conditions, settings.seed, settings.random_draws, settings.axis_points)
        picture = torch.from_numpy(read_srgb(decoded / photo["input"])).permute(2, 0, 1)
        for start in range(0, len(wanted), settings.batch_size):
            batch = wanted[start : start + settings.batch_size]
            made = pipe(
                [picture] * len(batch),
                torch.tensor([request.condition for request in batch], dtype=torch.float32),
                num_inference_steps=settings.steps,
                last_timestep=settings.last_timestep,
                generator=[generator(*request.noise) for request in batch],
            )
            for request, image in zip(batch, made.images, strict=True):
                name = f"{photo_id}/{request.sweep}_{request.expert or request.sample}.png"
                write_png8(out / name, image.permute(1, 2, 0).cpu().numpy())
                rows.append(_row(request, photo[OF_PHOTO].to_dict(), settings, name))
    write_table(out / "samples.parquet", pd.DataFrame(rows))


def _row(request: Request, facts: dict[str, str], settings: Sample, path: str) -> dict[str, object]:
    return {
        "photo_id": request.photo_id,
        **facts,
        "sweep": request.sweep,
        "expert": request.expert,
        "sample": request.sample,
        "seed": seed_of(*request.noise),
        "scheduler": settings.scheduler,
        "steps": settings.steps,
        **{f"c_{a}": value for a, value in zip(ATTRIBUTES, request.condition, strict=True)},
        "path": path,
    }
