"""Files that appear whole or not at all: written beside, flushed to disk, renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, that takes its place when the block ends without error.

    An OSError (a full disk, a forbidden folder) leaves with the name of `path`, which libraries often do not tell.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(temporary), temporary):
            raise  # about a file that was read inside the block
        words = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno or EIO, words, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, whole."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, tree: object) -> None:
    """Indented JSON in the order given; NaN and infinity are refused with ValueError."""
    write_text(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")
