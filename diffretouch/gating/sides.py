"""One side of the comparison: what the stages up to evaluate left in a working tree, test photos only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Attributes
from diffretouch.errors import UserError
from diffretouch.evaluation import control
from diffretouch.files.tables import read_table
from diffretouch.files.workspace import require, stage_dir

SPLIT = "test"
METRICS = ("psnr", "ssim", "ciede2000")
FACTS = ("group", "camera", "categories")
CONDITION = tuple(f"c_{name}" for name in ATTRIBUTES)
SCORES = tuple(f"score_{name}" for name in ATTRIBUTES)
KEYS = ("photo_id", "split", *FACTS, "licence", "sweep", "expert", "sample", "seed", "path")
MEASURED = (*KEYS, *CONDITION, *METRICS, *SCORES)


@dataclass(frozen=True)
class Side:
    """The challenger or the champion."""

    name: Literal["challenger", "champion"]
    root: Path
    dataset: str
    rows: pd.DataFrame
    """per_sample of the test photos: MEASURED and more, a row a picture and expert it was compared with."""
    manifest: pd.DataFrame
    """Of every photo, indexed by photo_id."""
    truths: pd.DataFrame
    """attributes.parquet of the test photos."""
    scheme: Attributes
    """How c was made and attributes were scored (scales.json)."""
    corpus: dict[str, str]
    """Name, provenance, licence, notes, decode_profile, input."""
    origin: dict[str, Any]
    """What the model says it was made from (`model.card.Origin`)."""

    def work(self, stage: str) -> Path:
        """What `stage` left in this tree."""
        return self.root / stage_dir(stage, self.dataset)

    @property
    def model(self) -> Path:
        """The pipeline folder."""
        return self.work("train") / "model"

    @property
    def photos(self) -> tuple[str, ...]:
        """Ids of the test photos, sorted."""
        return tuple(sorted(self.rows["photo_id"].unique()))

    @property
    def groups(self) -> dict[str, str]:
        """Scene of every test photo."""
        return dict(zip(self.rows["photo_id"], self.rows["group"], strict=True))

    def ranges(self) -> pd.DataFrame:
        """`control.half_ranges` of the test photos."""
        return control.half_ranges(self.truths, self.scheme)


def read_side(name: Literal["challenger", "champion"], root: Path, dataset: str) -> Side:
    """Read one tree; UserError names the file that is absent or unreadable and the command that makes it."""

    def made(stage: str, file: str) -> Path:
        return require(root / stage_dir(stage, dataset) / file, f"dvc repro {stage}@{dataset}` in `{root}")

    rows = read_table(made("evaluate", "per_sample.parquet"), MEASURED)
    rows = rows[rows["split"] == SPLIT].reset_index(drop=True)
    if not (rows["sweep"] == "expert").any():
        raise UserError(f"the {name} in {root} has no results for test photos of {dataset}: see sample.splits")
    wanted = ("photo_id", "split", "status", "licence", "input")
    manifest = read_table(made("decode", "manifest.parquet"), wanted).set_index("photo_id")
    truths = read_table(made("attributes", "attributes.parquet"), ("photo_id", "expert", *SCORES))
    scales = _json(made("attributes", "scales.json"))
    return Side(
        name=name,
        root=root,
        dataset=dataset,
        rows=rows,
        manifest=manifest,
        truths=truths[truths["photo_id"].isin(rows["photo_id"])],
        scheme=Attributes(**{field: scales[field] for field in Attributes.model_fields}),
        corpus=_json(made("decode", "corpus.json")),
        origin=_json(made("train", "model/model_index.json")).get("origin") or {},
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is not what its stage writes: {error}") from error
