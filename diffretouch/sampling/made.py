"""Pictures of photos that are done, kept until all of them are: what a killed run, or runs with a part each, had made.

A photo's folder appears whole, by a rename, and lies below a digest of all that its pictures depend on, so that none
that another model, other parameters or other code made is ever taken. Runs share nothing but that folder: they may be
on machines that mount it under the same path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from diffretouch.errors import ConfigError
from diffretouch.files.atomic import write_text

T = TypeVar("T")
MARK = "made.txt"
"""In a photo's folder: digest of the photo and of what it was asked to become."""


@dataclass(frozen=True)
class Part:
    """Every `of`-th photo from the `number`-th, counted from 1: what one of several runs makes."""

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str) -> Part:
        """`2/4`; ConfigError where it is no such thing."""
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text, re.ASCII)
        if found is None or int(found[1]) > int(found[2]):
            raise ConfigError(f"a part is written as 2/4, the second of four; this is {text!r}")
        return cls(int(found[1]), int(found[2]))

    def take(self, items: Sequence[T]) -> list[T]:
        """Those of `items` that are this run's."""
        return list(items[self.number - 1 :: self.of])


class Made:
    """The photos of one digest that are done; `place` is outside every DVC output, since DVC removes what a stage made.

    place: the dataset's folder, in which every digest has its own.
    depends: all that pictures depend on but the photo itself.
    """

    def __init__(self, place: Path, depends: Mapping[str, Any]) -> None:
        text = json.dumps(depends, sort_keys=True)
        self._place = place
        self._folder = place / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)

    def has(self, photo_id: str, mark: str) -> bool:
        """Whether the photo is done as `mark` says; one that was done otherwise is removed."""
        folder = self._folder / photo_id
        try:
            done = (folder / MARK).read_text()
        except FileNotFoundError:
            return False
        if done != mark:
            shutil.rmtree(folder, ignore_errors=True)  # another run may do so at the same time
        return done == mark

    @contextmanager
    def making(self, photo_id: str, mark: str) -> Iterator[Path]:
        """An empty folder for the photo's pictures, which is the photo's once the block has ended well."""
        beside = self._folder / f".{uuid4().hex}"
        beside.mkdir()
        try:
            yield beside
            write_text(beside / MARK, mark)
            try:
                beside.rename(self._folder / photo_id)
            except OSError:
                # another run was asked for the same photo, and has made the same of it
                if not self.has(photo_id, mark):
                    raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def give(self, photo_id: str, target: Path) -> None:
        """The photo's pictures as `target`, as links: what is kept stays until all is done."""
        shutil.copytree(self._folder / photo_id, target, copy_function=_link, ignore=shutil.ignore_patterns(MARK))

    def others(self) -> int:
        """How many photos are done as another digest says: by another model, with other settings, elsewhere."""
        return sum(mark.parent.parent != self._folder for mark in self._place.glob(f"*/*/{MARK}"))

    def forget(self) -> None:
        """Remove all of the dataset, of other digests too; what a late run still writes goes the next time."""
        for mark in self._place.glob(f"*/*/{MARK}"):
            mark.unlink(missing_ok=True)  # first: killed on the way, no photo is taken for whole
        shutil.rmtree(self._place, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """A link, or a copy where the file system has none or the file is another user's."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
