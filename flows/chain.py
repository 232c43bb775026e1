"""The chain as a flow: one Prefect task a DVC stage instance.

Why this shape: dvc.yaml stays the only graph and DVC the only cache. A task calls `dvc repro --single-item` and adds
what DVC lacks: it waits when another DVC process holds the lock and while other chains hold the GPU or the cores, shows
what runs, ends everything of a stage that is stopped, and leaves a record of every run.
"""

from __future__ import annotations

import datetime
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts, console, dvc_process, parts, slots, workspace
from flows.commandline import MAX_WORKERS
from flows.dvc_process import DvcBusy, Stopped
from flows.graph import Stage
from flows.survey import survey

LOCK_RETRIES = 720
LOCK_DELAY_S = 5
STATE_NAMES = {"ran": "Completed", "restored": "Restored", "up to date": "UpToDate"}
LOGS = Path("work/logs")
"""A folder a run, a file a stage."""


@dataclass(frozen=True)
class Result:
    """What became of one stage."""

    stage: str
    outcome: str
    """ran | restored (from DVC's run cache) | up to date | failed | not run."""
    seconds: float | None
    """None for what did not run."""
    message: str = ""


class Outcomes:
    """What became of the stages of a flow, for who called it: a state loses its data where a server answers late.

    No list, or Prefect would look through it for futures and copy it.
    """

    def __init__(self) -> None:
        self.results: list[Result] = []
        """In the order in which the stages were given."""


class _Run:
    """What the tasks of one run share. No dataclass, or Prefect would look through it for futures and copy it."""

    def __init__(
        self,
        root: Path,
        unchanged: frozenset[str],
        timeouts: Mapping[str, float],
        total: int,
        max_workers: int,
        sample_parts: int,
    ) -> None:
        self.root, self.unchanged, self.timeouts, self.total = root, unchanged, timeouts, total
        self.sample_parts = sample_parts
        self.shared: set[str] = set()
        """Stages whose parts have been made: where DVC is busy afterwards, they are not asked for again."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")
        self.logs = root / LOGS / f"{now}-{str(flow_run.id)[:8]}"
        self.moved: set[str] = set()
        """Stages that did not turn out to be up to date: what needs them has to ask DVC again."""
        self.ended: dict[str, Result] = {}
        """Stages that ended well."""
        # typed as if it might be awaited, which it is not in a flow that is no coroutine
        self.progress: Any = create_progress_artifact(0.0, description="stages") if len(unchanged) < total else None
        self._done, self._lock = 0, threading.Lock()
        self._turns = threading.Semaphore(max_workers)

    def log_file(self, stage: str) -> Path:
        """Where a stage's lines go."""
        return self.logs / f"{re.sub(r'[^A-Za-z0-9@._-]+', '-', stage)}.log"

    @contextmanager
    def turn(self, stage: str) -> Iterator[None]:
        """Be one of the stages that run at the same time; Stopped where the flow is stopped before its turn."""
        while not self._turns.acquire(timeout=1):
            if dvc_process.stopping():
                raise Stopped(f"{stage} was stopped before its turn")
        try:
            yield
        finally:
            self._turns.release()

    def nothing_to_do(self, stage: Stage) -> bool:
        """Whether DVC said at the start that the stage is up to date, and nothing it reads has moved since."""
        return stage.name in self.unchanged and not self.moved.intersection(stage.needs)

    def finished(self, result: Result) -> None:
        """Note a stage that ended well."""
        moved = result.outcome != "up to date"
        with self._lock:
            self._done += 1
            self.ended[result.stage] = result
            if moved:
                self.moved.add(result.stage)
                workspace.keep(self.root)
        if self.progress and moved:
            update_progress_artifact(self.progress, 100.0 * self._done / self.total)


def _another_dvc_runs(_task: Any, _run: Any, state: State) -> bool:
    return isinstance(state.result(raise_on_failure=False), DvcBusy)


@task(
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=LOCK_RETRIES,
    retry_delay_seconds=LOCK_DELAY_S,
    retry_condition_fn=_another_dvc_runs,
)
def run_stage(stage: Stage, run: _Run) -> State[None]:
    """Bring one stage up to date; the state's name says whether it had to run."""
    started = time.monotonic()
    name = stage.name
    if run.nothing_to_do(stage):
        outcome: str = "up to date"
    else:
        outcome = _repro(name, run)
    run.finished(Result(name, outcome, time.monotonic() - started))
    return Completed(name=STATE_NAMES[outcome], message=f"{name}: {outcome}")


def _repro(stage: str, run: _Run) -> str:
    """`dvc repro` with the stage's slots held, its lines to Prefect and whole to a file."""
    logger, file = get_run_logger(), run.log_file(stage)
    limit = run.timeouts.get(stage, run.timeouts.get(stage.partition("@")[0]))
    if run.sample_parts > 1 and stage.partition("@")[0] == "sample" and stage not in run.shared:
        parts.share(stage, run.root, run.sample_parts, logger.info, limit)
        run.shared.add(stage)
    with ExitStack() as stack:
        stack.enter_context(run.turn(stage))
        dvc_process.await_lock(run.root, logger.info)  # without slots that others could use meanwhile
        stack.enter_context(slots.held(slots.needed(stage, run.root), stage, logger.info, root=run.root))
        file.parent.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(file.open("a", encoding="utf-8", buffering=1))

        def both(line: str) -> None:
            log.write(f"{line}\n")
            logger.info(line)

        return dvc_process.repro(stage, run.root, both, limit)


