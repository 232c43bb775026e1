"""The gate: two trees' tables and pictures in, a verdict out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from diffretouch.config import Params
from diffretouch.files.atomic import write_json, write_text
from diffretouch.gating import measures, rules
from diffretouch.gating.comparable import comparable
from diffretouch.gating.costs import judge_costs
from diffretouch.gating.deciding import broken, decide
from diffretouch.gating.finite import judge_finite
from diffretouch.gating.licence import judge_licence
from diffretouch.gating.measures import Line, Part
from diffretouch.gating.page import Sheet, render, sheets
from diffretouch.gating.pictures import Told, look, tasks
from diffretouch.gating.sides import Side, read_side
from diffretouch.gating.verdict import Reason, Verdict
from diffretouch.gating.votes import judge_votes

JSON, PAGE = "verdict.json", "verdict.html"
ALONE = Reason("comparison", "a model in use to compare with", "none yet: the rules that need none decide", None)
LINES = ("measure", "slice", "challenger", "champion", "difference", "low", "high", "n", "groups")


@dataclass(frozen=True)
class Found:
    """Everything that was measured; empty where the sides cannot be compared."""

    lines: list[Line] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)


def judge(params: Params, dataset: str, challenger: Path, champion: Path | None, out: Path) -> Verdict:
    """Whether the model of the tree `challenger` may be put in use for `dataset`, by the section `gate` of `params`.

    Args:
        params: whose `gate` has the rules and whose `evaluate` says how intervals are drawn.
        dataset: one of `params.datasets`.
        challenger: root of a working tree in which the stages up to evaluate have run: `work/` lies in it.
        champion: such a root for the model in use, evaluated on the same test photos by the same code; None where no
            model is in use yet: the rules that need none decide.
        out: folder that verdict.json and verdict.html are written into, each whole or not at all; made where absent.

    Returns:
        The verdict, also where the two cannot be compared (`refuse`, with the reason in words).

    Raises:
        UserError: a table of either tree is absent or unreadable; the message names the command that makes it.
    """
    experts = params.corpus(dataset).experts
    new = read_side("challenger", challenger, dataset)
    old = None if champion is None else read_side("champion", champion, dataset)
    alike = [ALONE] if old is None else comparable(new, old)
    measured, weights = judge_finite(new)
    must = [*alike, measured, weights, judge_licence(new, params)]
    reasons, found = must, Found()
    if not broken([*alike, measured]):  # there are numbers, and they can be set side by side
        told = tasks(new, old, experts)
        looked = look(told, params.runtime.workers)
        quality, found = _quality(params, new, old, told, looked)
        reasons = [*must, *quality, *judge_costs(new, params), judge_votes(new, params)]
        if old is not None:
            reasons.append(rules.gain(found.lines, params.gate))
    decision, summary = decide(must, reasons, found.lines, alone=old is None)
    verdict = Verdict(decision, summary, tuple(reasons), dataset, params.gate.use)
    # the page first: a verdict that machines read has one that people read beside it
    write_text(out / PAGE, render(verdict, params, new, old, found.lines, found.parts, found.sheets))
    write_json(out / JSON, _tree(verdict, new, old, found, params))
    return verdict


def _quality(
    params: Params, new: Side, old: Side | None, told: list[Told], looked: pd.DataFrame
) -> tuple[list[Reason], Found]:
    gate, settings = params.gate, params.evaluate
    ours = measures.per_photo(new, looked)
    theirs = None if old is None else measures.per_photo(old, looked)
    lines = measures.lines(ours, theirs, new.groups, settings)
    parts = [] if theirs is None else measures.slices(new, ours, theirs, gate, settings)
    means = looked.groupby("photo_id").mean(numeric_only=True).mean()
    shares = {what: float(means[f"clipped_{what}"]) for what in ("input", "expert", "challenger", "champion")}
    reasons = [*rules.floors(lines, gate), *rules.clipping(shares, gate, old is not None)]
    if old is not None:
        reasons += [*rules.losses(lines, gate), *rules.fallen_slices(parts, gate)]
    return reasons, Found(lines, parts, sheets(params, new, old, told, looked))


def _tree(verdict: Verdict, new: Side, old: Side | None, found: Found, params: Params) -> dict[str, object]:
    """verdict.json."""
    return {
        "dataset": verdict.dataset,
        "decision": verdict.decision,
        "summary": verdict.summary,
        "use": verdict.use,
        "provenance": new.corpus.get("provenance"),
        "compared_with_a_champion": old is not None,
        "photos": len(new.photos),
        "scenes": len(set(new.groups.values())),
        "confidence": params.evaluate.confidence,
        "rules": [{"rule": r.rule, "asked": r.asked, "found": r.found, "passed": r.passed} for r in verdict.reasons],
        "numbers": [_line(line) for line in found.lines],
        "slices": [_part(part) for part in found.parts],
    }


def _line(line: Line) -> dict[str, object]:
    own, apart = line.challenger, line.difference
    values = own.mean, None if line.champion is None else line.champion.mean
    span = (None, None, None) if apart is None else (apart.mean, apart.low, apart.high)
    numbers = [None if value is None else measures.finite(value) for value in (*values, *span)]
    return dict(zip(LINES, [line.measure, line.slice, *numbers, own.n, own.groups], strict=True))


def _part(part: Part) -> dict[str, object]:
    apart = part.difference
    values = (part.challenger, part.champion, apart.mean, apart.low, apart.high)
    names = ("challenger", "champion", "difference", "low", "high")
    numbers = {name: measures.finite(value) for name, value in zip(names, values, strict=True)}
    return {
        "kind": part.kind,
        "name": part.name,
        **numbers,
        "n": apart.n,
        "judged": part.judged,
        "fallen": part.fallen,
    }
