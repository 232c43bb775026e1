"""What of a corpus is already decoded: digests of files by their stamps, and a journal of photos.

Two things are kept, so that a run redoes what changed and nothing else, and a killed run goes on where it was:
- `<dataset>.records.parquet` beside the outputs: of each photo the key (a digest of everything its pictures depend on)
  and the digests of its files. It travels with the outputs and holds no time, host or path outside them.
- a journal in work/.resume, local: the same of photos of an unfinished run, and the stamps (size, time, inode) under
  which a file's digest was last taken, so that unchanged files are not read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from errno import EIO
from pathlib import Path
from typing import Any

import pandas as pd

from diffretouch.files.atomic import write_text
from diffretouch.files.tables import read_table, write_table

Stamp = tuple[int, int, int]
"""Size in bytes, time of last change in ns, inode."""
ABSENT = "absent"


@dataclass(frozen=True)
class Record:
    """One finished photo."""

    key: str
    row: dict[str, Any]
    files: dict[str, str]
    """Path below the output folder -> digest."""


@dataclass
class Digests:
    """SHA-256 of files, taken again only when a file's stamp is another than it was."""

    known: dict[str, tuple[Stamp, str]] = field(default_factory=dict)

    def current(self, path: Path) -> str | None:
        """The digest if the file is unchanged since it was taken, `absent` without a file, None when unknown."""
        stamp = stamp_of(path)
        if stamp is None:
            return ABSENT
        found = self.known.get(str(path))
        return found[1] if found is not None and found[0] == stamp else None

    def of(self, path: Path) -> str:
        """The digest, taken now if need be."""
        digest = self.current(path)
        if digest is None:
            stamp = stamp_of(path)  # before reading: a file changed meanwhile is read again next time
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if stamp is not None:
                self.known[str(path)] = (stamp, digest)
        return digest


def stamp_of(path: Path) -> Stamp | None:
    """The file's stamp, or None without a file there."""
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_size, info.st_mtime_ns, info.st_ino


def key_of(sources: dict[str, str], settings: str) -> str:
    """The key of a photo from the digests of its sources, by role, and a digest of the settings and the code."""
    return hashlib.sha256(json.dumps([sources, settings], sort_keys=True).encode()).hexdigest()


class Journal:
    """Lines of JSON, one a finished photo; a line torn by a kill is forgotten, and its photo done again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self.digests = Digests()
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            return
        for file, (size, time, inode, digest) in entry["stamps"].items():
            self.digests.known[file] = ((size, time, inode), digest)
        if "photo_id" in entry:
            self.records[entry["photo_id"]] = Record(entry["key"], entry["row"], entry["files"])

    def begin(self, records: dict[str, Record]) -> None:
        """A run starts from these records, which from now on stand here and not among the outputs."""
        self.records = dict(records)
        lines = [json.dumps({"stamps": _flat(self.digests.known)})]
        lines += [_line(photo_id, record, {}) for photo_id, record in records.items()]
        write_text(self.path, "\n".join(lines) + "\n")

    def add(self, photo_id: str, record: Record, stamps: dict[str, tuple[Stamp, str]]) -> None:
        """Note a finished photo."""
        self.records[photo_id] = record
        self.digests.known |= stamps
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # a new line first: what stands before may be torn
                file.write("\n" + _line(photo_id, record, stamps))
        except OSError as error:  # which does not name the file where the disk is full
            raise OSError(error.errno, os.strerror(error.errno or EIO), str(self.path)) from error

    def end(self, keep: Iterable[Path]) -> None:
        """The outputs hold the records again: only the stamps of the files `keep` stay here."""
        known = self.digests.known
        kept = {str(path): known[str(path)] for path in keep if str(path) in known}
        write_text(self.path, json.dumps({"stamps": _flat(kept)}) + "\n")


def _line(photo_id: str, record: Record, stamps: dict[str, tuple[Stamp, str]]) -> str:
    return json.dumps({"photo_id": photo_id, **asdict(record), "stamps": _flat(stamps)})


def _flat(stamps: dict[str, tuple[Stamp, str]]) -> dict[str, list[Any]]:
    return {path: [*stamp, digest] for path, (stamp, digest) in stamps.items()}


def read_records(path: Path) -> dict[str, Record]:
    """The records among a finished run's outputs."""
    frame = read_table(path, ["photo_id", "key", "row", "files"])
    rows = zip(frame["photo_id"], frame["key"], frame["row"], frame["files"], strict=True)
    return {name: Record(key, json.loads(row), json.loads(files)) for name, key, row, files in rows}


def write_records(path: Path, records: dict[str, Record]) -> None:
    """Sorted by photo, so that equal records have equal bytes."""
    rows = [
        {"photo_id": name, "key": record.key, "row": _text(record.row), "files": _text(record.files)}
        for name, record in sorted(records.items())
    ]
    write_table(path, pd.DataFrame(rows, columns=["photo_id", "key", "row", "files"]))


def _text(tree: dict[str, Any]) -> str:
    return json.dumps(tree, sort_keys=True)
