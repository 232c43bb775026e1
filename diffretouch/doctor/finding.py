"""One thing that was looked at."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["good", "note", "fault"]
"""note: worth knowing, nothing fails by it. fault: something will fail, or be wrong, until it is mended."""


class Finding(NamedTuple):
    """What was found, and the command that mends it."""

    level: Level
    area: str
    """One or two words: `weights`, `disk`."""
    what: str
    mend: str = ""
    """What to type; empty where nothing is to be done."""


def size_text(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
