"""From measures to lines of the verdict: what is asked, what was found, whether it is enough."""

from __future__ import annotations

from collections.abc import Sequence

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Gate
from diffretouch.gating.measures import KINDS, Line, Part, number
from diffretouch.gating.verdict import Reason
from diffretouch.metrics import Interval
from diffretouch.report.numbers import signed

UNITS = {"psnr": " dB", "psnr_over_input": " dB"}
SHOWN = 3
GAIN = "gain"
ABSENT = "not measured: no test photo tells"


def floors(lines: Sequence[Line], gate: Gate) -> list[Reason]:
    """What the challenger must reach by itself."""
    asked = gate.floors
    return [
        _mean(lines, "floor: psnr", "psnr", asked.psnr, "PSNR to each expert, told that expert's c, at least {}"),
        _mean(
            lines,
            "floor: over input",
            "psnr_over_input",
            asked.psnr_over_input,
            "PSNR at least {} above that of the untouched photo",
        ),
        _mean(lines, "floor: sliders", "slope", asked.slope_mean, "slope of the sliders at least {} on average"),
        _weakest(lines, "floor: each slider", "slope", asked.slope_each, "slope of each slider at least {}"),
        _weakest(lines, "floor: order", "spearman", asked.spearman, "rank correlation of each slider at least {}"),
        _mean(lines, "floor: texture", "texture", asked.texture, "texture of the photo kept, correlation at least {}"),
        _cross_talk(lines, gate.cross_talk),
    ]


def _mean(lines: Sequence[Line], rule: str, measure: str, floor: float, words: str) -> Reason:
    unit = UNITS.get(measure, "")
    line = number(lines, measure)
    asked = words.format(f"{floor:g}{unit}")
    if line is None:
        return Reason(rule, asked, ABSENT, False)
    return Reason(rule, asked, f"{span(line.challenger)}{unit}", line.challenger.mean >= floor)


def _weakest(lines: Sequence[Line], rule: str, measure: str, floor: float, words: str) -> Reason:
    own = {name: line.challenger.mean for name in ATTRIBUTES if (line := number(lines, measure, name)) is not None}
    if not own:
        return Reason(rule, words.format(f"{floor:g}"), ABSENT, False)
    found = ", ".join(f"{name} {value:.2f}" for name, value in own.items())
    return Reason(rule, words.format(f"{floor:g}"), found, min(own.values()) >= floor)


def _cross_talk(lines: Sequence[Line], ceiling: float) -> Reason:
    asked = f"cross-talk beyond the experts' own correlation at most {ceiling:g}"
    line = number(lines, "excess_cross_talk")
    if line is None:
        return Reason("ceiling: cross-talk", asked, ABSENT, False)
    return Reason("ceiling: cross-talk", asked, span(line.challenger, 3), line.challenger.mean <= ceiling)


def clipping(shares: dict[str, float], gate: Gate, champion: bool) -> list[Reason]:
    """`shares`: mean clipped share of input, expert, challenger and, where there is one, champion.

    What experts clip is their taste, and a model that comes nearer to them clips it too: no harm is less than theirs.
    """
    asked, found, experts = gate.clipping, shares["challenger"], shares["expert"]
    sides = [("clipping: input", "input", "the untouched photo", asked.over_input)]
    if champion:
        sides.append(("clipping: champion", "champion", "the champion's results", asked.over_champion))
    reasons = []
    for rule, side, name, allowed in sides:
        words = f"clipped pixels at most {allowed:.1%} more than in {name} or the experts', whichever clip more"
        told = f"{found:.2%} of the pixels; {name} {shares[side]:.2%}, experts {experts:.2%}"
        reasons.append(Reason(rule, words, told, found - max(shares[side], experts) <= allowed))
    return reasons


def losses(lines: Sequence[Line], gate: Gate) -> list[Reason]:
    """How far the paired intervals may reach below zero."""
    asked = gate.losses
    return [
        _loss(lines, "loss: psnr", "psnr", asked.psnr, 2),
        _loss(lines, "loss: sliders", "slope_reached", asked.slope, 2),
        _loss(lines, "loss: texture", "texture", asked.texture, 3),
    ]


def _loss(lines: Sequence[Line], rule: str, measure: str, allowed: float, digits: int) -> Reason:
    unit = UNITS.get(measure, "")
    asked = f"against the champion, a loss of more than {allowed:g}{unit} excluded by the interval"
    line = number(lines, measure)
    if line is None or line.difference is None:
        return Reason(rule, asked, ABSENT, False)
    return Reason(rule, asked, f"{gained(line.difference, digits)}{unit}", line.difference.low >= -allowed)


def fallen_slices(parts: Sequence[Part], gate: Gate) -> list[Reason]:
    """A line a kind of slice; the worst are named."""
    return [_kind(kind, [part for part in parts if part.kind == kind], gate) for kind in KINDS]


def _kind(kind: str, parts: Sequence[Part], gate: Gate) -> Reason:
    allowed: float | None = getattr(gate.slices, kind)
    if allowed is None:
        return Reason(f"slices: {kind}", "not judged", f"{len(parts)} of them", None)
    asked = f"no {kind} of {gate.slices.photos} photos or more loses over {allowed:g} dB with its interval below 0"
    judged = [part for part in parts if part.judged]
    if not judged:
        return Reason(f"slices: {kind}", asked, f"none is that large: {len(parts)} smaller ones", None)
    fallen = [part for part in judged if part.fallen]
    worst = ", ".join(f"{part.name} {gained(part.difference)} dB" for part in (fallen or judged)[:SHOWN])
    words = f"{len(fallen)} of {len(judged)} fell: {worst}" if fallen else f"none of {len(judged)}; lowest: {worst}"
    return Reason(f"slices: {kind}", asked, words, not fallen)


def gain(lines: Sequence[Line], gate: Gate) -> Reason:
    """Whether the challenger is better, and surely so."""
    asked = f"PSNR at least {gate.gain:g} dB above the champion's, with the interval above 0"
    line = number(lines, "psnr")
    if line is None or line.difference is None:
        return Reason(GAIN, asked, ABSENT, False)
    found = line.difference
    return Reason(GAIN, asked, f"{gained(found)} dB", found.mean >= gate.gain and found.low > 0)


def span(found: Interval, digits: int = 2) -> str:
    """`23.41 [22.80, 24.02]`."""
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def gained(found: Interval, digits: int = 2) -> str:
    """The same with signs."""
    mean, low, high = (signed(value, digits) for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]"
