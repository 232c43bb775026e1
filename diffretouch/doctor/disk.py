"""Room on the disks, and how DVC's cache and the working tree can share files."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from diffretouch.doctor.finding import Finding, size_text

FICLONE = 0x40049409
"""ioctl of XFS and Btrfs: share the blocks of two files (linux/fs.h)."""
LITTLE, ENOUGH = 1 * 2**30, 5 * 2**30
"""Under LITTLE bytes stages fail soon; the demo's chain and installation take ENOUGH."""


def check_room(folder: Path, name: str) -> Finding:
    """Whether the file system of `folder` has room."""
    usage = shutil.disk_usage(folder)
    words = f"{size_text(usage.free)} of {size_text(usage.total)} free for {name} ({folder})"
    if usage.free < LITTLE:
        return Finding("fault", "disk", words, "dvc gc --workspace --all-tags (after a dvc push), or a larger disk")
    if usage.free < ENOUGH:
        return Finding("note", "disk", words, "dvc gc --workspace --all-tags --dry (what it could free)")
    return Finding("good", "disk", words)


def links(cache: Path, folder: Path) -> list[str]:
    """Of reflink, hardlink and symlink, what works from `cache` into `folder`, which exist; tried with a small file."""
    source = cache / f".doctor.{os.getpid()}"
    target = folder / source.name
    ways: dict[str, Callable[[Path, Path], None]] = {
        "reflink": _reflink,
        "hardlink": os.link,
        "symlink": lambda old, new: new.symlink_to(old),
    }
    works = []
    try:
        source.write_bytes(b"x")
        for name, way in ways.items():
            try:
                way(source, target)
            except OSError:
                continue  # what cannot be done is the answer
            finally:
                target.unlink(missing_ok=True)
            works.append(name)
    finally:
        source.unlink(missing_ok=True)
    return works


def check_links(cache: Path, folder: Path, asked: list[str] | None) -> Finding:
    """What DVC will do between its cache and the working tree; `asked` is cache.type, None where nothing sets it."""
    works = [*links(cache, folder), "copy"]
    types = asked or ["reflink", "copy"]
    taken = next((name for name in types if name in works), None)
    words = f"DVC will {taken or 'fail to'} link (cache.type {','.join(types)}; here work {', '.join(works)})"
    if taken is None:
        return Finding("fault", "links", words, "dvc config --local cache.type reflink,copy")
    if taken == "copy":
        words = f"DVC will copy: every file lies on the disk twice (here work {', '.join(works)})"
        return Finding(
            "note", "links", words, "dvc config --local cache.type reflink,symlink,copy && dvc checkout --relink"
        )
    if taken == "hardlink":
        words += ": ingested photos become read-only, and an editor can damage the cache"
        return Finding(
            "note", "links", words, "dvc config --local cache.type reflink,symlink,copy && dvc checkout --relink"
        )
    return Finding("good", "links", words)


def _reflink(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
