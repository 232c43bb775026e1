"""Whether two sides were measured alike: a difference between them must be one between the models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import yaml

from diffretouch.errors import UserError
from diffretouch.gating.sides import CONDITION, FACTS, METRICS, SCORES, Side
from diffretouch.gating.verdict import Reason

KEYS = ["photo_id", "sweep", "expert", "sample"]
TOLERANCE = 1e-3
"""dB, score or part of c: what another processor may change in the measure of the very same picture."""
UNTOUCHED = ("input", "mean_expert")
"""Rows that no model takes part in: they must measure the same on both sides."""
NAMED = 3


def comparable(new: Side, old: Side) -> list[Reason]:
    """A line for each condition, up to the first that is broken: what follows it would compare what is not alike."""
    reasons = []
    for reason in _conditions(new, old):
        reasons.append(reason)
        if reason.passed is False:
            break
    return reasons


def _conditions(new: Side, old: Side) -> Iterator[Reason]:
    yield _corpus(new, old)
    yield _photos(new, old)
    ours, theirs = _keyed(new.rows), _keyed(old.rows)
    yield _sweeps(ours.index, theirs.index)
    theirs = theirs.loc[ours.index]
    yield _requests(ours, theirs)
    yield _rulers(new, old, ours, theirs)
    yield _code(new, old)


def _corpus(new: Side, old: Side) -> Reason:
    names = ("name", "provenance", "decode_profile", "input")
    differing = [
        f"{n} is {new.corpus.get(n)!r}, the champion's {old.corpus.get(n)!r}"
        for n in names
        if new.corpus.get(n) != old.corpus.get(n)
    ]
    told = ", ".join(str(new.corpus.get(n)) for n in names)
    return Reason("same corpus", "the same corpus, decoded alike", "; ".join(differing) or told, not differing)


def _photos(new: Side, old: Side) -> Reason:
    asked = "the same test photos, of the same scenes, cameras and categories"
    only = [
        f"{len(ids)} only with the {side.name}: {_some(ids)}"
        for side, other in ((new, old), (old, new))
        if (ids := sorted(set(side.photos) - set(other.photos)))
    ]
    if only:
        return Reason("same photos", asked, "; ".join(only), False)
    ours, theirs = (side.rows.groupby("photo_id")[list(FACTS)].first().fillna("") for side in (new, old))
    moved = ours.index[(ours != theirs).any(axis=1)]
    if len(moved):
        return Reason("same photos", asked, f"{len(moved)} are described otherwise: {_some(moved)}", False)
    return Reason("same photos", asked, f"{len(ours)} photos of {ours['group'].nunique()} scenes", True)


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    filled = rows.assign(expert=rows["expert"].fillna(""), sample=rows["sample"].fillna(-1).astype(int))
    return filled.set_index(KEYS).sort_index()


def _sweeps(ours: pd.Index, theirs: pd.Index) -> Reason:
    asked = "the same sweeps: experts, random tastes, points along the sliders"
    apart = ours.symmetric_difference(theirs)
    if len(apart) or ours.has_duplicates or theirs.has_duplicates:
        sweeps = sorted({sweep for _, sweep, *_ in apart}) or ["the same picture twice"]
        return Reason("same sweeps", asked, f"{len(apart)} rows stand on one side only, of {_some(sweeps)}", False)
    return Reason("same sweeps", asked, f"{len(ours)} measured rows on either side", True)


def _requests(ours: pd.DataFrame, theirs: pd.DataFrame) -> Reason:
    """c and the starting noise of every picture."""
    asked = "every picture with the same c and the same starting noise"
    told = (_apart(ours[name], theirs[name]) for name in CONDITION)
    c, noise = np.any([*told], axis=0), (ours["seed"].fillna(0) != theirs["seed"].fillna(0)).to_numpy(bool)
    found = [
        f"{int(wrong.sum())} rows with another {what}, of {_some(sorted(set(ours.index[wrong].get_level_values(1))))}"
        for what, wrong in (("c", c), ("noise", noise))
        if wrong.any()
    ]
    return Reason("same requests", asked, "; ".join(found) or "alike in every row", not found)


def _rulers(new: Side, old: Side, ours: pd.DataFrame, theirs: pd.DataFrame) -> Reason:
    """The untouched photo and the experts' mean, which no model changes, show pictures and measures to be the same."""
    asked = "photos and experts' pictures the same and measured alike: the untouched photo gives the same numbers"
    if new.scheme != old.scheme:
        return Reason("same measures", asked, "attributes were scored with other settings (scales.json)", False)
    untouched = ours.index.get_level_values("sweep").isin(UNTOUCHED)
    mine, its = ours[untouched], theirs[untouched]
    wrong = np.any([_apart(mine[name], its[name]) for name in (*METRICS, *SCORES)], axis=0)
    if wrong.any():
        largest = float((mine["psnr"] - its["psnr"]).abs().max())
        photos = _some(sorted(set(mine.index[wrong].get_level_values("photo_id"))))
        found = f"the untouched photo measures otherwise, by up to {largest:.3f} dB of PSNR: {photos}"
        return Reason("same measures", asked, found, False)
    return Reason("same measures", asked, f"alike in {int(untouched.sum())} rows that no model takes part in", True)


def _apart(a: pd.Series, b: pd.Series) -> np.ndarray:
    """Where two columns differ; NaN is like NaN."""
    x, y = a.to_numpy(float, na_value=np.nan), b.to_numpy(float, na_value=np.nan)
    return ~np.isclose(x, y, rtol=1e-4, atol=TOLERANCE, equal_nan=True)


def _code(new: Side, old: Side) -> Reason:
    """What dvc.lock says the stages sample and evaluate ran with; the schema of params.yaml makes no number."""
    asked = "sampled and measured by the same code"
    ours, theirs = _locked(new), _locked(old)
    if not ours or not theirs:
        where = " and ".join(side.name for side, found in ((new, ours), (old, theirs)) if not found)
        return Reason("same code", asked, f"not recorded: no dvc.lock of these stages with the {where}", None)
    wrong = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    if wrong:
        found = f"{len(wrong)} files differ: {_some(wrong)}; sample and evaluate the champion again with this code"
        return Reason("same code", asked, found, False)
    return Reason("same code", asked, f"the same {len(ours)} files (dvc.lock)", True)


def _locked(side: Side) -> dict[str, str]:
    """File of the package -> its digest, over the two stages; empty where nothing is recorded."""
    path = side.root / "dvc.lock"
    if not path.exists():
        return {}
    try:
        stages = (yaml.safe_load(path.read_text(encoding="utf-8")) or {})["stages"]
        deps = [dep for stage in ("sample", "evaluate") for dep in stages.get(f"{stage}@{side.dataset}", {})["deps"]]
        return {
            dep["path"]: dep["md5"]
            for dep in deps
            if dep["path"].startswith("diffretouch/") and not dep["path"].startswith("diffretouch/config/")
        }
    except KeyError:
        return {}
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no lock file of DVC: {error}; `git checkout dvc.lock` restores it") from error


def _some(names: Iterable[object]) -> str:
    listed = [str(name) for name in names]
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
