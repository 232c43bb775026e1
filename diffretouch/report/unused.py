"""Photos of a corpus that no number stands on: counted by the kind of reason, and shown as a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from diffretouch.config import Report
from diffretouch.report.frames import Frame, frame

SHOWN = 60
"""Tiles of a contact sheet; there may be hundreds of photos, and the page is one file."""
SHARE = 0.6
"""Long edge of a tile's picture, as a share of report.long_edge."""
KINDS = {
    "missing": "a file of the photo is not there",
    "unreadable": "a file cannot be read as what its name says",
    "unstable": "reads differently from one time to the next",
    "empty": "one value everywhere, such as all black or all white",
    "size": "input and experts' results differ in size",
    "orientation": "an expert's result is turned against the input",
    "registration": "an expert's result is shifted against the input",
    "crashed": "decoding broke off or took too long",
    "split": "belongs to no split by its id",
    "several": "more than one RAW file has its name",
}
"""Kinds of reason in the manifest, in plain words; another kind is counted without words."""


@dataclass(frozen=True)
class Tile:
    """One quarantined photo."""

    photo_id: str
    kind: str
    reason: str
    camera: str
    """Empty where it is not known."""
    picture: Frame | None
    """None where its files hold no small picture that can be read."""


@dataclass(frozen=True)
class Unused:
    """What was not used of one dataset, and why."""

    photos: int
    """All but those left out, used or not."""
    counts: tuple[tuple[str, int, str], ...]
    """(kind, quarantined photos, the kind in plain words), most frequent first."""
    tiles: tuple[Tile, ...]
    """The first SHOWN quarantined photos by kind and id."""
    left_out: int
    """Photos that the split's list does not name."""

    @property
    def quarantined(self) -> int:
        """All of them, shown or not."""
        return sum(count for _, count, _ in self.counts)


def unused(manifest: pd.DataFrame, decoded: Path, settings: Report) -> Unused:
    """From a manifest's rows that are not ok; thumbnails are `quarantine/<photo_id>.jpg` in the folder `decoded`."""
    bad = manifest[manifest["status"] == "quarantined"].sort_values(["kind", "photo_id"])
    counted = sorted(bad["kind"].value_counts().items(), key=lambda item: (-item[1], item[0]))
    left_out = int((manifest["status"] == "left_out").sum())
    return Unused(
        photos=len(manifest) - left_out,
        counts=tuple((kind, int(count), KINDS.get(kind, "")) for kind, count in counted),
        tiles=tuple(_tile(line, decoded / "quarantine", settings) for line in bad.head(SHOWN).to_dict("records")),
        left_out=left_out,
    )


def _tile(line: dict, thumbnails: Path, settings: Report) -> Tile:
    photo_id, path = line["photo_id"], thumbnails / f"{line['photo_id']}.jpg"
    edge = max(1, round(settings.long_edge * SHARE))
    picture = frame(path, photo_id, long_edge=edge, quality=settings.jpeg_quality) if path.is_file() else None
    return Tile(photo_id, line["kind"], line["reason"], line["camera"], picture)
