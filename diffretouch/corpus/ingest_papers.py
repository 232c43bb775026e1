"""What stands beside the photos: the release's own lists, `photos.csv` made from them, and the corpus card."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

import yaml

from diffretouch.corpus.ingest_names import fivek_base
from diffretouch.corpus.layout import FIVEK, CorpusCard, Layout, camera_of, group_of
from diffretouch.corpus.photo_table import PhotoTable, read_photo_table, write_photo_table
from diffretouch.errors import UserError
from diffretouch.files.atomic import write_text

COLUMNS = ("photo_id", "group", "licence", "categories", "camera")
NOT_COMMERCIAL = "PPR10K, non-commercial research only"
CARDS = {
    "fivek": CorpusCard(
        name="MIT-Adobe FiveK",
        provenance="real",
        licence="LicenseAdobe or LicenseAdobeMIT of the MIT-Adobe FiveK dataset, photo by photo: research only",
        notes="Brought in by diffretouch ingest fivek. A photo's licence stands in photos.csv.",
    ),
    "ppr10k": CorpusCard(
        name="PPR10K",
        provenance="real",
        licence=NOT_COMMERCIAL,
        notes="Brought in by diffretouch ingest ppr10k.",
    ),
}


def read_papers(papers: Iterable[Path]) -> dict[str, dict[str, str]]:
    """Licence and categories by base, from FiveK's lists; UserError, with the line, for one that is no such list."""
    facts: dict[str, dict[str, str]] = defaultdict(dict)
    for path in papers:
        name = path.name.lower()
        if name.startswith("files"):
            for base, _ in _lines(path):
                facts[base]["licence"] = path.stem.removeprefix("files")
        elif name.startswith("categories"):
            for base, cells in _lines(path):
                facts[base]["categories"] = " ".join("unknown" if cell in ("", "None") else cell for cell in cells)
    return dict(facts)


def _lines(path: Path) -> Iterable[tuple[str, list[str]]]:
    """Base and further cells of every line; the first line may be a heading."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                cells = [cell.strip() for cell in row]
                base = fivek_base(cells[0].removesuffix(".dng")) if cells else None
                if base:
                    yield base, cells[1:]
                elif number > 1 and any(cells):
                    raise UserError(
                        f"{path}:{number} must begin with a photo's name such as a0001-jmac_DSC1459: it is {cells[0]!r}"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no text with a photo's name at the head of each line: {error}") from error


def merge_photos(path: Path, layout: Layout, photos: Collection[str], facts: dict[str, dict[str, str]]) -> list[str]:
    """Bring `photos.csv` up to date with the `photos` that have files, and what is known of them.

    Rows and columns that people added stay, and so does every cell that is not empty. Returns what differs from the
    release's lists, a sentence each.
    """
    old = read_photo_table(path)
    rows = {row["photo_id"]: dict(row) for row in old.rows}
    differ: Counter[str] = Counter()
    for photo_id in {*rows, *photos}:
        known = {
            "photo_id": photo_id,
            "group": group_of(layout, photo_id),
            "licence": "" if layout is FIVEK else NOT_COMMERCIAL,
            "camera": camera_of(layout, photo_id),
            **facts.get(photo_id, {}),
        }
        row = rows.setdefault(photo_id, {})
        differ.update(name for name in facts.get(photo_id, {}) if row.get(name) and row[name] != known[name])
        row.update({name: value for name, value in known.items() if not row.get(name)})
    columns = [*old.columns, *(name for name in COLUMNS if name not in old.columns)]
    write_photo_table(path, PhotoTable(columns, list(rows.values())))
    return [
        f"{name} differs from the release's list in {count} rows of {path}: kept; empty a cell to take the list's"
        for name, count in sorted(differ.items())
    ]


def write_card(folder: Path, dataset: str) -> None:
    """The corpus card of a real release, where there is none."""
    path = folder / "corpus.yaml"
    if not path.exists():
        write_text(path, yaml.safe_dump(CARDS[dataset].model_dump(), sort_keys=False, width=100))
