"""`python -m flows.retrain`: new photos in, a challenger trained, judged against the model in use, promoted or not.

Why this shape: everything happens in a clone beside the repository, of committed files and with the same cache, so that
a run that is killed, or ends in a no, changes nothing of anybody's. What puts a model in use is one push of git at the
very end. A task is a step that a person wants to see; what takes hours are the tasks of the chain itself.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before Prefect is imported, so that --help answers at once; the flow stays the module's own, whoever starts it
    import sys

    from flows.retrain_command import main

    sys.exit(main())

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import environ, pathsep
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from diffretouch import config
from diffretouch.corpus.inbox import TakenIn, boxes, take_in
from diffretouch.errors import ConfigError, UserError
from diffretouch.gating import Verdict, judge
from flows import (
    announce,
    approval,
    artifacts,
    chain,
    champion,
    clone,
    console,
    git_process,
    graph,
    parts,
    publish,
    registry,
    slots,
)
from flows.commandline import MAX_WORKERS
from flows.graph import Stage
from flows.place import asked_for

INBOX = "data.inbox"
"""Where the deployment looks for new photos: nobody needs to have put any there."""
VERDICTS = Path("work/verdicts")
"""The gate's page on every challenger of this repository; those of promoted ones are committed, too."""
STATES = {"promote": "Promoted", "keep": "Kept", "equal": "Equal", "refuse": "Refused", "waiting": "NotApproved"}


class RetrainFailed(UserError):
    """A step failed; the message says which, and where the clone is kept."""


@dataclass(frozen=True)
class Outcome:
    """What came of one dataset."""

    dataset: str
    decision: str
    """The gate's promote, keep, equal or refuse; waiting where a person said no; failed. Both keep the clone."""
    summary: str
    release: str | None = None
    """The model that was put in use: `model-fivek@v3.0.0`."""
    photos: int = 0
    """New ones in the training and validation photos."""


@dataclass(frozen=True)
class Wishes:
    """How a run was asked for."""

    root: Path
    branch: str
    max_workers: int
    sample_parts: int
    timeouts: tuple[str, ...]
    settle_s: int
    approval_s: int | None


@flow(name="retrain", flow_run_name="retrain", persist_result=False)
def retrain(
    dataset: str | None = None,
    inbox: str | None = None,
    settle_s: int = 0,
    root: str | None = None,
    branch: str = "retrain",
    approval_s: int | None = None,
    notify_block: str | None = None,
    max_workers: int = MAX_WORKERS,
    sample_parts: int = 1,
    timeouts: list[str] | None = None,
) -> State[list[dict[str, Any]]]:
    """Retrain, judge and promote, as `python -m flows.retrain` does.

    dataset: one of params.yaml's; all of them, one after the other, without it.
    inbox: folder with new photos of `dataset`, or with a folder of new photos for each.
    settle_s: photos of the inbox that were written within so many seconds are left there for the next time.
    root: the repository; the current folder without it.
    branch: where commits of new data and promoted models go.
    approval_s: pause before a promotion for that many seconds until a person has approved it in Prefect's page.
    notify_block: a notification block of the server, `slack-webhook/lab`, which gets the outcomes in words; a failure
        too. A command gets them where the environment names one (flows/announce.py).
    max_workers: stages at the same time at most, as GPUs and cores allow.
    sample_parts: have workers make the sampled pictures in so many parts; this run waits for them on one more.
    timeouts: `train=360000`: seconds after which a stage is ended, and the retraining has failed.
    """
    console.outlive_reader()
    limits = tuple(timeouts or ())
    wishes = Wishes(asked_for(root), branch, max_workers, sample_parts, limits, settle_s, approval_s)
    teller = announce.Teller(notify_block)
    if sample_parts > 1:
        parts.require_deployment()
    if inbox == INBOX and not Path(inbox).exists():
        get_run_logger().info(f"{INBOX} is not there: no new photos")
        inbox = None
    outcomes, failed, name = list[Outcome](), dict[str, UserError](), dataset or "all"
    try:
        with clone.only_one(wishes.root):
            # a killed retraining may have begun from another commit, in a clone that no chain will enter again
            for place in (wishes.root / clone.PLACE).glob("*/"):
                slots.give_back_left(place, get_run_logger().warning)
            known = config.load(wishes.root / "params.yaml").datasets
            for name, photos in boxes(known, dataset, inbox).items():
                try:
                    outcomes.append(retrain_one(wishes, name, photos))
                except UserError as error:
                    # one dataset's fault is not the others'; a run that the server has ended starts nothing more
                    if isinstance(error.__cause__, approval.NobodyAnswered):
                        raise
                    outcomes.append(Outcome(name, "failed", str(error)))
                    failed[name] = error
    except Exception as error:
        _told(teller, [*outcomes, Outcome(name, "failed", str(error))])
        raise
    if failed:
        _told(teller, outcomes)
        if len(failed) == 1:
            raise next(iter(failed.values()))
        mistakes = all(isinstance(error, ConfigError) for error in failed.values())
        raise (ConfigError if mistakes else RetrainFailed)("\n".join(dict.fromkeys(map(str, failed.values()))))
    teller.tell([asdict(outcome) for outcome in outcomes])
    names = {STATES[outcome.decision] for outcome in outcomes}
    words = "; ".join(f"{outcome.dataset}: {outcome.summary}" for outcome in outcomes)
    return Completed(name=names.pop() if len(names) == 1 else None, message=words, data=[asdict(o) for o in outcomes])


