"""What DVC will do to linked files, read from its configuration files (never from DVC itself)."""

from __future__ import annotations

import os
from configparser import ConfigParser, Error
from pathlib import Path
from typing import NamedTuple

from diffretouch.errors import UserError


class LinkType(NamedTuple):
    """`cache.type` and the file that sets it."""

    types: tuple[str, ...]
    """In the order in which DVC tries them."""
    file: Path

    @property
    def own_files_read_only(self) -> bool:
        """Whether `dvc add` makes the added file itself part of its read-only cache, under whatever names it has.

        DVC 3 does so where hardlink comes first; with every other order it copies into the cache and leaves the
        original alone (`Output.add` in dvc/output.py).
        """
        return self.types[:1] == ("hardlink",)


def link_type(folder: Path) -> LinkType | None:
    """What DVC will link `folder` by; None outside a DVC repository, or where nothing sets it (reflink, else copy).

    As in DVC, `.dvc/config.local` goes before `.dvc/config`, the user's own and the machine's. UserError for a file
    that cannot be read.
    """
    repository = next((path for path in (folder, *folder.absolute().parents) if (path / ".dvc").is_dir()), None)
    if repository is None:
        return None
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dvc"
    machine = Path((os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")[0]) / "dvc"
    places = (
        repository / ".dvc" / "config.local",
        repository / ".dvc" / "config",
        Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or own) / "config",
        Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR") or machine) / "config",
    )
    return next((LinkType(types, path) for path in places if (types := _cache_type(path))), None)


def _cache_type(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    config = ConfigParser(interpolation=None)
    try:
        config.read_string(path.read_text(encoding="utf-8"), str(path))
    except (Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as DVC's configuration: {error}") from error
    value = config.get("cache", "type", fallback="").strip("\"' ")
    return tuple(name.strip("\"' ") for name in value.split(",") if name.strip("\"' "))
