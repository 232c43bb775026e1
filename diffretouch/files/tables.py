"""Tables between stages: parquet, with the columns a reader counts on checked when it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from diffretouch.errors import UserError
from diffretouch.files.atomic import whole

FACTS = ("group", "licence", "camera", "categories")
"""Of a photo, carried from the manifest into every table."""


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The parquet table at `path`; UserError when it is absent or lacks one of `columns`."""
    if not path.exists():
        raise UserError(f"{path} not found: run the stage that makes it, `dvc repro {'@'.join(path.parts[1:3])}`")
    frame = pd.read_parquet(path)
    missing = [name for name in columns if name not in frame]
    if missing:
        raise UserError(f"{path} lacks the columns {missing}: it has {list(frame.columns)}")
    return frame


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Parquet, whole, without the frame's index."""
    with whole(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")
