"""The chain as a flow: one Prefect task a DVC stage instance.

Why this shape: dvc.yaml stays the only graph and DVC the only cache. A task calls `dvc repro --single-item` and adds
what DVC lacks: it waits when another DVC process holds the lock, shows what runs, and leaves a record of every run.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import dvc_process
from flows.dvc_process import DvcBusy
from flows.graph import Stage

LOCK_RETRIES = 60
LOCK_DELAY_S = 5
STATE_NAMES = {"ran": "Completed", "restored": "Restored", "up to date": "UpToDate"}


@dataclass(frozen=True)
class Result:
    """What became of one stage."""

    stage: str
    outcome: str
    """ran | restored (from DVC's run cache) | up to date | failed | not run."""
    seconds: float | None
    """None for what did not run."""
    message: str = ""


def _another_dvc_runs(_task: Any, _run: Any, state: State) -> bool:
    return isinstance(state.result(raise_on_failure=False), DvcBusy)


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=LOCK_RETRIES,
    retry_delay_seconds=LOCK_DELAY_S,
    retry_condition_fn=_another_dvc_runs,
)
def run_stage(stage: str, root: Path) -> State[float]:
    """Bring one stage up to date; the state's name says whether it had to run, its data how many seconds that took."""
    started = time.monotonic()
    outcome = dvc_process.repro(stage, root, get_run_logger().info)
    seconds = time.monotonic() - started
    return Completed(name=STATE_NAMES[outcome], message=f"{stage}: {outcome}", data=seconds)


@flow(name="reproduce", flow_run_name="reproduce", persist_result=False, validate_parameters=False)
def reproduce(stages: list[Stage], root: Path) -> State[list[Result]]:
    """Run `stages`, given so that each follows what it needs; a failure leaves the stages below it not run."""
    dvc_process.allow()
    if dvc_process.changed_corpus(root):
        get_run_logger().warning(
            "data/ is not the corpus that data.dvc names. Stages take it as it is and data.dvc stays; "
            "`dvc commit data.dvc`, or a plain `dvc repro`, adopts it"
        )
    futures: dict[str, PrefectFuture[State[float]]] = {}
    try:
        for stage in stages:
            needed = [futures[name] for name in stage.needs if name in futures]
            futures[stage.name] = run_stage.submit(stage.name, root, return_state=False, wait_for=needed)
        wait(list(futures.values()))
    except BaseException:
        # Ctrl-C and SIGTERM arrive here, in the main thread, while a stage runs below another one
        dvc_process.stop_all()
        raise
    results = [_result(name, future.state) for name, future in futures.items()]
    bad = [result.stage for result in results if result.outcome in ("failed", "not run")]
    if bad:
        return Failed(message=f"failed or not run: {', '.join(bad)}", data=results)
    return Completed(message=f"{sum(result.outcome == 'ran' for result in results)} stages ran", data=results)


def run(stages: list[Stage], root: Path, max_workers: int = 1) -> list[Result]:
    """The flow, at most `max_workers` stages at the same time; what became of each stage, in the order given."""
    _start_server()
    runner: Any = ThreadPoolTaskRunner(max_workers=max_workers)
    state: State[Any] = reproduce.with_options(task_runner=runner)(stages, root, return_state=True)
    results = state.result(raise_on_failure=False)
    if isinstance(results, BaseException):
        raise results
    return list(results)


def _start_server() -> None:
    """Start Prefect's embedded server (where no other is configured) so that Ctrl-C does not reach it.

    A terminal's Ctrl-C goes to the whole process group; without its server the flow could not say how it ended, and
    would try to for over a minute. A blocked signal stays blocked in children started meanwhile.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True):
            pass  # the first client starts the server
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _result(stage: str, state: State) -> Result:
    if state.is_completed():
        outcome = next(outcome for outcome, name in STATE_NAMES.items() if name == state.name)
        return Result(stage, outcome, state.result())
    if state.is_pending():
        return Result(stage, "not run", None, "a stage it needs failed")
    return Result(stage, "failed", None, str(state.result(raise_on_failure=False)))
