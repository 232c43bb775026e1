"""What the page shows of one dataset, read from the outputs of the stages before it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from diffretouch.config import Attributes, Report
from diffretouch.files.scales import read_scales
from diffretouch.files.tables import read_table
from diffretouch.files.workspace import require, stage_dir
from diffretouch.report import curves
from diffretouch.report.frames import data_uri
from diffretouch.report.numbers import Company, Metrics, company
from diffretouch.report.photos import Photo, choose, photo, ranges
from diffretouch.report.unused import Unused, unused
from diffretouch.report.weights import read_origin, trained_here, words

PLOTS = {
    "psnr": ("psnr.png", "evaluate"),
    "control": ("control.png", "evaluate"),
    "attributes": ("attributes.png", "attributes"),
    "tsne": ("tsne.png", "embed"),
}
MANIFEST = ("photo_id", "group", "split", "status", "kind", "reason", "camera", "licence", "width", "height", "input")


@dataclass(frozen=True)
class Dataset:
    """One dataset's part of the page."""

    name: str
    card: dict[str, str]
    """Of the corpus: name, provenance, licence, notes, decode_profile, decode_settings, input (raw | rendered)."""
    counts: dict[str, int]
    """Usable photos by split."""
    shared: int
    """Scenes with usable photos in more than one split."""
    sizes: str
    unused: Unused
    metrics: Metrics
    plots: dict[str, str]
    """Name -> data URI."""
    company: tuple[Company, ...]
    photos: tuple[Photo, ...]
    weights: tuple[str, ...]
    """Where the model's weights come from, a line each."""
    trained_here: bool
    """Whether the model is of a training on this corpus: the curves cannot be its own otherwise."""

    @property
    def simulated(self) -> bool:
        """Whether the experts are made by rules."""
        return self.card["provenance"] == "simulated"

    @property
    def rendered(self) -> bool:
        """Whether the inputs came as finished pictures with the corpus."""
        return self.card["input"] == "rendered"


def gather(dataset: str, settings: Report) -> Dataset:
    """Read everything of one dataset; UserError names the command that makes what is missing."""
    decoded = stage_dir("decode", dataset)
    manifest = read_table(decoded / "manifest.parquet", MANIFEST)
    samples = read_table(stage_dir("sample", dataset) / "samples.parquet", ("photo_id", "split", "sweep", "path"))
    measured = read_table(stage_dir("evaluate", dataset) / "per_sample.parquet", ("photo_id", "sweep", "psnr", "path"))
    truths = read_table(stage_dir("attributes", dataset) / "attributes.parquet", ("photo_id", "expert"))
    found = read_scales(dataset)
    scheme = Attributes(**{name: found[name] for name in Attributes.model_fields})
    usable = manifest[manifest["status"] == "ok"]
    sampled = samples[samples["split"] == "test"]
    chosen = choose(usable[usable["photo_id"].isin(sampled["photo_id"])], settings.photos)
    plots = {
        name: data_uri(
            require(stage_dir(stage, dataset) / file, f"dvc repro {stage}@{dataset}").read_bytes(), "image/png"
        )
        for name, (file, stage) in PLOTS.items()
    }
    history = require(stage_dir("train", dataset) / "history.jsonl", f"dvc repro train@{dataset}")
    drawn = curves.draw(curves.read_history(history), title=f"{dataset}: training")
    card = json.loads(require(decoded / "corpus.json", f"dvc repro decode@{dataset}").read_text(encoding="utf-8"))
    origin = read_origin(dataset)
    return Dataset(
        name=dataset,
        card=card,
        counts={split: int((usable["split"] == split).sum()) for split in ("train", "val", "test")},
        shared=int((usable.groupby("group")["split"].nunique() > 1).sum()),
        sizes=_sizes(usable),
        unused=unused(manifest, decoded, settings),
        metrics=Metrics(stage_dir("evaluate", dataset) / "metrics.csv"),
        plots=plots | {"training": data_uri(drawn, "image/png")},
        company=tuple(company(require(stage_dir("embed", dataset) / "tsne.csv", f"dvc repro embed@{dataset}"))),
        photos=tuple(
            photo(line, dataset, samples, measured, ranges(truths, line["photo_id"], scheme), settings)
            for line in chosen.to_dict("records")
        ),
        weights=words(origin),
        trained_here=trained_here(origin, card["name"]),
    )


def _sizes(usable: pd.DataFrame) -> str:
    counted = Counter(zip(usable["width"], usable["height"], strict=True)).most_common(3)
    return ", ".join(f"{width}×{height} ({n})" for (width, height), n in counted)
