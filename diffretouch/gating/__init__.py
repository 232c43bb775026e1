"""Whether a new model takes the place of the one in use: rules with numbers, a verdict in words, a page to read."""

from diffretouch.gating.judging import judge
from diffretouch.gating.verdict import Decision, Reason, Verdict

__all__ = ["Decision", "Reason", "Verdict", "judge"]
