"""`reproduce` and `report` as deployments: plain parameters, so that a schedule, a form or a command can start them.

Why apart from the commands: a worker loads this file and calls a flow; the commands start the same work without a
server, and answer --help before Prefect is imported. prefect.yaml names what is deployed.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow, get_run_logger

from diffretouch import profiles
from flows import artifacts, chain, console, graph, report, workspace
from flows.commandline import MAX_WORKERS
from flows.place import asked_for


class ChainFailed(Exception):
    """Stages failed or did not run; the message names them."""


@flow(name="chain", persist_result=False)
def reproduce(
    targets: list[str] | None = None,
    datasets: list[str] | None = None,
    profile: str | None = None,
    root: str | None = None,
    max_workers: int = MAX_WORKERS,
    timeouts: list[str] | None = None,
    sample_parts: int = 1,
    wait: bool = True,
) -> dict[str, str]:
    """Bring the stages of dvc.yaml up to date, as `python -m flows.reproduce` does; each one's outcome.

    targets: stages (`train`) or instances (`train@fivek`), with what they need; all without any.
    datasets: only the stages of these.
    profile: make profiles/PROFILE.yaml the params.yaml in use first; as it is without one.
    root: the repository; the deployment's folder without one.
    max_workers: stages at the same time at most, as GPUs and cores allow.
    timeouts: `train=3600`: seconds after which a stage is ended and has failed.
    sample_parts: have workers make the sampled pictures in so many parts; this run waits for them on one more.
    wait: for another chain in the workspace; without it the run fails then.
    """
    console.outlive_reader()
    place = asked_for(root)
    with workspace.hold(place, wait, get_run_logger().info):
        if profile and profiles.use(profile, place):
            get_run_logger().info(f"params.yaml is now profiles/{profile}.yaml; the one before is params.yaml.before")
        stages = graph.select(graph.read(place), targets or [], datasets or [])
        limits = graph.timeouts(stages, timeouts or [])
        results = chain.run_held(stages, place, max_workers, limits, sample_parts)
    if bad := [result for result in results if result.outcome in ("failed", "not run")]:
        raise ChainFailed("; ".join(f"{result.stage}: {result.message}" for result in bad))
    # the stages' own lines are on the page of the run below this one
    get_run_logger().info(", ".join(f"{result.stage} {result.outcome}" for result in results))
    return {result.stage: result.outcome for result in results}


@flow(name="report", persist_result=False)
def nightly_report(
    rev: str = "HEAD",
    model: str | None = None,
    dataset: str | None = None,
    root: str | None = None,
    timeouts: list[str] | None = None,
) -> str:
    """Evaluation and report of a revision or of a model folder, as `python -m flows.report` does; the page's path.

    rev: a commit, tag or branch.
    model: a pipeline folder to judge in place of the model of that revision.
    dataset: whose model it replaces; needed where there are several.
    root: the repository; the deployment's folder without one.
    timeouts: `sample=3600`: seconds after which a stage is ended, and there is no report.
    """
    console.outlive_reader()
    given = Path(model) if model else None
    wanted = report.Wanted(rev=rev, model=given, dataset=dataset, timeouts=tuple(timeouts or ()))
    place = asked_for(root)
    page = report.make(place, wanted)
    artifacts.link(page, place)
    return str(page)
