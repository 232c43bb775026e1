"""What the arms made of test photos: the sheet with a row a photo, and the same pictures for the page.

The idea is that of the paper's Figure 3, the layout our own: texture where a picture is painted anew, and sliders that
do nothing where no loss teaches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from diffretouch.comparing.arms import Run
from diffretouch.config import Params
from diffretouch.files.figures import FAINT, INK, style
from diffretouch.files.pictures import Picture, read_srgb, resize
from diffretouch.files.tables import read_table
from diffretouch.files.workspace import stage_dir
from diffretouch.report.photos import choose

CROP = 90
"""Side in pixels of the cut-out that shows texture."""
HEIGHT, WIDTH, GAP = 180, 270, 6
"""Of a picture on the sheet, and between pictures, in pixels."""
PAPER = 0x24 / 255
ROWS = 24
"""Photos on the sheet at most: a picture of hundreds is more than memory, or a person, takes in."""


@dataclass(frozen=True)
class Shown:
    """One test photo; every path is a picture of the photo's own size."""

    photo_id: str
    facts: str
    """Scene, camera and licence in words."""
    whole: tuple[tuple[str, Path], ...]
    """(what it is, picture): the input, the expert's result, and what arms made for that expert or of the photo."""
    texture: tuple[tuple[str, Path], ...]
    """(what it is, picture): the photo, the judged arm, and arms that paint the picture anew."""
    corner: tuple[int, int]
    """Top and left of the cut-out of these."""
    strips: tuple[tuple[str, tuple[tuple[float, Path], ...]], ...]
    """(arm, ((c, picture), ...)) along one slider, for the judged arm and those with another control loss."""


def gather(runs: Sequence[Run], params: Params, dataset: str) -> list[Shown]:
    """As many test photos as sheet and page show, in an order that knows no result; of every arm the first seed's."""
    settings, decoded = params.compare, stage_dir("decode", dataset)
    first = {run.name: run for run in runs if run.seed == settings.seeds[0]}
    tables = {
        name: read_table(run.work("sample") / "samples.parquet", ["photo_id", "sweep"]) for name, run in first.items()
    }
    manifest = read_table(decoded / "manifest.parquet", ["photo_id", "input", "group", "camera", "licence"])
    tested = manifest["photo_id"].isin(tables[settings.judged]["photo_id"])
    chosen = choose(manifest[tested], max(ROWS, settings.photos))
    painted = [n for n, arm in settings.arms.items() if arm.train.get("output") == "autoencoder"]
    moved = settings.other_control(params.train.control_loss)
    peers = [n for n, arm in settings.arms.items() if arm.network != "diffretouch" and arm.experts == "all"]

    def made(name: str, photo_id: str) -> Path:
        own = tables[name][tables[name]["photo_id"] == photo_id]
        told = own[(own["sweep"] == "expert") & (own["expert"] == settings.expert)]
        line = (told if len(told) else own[own["sweep"] == "neutral"]).iloc[0]
        return first[name].work("sample") / line["path"]

    def strip(name: str, photo_id: str) -> tuple[tuple[float, Path], ...]:
        own = tables[name]
        own = own[(own["photo_id"] == photo_id) & (own["sweep"] == f"axis_{settings.slider}")].sort_values("sample")
        folder = first[name].work("sample")
        return tuple(
            (float(c), folder / path) for c, path in zip(own[f"c_{settings.slider}"], own["path"], strict=True)
        )

    out = []
    for line in chosen.to_dict("records"):
        photo_id, photo = line["photo_id"], decoded / line["input"]
        arms = [settings.judged, *painted]
        results = [(name, made(name, photo_id)) for name in arms]
        truth = (f"expert {settings.expert.upper()}", decoded / _of(manifest, photo_id, f"expert_{settings.expert}"))
        out.append(
            Shown(
                photo_id=photo_id,
                facts=_facts(line),
                whole=(("input", photo), truth, *results, *((name, made(name, photo_id)) for name in peers)),
                texture=(("input", photo), *results),
                corner=busiest(read_srgb(photo), CROP),
                strips=tuple((name, strip(name, photo_id)) for name in [*moved, settings.judged]),
            )
        )
    return out


