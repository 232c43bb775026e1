"""The sample stage in parts, on a real server with a worker: the package's own stage, on a tiny but real model."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows import chain, family, graph, parts, reproduce
from flows.would_run import would_run
from tests import real_server, real_worker
from tests.kill import digests
from tests.small_project import dvc, until
from tests.test_sample import build, settings

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.slow]
STAGE = "sample@fivek"
DVC_YAML = """
stages:
  sample:
    matrix: {dataset: [fivek]}
    cmd: python -m diffretouch sample ${item.dataset}
    params: [sample]
    deps: ["work/decode/${item.dataset}", "work/attributes/${item.dataset}", "work/train/${item.dataset}"]
    outs: ["work/sample/${item.dataset}"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with real_server.used() as address:
        yield address


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build(tmp_path_factory.mktemp("parts"))
    (root / "dvc.yaml").write_text(DVC_YAML)
    ask_for(root)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    dvc(root, "init", "-q")
    return root


def ask_for(root: Path, **changes: object) -> None:
    tree = settings(**changes).model_dump(mode="json")
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def test_parts_by_a_worker_one_of_them_killed_give_the_stages_own_bytes(server: str, project: Path) -> None:
    ask_for(project, seed=7)
    dvc(project, "repro", "-q")
    undisturbed, logs = digests(project / "work/sample"), project / chain.LOGS
    ask_for(project, seed=8)
    dvc(project, "repro", "-q")
    assert digests(project / "work/sample") != undisturbed

    assert not would_run(STAGE, project)  # up to date
    shutil.rmtree(project / "work/sample")
    assert not would_run(STAGE, project)  # dvc.lock knows it
    ask_for(project, seed=7)
    assert not would_run(STAGE, project)  # the run cache has it
    shutil.rmtree(project / ".dvc/cache/runs")
    assert would_run(STAGE, project)

    killed = threading.Thread(target=kill, args=(project, f"{STAGE} 1/2"))
    killed.start()
    real_worker.deploy()
    with real_worker.running():
        (result,) = chain.run(graph.read(project), project, sample_parts=2)
    killed.join(1)
    assert not killed.is_alive() and result.outcome == "ran", result
    (log,) = logs.glob(f"*/{STAGE}.log")
    assert "sample fivek: 2 up to date, 2 to do" in log.read_text()
    assert digests(project / "work/sample") == undisturbed
    assert not family.members(project) and not (project / "work/.resume/sample-fivek").exists()


def kill(root: Path, name: str) -> None:
    until(lambda: family.members(root, name), 300, "the part's process")
    for process in family.members(root, name):
        process.kill()


def test_a_server_without_the_deployment_is_said_so(
    server: str, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "DEPLOYMENT", "sample-part/none")
    assert reproduce.main(["--root", str(project), "--sample-parts", "2"]) == 2
    assert "no deployment sample-part/none: `prefect --no-prompt deploy --all`" in capsys.readouterr().err
