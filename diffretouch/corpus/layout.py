"""Where a corpus keeps what: the real layouts of FiveK and PPR10K under `data/<dataset>/` (DESIGN)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict

from diffretouch.errors import UserError

SIDECARS = {".jpg", ".jpeg", ".png", ".xmp", ".pp3", ".dop", ".txt", ".csv", ".json", ".yaml", ".db", ".ini"}
PICTURE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


class CorpusCard(BaseModel):
    """`corpus.yaml`: what the corpus is and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    provenance: Literal["real", "simulated"]
    licence: str
    notes: str = ""


@dataclass(frozen=True)
class Photo:
    """One photo of a corpus: its RAW and what the experts made of it. Paths may not exist; decoding says so."""

    photo_id: str
    group: str
    raw: Path
    experts: dict[str, Path]
    mask: Path | None
    licence: str
    categories: str
    camera: str


def read_card(root: Path) -> CorpusCard:
    """The corpus card in `root`; UserError when it is absent or does not fit."""
    path = root / "corpus.yaml"
    if not path.exists():
        raise UserError(
            f"{path} not found: write the demo with `diffretouch demo-data`, or bring a corpus into {root}/"
        )
    try:
        return CorpusCard.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} does not fit (name, provenance real|simulated, licence, notes): {error}") from error


def list_photos(root: Path, experts: Sequence[str]) -> list[Photo]:
    """Every photo of the corpus in `root`, sorted by id; a photo of `photos.csv` whose RAW is gone is listed too.

    A folder `dng/` means FiveK's layout, `raw/` PPR10K's.
    """
    fivek = (root / "dng").is_dir()
    raw_dir, target = (root / "dng", "tiff16_") if fivek else (root / "raw", "target_")
    if not raw_dir.is_dir():
        raise UserError(f"{root} holds neither dng/ (FiveK's layout) nor raw/ (PPR10K's)")
    raws = {path.stem: path for path in sorted(raw_dir.iterdir()) if _may_be_raw(path)}
    facts = _facts(root / "photos.csv")
    photos = []
    for photo_id in sorted(raws.keys() | facts.keys()):
        fact = facts.get(photo_id, {})
        mask = root / "masks" / f"{photo_id}.png"
        photos.append(
            Photo(
                photo_id=photo_id,
                group=fact.get("group") or (photo_id if fivek else photo_id.split("_")[0]),
                raw=raws.get(photo_id, raw_dir / f"{photo_id}.dng"),
                experts={x: _picture(root / f"{target}{x}", photo_id) for x in experts},
                mask=mask if mask.exists() else None,
                licence=fact.get("licence", ""),
                categories=fact.get("categories", ""),
                camera=fact.get("camera") or (re.sub(r"^[a-z]*\d+[-_]?", "", photo_id) if fivek else ""),
            )
        )
    if not photos:
        raise UserError(f"{raw_dir} is empty")
    return photos


def _may_be_raw(path: Path) -> bool:
    """Not what editors and systems leave beside the photos."""
    return path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in SIDECARS


def _picture(folder: Path, photo_id: str) -> Path:
    for suffix in PICTURE_SUFFIXES:
        if (path := folder / f"{photo_id}{suffix}").exists():
            return path
    return folder / f"{photo_id}.tif"


def _facts(path: Path) -> dict[str, dict[str, str]]:
    """`photos.csv` by photo_id; an absent file is an empty one."""
    if not path.exists():
        return {}
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' parser errors and wrong encodings
        raise UserError(f"{path} is no table in UTF-8 with commas: {error}") from error
    if "photo_id" not in frame:
        raise UserError(f"{path} lacks the column photo_id: it has {list(frame.columns)}")
    return {str(row["photo_id"]): {str(k): str(v) for k, v in row.items()} for row in frame.to_dict("records")}
