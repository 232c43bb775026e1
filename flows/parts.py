"""The sample stage shared out: a run of the deployment `sample-part` for each part, on whichever workers are free.

Why beside the stage and not in it: what a part makes is kept outside every DVC output, so the stage, when it runs
afterwards, only has to make what is missing - a part that failed, a worker that died - and to gather. Its outputs are
those of a run that nobody helped. The workers' machines mount the workspace under the same path.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from diffretouch.errors import ConfigError
from flows import dvc_process, slots
from flows.would_run import would_run

DEPLOYMENT = "sample-part/sample-part"
POLL_S = 2.0
PATIENCE_S = 60.0
"""With no part begun for so long, a person is told what to look at."""


class PartFailed(Exception):
    """A part ended with an error; the message holds its last lines."""


@flow(name="sample-part", flow_run_name="{dataset} {part}", persist_result=False)
def sample_part(dataset: str, part: str, root: str) -> None:
    """Make one part of a dataset's pictures, as `diffretouch sample DATASET --part PART` does.

    part: `2/4`, the second of four.
    root: the repository, as this machine sees it.
    """
    place, name = Path(root).resolve(), f"sample@{dataset} {part}"
    if not (place / "dvc.yaml").is_file():
        raise ConfigError(f"this machine does not see {place}: mount it here under the same path")
    dvc_process.allow()
    command = [sys.executable, "-m", "diffretouch", "sample", dataset, "--part", part]
    log = get_run_logger().info
    try:
        with slots.held(slots.needed(f"sample@{dataset}", place), log, dvc_process.stopping) as held:
            ended = dvc_process.follow(command, place, name, log) if held else None
    except BaseException:
        dvc_process.stop_all(place, name)
        raise
    if ended is None or ended.code:
        raise PartFailed(f"{name} ended early: {ended.last if ended else 'it was stopped while it waited for a GPU'}")


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


def share(stage: str, root: Path, parts: int, say: Callable[[str], None]) -> None:
    """Have workers make the pictures of `sample@dataset` in so many parts, where DVC would run it; wait for all.

    Raises:
        Stopped: this process is being stopped, and so are they.
    """
    if not would_run(stage, root):
        return
    dataset = stage.partition("@")[2]
    runs = dict[UUID, str]()
    for number in range(1, parts + 1):
        asked = {"dataset": dataset, "part": f"{number}/{parts}", "root": str(root)}
        # called from a task's thread, where nothing awaits it
        run: object = run_deployment(DEPLOYMENT, parameters=asked, timeout=0, as_subflow=False)
        runs[run.id] = f"part {number} of {parts}"  # type: ignore[attr-defined]
    say(f"{stage}: {parts} parts are asked of {DEPLOYMENT}")
    _wait(runs, stage, say)


def _wait(runs: dict[UUID, str], stage: str, say: Callable[[str], None]) -> None:
    """Until all have ended, however; say how. What failed is made by the stage itself."""
    started, begun, left = time.monotonic(), False, dict(runs)
    with get_client(sync_client=True) as client:
        while left:
            if dvc_process.stopping():
                for run in left:
                    client.set_flow_run_state(run, Cancelling())
                raise dvc_process.Stopped(f"{stage} was stopped while its parts were made")
            for run, part in list(left.items()):
                state = client.read_flow_run(run).state
                if state is None or not state.is_final():
                    begun |= state is not None and state.is_running()
                    continue
                del left[run]
                ended = "done" if state.is_completed() else f"{state.name}: {state.message}; the stage makes it"
                say(f"{stage}: {part} {ended}")
            if left and not begun and time.monotonic() - started > PATIENCE_S:
                begun = True
                say(f"{stage}: no worker has begun a part: `prefect worker start --pool gpu` on every machine")
            if left:
                time.sleep(POLL_S)
