"""A number a photo for each side, what lies between the two, and the slices of the test photos.

Measures, by `slice` (all, expert_<x>, an attribute):

 - psnr, ssim, ciede2000: told each expert's c, compared with that expert; psnr_over_input: against the untouched photo.
 - slope, spearman of each slider; `all` is the mean over the sliders of a photo. slope_reached: slopes above 1 count
   as 1, for beyond the experts' range nothing is gained.
 - excess_cross_talk: `control.excess_cross_talk`, mean over pairs.
 - texture: `texture.survival`; clipped: share of pixels at their end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from diffretouch.config import Evaluate, Gate
from diffretouch.evaluation import control
from diffretouch.gating.sides import METRICS, Side
from diffretouch.metrics import Interval, bootstrap

COLUMNS = ["photo_id", "measure", "slice", "value"]
KINDS = ("expert", "camera", "category", "group")
LOOKED = {"texture": "texture", "clipped": "clipped"}


@dataclass(frozen=True)
class Line:
    """One measure of one slice: means over the photos that have it, and the paired difference."""

    measure: str
    slice: str
    challenger: Interval
    champion: Interval | None
    difference: Interval | None
    """Challenger minus champion, photo by photo."""


@dataclass(frozen=True)
class Part:
    """One slice of the test photos, by PSNR in dB."""

    kind: str
    name: str
    challenger: float
    champion: float
    difference: Interval
    """At a confidence that holds for all judged slices of the kind together."""
    judged: bool
    fallen: bool
    """Judged, and lost more than is allowed with an interval wholly below zero."""


def per_photo(side: Side, looked: pd.DataFrame) -> pd.DataFrame:
    """COLUMNS of one side; `looked` is what `pictures.look` found."""
    seen = looked.groupby("photo_id")[[f"{name}_{side.name}" for name in LOOKED]].mean()
    seen.columns = list(LOOKED)
    pictures = seen.reset_index().melt("photo_id", var_name="measure").assign(slice="all")
    found = pd.concat([_fidelity(side), _sliders(side), pictures], ignore_index=True)
    return found[COLUMNS].dropna(subset="value").astype({"value": float}).reset_index(drop=True)


def _fidelity(side: Side) -> pd.DataFrame:
    own = side.rows[side.rows["sweep"] == "expert"].melt(["photo_id", "expert"], list(METRICS), var_name="measure")
    own["value"] = own["value"].astype(float)
    each = own.assign(slice="expert_" + own["expert"].astype(str)).drop(columns="expert")
    both = own.groupby(["photo_id", "measure"], as_index=False)["value"].mean().assign(slice="all")
    psnr = side.rows.groupby(["sweep", "photo_id"])["psnr"].mean()
    over = (psnr["expert"] - psnr["input"]).rename("value").reset_index()
    return pd.concat([both, over.assign(measure="psnr_over_input", slice="all"), each])


def _sliders(side: Side) -> pd.DataFrame:
    ranges = side.ranges()
    fitted = control.slopes(control.responses(side.rows[side.rows["sweep"].str.startswith("axis_")], ranges))
    own = fitted[fitted["moved"] == fitted["attribute"]]
    own = own.assign(slope_reached=own["slope"].clip(upper=1)).rename(columns={"attribute": "slice"})
    each = own.melt(["photo_id", "slice"], ["slope", "spearman", "slope_reached"], var_name="measure")
    every = each.groupby(["photo_id", "measure"], as_index=False)["value"].mean().assign(slice="all")
    talk = control.excess_cross_talk(fitted, control.experts_correlation(side.truths, ranges))
    pairs = talk.groupby("photo_id", as_index=False)["value"].mean()
    return pd.concat([every, each, pairs.assign(measure="excess_cross_talk", slice="all")])


def lines(new: pd.DataFrame, old: pd.DataFrame | None, groups: dict[str, str], settings: Evaluate) -> list[Line]:
    """A line for every measure and slice of the challenger's `per_photo`, in its order."""
    found = []
    champion = {} if old is None else dict(iter(old.groupby(["measure", "slice"])))
    for (measure, part), own in new.groupby(["measure", "slice"], sort=False):
        ours, theirs = own.set_index("photo_id")["value"], champion.get((measure, part))
        other = None if theirs is None else theirs.set_index("photo_id")["value"]
        apart = None if other is None else (ours - other).dropna()
        found.append(
            Line(
                measure=measure,
                slice=part,
                challenger=_interval(ours, groups, settings),
                champion=None if other is None else _interval(other, groups, settings),
                difference=None if apart is None or apart.empty else _interval(apart, groups, settings),
            )
        )
    return found