@flow(name="reproduce", flow_run_name="reproduce", persist_result=False, validate_parameters=False)
def reproduce(
    stages: list[Stage],
    root: Path,
    outcomes: Outcomes,
    timeouts: Mapping[str, float] | None = None,
    max_workers: int = MAX_WORKERS,
    sample_parts: int = 1,
    whose: str = "",
) -> State[None]:
    """Run `stages`, given so that each follows what it needs; a failure leaves the stages below it not run.

    What became of each is left in `outcomes`.
    """
    console.outlive_reader()
    dvc_process.allow()
    slots.give_back_left(root, get_run_logger().warning)  # what used them was ended by who holds the workspace
    found = survey(root, stages)
    for file in found.changed_corpora:
        get_run_logger().warning(
            f"the data beside {file} are not the corpus that it names. Stages take them as they are and {file} stays; "
            f"`dvc commit {file}`, or a plain `dvc repro`, adopts them"
        )
    run = _Run(root, found.unchanged, timeouts or {}, len(stages), max_workers, sample_parts)
    workspace.keep(root)
    futures: dict[str, PrefectFuture[State[None]]] = {}
    try:
        for stage in stages:
            needed = [futures[name] for name in stage.needs if name in futures]
            futures[stage.name] = run_stage.submit(stage, run, return_state=False, wait_for=needed)
        wait(list(futures.values()))
    except BaseException:
        # Ctrl-C, SIGTERM and Prefect's cancel arrive here, in the main thread, while a stage runs below another one
        dvc_process.stop_all(root)
        raise
    results = outcomes.results = [
        run.ended.get(name) or _unfinished(name, future.state) for name, future in futures.items()
    ]
    datasets = sorted({stage.dataset for stage in stages if stage.dataset})
    artifacts.publish(_rows(results, run), datasets, root, whose)
    bad = [result.stage for result in results if result.outcome in ("failed", "not run")]
    if bad:
        return Failed(message=f"failed or not run: {', '.join(bad)}")
    return Completed(message=f"{sum(result.outcome == 'ran' for result in results)} stages ran")


def run(
    stages: list[Stage],
    root: Path,
    max_workers: int = MAX_WORKERS,
    *,
    wait: bool = False,
    timeouts: Mapping[str, float] | None = None,
    sample_parts: int = 1,
    whose: str = "",
) -> list[Result]:
    """The flow as the only chain in `root`, at most `max_workers` stages at the same time; what became of each stage.

    Where another chain runs there: workspace.Busy, or with `wait` after it has ended. `timeouts` are seconds by stage
    (`train`) or instance (`train@fivek`); a stage that takes longer is ended, and has failed.
    Pictures are sampled in `sample_parts` by workers of the server (flows/parts.py). `whose` names the numbers on
    Prefect's pages that are not the repository's own: the challenger's, the champion's.
    """
    with workspace.hold(root, wait):
        return run_held(stages, root, max_workers, timeouts, sample_parts, whose)


def run_held(
    stages: list[Stage],
    root: Path,
    max_workers: int = MAX_WORKERS,
    timeouts: Mapping[str, float] | None = None,
    sample_parts: int = 1,
    whose: str = "",
) -> list[Result]:
    """`run` for who holds the workspace already."""
    if sample_parts > 1:
        parts.require_deployment()
    _start_server()
    # a thread a stage: one that waits for others waits in its thread, in the place of one that could run
    runner: Any = ThreadPoolTaskRunner(max_workers=max(1, len(stages)))
    outcomes = Outcomes()
    state: State[Any] = reproduce.with_options(task_runner=runner)(
        stages, root, outcomes, timeouts, max_workers, sample_parts, whose, return_state=True
    )
    if not outcomes.results and not state.is_completed():
        state.result()  # raises what kept the flow from its end
    return outcomes.results


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


def _unfinished(stage: str, state: State) -> Result:
    """What became of a stage that did not end well."""
    if state.is_pending():
        return Result(stage, "not run", None, "a stage it needs failed")
    return Result(stage, "failed", None, str(state.result(raise_on_failure=False)))


def _rows(results: list[Result], run: _Run) -> list[dict[str, Any]]:
    """The results as a table for Prefect's pages."""
    rows = []
    for result in results:
        log = run.log_file(result.stage)
        seconds = None if result.seconds is None else round(result.seconds, 1)
        said = result.message.splitlines()[0] if result.message else ""
        rows.append(
            {
                "stage": result.stage,
                "outcome": result.outcome,
                "seconds": seconds,
                "message": said,
                "log": str(log.relative_to(run.root)) if log.exists() else "",
            }
        )
    return rows
