"""evaluate: measure every sampled picture against the experts, with intervals over scenes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Attributes, Evaluate, Params
from diffretouch.evaluation import control, plots, summary
from diffretouch.evaluation.measure import METRIC_COLUMNS, SCORES, Photo, Ruler, Sampled, measure_all
from diffretouch.files.atomic import whole, write_json
from diffretouch.files.figures import save
from diffretouch.files.scales import read_scales
from diffretouch.files.tables import FACTS, read_table, write_table
from diffretouch.files.workspace import new_dir, publish, report_dir, require, stage_dir

OF_PHOTO = ("split", *FACTS)
"""Of the photo, carried on from the samples."""
SAMPLES = ("photo_id", *OF_PHOTO, "sweep", "expert", "sample", "path", *(f"c_{name}" for name in ATTRIBUTES))


def run(params: Params, dataset: str) -> None:
    """samples.parquet and the decoded pictures -> per_sample.parquet, metrics.json, metrics.csv and two plots."""
    experts = params.corpus(dataset).experts
    decoded, scored, sampled = (stage_dir(stage, dataset) for stage in ("decode", "attributes", "sample"))
    wanted = ("photo_id", "input", "mask", *(f"expert_{x}" for x in experts))
    manifest = read_table(decoded / "manifest.parquet", wanted)
    samples = read_table(sampled / "samples.parquet", SAMPLES).convert_dtypes()
    truths = read_table(scored / "attributes.parquet", ("photo_id", "expert", *SCORES))
    scales = read_scales(dataset)
    card = json.loads(require(decoded / "corpus.json", f"dvc repro decode@{dataset}").read_text())

    ruler = Ruler(scales["size"], _lpips(params.evaluate, dataset))
    photos = _photos(manifest, samples, experts, decoded, sampled)
    rows = measure_all(photos, ruler, workers=params.runtime.workers, label=f"evaluate {dataset}")
    table = _join(samples, pd.DataFrame(rows))
    out = new_dir(stage_dir("evaluate", dataset))
    write_table(out / "per_sample.parquet", table)

    # the very settings the attributes were made with
    ranges = control.half_ranges(truths, Attributes(**{name: scales[name] for name in Attributes.model_fields}))
    metrics = _summarise(table, truths, ranges, params.evaluate, card["provenance"])
    with whole(out / "metrics.csv") as temporary:
        metrics.to_csv(temporary, index=False, lineterminator="\n")
    write_json(report_dir(dataset) / "metrics.json", summary.headlines(metrics))

    shown = metrics[metrics["split"] == summary.HEADLINE]
    title = f"{dataset} ({card['provenance']} corpus), {summary.HEADLINE} photos"
    save(plots.psnr(shown, experts, title=title, confidence=params.evaluate.confidence), out / "psnr.png")
    axis_rows = table[(table["split"] == summary.HEADLINE) & table["sweep"].str.startswith("axis_")]
    save(plots.control(control.responses(axis_rows, ranges), shown, title=title), out / "control.png")
    for name in ("metrics.csv", "psnr.png", "control.png"):
        publish(out / name, dataset)


def _lpips(settings: Evaluate, dataset: str) -> tuple[str, Path, str | None] | None:
    weights = settings.lpips
    if weights.backbone is None:
        print(f"evaluate {dataset}: LPIPS is left out, evaluate.lpips.backbone names no weights")
        return None
    return weights.net, weights.backbone, weights.sha256


def _photos(
    manifest: pd.DataFrame, samples: pd.DataFrame, experts: tuple[str, ...], decoded: Path, sampled: Path
) -> list[Photo]:
    """The sampled photos with their pictures on disk, sorted by id; `key` is a picture's row in `samples`."""
    own = {str(photo_id): part.to_dict("index") for photo_id, part in samples.groupby("photo_id")}
    photos = []
    for line in manifest[manifest["photo_id"].isin(own)].sort_values("photo_id").to_dict("records"):
        pictures = tuple(
            Sampled(int(key), row["sweep"], None if pd.isna(row["expert"]) else row["expert"], sampled / row["path"])
            for key, row in own[line["photo_id"]].items()
        )
        targets = {x: decoded / line[f"expert_{x}"] for x in experts}
        mask = None if pd.isna(line["mask"]) else decoded / line["mask"]
        photos.append(Photo(line["photo_id"], decoded / line["input"], targets, mask, pictures))
    return photos


def _join(samples: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Measured rows with the keys of their samples; those of the input and the experts' mean have no sample."""
    facts = samples.drop_duplicates("photo_id").set_index("photo_id")[list(OF_PHOTO)]
    keys = samples.drop(columns=["photo_id", *OF_PHOTO, "sweep", "expert"])
    joined = measured.join(facts, on="photo_id").join(keys, on="key").drop(columns="key")
    first = ["photo_id", *OF_PHOTO, "sweep", "expert", *keys.columns]
    return joined[[*first, *(name for name in METRIC_COLUMNS if name in joined)]]


def _summarise(
    table: pd.DataFrame,
    truths: pd.DataFrame,
    ranges: pd.DataFrame,
    settings: Evaluate,
    provenance: str,
) -> pd.DataFrame:
    """metrics.csv: all lines of every split."""
    groups = dict(zip(table["photo_id"], table["group"], strict=True))
    estimate = summary.estimator(groups, settings)
    frames = []
    for split, part in table.groupby("split", sort=True):
        axis = part["sweep"].str.startswith("axis_")
        compared, own = part[~axis], truths[truths["photo_id"].isin(part["photo_id"])]
        lines = summary.picture_lines(compared, estimate) + summary.slice_lines(compared, estimate)
        lines += summary.difference_lines(compared, estimate)
        lines += summary.variance_lines(compared, estimate)
        lines += summary.control_lines(part[axis], own, ranges, estimate)
        if "psnr_hc" in part:
            lines += summary.consistency_lines(compared, groups, settings)
        frames.append(summary.table(str(split), lines, provenance))
    return pd.concat(frames, ignore_index=True)
