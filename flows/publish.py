"""Putting a promoted model in use: its files to the remote first, then one commit and two tags, all at once.

Whatever is killed in between leaves the repository as it was: the tags are what puts a model in use, they arrive with
their commit in one push of git, and files in the remote that no commit names do no harm. Run again, it is completed.
"""

from __future__ import annotations

import time
from pathlib import Path

from diffretouch.releases import Release, model_of, new_tags
from flows import clone, git_process


def commit(place: Path, words: str) -> str:
    """Commit all that changed in the clone, if anything; the commit it is at."""
    git_process.git(place, "add", "--all")
    if git_process.git(place, "status", "--porcelain"):
        git_process.git(place, "commit", "-q", "-m", words)
    return git_process.git(place, "rev-parse", "HEAD")


def publish(root: Path, place: Path, dataset: str, branch: str, words: str) -> tuple[Release, int | None]:
    """Push, commit, tag; the new release, and how many files went to the remote (None without one)."""
    pushed = clone.push(place)
    return tag(root, place, dataset, branch, words), pushed


def tag(root: Path, place: Path, dataset: str, branch: str, words: str) -> Release:
    """Commit and tag in the clone, then bring branch and tags into the repository."""
    names = new_tags(git_process.tags(root), model_of(dataset), int(time.time()), version=True)
    release = Release(
        model_of(dataset), str(names.version).partition("@")[2], commit(place, f"{names.version}: {words}")
    )
    for name in (str(names.version), names.use):
        if git_process.commit_of(place, f"refs/tags/{name}"):
            git_process.git(place, "tag", "-d", "--", name)  # of a run that was killed before it could bring them over
    git_process.put_in_use(place, names, release, words)
    bring(root, place, [f"HEAD:refs/heads/{branch}", f"refs/tags/{names.version}", f"refs/tags/{names.use}"])
    return release


def bring(root: Path, place: Path, references: list[str]) -> None:
    """Put the clone's branch and tags into the repository, all of them or none."""
    git_process.git(place, "push", "-q", "--atomic", "--", str(root), *references)
