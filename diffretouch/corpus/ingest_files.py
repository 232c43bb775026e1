"""The files of a download: found, compared with what the corpus has, linked or copied, each whole or not at all."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from diffretouch.corpus.layout import spelled
from diffretouch.files.atomic import whole

State = Literal["added", "there", "changed"]
LEFT_BY_A_KILL = re.compile(r"\..+\.\d+(\.[^.]+)?")
"""Temporary names, as `whole` makes them."""
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Another file system, one without hard links, somebody else's file (fs.protected_hardlinks), too many links."""


class File(NamedTuple):
    """A file of the download."""

    path: str
    parts: tuple[str, ...]
    """The download's own name, the folders below it, the file's name."""
    inode: tuple[int, int]
    """File system and number."""
    size: int
    mtime_ns: int


def walk(source: Path, skip: Path) -> Iterator[File | str]:
    """Every file below `source`, sorted by name, links followed; a text in place of what is not looked into.

    That is: hidden files and folders, names that are no UTF-8, links that lead nowhere or back up, anything special,
    and the folder `skip`.
    """
    yield from _walk(
        str(source), (source.resolve().name,), [_inode(source.stat())], _inode(skip.stat()) if skip.exists() else None
    )


def _walk(
    folder: str, parts: tuple[str, ...], above: list[tuple[int, int]], skip: tuple[int, int] | None
) -> Iterator[File | str]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            here = (*parts, entry.name)
            odd = entry.name.startswith(".") or spelled(entry.name) != entry.name
            if odd or not (entry.is_dir() or entry.is_file()):
                yield "/".join(here[1:])
                continue
            found = entry.stat()
            inode = _inode(found)
            if entry.is_file():
                yield File(entry.path, here, inode, found.st_size, found.st_mtime_ns)
            elif inode in above or inode == skip:
                yield "/".join(here[1:]) + "/"
            else:
                yield from _walk(entry.path, here, [*above, inode], skip)


def same_content(file: File, other: File) -> bool:
    """Whether two files of the download hold the same bytes."""
    return file.inode == other.inode or (file.size == other.size and filecmp.cmp(file.path, other.path, shallow=False))


def quick_state(file: File, target: Path) -> State | None:
    """What `target` is to `file`, without reading: there by inode, or by size and time; None if only bytes can tell."""
    try:
        found = target.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "added"
    if _inode(found) == file.inode or (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns):
        return "there"
    return "changed" if found.st_size != file.size else None


def slow_state(file: File, target: Path) -> State:
    """As `quick_state`, by the bytes."""
    return "there" if filecmp.cmp(file.path, target, shallow=False) else "changed"


def can_link(file: File, folder: Path) -> bool:
    """Whether a hard link to `file` can stand in `folder` or, while that is absent, in the next folder above it.

    It is tried, since file systems, their options and their owners all have a say.
    """
    while not folder.is_dir():
        folder = folder.parent
    trial = folder / f".link.{os.getpid()}"
    try:
        os.link(os.path.realpath(file.path), trial)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    trial.unlink()
    return True


def link(file: File, target: Path) -> None:
    """A hard link at `target`, in place of what is there."""
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        os.link(os.path.realpath(file.path), temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def copy(file: File, target: Path) -> None:
    """The same bytes and time at `target`, in place of what is there."""
    with whole(target) as temporary:
        shutil.copyfile(file.path, temporary)
        os.utime(temporary, ns=(file.mtime_ns, file.mtime_ns))


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove what a run that was killed left half-written in `folders`."""
    for folder in folders:
        if folder.is_dir():
            for path in [path for path in folder.iterdir() if LEFT_BY_A_KILL.fullmatch(path.name)]:
                path.unlink()


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
