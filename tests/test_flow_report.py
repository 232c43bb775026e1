"""`flows.report` on a small real project: a revision and a model folder are judged beside the working tree."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from flows import deployed, family, report
from tests import model_project
from tests.model_project import dvc, run, set_steps
from tests.small_project import until

pytestmark = pytest.mark.usefixtures("sigterm")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two committed states, of 500 and of 700 steps."""
    root = model_project.make(tmp_path_factory.mktemp("report") / "project", steps=500)
    for steps in (500, 700):
        set_steps(root, steps)
        dvc(root, "repro", "-q")
        run(root, "git", "add", "-A")
        run(root, "git", "commit", "-qm", f"{steps} steps")
    return root


@pytest.mark.slow
def test_a_revision_is_judged_by_what_it_made_and_nothing_of_the_tree_moves(
    server: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "calls.log").unlink()
    set_steps(project, 900)  # somebody works in the tree
    assert report.main(["--root", str(project), "--rev", "HEAD~1"]) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1])
    commit = run(project, "git", "rev-parse", "HEAD~1").strip()
    assert page == project / "work/reports" / commit[:12] / "index.html"
    assert page.read_text() == "500" and (page.parent / "fivek/metrics.json").exists()
    assert Path(deployed.nightly_report(root=str(project))).read_text() == "700"
    assert run(project, "git", "status", "--porcelain").split() == ["M", "params.yaml"]
    assert (project / "reports/index.html").read_text() == "700"
    assert not (project / "calls.log").exists() and not list((project / ".dvc/tmp").glob("report-*"))
    run(project, "git", "checkout", "-q", "params.yaml")


def test_a_clone_has_what_stages_made_and_no_corpus(project: Path) -> None:
    with report._clone(project, run(project, "git", "rev-parse", "HEAD").strip()) as clone:
        assert (clone / "work/train/fivek/model/weights").read_text() == "700 3"
        assert (clone / "data.dvc").exists() and not (clone / "data").exists()


@pytest.mark.slow
def test_a_model_folder_is_judged_in_place_of_the_recorded_one(server: str, project: Path, tmp_path: Path) -> None:
    model = tmp_path / "released; touch hacked"
    shutil.copytree(project / "work/train/fivek/model", model)
    (model / "weights").unlink()
    (model / "weights").write_text("950 3")
    out = tmp_path / "out"
    words = ["--root", str(project), "--model", str(model), "--dataset", "fivek", "--out", str(out)]
    assert report.main(words) == 0
    assert (out / "index.html").read_text() == "950"
    assert Path(deployed.nightly_report(model=str(model), root=str(project))).read_text() == "950"
    assert (project / "work/train/fivek/model/weights").read_text() == "700 3"
    assert run(project, "git", "status", "--porcelain") == "" and not list(tmp_path.rglob("hacked"))


def test_what_a_killed_report_left_is_ended_and_removed_and_a_living_ones_stays(project: Path, tmp_path: Path) -> None:
    top = tmp_path / "tmp"
    killed, living = (top / f"report-{name}" for name in ("killed", "living"))
    for folder in (killed, living):
        (folder / "clone").mkdir(parents=True)
        (folder / report.LOCK).touch()
    sleeps = [
        subprocess.Popen(["sleep", "600"], env={**os.environ, **family.mark(folder / "clone", "sample@fivek")})
        for folder in (killed, living)
    ]
    try:
        until(lambda: all(family.members(folder / "clone") for folder in (killed, living)), 30, "their environments")
        with (living / report.LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            report._forget_killed(top)
        assert sleeps[0].wait(30) == -signal.SIGTERM and sleeps[1].poll() is None
        assert list(top.iterdir()) == [living]
    finally:
        for process in sleeps:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--timeout", "smaple=5"], "did you mean sample"),
        (["--rev", "v9"], "git knows no revision 'v9'"),
        (["--rev", "--upload-pack=touch hacked"], "git knows no revision"),
        (["--model", "data"], "data is no pipeline folder: it has no model_index.json"),
    ],
)
def test_what_does_not_exist_is_said_so(
    project: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--root", str(project), *words]) == 2
    assert said in capsys.readouterr().err
