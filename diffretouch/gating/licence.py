"""Whether the licences of what a model was made from allow what it is meant for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffretouch.config import Params
from diffretouch.gating.sides import Side
from diffretouch.gating.verdict import Reason

LEARNED = ("train", "val")
"""Splits whose photos a model is made from: val chooses what is kept."""
SHOWN = 4
PARTS = {"start": "starting weights", "autoencoder": "autoencoder"}
"""Of a model's origin, what other models are told under."""


def judge_licence(side: Side, params: Params) -> Reason:
    """The rule `licence`: research is always allowed; commercial use only where every licence is known to allow it."""
    gate, found = params.gate, Counter(_licences(side, params))
    told = "; ".join(f"{what}: {licence or 'unknown'} ({n})" for (what, licence), n in found.most_common(SHOWN))
    told += f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    if gate.use == "research":
        return Reason("licence", "for research: nothing is asked of licences, they are noted", told, True)
    forbidden = {key: n for key, n in found.items() if not allows(key[1], gate.commercial)}
    asked = "commercial: every photo learned from, the corpus and the starting weights under a licence of " + (
        ", ".join(f"“{name}”" for name in gate.commercial) or "gate.commercial, which names none"
    )
    if not forbidden:
        return Reason("licence", asked, told, True)
    worst = sorted(forbidden.items(), key=lambda item: -item[1])
    words = "; ".join(f"{what}: {licence or 'unknown'} ({n})" for (what, licence), n in worst[:SHOWN])
    return Reason("licence", asked, f"not allowed: {words}", False)


def allows(licence: str, commercial: Sequence[str]) -> bool:
    """Whether `licence` is one of `commercial`, or one of them with a comma and more behind it."""
    return any(licence == known or licence.startswith(f"{known},") for known in commercial)


def _licences(side: Side, params: Params) -> Iterator[tuple[str, str]]:
    """(what, licence) of everything the model was made from."""
    learned = side.manifest[(side.manifest["status"] == "ok") & side.manifest["split"].isin(LEARNED)]
    yield from (("photo", str(licence or "")) for licence in learned["licence"].fillna(""))
    yield "corpus", side.corpus.get("licence", "")
    # the card is the model's own word, which stays with it when the corpus beside it changes
    yield "model card", str(side.origin.get("licence", ""))
    train = params.train
    for part, source in (("start", train.start.source), ("autoencoder", train.autoencoder.source)):
        other = side.origin.get(part)
        if other and (other.get("licence") or "weights" not in other):
            yield from _model(part, other)
        elif other or source is not None:
            yield PARTS[part], source or ""  # its licence stands nowhere: the source itself must be named


def _model(part: str, origin: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of a model that another one was made from, and of those that it was made from."""
    yield PARTS[part], str(origin.get("licence", ""))
    for deeper in PARTS:
        if other := origin.get(deeper):
            yield from _model(deeper, other)
