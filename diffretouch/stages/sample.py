"""sample: every sweep's pictures for the photos of the configured splits.

What is done is kept outside the stage's output until all is: a run that is killed goes on, and runs with a part of the
photos each, on this machine or on others that share its folder, leave theirs for the one that gathers them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from diffretouch.attributes import ATTRIBUTES
from diffretouch.code import code_fingerprint
from diffretouch.config import Params, Sample
from diffretouch.devices import pick_device
from diffretouch.errors import UserError
from diffretouch.files.pictures import read_srgb, write_png8
from diffretouch.files.tables import FACTS, read_table, write_table
from diffretouch.files.workspace import new_dir, require, stage_dir
from diffretouch.model import RetouchPipeline
from diffretouch.progress import track
from diffretouch.sampling.made import Made, Part
from diffretouch.sampling.retouching import open_model, retouched
from diffretouch.sampling.sweeps import Request, requests
from diffretouch.seeds import seed_of

OF_PHOTO = ["split", *FACTS]
"""Of the photo, carried into the table."""


CODE = (
    *("attributes.py", "bilateral_grid.py", "color.py", "condition.py", "devices.py", "files", "model", "sampling"),
    *("seeds.py", "stages/sample.py"),
)
"""Of this package, what pictures depend on."""


def run(params: Params, dataset: str, part: Part | None = None) -> None:
    """Sample `dataset`: 8-bit sRGB PNG pictures at the photos' own sizes, and samples.parquet.

    With a `part`, only the pictures of its photos, kept for the run without one, which makes what is missing.
    """
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
    device = pick_device(params.runtime.device)
    made = Made(Path("work/.resume") / f"sample-{dataset}", _depends(settings, model, device))
    wanted: dict[str, list[Request]] = {}
    todo: dict[str, str] = {}
    inputs = {str(photo_id): decoded / name for photo_id, name in zip(photos["photo_id"], photos["input"], strict=True)}
    for photo_id in (part or Part()).take(list(inputs)):
        conditions = {x: tuple(own.loc[(photo_id, x)].tolist()) for x in experts}
        wanted[photo_id] = requests(
            dataset, photo_id, conditions, settings.seed, settings.random_draws, settings.axis_points
        )
        mark = _mark(inputs[photo_id], wanted[photo_id])
        if not made.has(photo_id, mark):
            todo[photo_id] = mark
    if todo:
        pipe = open_model(model, settings, device)
    what = f"sample {dataset}" + (f", part {part.number} of {part.of}" if part else "")
    for photo_id, mark in track(todo.items(), what, len(wanted), "photos", len(wanted) - len(todo)):
        with made.making(photo_id, mark) as folder:
            _make(pipe, inputs[photo_id], wanted[photo_id], settings, folder)
    if part:
        return
    if others := made.others():
        print(
            f"NOTE: {others} photos that were made by another model, with other settings or code, another torch, or on "
            f"another kind of device than {device.type} are not taken",
            file=sys.stderr,
        )
    out, rows = new_dir(stage_dir("sample", dataset)), []
    for photo_id, facts in zip(inputs, photos[OF_PHOTO].to_dict("records"), strict=True):
        made.give(photo_id, out / photo_id)
        rows += [_row(request, facts, settings, f"{photo_id}/{_file(request)}") for request in wanted[photo_id]]
    write_table(out / "samples.parquet", pd.DataFrame(rows))
    made.forget()


def _make(pipe: RetouchPipeline, source: Path, wanted: list[Request], settings: Sample, folder: Path) -> None:
    """One photo's pictures."""
    for request, picture in retouched(pipe, read_srgb(source), wanted, settings):
        write_png8(folder / _file(request), picture)


def _file(request: Request) -> str:
    return f"{request.sweep}_{request.expert or request.sample}.png"


def _depends(settings: Sample, model: Path, device: torch.device) -> dict[str, Any]:
    """All that pictures depend on but the photo; of the device its kind alone, so that unlike GPUs share the work."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        digest.update(path.relative_to(model).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    versions = {name: version(name) for name in ("torch", "diffusers")}
    asked = settings.model_dump(mode="json", exclude={"splits"})
    return {"sample": asked, "model": digest.hexdigest(), "code": code_fingerprint(CODE), "on": device.type, **versions}


def _mark(source: Path, wanted: list[Request]) -> str:
    """Digest of a photo and of what it is asked to become."""
    asked = json.dumps([(*request.noise, *request.condition, _file(request)) for request in wanted])
    return hashlib.sha256(source.read_bytes() + asked.encode()).hexdigest()


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
