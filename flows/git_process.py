"""`git` as a child process, by argument lists: no word of a person's ever meets a shell.

Not git.py: Prefect puts the folder of a deployment's flow first on Python's path, where DVC may look for GitPython.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from diffretouch.errors import UserError
from diffretouch.releases import NewTags, Release, Tag

TAG_FORMAT = "%(refname:strip=2)%00%(*objectname)%00%(taggerdate:unix)"


def git(root: Path, *words: str, environment: dict[str, str] | None = None) -> str:
    """What `git words...` in `root` prints; UserError with its last lines where it fails."""
    done = _run(root, words, environment)
    if done.returncode:
        raise UserError(
            f"git {' '.join(words)} in {root} ended with exit code {done.returncode}:\n{done.stderr.strip()}"
        )
    return done.stdout.rstrip("\n")


def succeeds(root: Path, *words: str) -> bool:
    """Whether `git words...` exits with 0 and not 1 (git's way to answer no); UserError for any other code."""
    done = _run(root, words, None)
    if done.returncode > 1:
        raise UserError(
            f"git {' '.join(words)} in {root} ended with exit code {done.returncode}:\n{done.stderr.strip()}"
        )
    return done.returncode == 0


def commit_of(root: Path, name: str) -> str | None:
    """The commit that a branch or tag names, None where there is no such name."""
    found = _run(root, ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"), None)
    return found.stdout.strip() or None


def read_file(root: Path, commit: str, path: str) -> str | None:
    """A committed file's text, None where that commit has none."""
    if not _run(root, ("ls-tree", "--name-only", commit, "--", path), None).stdout.strip():
        return None
    return git(root, "show", f"{commit}:{path}")


def tags(root: Path) -> list[Tag]:
    """The annotated tags of the repository."""
    lines = git(root, "for-each-ref", "refs/tags", f"--format={TAG_FORMAT}").splitlines()
    cells = [line.split("\0") for line in lines]
    return [Tag(name, commit, int(time)) for name, commit, time in cells if commit and time]


def put_in_use(root: Path, names: NewTags, release: Release, words: str) -> None:
    """Write the tags, the version's before the use's, so that a model in use always has a name."""
    date = {"GIT_COMMITTER_DATE": f"{names.time} +0000", **_identity(root)}
    for name in _present((names.version, names.use)):
        git(root, "tag", "--annotate", "-m", words, "--end-of-options", name, release.commit, environment=date)


def _identity(root: Path) -> dict[str, str]:
    """Who tags, where nobody has told git: a worker's account often has no name."""
    if "GIT_COMMITTER_EMAIL" in os.environ or succeeds(root, "config", "--get", "user.email"):
        return {}
    return {"GIT_COMMITTER_NAME": "diffretouch", "GIT_COMMITTER_EMAIL": "diffretouch@localhost"}


def _present(names: Iterable[str | None]) -> list[str]:
    return [name for name in names if name is not None]


def _run(root: Path, words: Iterable[str], environment: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
    # variables of a hook or of another repository would send git elsewhere
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    }
    return subprocess.run(
        ["git", *words],
        cwd=root,
        env={**inherited, "GIT_TERMINAL_PROMPT": "0", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
