"""The corpora: there, whole, of known origin and licence; and what decode made of them last time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from diffretouch.config import Params
from diffretouch.corpus.layout import list_photos, read_card
from diffretouch.doctor.finding import Finding
from diffretouch.errors import UserError

SHOWN = 3


def check_corpora(params: Params, root: Path) -> list[Finding]:
    """Findings about every dataset of params.yaml; folders are listed, no photo is opened."""
    return [finding for dataset in params.datasets for finding in _check(params, root, dataset)]


def _check(params: Params, root: Path, dataset: str) -> list[Finding]:
    area, folder = f"corpus {dataset}", root / "data" / dataset
    mend = f"dvc pull data/{dataset}; or diffretouch demo-data; or diffretouch ingest {dataset} FOLDER"
    try:
        card = read_card(folder)
        photos = list_photos(folder, params.corpus(dataset).experts, rendered=params.decode.input == "rendered")
    except UserError as error:
        return [Finding("fault", area, str(error), mend)]
    rendered = params.decode.input == "rendered"
    lacking = [
        photo.photo_id
        for photo in photos
        if photo.problem
        or not (photo.rendered if rendered else photo.raw.exists())
        or not all(path.exists() for path in photo.experts.values())
    ]
    found = [Finding("good", area, f"{card.name}, {card.provenance}: {len(photos) - len(lacking)} whole photos")]
    if lacking:
        share, allowed = len(lacking) / len(photos), params.decode.max_quarantined_share
        words = f"{len(lacking)} of {len(photos)} photos lack files or have several RAWs ({_some(lacking)})"
        found.append(
            Finding(
                "fault" if share > allowed else "note", area, words, f"diffretouch ingest {dataset} FOLDER --dry-run"
            )
        )
    licences = Counter(photo.licence or "unknown" for photo in photos)
    area_ = f"licence {dataset}"
    words = "; ".join(f"{licence}: {count}" for licence, count in licences.most_common(SHOWN))
    known = not licences["unknown"] or card.licence
    told = f"{words}. Corpus: {card.licence or 'unknown'}"
    where = (
        f"diffretouch ingest {dataset} FOLDER with its licence lists, or a column licence in data/{dataset}/photos.csv"
    )
    found.append(Finding("good", area_, told) if known else Finding("note", area_, told, where))
    return [*found, *_quarantined(root, dataset)]


def _quarantined(root: Path, dataset: str) -> list[Finding]:
    manifest = root / "work/decode" / dataset / "manifest.parquet"
    if not manifest.exists():
        return [Finding("note", f"corpus {dataset}", "not decoded yet", f"dvc repro decode@{dataset}")]
    from pyarrow import parquet

    states = Counter(parquet.read_table(manifest, columns=["status"]).column("status").to_pylist())
    if not states["quarantined"]:
        return [Finding("good", f"corpus {dataset}", f"decoded: all {states['ok']} photos")]
    words = f"decode could not use {states['quarantined']} of {states.total()} photos"
    return [Finding("note", f"corpus {dataset}", words, "dvc repro report, then see the reasons in reports/index.html")]


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
