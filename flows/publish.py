"""Putting a promoted model in use: its files to the remote first, then one commit and two tags, all at once.

Whatever is killed in between leaves the repository as it was: the tags are what puts a model in use, they arrive with
their commit in one push of git, and files in the remote that no commit names do no harm. Run again, it is completed.
"""

from __future__ import annotations

import time
from pathlib import Path

from diffretouch.releases import Release, model_of, new_tags
from flows import clone, git


def commit(place: Path, words: str) -> str:
    """Commit all that changed in the clone, if anything; the commit it is at."""
    git.git(place, "add", "--all")
    if git.git(place, "status", "--porcelain"):
        git.git(place, "commit", "-q", "-m", words)
    return git.git(place, "rev-parse", "HEAD")


def publish(root: Path, place: Path, dataset: str, branch: str, words: str) -> tuple[Release, int | None]:
    """Push, commit, tag; the new release, and how many files went to the remote (None without one)."""
    pushed = clone.push(place)
    return tag(root, place, dataset, branch, words), pushed


def tag(root: Path, place: Path, dataset: str, branch: str, words: str) -> Release:
    """Commit and tag in the clone, then bring branch and tags into the repository, all of them or none."""
    names = new_tags(git.tags(root), model_of(dataset), int(time.time()), version=True)
    release = Release(
        model_of(dataset), str(names.version).partition("@")[2], commit(place, f"{names.version}: {words}")
    )
    for name in (str(names.version), names.use):
        if git.commit_of(place, f"refs/tags/{name}"):
            git.git(place, "tag", "-d", "--", name)  # of a run that was killed before it could bring them over
    git.put_in_use(place, names, release, words)
    references = [f"HEAD:refs/heads/{branch}", f"refs/tags/{names.version}", f"refs/tags/{names.use}"]
    git.git(place, "push", "-q", "--atomic", "--", str(root), *references)
    return release
