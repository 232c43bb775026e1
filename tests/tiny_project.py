"""The project itself as a new user has it, with the profile `tiny` and the demo's fivek: real stages, a short chain."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from diffretouch.corpus.demo import write_demo
from tests.fake_chain import ROOT
from tests.kill import digests
from tests.small_project import dvc

NOT_MADE = ("logs/", ".resume/decode-fivek", ".resume/train-fivek/views/marks.json")
"""In work/: what was said, and two files that remember when others were written."""


def write_project(root: Path) -> None:
    """A committed repository of this tree's files, its corpus added, no stage run yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if (
            name
            and (ROOT / name).is_file()
            and not name.startswith(("data", "reports/", "dvc.lock", ".dvc/", "compare/"))
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    shutil.copyfile(root / "profiles/tiny.yaml", root / "params.yaml")
    write_demo(root / "data")
    shutil.rmtree(root / "data/ppr10k")
    for words in (["init", "-q"], ["config", "user.email", "lab@example.org"], ["config", "user.name", "Lab"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    dvc(root, "init", "-q")
    dvc(root, "config", "core.check_update", "false")
    dvc(root, "add", "-q", "data")
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", "commit", "-qm", "The project"], cwd=root, check=True)


def outputs(root: Path) -> dict[str, str]:
    """SHA-256 of everything the stages made, and of everything they keep beside it."""
    work = {f"work/{name}": value for name, value in digests(root / "work").items() if not name.startswith(NOT_MADE)}
    return work | {f"reports/{name}": value for name, value in digests(root / "reports").items()}


def forget(root: Path) -> None:
    """Remove every output and what DVC remembers of the runs that made them."""
    for path in (root / "work", root / "reports", root / ".dvc/cache/runs"):
        shutil.rmtree(path, ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)