def _told(teller: announce.Teller, outcomes: list[Outcome]) -> None:
    """Tell of a failure, which has to be raised afterwards, whoever hears of it."""
    try:
        teller.tell([asdict(outcome) for outcome in outcomes])
    except announce.NotTold as untold:
        get_run_logger().error(str(untold))


def gate(dataset: str, challenger: Path, champion_: Path | None, out: Path) -> Verdict:
    """The project's own judge, by the challenger's params.yaml."""
    return judge(config.load(challenger / "params.yaml"), dataset, challenger, champion_, out)


def retrain_one(wishes: Wishes, dataset: str, inbox: Path | None) -> Outcome:
    """The steps for one dataset, inside a flow; the clone is kept where one of them fails."""
    root, branch = wishes.root, wishes.branch
    start = clone.base(root, branch)
    place = clone.fresh(root, root, f"{dataset}-{start[:12]}", start, branch)
    try:
        found = bring_in(place, dataset, inbox, wishes.settle_s)
        stages = graph.read(place)
        _limits(place, wishes)  # a word that names no stage is said before hours of work
        clone.restore_all(place)
        _run(_wanted(stages, dataset, place), place, wishes, "challenger")
        publish.commit(place, f"{dataset}: retrained{_with(found)}")
        before = registry.in_use(root, dataset)
        known = [release for release in (before, *registry.known(root, dataset)) if release]
        if twin := next((release for release in known if champion.same_model(root, place, release)), None):
            words = f"the same model, byte for byte, is in use: {twin.name}"
            if twin != before:
                words = (
                    f"the same model, byte for byte, is {twin.name}, which is not in use any more: `python -m "
                    f"flows.rollback {dataset} --to {twin.version}` puts it in use again"
                )
            return _end(place, Outcome(dataset, "equal", words))
        other = before and champion.measure(
            root, place, before, branch, stages, lambda some, where: _run(some, where, wishes, "champion")
        )
        verdict = compare(dataset, root, place, other)
        outcome = Outcome(dataset, verdict.decision, verdict.summary, photos=len(found.photos) if found else 0)
        if verdict.decision == "promote" and not approval.given(dataset, verdict.summary, wishes.approval_s):
            return Outcome(dataset, "waiting", f"not approved: {verdict.summary}", photos=outcome.photos)
        if verdict.decision == "promote":
            release = put_in_use(root, place, dataset, branch, verdict.summary)
            outcome = Outcome(dataset, "promote", verdict.summary, release, outcome.photos)
        return _end(place, outcome)
    except (UserError, graph.BrokenGraph) as error:
        raise RetrainFailed(f"{error}\nThe clone is kept: {place}. Run the same command again once mended") from error


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="new photos of {dataset}")
def bring_in(place: Path, dataset: str, inbox: Path | None, settle_s: int) -> TakenIn | None:
    """Check the corpora out and add what the inbox has, committed in the clone alone."""
    tracked = clone.corpora(place)
    clone.restore(place, *(name.removesuffix(".dvc") for name in tracked))
    if inbox is None:
        return None
    corpus = config.load(place / "params.yaml").corpus(dataset)
    found = take_in(dataset, inbox, place / "data", corpus, settle_s)
    own = f"data/{dataset}.dvc"
    clone.add(place, (own if own in tracked else "data.dvc").removesuffix(".dvc"))
    publish.commit(place, f"{dataset}: {len(found.photos)} new photos")
    log = get_run_logger()
    log.info(f"{len(found.photos)} new photos of {dataset}, {len(found.waiting)} left in the inbox because not whole")
    for photo, lacks in found.waiting.items():
        log.warning(f"left in the inbox: {photo!r} lacks {', '.join(lacks)}")
    for remark in found.remarks:
        log.info(remark)
    return found


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="judge {dataset}")
def compare(dataset: str, root: Path, place: Path, other: Path | None) -> Verdict:
    """The verdict, into the clone where it is committed with the model, beside the repository's results, and onto
    Prefect's page.

    Speed and memory are measured, too, so it has its slots as a stage has.
    """
    wanted = slots.needed(f"sample@{dataset}", place)
    with slots.held(wanted, f"the judging of {dataset}", get_run_logger().info):
        verdict = gate(dataset, place, other, place / registry.verdict_folder(dataset))
    broken = "".join(f"- {artifacts.plain(f'{why.rule}: {why.found}; asked: {why.asked}')}\n" for why in verdict.broken)
    page = artifacts.way(_keep_verdict(root, place, dataset), root)
    words = f"**{verdict.decision}**: {artifacts.plain(verdict.summary)}\n\n{broken}\n{page}"
    create_markdown_artifact(
        words, key=f"verdict-{artifacts.key(dataset)}", description=f"The gate on {dataset}'s challenger"
    )
    get_run_logger().info(f"{verdict.decision}: {verdict.summary}")
    return verdict


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="put {dataset} in use")
def put_in_use(root: Path, place: Path, dataset: str, branch: str, words: str) -> str:
    """`dvc push`, then commit and tags; the release's name."""
    release, pushed = publish.publish(root, place, dataset, branch, words)
    where = "no DVC remote is set up: its files are in this repository's cache only" if pushed is None else "pushed"
    get_run_logger().info(f"{release.name} is in use, on the branch {branch} ({where})")
    return release.name


