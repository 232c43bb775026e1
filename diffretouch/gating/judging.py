"""The gate: two trees' tables and pictures in, a verdict out."""

from __future__ import annotations

from pathlib import Path

from diffretouch.config import Params
from diffretouch.gating.verdict import Verdict


def judge(params: Params, dataset: str, challenger: Path, champion: Path | None, out: Path) -> Verdict:
    """Whether the model of the tree `challenger` may be put in use for `dataset`, by the section `gate` of `params`.

    Args:
        params: whose `gate` has the rules and whose `evaluate` says how intervals are drawn.
        dataset: one of `params.datasets`.
        challenger: root of a working tree in which the stages up to evaluate have run: `work/` and `reports/` in it.
        champion: such a root for the model in use, evaluated on the same test photos by the same code; None where no
            model is in use yet: floors alone decide.
        out: folder that verdict.json and verdict.html are written into, each whole or not at all; made where absent.

    Returns:
        The verdict, also where the two cannot be compared (`refuse`, with the reason in words).

    Raises:
        UserError: a table of either tree is absent or unreadable; the message names the command that makes it.
    """
    raise NotImplementedError
