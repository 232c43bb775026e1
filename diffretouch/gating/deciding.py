"""From rules to one decision and one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from diffretouch.gating.measures import Line, number
from diffretouch.gating.rules import GAIN, gained
from diffretouch.gating.verdict import Decision, Reason


def decide(
    must: Sequence[Reason], reasons: Sequence[Reason], lines: Sequence[Line], *, alone: bool
) -> tuple[Decision, str]:
    """`must`: the rules, among `reasons`, without which nothing is compared or used; `alone`: there is no champion."""
    stays = "no model is put in use" if alone else "the champion stays"
    if refused := broken(must):
        return "refuse", f"The challenger is refused and {stays}: {_words(refused)}."
    if kept := [reason for reason in broken(reasons) if reason.rule != GAIN]:
        count = f"{len(kept)} of {len(reasons)} rules {'is' if len(kept) == 1 else 'are'} broken"
        return "keep", f"{stays.capitalize()}, {count}: {_words(kept)}."
    if missed := broken(reasons):
        # every rule about harm is kept: what lacks is a reason to change
        return "equal", (
            f"The champion stays, the challenger is its equal: no rule about loss is broken, but {missed[0].found} is "
            f"less than what is asked for a change: {missed[0].asked}."
        )
    return "promote", _won(lines, alone)


def broken(reasons: Sequence[Reason]) -> list[Reason]:
    """Those that did not pass."""
    return [reason for reason in reasons if reason.passed is False]


def _words(faults: Sequence[Reason]) -> str:
    first = f"{faults[0].rule} ({faults[0].found})"
    return ", ".join([first, *(fault.rule for fault in faults[1:])])


def _won(lines: Sequence[Line], alone: bool) -> str:
    psnr = number(lines, "psnr")
    if psnr is None:
        raise ValueError("a challenger was promoted without a measured PSNR")
    on = f"on {psnr.challenger.n} test photos of {psnr.challenger.groups} scenes"
    if alone or psnr.difference is None:
        reached = f"PSNR {psnr.challenger.mean:.2f} dB {on}"
        return f"The challenger is put in use, the first: {reached}, and every rule is kept."
    return f"The challenger takes the champion's place: {gained(psnr.difference)} dB {on}, and every rule is kept."
