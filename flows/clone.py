"""A fresh clone to retrain in: of committed files only, sharing the repository's cache, beside nobody's work.

It lies in `.dvc/tmp/retrain`, where git and DVC never look and the cache's file system is near.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import CheckoutError, DvcException
from dvc.repo import Repo

from diffretouch.errors import ConfigError, UserError
from flows import console, family, git_process

PLACE = Path(".dvc/tmp/retrain")


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Be the only retraining of the repository; UserError while there is another. It ends with the process, however."""
    if not (root / ".dvc").is_dir() or not (root / ".git").exists():
        raise ConfigError(f"{root} is not the root of a git and DVC repository: name it with --root")
    (root / PLACE).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / PLACE / "lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(descriptor, 20, 0).decode().strip() or "of another machine"
            raise UserError(
                f"another retraining of {root} runs: process {other}; try again when it has ended"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        for place in family.places(root / PLACE):  # before anything there is touched, whichever clone it is
            count = family.end(place)
            console.say(f"ended {count} processes that a killed retraining had left in {place}")
        yield
    finally:
        os.close(descriptor)


def base(root: Path, branch: str) -> str:
    """The commit to start from: the branch of earlier retrainings where it is ahead of HEAD, else HEAD.

    UserError where files that git or DVC track are changed and not committed, the two have gone apart, or somebody has
    the branch checked out.
    """
    if git_process.git(root, "check-ref-format", "--branch", branch) != branch:
        raise ConfigError(f"{branch!r} is no name for a branch")
    trees = git_process.git(root, "worktree", "list", "--porcelain").split("\n\n")
    if taken := [tree for tree in trees if f"branch refs/heads/{branch}" in tree.splitlines()]:
        raise UserError(
            f"the branch {branch} is checked out in {taken[0].splitlines()[0].partition(' ')[2]}, and git pushes to no "
            "such branch: check out another there (git switch main), or name another branch with --branch"
        )
    dirty = git_process.git(root, "status", "--porcelain", "--untracked-files=no")
    if dirty:
        raise UserError(
            f"{root} has changes that are not committed, and a retraining sees committed files only:\n{dirty}\n"
            "commit them (git commit -a), or put them aside (git stash)"
        )
    changed = _changed_corpora(root)
    if changed:
        raise UserError(
            f"{', '.join(changed)} and the corpora beside it differ: `dvc add` them and commit, or go back with "
            f"`dvc checkout {' '.join(changed)}`"
        )
    head = git_process.git(root, "rev-parse", "HEAD")
    tip = git_process.commit_of(root, f"refs/heads/{branch}")
    if tip is None or git_process.succeeds(root, "merge-base", "--is-ancestor", tip, head):
        return head
    if git_process.succeeds(root, "merge-base", "--is-ancestor", head, tip):
        return tip
    raise UserError(
        f"HEAD and the branch {branch}, where earlier retrainings are, have gone apart: `git merge {branch}`, or name "
        "another branch with --branch"
    )


def corpora(root: Path) -> list[str]:
    """The files by which DVC tracks the corpora, from the root: data.dvc, or one a dataset in data/."""
    found = [path.relative_to(root).as_posix() for path in sorted((root / "data").glob("*.dvc"))]
    return ["data.dvc"] if (root / "data.dvc").exists() else found


def _changed_corpora(root: Path) -> list[str]:
    """What differs from its folder; a folder that is not there is only not checked out."""
    names = corpora(root)
    if not names:
        raise UserError(f"{root} has neither data.dvc nor data/*.dvc: `dvc add data`, and commit data.dvc")
    try:
        with Repo(str(root)) as repo:
            # by whole paths: DVC takes others from the current folder
            found: dict[str, dict[str, Any]] = {name: repo.status(targets=[str(root / name)]) for name in names}
    except DvcException as error:
        raise UserError(f"DVC cannot tell whether {', '.join(names)} are what lies there: {error}") from error
    return [name for name, status in found.items() if "modified" in _states(status)]


def _states(status: dict[str, Any]) -> set[str]:
    """What `dvc status` says of the outputs: modified, deleted, not in cache."""
    entries = [entry for stage in status.values() for entry in stage if isinstance(entry, dict)]
    return {state for entry in entries for state in entry.get("changed outs", {}).values()}


def fresh(root: Path, source: Path, name: str, commit: str, branch: str) -> Path:
    """The clone `name` of `source` at `commit`, on `branch`. One that an earlier run left, whole, is set back to it.

    What stages made there stays: a training that was stopped goes on.
    """
    place = root / PLACE / name
    ready = place / ".dvc/tmp/ready"
    if not ready.exists():
        shutil.rmtree(place, ignore_errors=True)
        git_process.git(root, "clone", "-q", "--no-checkout", "--", str(source), str(place))
    git_process.git(place, "checkout", "-q", "--force", "-B", branch, commit)
    git_process.git(place, "reset", "-q", "--hard", commit)
    for key in ("user.name", "user.email"):
        if not git_process.git(place, "config", "--default", "", "--get", key):
            git_process.git(place, "config", key, "retrain@localhost" if key == "user.email" else "diffretouch retrain")
    share(root, place)
    ready.parent.mkdir(parents=True, exist_ok=True)
    ready.touch()
    return place


def share(root: Path, place: Path) -> None:
    """Give the clone the repository's cache, remotes and local settings, by absolute paths."""
    with Repo(str(root)) as repo:
        cache = repo.cache.local_cache_dir
        remotes = {name: dict(settings) for name, settings in repo.config["remote"].items()}
    local = root / ".dvc/config.local"
    if local.exists():
        shutil.copyfile(local, place / ".dvc/config.local")
    with Repo(str(place)) as repo, repo.config.edit("local") as settings:
        settings["cache"]["dir"] = cache
        # a committed url may be relative to the repository's own place
        settings["remote"] = {
            name: {**settings["remote"].get(name, {}), "url": remote["url"]} for name, remote in remotes.items()
        }


def restore(place: Path, *paths: str) -> None:
    """Bring tracked outputs into the clone, from the cache, else from the remote; UserError where one is nowhere."""
    targets = [str(place / path) for path in paths]
    try:
        with Repo(str(place)) as repo:
            if repo.config["core"].get("remote"):
                repo.fetch(targets=targets)
            repo.checkout(targets=targets, force=True)
    except DvcException as error:
        raise UserError(
            f"{', '.join(paths)} of {place} is neither in DVC's cache nor in its remote ({error}): `dvc push` it from "
            "where it is"
        ) from error


def restore_all(place: Path) -> None:
    """Bring what the cache has into the clone; what it lacks is made anew by its stages, and is no failure."""
    with contextlib.suppress(CheckoutError), Repo(str(place)) as repo:
        repo.checkout(force=True)


def add(place: Path, path: str) -> None:
    """`dvc add`."""
    try:
        with Repo(str(place)) as repo:
            repo.add([str(place / path)])
    except DvcException as error:
        raise UserError(f"dvc add {path} in {place} failed: {error}") from error


def push(place: Path) -> int | None:
    """`dvc push` of what the clone has; how many files were new there, None where no remote is set up."""
    with Repo(str(place)) as repo:
        if not repo.config["core"].get("remote"):
            return None
        try:
            return int(repo.push())
        except DvcException as error:
            raise UserError(
                f"dvc push from {place} failed, nothing was tagged; run the same again ({error})"
            ) from error