def _wanted(stages: list[Stage], dataset: str, place: Path) -> list[Stage]:
    """The dataset's stages; those over all datasets too where what they need of the others is there."""
    wanted = [
        stage
        for stage in stages
        if stage.dataset == dataset
        or (
            stage.dataset is None
            and all(need.endswith(f"@{dataset}") or champion.made(place, need) for need in stage.needs)
        )
    ]
    if not any(stage.dataset == dataset for stage in wanted):
        raise ConfigError(f"dvc.yaml has no stage of {dataset}")
    return wanted


def _run(stages: list[Stage], place: Path, wishes: Wishes, whose: str) -> None:
    """The chain in the clone, by the clone's code; UserError where a stage failed."""
    with _code_of(place):
        results = chain.run(
            stages,
            place,
            wishes.max_workers,
            timeouts=_limits(place, wishes),
            sample_parts=wishes.sample_parts,
            whose=whose,
        )
    bad = [
        f"{result.stage} {result.outcome}: {result.message}"
        for result in results
        if result.outcome in ("failed", "not run")
    ]
    if bad:
        raise UserError("\n".join(bad))


def _limits(place: Path, wishes: Wishes) -> dict[str, float]:
    """Seconds by stage, of every stage of the clone; ConfigError for a word that names none."""
    try:
        return graph.timeouts(graph.read(place), list(wishes.timeouts))
    except graph.UnknownTarget as error:
        raise ConfigError(str(error)) from error


@contextmanager
def _code_of(place: Path) -> Iterator[None]:
    """Stages import the clone's package, whatever becomes of the installed one while they run."""
    before = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = str(place) if before is None else f"{place}{pathsep}{before}"
    try:
        yield
    finally:
        environ.pop("PYTHONPATH") if before is None else environ.update(PYTHONPATH=before)


def _keep_verdict(root: Path, place: Path, dataset: str) -> Path:
    """The page beside the repository's own results, where it can be read when the clone is gone; by the challenger's
    commit.
    """
    folder = root / VERDICTS / f"{dataset}-{git_process.git(place, 'rev-parse', 'HEAD')[:12]}"
    shutil.copytree(place / registry.verdict_folder(dataset), folder, dirs_exist_ok=True)
    page = folder / "verdict.html"
    get_run_logger().info(f"the verdict: {page}")
    return page


def _end(place: Path, outcome: Outcome) -> Outcome:
    """Remove the clones of the dataset, this and older ones: what is worth keeping is in the cache and in git."""
    own = re.compile(rf"{re.escape(outcome.dataset)}-([0-9a-f]{{12}}|champion)")
    for folder in place.parent.iterdir():
        if own.fullmatch(folder.name):
            shutil.rmtree(folder)
    return outcome


def _with(found: TakenIn | None) -> str:
    return f" with {len(found.photos)} new photos" if found and found.photos else ""
