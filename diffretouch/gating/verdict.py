"""What the gate says: one decision, one sentence, and a line for every rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Decision = Literal["promote", "keep", "equal", "refuse"]
"""What is to be done.

 - promote: every rule is kept, and the challenger is better by what is asked; without a champion, every rule is kept.
 - keep: a rule about quality, cost or people's votes is broken; the champion stays, and more training may help.
 - equal: every rule is kept, yet no gain is shown; the champion stays.
 - refuse: the two cannot be compared, numbers are not finite, or a licence forbids the use.
"""


@dataclass(frozen=True)
class Reason:
    """One rule."""

    rule: str
    """What it is about: `floor: psnr`, `slices: camera`, `licence`."""
    asked: str
    """What the parameters ask for, in words with numbers and units."""
    found: str
    """What was found, in words with numbers and units."""
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
    dataset: str
    use: Literal["research", "commercial"]
    """What a promoted model is meant for: `gate.use`, by which its licences were judged."""

    @property
    def promoted(self) -> bool:
        """Whether the challenger may be put in use."""
        return self.decision == "promote"

    @property
    def broken(self) -> tuple[Reason, ...]:
        """The rules that did not pass."""
        return tuple(reason for reason in self.reasons if reason.passed is False)
