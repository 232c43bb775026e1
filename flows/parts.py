"""The sample stage shared out: a run of the deployment `sample-part` for each part, on whichever workers are free.

Why beside the stage and not in it: what a part makes is kept outside every DVC output, so the stage, when it runs
afterwards, only has to make what is missing - a part that failed, a worker that died - and to gather. Its outputs are
those of a run that nobody helped. The workers' machines mount the workspace under the same path.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from diffretouch.errors import ConfigError
from flows import console, dvc_process, slots
from flows.place import asked_for
from flows.would_run import would_run

DEPLOYMENT = "sample-part/sample-part"
POLL_S = 2.0
PATIENCE_S = 60.0
"""With no part begun for so long, a person is told what to look at."""
SILENCE_S = 300.0
"""A server may be away for so long (started again, say)."""


class PartFailed(Exception):
    """A part ended with an error; the message holds its last lines."""


@flow(name="sample-part", persist_result=False)
def sample_part(dataset: str, part: str, root: str) -> None:
    """Make one part of a dataset's pictures, as `diffretouch sample DATASET --part PART` does.

    Nothing is made where the chain that asked for it has ended meanwhile.

    part: `2/4`, the second of four.
    root: the repository, as this machine sees it.
    """
    console.outlive_reader()
    place, name, log = asked_for(root), f"sample@{dataset} {part}", get_run_logger().info
    if not (place / "dvc.yaml").is_file():
        raise ConfigError(f"this machine does not see {place}: mount it here under the same path")
    if not _still_wanted():
        log("the chain that asked for this part has ended")
        return
    dvc_process.allow()
    command = [sys.executable, "-m", "diffretouch", "sample", dataset, "--part", part]
    try:
        with slots.held(slots.needed(f"sample@{dataset}", place), name, log):
            if not _still_wanted():
                log("the chain that asked for this part has ended while it waited")
                return
            ended = dvc_process.follow(command, place, name, log)
    except BaseException:
        dvc_process.stop_all(place, name)
        raise
    if ended.code:
        raise PartFailed(f"{name} ended with exit code {ended.code}; its last lines:\n{ended.last}")


def _still_wanted() -> bool:
    """Whether the run that asked for this one goes on, as far as the server knows, or a person started it."""
    parent = flow_run.parent_flow_run_id
    if parent is None:
        return True
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(parent)).state
    return state is None or not state.is_final()


def require_deployment() -> None:
    """ConfigError unless a server has the deployment."""
    if not PREFECT_API_URL.value():
        raise ConfigError("parts run on workers of a server: `prefect server start`, then set PREFECT_API_URL")
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound as error:
            raise ConfigError(
                f"{PREFECT_API_URL.value()} has no deployment {DEPLOYMENT}: `prefect --no-prompt deploy --all`"
            ) from error


def share(stage: str, root: Path, parts: int, say: Callable[[str], None], timeout_s: float | None = None) -> None:
    """Have workers make the pictures of `sample@dataset` in so many parts, where DVC would run it; wait for all.

    A part that fails is left to the stage. However this ends, no part goes on without it.

    Raises:
        Stopped: this process is being stopped.
        StageFailed: it takes more than `timeout_s` seconds.
        DvcBusy: another DVC is at work.
    """
    if not would_run(stage, root):
        return
    dataset, left = stage.partition("@")[2], dict[UUID, str]()
    try:
        for number in range(1, parts + 1):
            part = f"{number}/{parts}"
            asked, name = {"dataset": dataset, "part": part, "root": str(root)}, f"{dataset} {part}"
            # called from a task's thread, where nothing awaits it
            run: Any = run_deployment(DEPLOYMENT, parameters=asked, timeout=0, flow_run_name=name)
            left[run.id] = f"part {number} of {parts}"
        say(f"{stage}: {parts} parts are asked of {DEPLOYMENT}")
        _wait(left, stage, say, timeout_s)
    except BaseException:
        _cancel(left, say)
        raise


def _wait(left: dict[UUID, str], stage: str, say: Callable[[str], None], timeout_s: float | None) -> None:
    """Until all have ended, however; say how, and take them out of `left`."""
    started = answered = time.monotonic()
    begun = False
    with get_client(sync_client=True) as client:
        while left:
            now = time.monotonic()
            if dvc_process.stopping():
                raise dvc_process.Stopped(f"{stage} was stopped while its parts were made")
            if timeout_s is not None and now - started > timeout_s:
                raise dvc_process.StageFailed(f"the parts of {stage} took more than {timeout_s:g} s and were ended")
            if not begun and now - started > PATIENCE_S:
                begun = True
                say(f"{stage}: no worker has begun a part: `prefect worker start --pool gpu` on every machine")
            try:
                for run, part in list(left.items()):
                    state = client.read_flow_run(run).state
                    answered = time.monotonic()
                    begun |= state is not None and not (state.is_scheduled() or state.is_pending())
                    if state is not None and state.is_final():
                        del left[run]
                        ended = "done" if state.is_completed() else f"{state.name}: {state.message}; the stage makes it"
                        say(f"{stage}: {part} {ended}")
            except httpx.HTTPError as error:
                if time.monotonic() - answered > SILENCE_S:
                    raise
                say(f"{stage}: the server does not answer, asked again: {error}")
            if left:
                time.sleep(POLL_S)


def _cancel(left: Mapping[UUID, str], say: Callable[[str], None]) -> None:
    """Tell every part to end; what cannot be told finds out by itself when it begins."""
    with get_client(sync_client=True) as client:
        for run, part in left.items():
            try:
                client.set_flow_run_state(run, Cancelling())
            except (httpx.HTTPError, ObjectNotFound) as error:
                say(f"{part} could not be cancelled: {error}")
