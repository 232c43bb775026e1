"""The sample stage in parts, on a real server with a worker: the package's own stage, on a tiny but real model."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import yaml

import flows  # isort: skip - it sets the environment that Prefect reads at its first import
from prefect import flow
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.deployments import run_deployment

from flows import chain, dvc_process, family, graph, parts, reproduce, slots
from flows.would_run import would_run
from tests import real_worker
from tests.kill import digests
from tests.small_project import dvc, until
from tests.test_sample import build, settings

assert flows
pytestmark = pytest.mark.slow
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

    real_worker.deploy()
    lost = asked_by_a_flow_that_has_ended(project)
    killed = threading.Thread(target=kill, args=(project, f"{STAGE} 1/2"))
    killed.start()
    with real_worker.running():
        (result,) = chain.run(graph.read(project), project, sample_parts=2)
    killed.join(1)
    assert not killed.is_alive() and result.outcome == "ran", result
    (log,) = logs.glob(f"*/{STAGE}.log")
    assert "sample fivek: 2 up to date, 2 to do" in log.read_text()
    assert digests(project / "work/sample") == undisturbed
    assert real_worker.state_of(lost) == "COMPLETED"  # and it has made nothing, or more would have been up to date
    assert not family.members(project) and not (project / "work/.resume/sample-fivek").exists()


@pytest.mark.alone
def test_two_machines_make_parts_at_the_same_time_and_the_stage_gathers(server: str, project: Path) -> None:
    ask_for(project, seed=10)
    dvc(project, "repro", "-q")
    undisturbed = digests(project / "work/sample")
    for made in ("dvc.lock", "work/sample", ".dvc/cache"):
        path = project / made
        path.unlink() if path.is_file() else shutil.rmtree(path)
    real_worker.deploy()
    together, over = threading.Event(), threading.Event()
    watched = threading.Thread(target=watch, args=(project, [f"{STAGE} 1/2", f"{STAGE} 2/2"], together, over))
    watched.start()
    first, second = (real_worker.running(1, **{slots.MACHINE: name}) for name in ("one", "two"))
    try:
        with first, second:
            (result,) = chain.run(graph.read(project), project, sample_parts=2)
    finally:
        over.set()
        watched.join()
    assert together.is_set() and result.outcome == "ran", result
    newest = max((project / chain.LOGS).glob(f"*/{STAGE}.log"))
    assert "sample fivek: 4 up to date, 0 to do" in newest.read_text()
    assert digests(project / "work/sample") == undisturbed


def watch(root: Path, names: list[str], together: threading.Event, over: threading.Event) -> None:
    """Note that processes of all these parts were there at the same time; who comes first stands still until then."""
    end, held = time.monotonic() + 300, set[psutil.Process]()
    try:
        while time.monotonic() < end and not together.is_set() and not over.is_set():
            there = [family.members(root, name) for name in names]
            if all(there):
                together.set()
            else:
                for process in {process for part in there for process in part} - held:
                    with suppress(psutil.NoSuchProcess):
                        process.suspend()
                        held.add(process)
            time.sleep(0.1)
    finally:
        for process in held:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def asked_by_a_flow_that_has_ended(root: Path) -> UUID:
    @flow
    def gone() -> UUID:
        asked = {"dataset": "fivek", "part": "1/1", "root": str(root)}
        return run_deployment(parts.DEPLOYMENT, parameters=asked, timeout=0).id

    return gone()


def kill(root: Path, name: str) -> None:
    until(lambda: family.members(root, name), 300, "the part's process")
    for process in family.members(root, name):
        process.kill()


def test_parts_that_nobody_takes_in_time_are_called_off(
    server: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for(project, seed=9)
    real_worker.deploy()
    monkeypatch.setattr(parts, "PATIENCE_S", 0.0)
    said = list[str]()
    with pytest.raises(dvc_process.StageFailed, match="took more than 3 s"):
        parts.share(STAGE, project, 3, said.append, timeout_s=3)
    assert said[0] == f"{STAGE}: 3 parts are asked of {parts.DEPLOYMENT}" and "no worker has begun a part" in said[1]
    chosen = FlowRunFilter(name=FlowRunFilterName(any_=[f"fivek {number}/3" for number in (1, 2, 3)]))
    runs = real_worker.ask(lambda client: client.read_flow_runs(flow_run_filter=chosen, limit=9))
    assert [run.state.type.value for run in runs] == ["CANCELLED"] * 3


def test_a_server_without_the_deployment_is_said_so(
    server: str, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "DEPLOYMENT", "sample-part/none")
    assert reproduce.main(["--root", str(project), "--sample-parts", "2"]) == 2
    assert "no deployment sample-part/none: `prefect --no-prompt deploy --all`" in capsys.readouterr().err
