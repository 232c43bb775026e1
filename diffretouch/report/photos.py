"""The photos the page shows in full: which ones, and every picture of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from diffretouch.attributes import ATTRIBUTES
from diffretouch.condition import just_noticeable, photo_range
from diffretouch.config import Attributes, Report
from diffretouch.files.workspace import stage_dir
from diffretouch.report.frames import Frame, frame

RANDOM = {"random_0_1": "|c| in [0,1]", "random_1_2": "|c| in (1,2]", "random_2_3": "|c| in (2,3]"}
STRIP_SHARE, DRAW_SHARE = 0.72, 0.6
"""Pictures of strips and draws, as shares of report.long_edge: there are many, and the page is one file."""


@dataclass(frozen=True)
class Photo:
    """One photo in full."""

    photo_id: str
    group: str
    camera: str
    licence: str
    input: Frame
    references: dict[str, float]
    """PSNR to this photo's experts of `input` and `mean_expert`, and of `expert`: the mean of ours."""
    experts: tuple[tuple[str, Frame, Frame], ...]
    """(letter, the expert's result, ours for that expert)."""
    strips: tuple[tuple[str, tuple[Frame, ...]], ...]
    """(attribute, pictures from c = -1 to 1)."""
    draws: tuple[tuple[str, tuple[Frame, ...]], ...]
    """(range in words, pictures with random c)."""


def choose(photos: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` photos by a rule that knows no result: the first of every scene by id, then the seconds, and so on."""
    ordered = photos.sort_values("photo_id")
    turn = ordered.groupby("group").cumcount()
    return ordered.assign(turn=turn).sort_values(["turn", "photo_id"]).head(count).drop(columns="turn")


def ranges(truths: pd.DataFrame, photo_id: str, settings: Attributes) -> dict[str, tuple[float, float]]:
    """Middle and half-range of the photo's experts by attribute; half is NaN where they agree."""
    scores = truths.loc[truths["photo_id"] == photo_id, [f"score_{name}" for name in ATTRIBUTES]]
    mid, half = photo_range(torch.tensor(scores.to_numpy(np.float64)))
    half = torch.where(half < just_noticeable(mid, settings), torch.nan, half)
    return dict(zip(ATTRIBUTES, zip(mid.tolist(), half.tolist(), strict=True), strict=True))


def photo(
    line: dict,
    dataset: str,
    samples: pd.DataFrame,
    measured: pd.DataFrame,
    spans: dict[str, tuple[float, float]],
    settings: Report,
) -> Photo:
    """Of one line of the manifest: its pictures, with the numbers measured on them."""
    decoded, sampled = stage_dir("decode", dataset), stage_dir("sample", dataset)
    photo_id = line["photo_id"]
    own = samples[samples["photo_id"] == photo_id]
    numbers = measured[measured["photo_id"] == photo_id]

    def show(path: Path, name: str, share: float = 1.0, **more: Any) -> Frame:
        edge = max(1, round(settings.long_edge * share))
        return frame(path, name, long_edge=edge, quality=settings.jpeg_quality, **more)

    def c_of(row: dict) -> tuple[float, ...]:
        return tuple(float(row[f"c_{name}"]) for name in ATTRIBUTES)

    experts = []
    for row in own[own["sweep"] == "expert"].sort_values("expert").to_dict("records"):
        x = row["expert"]
        found = numbers[(numbers["sweep"] == "expert") & (numbers["expert"] == x)].iloc[0]
        notes = {"psnr": float(found["psnr"]), "ciede2000": float(found["ciede2000"])}
        ours = show(sampled / row["path"], f"ours for expert {x.upper()}", c=c_of(row), notes=notes)
        experts.append((x, show(decoded / line[f"expert_{x}"], f"expert {x.upper()}"), ours))

    strips = []
    for k, attribute in enumerate(ATTRIBUTES):
        points = own[own["sweep"] == f"axis_{attribute}"].sort_values("sample").to_dict("records")
        score = numbers[numbers["sweep"] == f"axis_{attribute}"].set_index("path")[f"score_{attribute}"]
        mid, half = spans[attribute]
        pictures = []
        for row in points:
            c = c_of(row)
            notes = {"asked": c[k], "measured": (float(score[row["path"]]) - mid) / half}
            pictures.append(show(sampled / row["path"], f"{attribute} {c[k]:+.2f}", STRIP_SHARE, c=c, notes=notes))
        strips.append((attribute, tuple(pictures)))

    draws = []
    for sweep, words in RANDOM.items():
        rows = own[own["sweep"] == sweep].sort_values("sample").to_dict("records")
        pictures = [show(sampled / row["path"], f"random {words}", DRAW_SHARE, c=c_of(row)) for row in rows]
        draws.append((words, tuple(pictures)))
    shown = show(decoded / line["input"], "input")
    mean = numbers.groupby("sweep")["psnr"].mean()
    references = {name: float(mean[name]) for name in ("input", "mean_expert", "expert")}
    return Photo(
        photo_id=photo_id,
        group=str(line["group"]),
        camera=line["camera"],
        licence=line["licence"],
        input=shown,
        references=references,
        experts=tuple(experts),
        strips=tuple(strips),
        draws=tuple(draws),
    )
