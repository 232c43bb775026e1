"""`python -m flows.report`: evaluation and report of a revision or of a model folder, beside the working tree.

Why a clone: what is being judged must be what git and DVC recorded, and a person may be working in the tree. The clone
shares the cache, so what that revision made is only linked, and what it lacks is run with its own code.
"""

from __future__ import annotations

import argparse
import fcntl
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from diffretouch.files.atomic import whole
from flows import console
from flows.commandline import add_root, add_timeout, end_on_sigterm

PLACE, PREFIX, LOCK = Path(".dvc/tmp"), "report-", "lock"
KINDS = ("sample", "evaluate", "embed", "report")
"""Stages that judge a model; what they read is not made anew."""

EPILOG = """\
examples
  python -m flows.report                              the committed state
  python -m flows.report --rev v1.2                   a tag, a branch, a commit
  python -m flows.report --model models/released-fivek --dataset fivek
                                                      this pipeline folder in place of that dataset's model

what it does
  Clones the repository into .dvc/tmp with the same DVC cache, checks the revision out, brings sample, evaluate, embed
  and report up to date there with that revision's code, and copies its reports/ to --out. The working tree, dvc.lock
  and reports/ stay as they are. What the revision's earlier stages made must be in the cache. With --model the curves
  of the training stay those of the revision.

exit codes
  0 the report is written   1 a stage failed, or the cache lacks something   2 no such revision, model or dataset
  130, 143 stopped
"""


class NotThere(Exception):
    """What was asked for does not exist; the message says what does."""


class CannotReport(Exception):
    """There is no report; the message says what failed."""


@dataclass(frozen=True)
class Wanted:
    """What is to be judged."""

    rev: str = "HEAD"
    model: Path | None = None
    dataset: str | None = None
    """Whose model `model` replaces; needed where there are several."""
    out: Path | None = None
    """Where the reports go; work/reports/<revision or model> without one."""
    timeouts: tuple[str, ...] = ()
    """`sample=3600`: seconds after which a stage is ended, and there is no report."""


def make(root: Path, wanted: Wanted) -> Path:
    """The page. Raises NotThere or CannotReport."""
    commit = _commit(root, wanted.rev)
    if wanted.model and not (wanted.model / "model_index.json").is_file():
        raise NotThere(f"{wanted.model} is no pipeline folder: it has no model_index.json")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted.model.resolve().name) if wanted.model else commit[:12]
    out = wanted.out or root / "work" / "reports" / name
    with _clone(root, commit) as clone:
        _judge(clone, wanted)
        page = clone / "reports" / "index.html"
        if not page.is_file():
            raise CannotReport(f"the stages of {commit[:12]} wrote no reports/index.html")
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(path for path in (clone / "reports").rglob("*") if path.is_file()):
            with whole(out / file.relative_to(clone / "reports")) as temporary:
                shutil.copyfile(file, temporary)
    return out / "index.html"


def _judge(clone: Path, wanted: Wanted) -> None:
    """Bring the judging stages of the clone up to date, with `wanted.model` in place of a dataset's."""
    from flows import chain, graph

    try:
        every = graph.read(clone)
        limits = graph.timeouts(every, list(wanted.timeouts))
    except graph.BrokenGraph as error:
        raise CannotReport(str(error)) from error
    except graph.UnknownTarget as error:
        raise NotThere(str(error)) from error
    stages = [stage for stage in every if stage.name.partition("@")[0] in KINDS]
    if wanted.model:
        dataset = _dataset(sorted({stage.dataset for stage in every if stage.dataset}), wanted.dataset)
        place = clone / "work" / "train" / dataset / "model"
        if place.exists():
            shutil.rmtree(place)
        shutil.copytree(wanted.model, place)
    results = chain.run(stages, clone, timeouts=limits)
    if bad := [result for result in results if result.outcome in ("failed", "not run")]:
        raise CannotReport("\n".join(f"{result.stage} {result.outcome}: {result.message}" for result in bad))


def _dataset(known: list[str], asked: str | None) -> str:
    if asked in known:
        return asked
    if asked is None and len(known) == 1:
        return known[0]
    came = "none was named" if asked is None else f"not {asked}"
    raise NotThere(f"whose model is it? --dataset is one of {', '.join(known)}; {came}")


def _commit(root: Path, rev: str) -> str:
    words = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotThere(f"git knows no revision {rev!r} in {root}; `git log --oneline --all` lists them")
    return done.stdout.strip()


@contextmanager
def _clone(root: Path, commit: str) -> Iterator[Path]:
    """A clone at `commit` with this workspace's cache and configuration, gone afterwards."""
    from dvc.repo import Repo

    _forget_killed(root / PLACE)

    with Repo(str(root)) as repo:
        cache = str(repo.cache.local_cache_dir)
    # on the cache's file system, where its files can be linked
    with _top(root / PLACE) as top:
        clone = top / "clone"
        _call(["git", "clone", "--quiet", "--no-checkout", str(root), str(clone)], root)
        _call(["git", "checkout", "--quiet", "--detach", commit], clone)
        local = root / ".dvc" / "config.local"
        if local.exists():
            shutil.copyfile(local, clone / ".dvc" / "config.local")
        _call([sys.executable, "-m", "dvc", "cache", "dir", "--local", cache], clone)
        # what stages made, without the corpora, which no judging stage reads
        _call([sys.executable, "-m", "dvc", "checkout", "--quiet", "--allow-missing", "dvc.yaml"], clone)
        yield clone


@contextmanager
def _top(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, locked for as long as this process lives and it is there."""
    folder.mkdir(exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=folder))
    with (fresh / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # only now others see it
        top = fresh.rename(fresh.with_name(fresh.name.removeprefix(".")))
        try:
            yield top
        finally:
            shutil.rmtree(top, ignore_errors=True)


def _forget_killed(folder: Path) -> None:
    """End what killed reports have left running, and remove their clones."""
    from flows import family

    for lock in folder.glob(f"{PREFIX}*/{LOCK}"):
        # gone meanwhile: its report has ended, or another one that starts now was faster; or somebody else's
        with suppress(FileNotFoundError, PermissionError), lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # of a report that is being made
            if count := family.end(lock.parent / "clone"):
                console.say(f"ended {count} processes that a killed report had left in {lock.parent}")
            shutil.rmtree(lock.parent, ignore_errors=True)


def _call(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotReport(f"`{' '.join(words)}` failed in {folder}:\n{done.stdout}{done.stderr}")


def main(argv: list[str] | None = None) -> int:
    """Parse, make the report, print its path; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.report",
        description="Evaluation and report of a revision or of a model folder, in a temporary clone.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rev", default="HEAD", help="a commit, tag or branch (default: HEAD)")
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="a pipeline folder to judge in place of the recorded one"
    )
    parser.add_argument("--dataset", help="whose model --model replaces; needed where there are several")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the reports go (default: work/reports/NAME)")
    add_timeout(parser)
    add_root(parser)
    asked = parser.parse_args(argv)
    end_on_sigterm()
    try:
        print(
            make(asked.root.resolve(), Wanted(asked.rev, asked.model, asked.dataset, asked.out, tuple(asked.timeout)))
        )
    except NotThere as error:
        print(error, file=sys.stderr)
        return 2
    except CannotReport as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
