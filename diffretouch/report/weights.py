"""In words, where the judged model's weights come from: by what the model says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from diffretouch.files.workspace import require, stage_dir

Origin = Mapping[str, Any]


def read_origin(dataset: str) -> Origin:
    """What the model of `dataset` records of its making; empty where it records nothing."""
    index = require(stage_dir("train", dataset) / "model" / "model_index.json", f"dvc repro train@{dataset}")
    origin: Origin = json.loads(index.read_text(encoding="utf-8")).get("origin") or {}
    return origin


def trained_here(origin: Origin, corpus: str) -> bool:
    """Whether it was trained on the corpus of that name; another training on it passes, too."""
    return origin.get("dataset") == corpus


def words(origin: Origin) -> tuple[str, ...]:
    """A line for the network and one for its autoencoder."""
    start, autoencoder = origin.get("start"), origin.get("autoencoder")
    if "dataset" not in origin:
        return (f"network and autoencoder: {_taken(origin)}",)
    began = f"from other weights: {_taken(start)}" if start else "from random weights"
    if autoencoder:
        own = _taken(autoencoder)
    else:
        own = "the one of the weights it started from" if start else "fitted to the training photos before it"
    return f"network trained on {origin['dataset']}, {began}", f"autoencoder: {own}"


def _taken(origin: Origin) -> str:
    if "weights" in origin:
        told = f"{origin['weights']}, SHA-256 {origin['sha256']}"
    elif "dataset" in origin:
        told = f"a model trained on {origin['dataset']}"
    else:
        told = str(origin.get("notes") or "not recorded where from").rstrip(".")
    return told + (f" (licence: {origin['licence']})" if origin.get("licence") else "")
