"""study: blinded pairs as a static page for raters, and the key to them, kept apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from diffretouch.config import Params
from diffretouch.errors import UserError
from diffretouch.files.atomic import write_text
from diffretouch.files.pictures import Picture, jpeg8, read_srgb, reduce_to
from diffretouch.files.tables import FACTS, read_table
from diffretouch.files.workspace import new_dir, stage_dir
from diffretouch.study.page import key_table, page, trial_table
from diffretouch.study.pairs import Arm, named, plan

JPEG_QUALITY = 95
"""One encoder for every arm; high enough that it cannot be what is preferred."""


def run(params: Params, dataset: str) -> None:
    """Test photos -> export/ (index.html, pictures, trials.csv) and, outside it, key.csv."""
    torch.set_num_threads(1)
    experts, settings = params.corpus(dataset).experts, params.study
    out = new_dir(stage_dir("study", dataset))
    export = new_dir(out / "export")
    arms = _arms(dataset, experts)
    planned = plan(
        list(arms), experts, pairs_a_photo=settings.pairs_a_photo, repeats=settings.repeats, seed=settings.seed
    )
    shown = hashlib.sha256()
    for trial in planned:
        for side, arm in (("left", trial.left), ("right", trial.right)):
            image = reduce_to(_picture(arms[trial.photo_id], arm, experts), long_edge=settings.long_edge)
            jpeg = jpeg8(image, JPEG_QUALITY)
            shown.update(jpeg)
            (export / f"{trial.number}.{side}").write_bytes(jpeg)
    trials = named(planned, seed=settings.seed, pictures=shown.digest())
    for trial in trials:
        (export / f"{trial.number}.left").rename(export / trial.left_file)
        (export / f"{trial.number}.right").rename(export / trial.right_file)
    write_text(export / "index.html", page(trials, dataset))
    write_text(export / "trials.csv", trial_table(trials).to_csv(index=False, lineterminator="\n"))
    facts = read_table(stage_dir("decode", dataset) / "manifest.parquet", ("photo_id", *FACTS))
    key = key_table(trials).join(facts.set_index("photo_id")[[*FACTS]], on="photo_id")
    write_text(out / "key.csv", key.to_csv(index=False, lineterminator="\n"))


def _arms(dataset: str, experts: tuple[str, ...]) -> dict[str, dict[tuple[str, str], Path]]:
    """Test photo -> (arm, expert) -> picture on disk, for photos with a result for every expert."""
    decoded, sampled = stage_dir("decode", dataset), stage_dir("sample", dataset)
    samples = read_table(sampled / "samples.parquet", ("photo_id", "split", "sweep", "expert", "path"))
    ours = samples[(samples["split"] == "test") & (samples["sweep"] == "expert")]
    manifest = read_table(decoded / "manifest.parquet", ("photo_id", "input", *(f"expert_{x}" for x in experts)))
    arms: dict[str, dict[tuple[str, str], Path]] = {}
    for line in manifest[manifest["photo_id"].isin(ours["photo_id"])].sort_values("photo_id").to_dict("records"):
        own = ours[ours["photo_id"] == line["photo_id"]]
        pictures = {("ours", x): sampled / path for x, path in zip(own["expert"], own["path"], strict=True)}
        pictures |= {("expert", x): decoded / line[f"expert_{x}"] for x in experts}
        arms[line["photo_id"]] = pictures | {("input", ""): decoded / line["input"]}
    if not arms:
        raise UserError(f"no test photo of {dataset} has results for its experts: run `dvc repro sample@{dataset}`")
    return arms


def _picture(pictures: dict[tuple[str, str], Path], arm: Arm, experts: tuple[str, ...]) -> Picture:
    if arm.name == "mean_expert":
        return np.mean([read_srgb(pictures["expert", x]) for x in experts], axis=0, dtype=np.float32)
    return read_srgb(pictures[arm.name, arm.expert])
