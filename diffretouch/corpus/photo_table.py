"""`photos.csv`: what is known of a corpus's photos beside their files, written by `ingest` and by people."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from diffretouch.errors import UserError
from diffretouch.files.atomic import write_text


class PhotoTable(NamedTuple):
    """Columns in the file's order; a row for each photo, every cell a text."""

    columns: list[str]
    rows: list[dict[str, str]]


def read_photo_table(path: Path) -> PhotoTable:
    """The table at `path`, an absent one as an empty one; UserError, with the line, for one that does not fit."""
    if not path.exists():
        return PhotoTable([], [])
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            columns = list(reader.fieldnames or [])
            lines = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table in UTF-8 with commas: {error}") from error
    if "photo_id" not in columns:
        raise UserError(f"{path} lacks the column photo_id: it has {columns}")
    first: dict[str, int] = {}
    for line, row in lines:
        photo_id = row["photo_id"]
        if None in row:
            raise UserError(f"{path}:{line} has more cells than the first line names columns ({len(columns)})")
        if not photo_id:
            raise UserError(f"{path}:{line} lacks its photo_id: fill it in, or remove the line")
        if first.setdefault(photo_id, line) != line:
            raise UserError(f"{path}:{line} is a second row for {photo_id}, after line {first[photo_id]}: keep one")
    return PhotoTable(columns, [row for _, row in lines])


def write_photo_table(path: Path, table: PhotoTable) -> None:
    """Write `table` whole, sorted by photo_id; a file that says the same already is left alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, table.columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(table.rows, key=lambda row: row["photo_id"]))
    if not path.exists() or path.read_bytes() != text.getvalue().encode():
        write_text(path, text.getvalue())
