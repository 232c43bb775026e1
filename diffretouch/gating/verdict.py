"""What the gate says: one decision, one sentence, and a line for every rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Decision = Literal["promote", "keep", "equal", "refuse"]
"""promote: the challenger passes every rule and is better by what is asked (without a champion: passes every rule).
keep: a rule about quality, cost or people's votes is broken. equal: every rule is kept, yet no gain is shown.
refuse: the two cannot be compared, numbers are not finite, or the licence forbids it; keep and equal may be tried again
with more training, refuse may not."""


@dataclass(frozen=True)
class Reason:
    """One rule."""

    rule: str
    """What it is about: `psnr floor`, `slice camera_Canon EOS 5D`, `licence`."""
    asked: str
    """What the parameters ask for, in words with numbers and units."""
    found: str
    """What was measured, in words with numbers and units."""
    passed: bool | None
    """None where it was not judged: switched off by the parameters, or nothing to judge it by."""


@dataclass(frozen=True)
class Verdict:
    """Of one challenger."""

    decision: Decision
    summary: str
    """One sentence a person can be told."""
    reasons: tuple[Reason, ...]
    """Every rule in order, also those that passed."""

    @property
    def promoted(self) -> bool:
        """Whether the challenger may be put in use."""
        return self.decision == "promote"

    @property
    def broken(self) -> tuple[Reason, ...]:
        """The rules that did not pass."""
        return tuple(reason for reason in self.reasons if reason.passed is False)
