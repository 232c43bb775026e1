"""embed: style features of inputs, experts' and random results, and their t-SNE (figure 1 of Duan 2025)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from diffretouch.config import Params
from diffretouch.evaluation import tsne
from diffretouch.evaluation.style import FEATURES, NAME, describe, nearest, style_space
from diffretouch.files.atomic import whole
from diffretouch.files.figures import save
from diffretouch.files.pictures import read_srgb
from diffretouch.files.tables import FACTS, read_table, write_table
from diffretouch.files.workspace import new_dir, publish, stage_dir
from diffretouch.progress import track

RANDOM = ("random_0_1", "random_1_2", "random_2_3")
"""Of the photo, carried on from the manifest."""


def run(params: Params, dataset: str) -> None:
    """Pictures of the test photos -> features.parquet, tsne.csv and tsne.png."""
    torch.set_num_threads(1)
    experts = params.corpus(dataset).experts
    pictures = _pictures(dataset, experts)
    paths = [Path(path) for path in pictures.pop("path")]
    rows = [describe(read_srgb(path)) for path in track(paths, f"embed {dataset}", len(paths))]
    table = pd.concat([pictures, pd.DataFrame(rows, columns=list(FEATURES))], axis=1)
    out = new_dir(stage_dir("embed", dataset))
    write_table(out / "features.parquet", table)

    style = style_space(table)
    settings = params.embed
    places = tsne.project(style, perplexity=settings.perplexity, iterations=settings.iterations, seed=settings.seed)
    placed = pictures.assign(x=places[:, 0], y=places[:, 1]).join(nearest(table, style)).round(4)
    with whole(out / "tsne.csv") as temporary:
        placed.to_csv(temporary, index=False, lineterminator="\n")
    save(tsne.figure(placed, title=f"{dataset}: t-SNE of a {NAME}"), out / "tsne.png")
    for name in ("tsne.csv", "tsne.png"):
        publish(out / name, dataset)


def _pictures(dataset: str, experts: tuple[str, ...]) -> pd.DataFrame:
    """photo_id, FACTS, kind (input | ground_truth | random_*), expert, sample and path of the sampled test photos."""
    decoded, sampled = stage_dir("decode", dataset), stage_dir("sample", dataset)
    samples = read_table(sampled / "samples.parquet", ("photo_id", "split", "sweep", "sample", "path"))
    samples = samples[samples["split"] == "test"]
    wanted = ("photo_id", *FACTS, "input", *(f"expert_{x}" for x in experts))
    manifest = read_table(decoded / "manifest.parquet", wanted)
    photos = manifest[manifest["photo_id"].isin(samples["photo_id"])].sort_values("photo_id")
    rows = []
    for line in photos.to_dict("records"):
        photo = {"photo_id": line["photo_id"], "expert": "", "sample": 0}
        rows.append({**photo, "kind": "input", "path": decoded / line["input"]})
        truth = {**photo, "kind": "ground_truth"}
        rows += [{**truth, "expert": x, "path": decoded / line[f"expert_{x}"]} for x in experts]
    for line in samples[samples["sweep"].isin(RANDOM)].sort_values(["photo_id", "sweep", "sample"]).to_dict("records"):
        own = {"photo_id": line["photo_id"], "kind": line["sweep"], "expert": "", "sample": int(line["sample"])}
        rows.append({**own, "path": sampled / line["path"]})
    pictures = pd.DataFrame(rows, columns=["photo_id", "kind", "expert", "sample", "path"])
    facts = pictures[["photo_id"]].join(photos.set_index("photo_id")[[*FACTS]], on="photo_id")
    return pd.concat([facts, pictures.drop(columns="photo_id")], axis=1)