def _interval(values: pd.Series, groups: dict[str, str], settings: Evaluate, slices: int = 1) -> Interval:
    """Over whole scenes; of a single scene over its photos. `slices` intervals of that many hold together.

    Bonferroni: each of m at confidence 1 - (1 - confidence) / m.
    """
    members = [groups[photo] for photo in values.index]
    if len(set(members)) < 2:
        members = [str(photo) for photo in values.index]
    return bootstrap(
        values.to_numpy(float),
        members,
        resamples=settings.bootstrap,
        confidence=1 - (1 - settings.confidence) / slices,
        seed=settings.seed,
    )


def slices(side: Side, new: pd.DataFrame, old: pd.DataFrame, gate: Gate, settings: Evaluate) -> list[Part]:
    """Every slice, of the kinds that are judged or not, the worst of each kind first."""
    apart = _psnr(new).merge(_psnr(old), on=["photo_id", "slice"], suffixes=("_new", "_old"), validate="one_to_one")
    apart["value"] = apart["value_new"] - apart["value_old"]
    found = []
    for kind in KINDS:
        allowed: float | None = getattr(gate.slices, kind)
        members = [(name, part) for name, part in _members(side, apart, kind)]
        counted = sum(len(part) >= gate.slices.photos for _, part in members)
        parts = []
        for name, part in members:
            difference = _interval(part.set_index("photo_id")["value"], side.groups, settings, max(1, counted))
            judged = allowed is not None and len(part) >= gate.slices.photos
            fallen = judged and difference.mean < -(allowed or 0) and difference.high < 0
            means = float(part["value_new"].mean()), float(part["value_old"].mean())
            parts.append(Part(kind, name, *means, difference, judged, fallen))
        found += sorted(parts, key=lambda part: (not part.judged, part.difference.mean, part.name))
    return found


def _psnr(values: pd.DataFrame) -> pd.DataFrame:
    return values.loc[values["measure"] == "psnr", ["photo_id", "slice", "value"]]


def _members(side: Side, apart: pd.DataFrame, kind: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, rows of `apart`), one a photo, of every slice of one kind."""
    if kind == "expert":
        own = apart[apart["slice"] != "all"]
        yield from ((str(name).removeprefix("expert_"), part) for name, part in own.groupby("slice"))
        return
    facts = side.rows.drop_duplicates("photo_id").set_index("photo_id")[["camera", "categories", "group"]].fillna("")
    both = apart[apart["slice"] == "all"].join(facts, on="photo_id")
    column = "categories" if kind == "category" else kind
    words = both.assign(name=both[column].astype(str).str.split() if kind == "category" else both[column].astype(str))
    if kind == "category":
        words = words.explode("name").dropna(subset="name")
    yield from ((str(name), part.drop_duplicates("photo_id")) for name, part in words.groupby("name") if name != "")


def number(found: Sequence[Line], measure: str, part: str = "all") -> Line | None:
    """One line, None where it was not measured."""
    return next((line for line in found if (line.measure, line.slice) == (measure, part)), None)


def finite(value: float) -> float | None:
    """For JSON: rounded to 4 decimals, None for NaN."""
    return None if np.isnan(value) else round(value, 4) + 0.0
