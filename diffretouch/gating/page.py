"""The page of one verdict: a person decides by it; offline, escaped, the same bytes for the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import imagecodecs
import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from diffretouch.config import Params
from diffretouch.files.pictures import Picture, read_srgb, reduce_to, to_uint
from diffretouch.gating.measures import KINDS, Line, Part
from diffretouch.gating.pictures import Told
from diffretouch.gating.rules import gained, span
from diffretouch.gating.sides import Side
from diffretouch.gating.verdict import Verdict
from diffretouch.report.frames import data_uri

HEADS = {
    "promote": "Put it in use",
    "keep": "Keep the champion",
    "equal": "Equal: keep the champion",
    "refuse": "Refused",
}
ALONE = {"keep": "Do not put it in use"}
"""Where there is no champion to keep."""
MEASURES = {
    "psnr": ("PSNR, dB ↑", 2),
    "psnr_over_input": ("PSNR over the untouched photo, dB ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "ciede2000": ("ΔE 2000 ↓", 2),
    "slope": ("slope → 1", 2),
    "spearman": ("Spearman ↑", 2),
    "excess_cross_talk": ("cross-talk beyond the experts' own ↓", 3),
    "texture": ("texture ↑", 3),
    "clipped": ("share of clipped pixels ↓", 4),
}
AMPLIFIED = 4


@dataclass(frozen=True)
class Shot:
    """One picture on the page."""

    src: str
    width: int
    height: int
    name: str
    note: str


@dataclass(frozen=True)
class Sheet:
    """One photo, told one expert's c."""

    photo_id: str
    facts: str
    shots: tuple[Shot, ...]


def sheets(params: Params, new: Side, old: Side | None, told: Sequence[Told], looked: pd.DataFrame) -> list[Sheet]:
    """The photos in which the two differ most, each told the expert where they do; alone, the worst ones."""
    psnr: dict[str, dict[tuple[str, str], float]] = {s.name: _psnr(s) for s in (new, old) if s is not None}
    worst = [-psnr["challenger"][task.photo_id, task.expert] for task in told]
    most = looked.assign(rank=worst if old is None else looked["apart"], task=list(told)).sort_values(
        ["rank", "photo_id"], ascending=[False, True]
    )
    chosen = most.drop_duplicates("photo_id").head(params.gate.photos)
    return [_sheet(params, new, task, psnr) for task in chosen["task"]]


def _psnr(side: Side) -> dict[tuple[str, str], float]:
    own = side.rows[side.rows["sweep"] == "expert"]
    return dict(zip(zip(own["photo_id"], own["expert"], strict=True), own["psnr"].astype(float), strict=True))


def _sheet(params: Params, new: Side, task: Told, psnr: dict[str, dict[tuple[str, str], float]]) -> Sheet:
    ours = read_srgb(task.challenger)
    shown = [("untouched", read_srgb(task.input), ""), (f"expert {task.expert.upper()}", read_srgb(task.truth), "")]
    if task.champion is not None:
        theirs = read_srgb(task.champion)
        shown.append(("champion", theirs, _db(psnr["champion"], task)))
    shown.append(("challenger", ours, _db(psnr["challenger"], task)))
    if task.champion is not None:
        shown.append((f"where they differ, × {AMPLIFIED}", np.clip(np.abs(ours - theirs) * AMPLIFIED, 0, 1), ""))
    own = new.rows[new.rows["photo_id"] == task.photo_id].iloc[0].fillna("")
    facts = " · ".join(filter(None, (f"scene {own['group']}", own["camera"], own["categories"], own["licence"])))
    report = params.report
    shots = tuple(_shot(picture, name, note, report.long_edge, report.jpeg_quality) for name, picture, note in shown)
    return Sheet(task.photo_id, facts, shots)


def _db(psnr: dict[tuple[str, str], float], task: Told) -> str:
    return f"PSNR {psnr[task.photo_id, task.expert]:.2f} dB to expert {task.expert.upper()}"


def _shot(picture: Picture, name: str, note: str, edge: int, quality: int) -> Shot:
    small = reduce_to(picture.astype(np.float32), long_edge=edge)
    # the page is kept with the model: halved chroma and fitted Huffman tables take a third fewer bytes
    packed = imagecodecs.jpeg8_encode(to_uint(small, 8), level=quality, subsampling="420", optimize=True)
    return Shot(data_uri(bytes(packed), "image/jpeg"), small.shape[1], small.shape[0], name, note)


def render(
    verdict: Verdict,
    params: Params,
    new: Side,
    old: Side | None,
    lines: Sequence[Line],
    parts: Sequence[Part],
    shown: Sequence[Sheet],
) -> str:
    """HTML of the verdict."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"span": span, "gained": gained}
    style = (files("diffretouch.report") / "page.css").read_text(encoding="utf-8")
    heads = HEADS if old is not None else HEADS | ALONE
    return environment.from_string((files("diffretouch.gating") / "page.html").read_text(encoding="utf-8")).render(
        verdict=verdict,
        # what is broken is what a person looks for
        reasons=sorted(verdict.reasons, key=lambda reason: reason.passed is not False),
        head=heads[verdict.decision],
        alone=old is None,
        card=new.corpus,
        origin=new.origin,
        photos=len(new.photos),
        scenes=len(set(new.groups.values())),
        lines=[line for measure in MEASURES for line in lines if line.measure == measure],
        measures=MEASURES,
        kinds={kind: [part for part in parts if part.kind == kind] for kind in KINDS},
        sheets=shown,
        gate=params.gate,
        confidence=params.evaluate.confidence,
        css=style,
    )