def busiest(photo: Picture, side: int) -> tuple[int, int]:
    """Top and left of the square, of those that tile the photo, in which neighbours differ most."""
    grey = photo.mean(-1)
    steps = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    tops, lefts = (range(0, max(1, size - side + 1), side) for size in grey.shape)
    return max(
        ((top, left) for top in tops for left in lefts),
        key=lambda at: float(steps[at[0] : at[0] + side, at[1] : at[1] + side].sum()),
    )


def cut(picture: Picture, corner: tuple[int, int]) -> Picture:
    """The cut-out at `corner`."""
    top, left = corner
    return picture[top : top + CROP, left : left + CROP]


def sheet(photos: Sequence[Shown], params: Params, *, title: str) -> Figure:
    """A row a photo, ROWS at most: whole pictures, the cut-out, and one slider from end to end, arm below arm."""
    photos = photos[:ROWS]
    columns = [name for name, _ in photos[0].whole[: 2 + len(photos[0].texture) - 1]]
    widths = [WIDTH] * len(columns) + [HEIGHT] * len(photos[0].texture)
    rows = np.concatenate([_padded(_row(photo, len(columns)), bottom=GAP) for photo in photos])
    with style():
        figure, axes = plt.subplots(figsize=(rows.shape[1] / 100, rows.shape[0] / 100 + 0.7))
        axes.imshow(rows, interpolation="none")
        axes.set_axis_off()
        left = 0.0
        names = [*columns, *(f"{name}, cut" for name, _ in photos[0].texture)]
        for name, width in zip(names, widths, strict=True):
            axes.text(left, -8, name, color=INK, fontsize=10, va="bottom")
            left += width + GAP
        arms = ", ".join(name for name, _ in photos[0].strips)
        axes.text(left, -8, f"{params.compare.slider} −1, 0, 1; from top: {arms}", color=INK, fontsize=10, va="bottom")
        axes.text(0, -34, title, color=FAINT, fontsize=10, va="bottom")
        figure.subplots_adjust(0, 0, 1, rows.shape[0] / (rows.shape[0] + 70))
    return figure


def _row(photo: Shown, columns: int) -> Picture:
    parts = [_fitted(read_srgb(path), (HEIGHT, WIDTH)) for _, path in photo.whole[:columns]]
    for _, path in photo.texture:
        piece = cut(read_srgb(path), photo.corner)
        parts.append(_fitted(piece, (HEIGHT, HEIGHT), enlarge=True))
    if photo.strips:
        count = len(photo.strips)
        tall = (HEIGHT - GAP * (count - 1)) // count
        lines = []
        for _, points in photo.strips:
            shown = [points[i] for i in (0, len(points) // 2, -1)]
            pictures = [
                _padded(_fitted(read_srgb(path), (tall, tall * WIDTH // HEIGHT)), right=GAP) for _, path in shown
            ]
            lines.append(_padded(np.concatenate(pictures, axis=1), bottom=GAP))
        stack = np.concatenate(lines)[:HEIGHT]
        parts.append(_padded(stack, bottom=HEIGHT - len(stack)))
    return np.concatenate([_padded(part, right=GAP) for part in parts], axis=1)


def _fitted(picture: Picture, size: tuple[int, int], *, enlarge: bool = False) -> Picture:
    """Inside `size`, on paper."""
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    if enlarge:
        times = max(1, int(scale))
        picture = picture.repeat(times, 0).repeat(times, 1)
        scale = min(1.0, size[0] / picture.shape[0], size[1] / picture.shape[1])
    small = resize(picture, (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))))
    return _padded(small[: size[0], : size[1]], bottom=size[0] - small.shape[0], right=size[1] - small.shape[1])


def _padded(picture: Picture, *, bottom: int = 0, right: int = 0) -> Picture:
    margins = ((0, max(0, bottom)), (0, max(0, right)), (0, 0))
    return np.pad(picture, margins, constant_values=PAPER).astype(np.float32)


def _facts(line: dict[str, Any]) -> str:
    return " · ".join(part for part in (f"scene {line['group']}", line["camera"], line["licence"]) if part)


def _of(manifest: pd.DataFrame, photo_id: str, column: str) -> str:
    return str(manifest.loc[manifest["photo_id"] == photo_id, column].iloc[0])
