"""What is measured on the pictures themselves: texture, clipping, and how far two models' results lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from diffretouch.evaluation.texture import survival
from diffretouch.files.pictures import Picture, read_srgb
from diffretouch.gating.sides import Side
from diffretouch.processes import map_in_processes
from diffretouch.progress import track

ENDS = 0.5 / 255, 254.5 / 255
"""At and beyond these a channel is 0 or 255 in 8 bits, whatever depth it is kept in."""


@dataclass(frozen=True)
class Told:
    """One photo and one expert: the pictures made when told that expert's c."""

    photo_id: str
    expert: str
    input: Path
    truth: Path
    challenger: Path
    champion: Path | None


def tasks(new: Side, old: Side | None, experts: tuple[str, ...]) -> list[Told]:
    """Of every test photo and expert, sorted."""
    theirs = {} if old is None else _paths(old)
    decoded, ours = new.work("decode"), _paths(new)
    return [
        Told(
            photo_id=photo,
            expert=x,
            input=decoded / new.manifest.at[photo, "input"],
            truth=decoded / new.manifest.at[photo, f"expert_{x}"],
            challenger=path,
            champion=theirs.get((photo, x)),
        )
        for (photo, x), path in sorted(ours.items())
        if x in experts
    ]


def _paths(side: Side) -> dict[tuple[str, str], Path]:
    own = side.rows[side.rows["sweep"] == "expert"]
    folder = side.work("sample")
    return {
        (photo, x): folder / path for photo, x, path in zip(own["photo_id"], own["expert"], own["path"], strict=True)
    }


def look(told: list[Told], workers: int) -> pd.DataFrame:
    """A row a task: photo_id, expert, `texture_<side>`, `clipped_<what>` as shares, and `apart`.

    apart: root mean squared difference of the two results, in [0,1]; NaN without a champion.
    """
    return pd.DataFrame(list(track(map_in_processes(_look, told, workers), "gate: pictures", len(told))))


def _look(told: Told) -> dict[str, object]:
    photo, truth, ours = read_srgb(told.input), read_srgb(told.truth), read_srgb(told.challenger)
    row: dict[str, object] = {"photo_id": told.photo_id, "expert": told.expert}
    row |= {"texture_challenger": survival(photo, ours), "clipped_challenger": clipped(ours)}
    row |= {"clipped_input": clipped(photo), "clipped_expert": clipped(truth)}
    if told.champion is None:
        return row | {"texture_champion": np.nan, "clipped_champion": np.nan, "apart": np.nan}
    theirs = read_srgb(told.champion)
    row |= {"texture_champion": survival(photo, theirs), "clipped_champion": clipped(theirs)}
    return row | {"apart": float(np.sqrt(np.mean(np.square(ours - theirs), dtype=np.float64)))}


def clipped(picture: Picture) -> float:
    """Share of pixels with any channel at its end; (H,W,3) sRGB in [0,1]."""
    return float(((picture <= ENDS[0]) | (picture >= ENDS[1])).any(axis=-1).mean())
