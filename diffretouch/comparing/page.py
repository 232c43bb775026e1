"""The page of one comparison: a person decides by it; offline, escaped, the same bytes for the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from diffretouch.attributes import ATTRIBUTES
from diffretouch.comparing.numbers import BEST, REFERENCES, Numbers, best_peer
from diffretouch.comparing.pictures import ROWS, Shown, cut
from diffretouch.comparing.verdict import verdict
from diffretouch.config import Arm, Params
from diffretouch.files.pictures import Picture, jpeg8, read_srgb, reduce_to
from diffretouch.metrics import Interval
from diffretouch.report.frames import data_uri
from diffretouch.report.numbers import Number, interval, signed

REFERENCE_WORDS = {"input": "nothing done", "mean_expert": "average of the experts"}
MEASURES = {
    "psnr": ("PSNR, dB ↑", 2),
    "psnr_minus_mean_expert": ("− average of the experts, dB", 2),
    f"psnr_minus_{BEST}": ("− best pooled peer, dB", 2),
    "ssim": ("SSIM ↑", 3),
    "ciede2000": ("ΔE 2000 ↓", 2),
    "slope": ("slope → 1", 2),
    "spearman": ("Spearman ↑", 2),
    "excess_cross_talk": ("excess cross-talk ↓", 3),
    "texture": ("texture ↑", 3),
    "psnr_best_of": ("best of N, PSNR ↑", 2),
}
"""Columns of the main table: words and digits."""


@dataclass(frozen=True)
class Shot:
    """One picture on the page."""

    src: str
    width: int
    height: int
    name: str


def render(dataset: str, card: dict[str, str], params: Params, table: pd.DataFrame, photos: Sequence[Shown]) -> str:
    """HTML of the comparison on `dataset`, whose corpus `card` describes."""
    numbers, settings = Numbers(table), params.compare
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"signed": signed, "interval": _interval}
    style = (files("diffretouch.report") / "page.css").read_text(encoding="utf-8")
    words = {**REFERENCE_WORDS, **{name: arm.words for name, arm in settings.arms.items()}}
    experts = params.corpus(dataset).experts
    return environment.from_string((files("diffretouch.comparing") / "page.html").read_text(encoding="utf-8")).render(
        dataset=dataset,
        card=card,
        settings=settings,
        train=params.train,
        experts=experts,
        numbers=numbers,
        measures={name: known for name, known in MEASURES.items() if any(numbers.get(arm, name) for arm in words)},
        words=words,
        references=REFERENCES,
        changes={name: _changes(arm) for name, arm in settings.arms.items()},
        best_peer=best_peer(table, params),
        best_adjusted={
            x: peer for x in experts if (peer := best_peer(table, params, "psnr_best_of", f"expert_{x}")) is not None
        },
        attributes=ATTRIBUTES,
        sliders=[name for name in settings.arms if numbers.get(name, "slope")],
        painted=[name for name in settings.arms if numbers.get(name, "psnr_autoencoder")],
        lines=verdict(numbers, settings, params.train.control_loss),
        sheets=[_sheet(photo, params) for photo in photos[: settings.photos]],
        rows=ROWS,
        count=numbers.get(REFERENCES[0], "psnr"),
        confidence=params.evaluate.confidence,
        css=style,
    )


def _interval(found: Interval | None, digits: int = 2) -> str:
    return interval(None if found is None else Number(**asdict(found)), digits)


def _changes(arm: Arm) -> list[str]:
    return _named(arm.train, "train") + _named(arm.sample, "sample")


def _named(value: Any, name: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{name}: {value}"]
    return [line for part, below in value.items() for line in _named(below, f"{name}.{part}")]


def _sheet(photo: Shown, params: Params) -> dict[str, Any]:
    edge, quality = params.report.long_edge, params.report.jpeg_quality

    def whole(name: str, path: Path, share: float = 1.0) -> Shot:
        return _shot(reduce_to(read_srgb(path), long_edge=max(1, round(edge * share))), name, quality)

    return {
        "photo_id": photo.photo_id,
        "facts": photo.facts,
        "whole": [whole(name, path) for name, path in photo.whole],
        "texture": [_shot(_doubled(cut(read_srgb(path), photo.corner)), name, 95) for name, path in photo.texture],
        "strips": [(name, [whole(signed(c), path, 0.4) for c, path in points]) for name, points in photo.strips],
    }


def _doubled(picture: Picture) -> Picture:
    return picture.repeat(2, 0).repeat(2, 1)


def _shot(picture: Picture, name: str, quality: int) -> Shot:
    return Shot(data_uri(jpeg8(picture, quality), "image/jpeg"), picture.shape[1], picture.shape[0], name)
