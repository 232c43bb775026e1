"""A person's yes, in Prefect's page, before a model is put in use."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from diffretouch.errors import UserError
from flows import artifacts


class NobodyAnswered(UserError):
    """A promotion waited for a person, and the time for it has passed."""


class Approval(RunInput):
    """What a person answers in Prefect's page before a model is put in use."""

    promote: bool = False
    words: str = ""


def given(dataset: str, summary: str, within_s: int | None) -> bool:
    """Whether a person agrees; without a wish for approval, yes. No stage runs meanwhile, so no GPU slot is held."""
    if within_s is None:
        return True
    question = f"Put the new model of {dataset} in use? {summary}"
    form = Approval.with_initial_data(description=artifacts.plain(question), promote=False, words="")
    try:
        answer = pause_flow_run(
            wait_for_input=form, timeout=within_s, poll_interval=2, key=f"approve-{artifacts.key(dataset)}"
        )
    except FlowPauseTimeout as error:
        # the server has ended the run as failed by now
        raise NobodyAnswered(f"{dataset}: nobody answered within {within_s} s. {summary}") from error
    get_run_logger().info(f"{'approved' if answer.promote else 'not approved'}: {answer.words!r}")
    return bool(answer.promote)
