"""What the attributes stage measured on: its scales.json, which all later readers of scores need."""

from __future__ import annotations

import json
from typing import Any

from diffretouch.files.workspace import require, stage_dir


def read_scales(dataset: str) -> dict[str, Any]:
    """The attributes stage's scales.json; UserError when it is absent."""
    path = require(stage_dir("attributes", dataset) / "scales.json", f"dvc repro attributes@{dataset}")
    return json.loads(path.read_text(encoding="utf-8"))
