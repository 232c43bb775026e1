"""Chains on a real Prefect server: killed, cancelled, too slow, queueing for a GPU, started by a worker."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest
import yaml

import flows  # isort: skip - it sets the environment that Prefect reads at its first import
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows import artifacts, chain, doctor_prefect, family, graph, registry, slots, workspace
from tests import postgres, real_server, real_worker, tiny_project
from tests.kill_flow import ROOT, kill_while_running, require_undisturbed, run
from tests.real_worker import ask, deploy, prefect, started, state_of
from tests.small_project import dvc, outputs, until, write_params, write_project

assert flows
pytestmark = pytest.mark.slow
AUTOMATIONS = ROOT / "flows/automations.yaml"
CORES, GPU = f"cpu:{socket.gethostname()}", f"gpu:{socket.gethostname()}"
HOSTILE = "a; touch owned; $(touch owned) `touch owned`"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_project(tmp_path / "project")
    return tmp_path / "project"


def test_killed_twice_and_run_again(server: str, project: Path) -> None:
    """The flow itself, and dvc below it."""
    write_params(project, slow=0.5, datasets="[a]")
    assert sum(kill_while_running(project, 2, 5, real_server.environment(), ("flow", "dvc")).values()) == 2


def test_a_stage_that_takes_too_long_is_ended_and_what_it_printed_is_kept(
    server: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(artifacts.PAGES, "https://lab/pages/")
    write_params(project, sleep="work/decode/a", datasets="[a]")
    (project / "reports/a").mkdir(parents=True)
    number = '{"test": {"<b>x|": {"psnr": {"mean": 1.5, "low": 1, "high": 2, "n": 3, "groups": 1}}}}'
    (project / "reports/a/metrics.json").write_text(number)
    (project / "reports/index.html").write_text("the page")
    results = chain.run(graph.read(project), project, timeouts={"decode": 10.0})
    assert [result.outcome for result in results] == ["failed", "not run", "not run"]
    assert "took more than 10 s" in results[0].message
    assert family.members(project) == []
    logs = list((project / chain.LOGS).glob("*/*.log"))
    assert [log.name for log in logs] == ["decode@a.log"]
    assert "decode begins" in logs[0].read_text()

    # not by the client: what it sends for "no limit" is refused by the server with this FastAPI
    asked = Request(f"{server}/artifacts/filter", b'{"sort": "CREATED_DESC"}', {"Content-Type": "application/json"})
    with urlopen(asked) as answer:
        found = {artifact["key"]: artifact for artifact in reversed(json.load(answer))}
    assert {"stages", "metrics-a", "report"} <= set(found)
    assert "decode@a.log" in found["stages"]["data"]
    assert "&lt;b&gt;x&#124; | psnr | 1.5 | [1, 2] | 3 | 1" in found["metrics-a"]["data"]
    link, _, words = found["report"]["data"].partition("\n\n")
    assert link == "[reports/index.html](https://lab/pages/reports/index.html)"
    monkeypatch.delenv(artifacts.PAGES)
    assert (project / artifacts.REPORT).as_uri() in words == artifacts.way(project / artifacts.REPORT, project)


def test_two_chains_queue_for_one_gpu(server: str, tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        write_project(root)
        write_params(root, runtime="{device: cuda}", datasets="[a]", slow=2)
        assert slots.needed("train@a", root) == {f"{GPU}:0": 1, CORES: 1}
        assert slots.needed("decode@a", root) == {CORES: 1}
    flows = [run(root, real_server.environment()) for root in roots]
    for flow in flows:
        said, _ = flow.communicate(timeout=240)
        assert flow.returncode == 0, said
    spans = []
    for root in roots:
        lines = [line.split() for line in (root / "calls.log").read_text().splitlines()]
        spans.append([float(when) for name, _, when in lines if name in ("train", "train-end")])
    (_, first_end), (second, _) = sorted(spans)
    assert first_end <= second, "both trained at the same time"
    limits = {limit.name: limit.limit for limit in ask(lambda client: client.read_global_concurrency_limits(99, 0))}
    assert limits[f"{GPU}:0"] == 1 and limits[CORES] == len(os.sched_getaffinity(0))


def text(file: Path) -> str:
    """Its content; nothing while DVC has it removed."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


@pytest.mark.alone
def test_the_real_chain_killed_twice_and_run_again(server: str, tmp_path: Path) -> None:
    """A stage, and the flow itself: stages that decode, train and judge end in the bytes of an undisturbed run."""
    root = tmp_path / "project"
    tiny_project.write_project(root)
    killed = kill_while_running(root, 2, 11, real_server.environment(), ("stage", "flow"), tiny_project)
    assert sum(killed.values()) == 2


@pytest.mark.alone
def test_a_deployed_run_cancelled_while_it_trains_goes_on_to_the_same_bytes(server: str, tmp_path: Path) -> None:
    root, twin = tmp_path / "project", tmp_path / "twin"
    tiny_project.write_project(root)
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["train"] |= {"steps": 600, "checkpoint_every": 20, "log_every": 20, "validate_every": 600}
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    shutil.copytree(root, twin, symlinks=True)
    flow = run(twin, real_server.environment())
    said, _ = flow.communicate(timeout=600)
    assert flow.returncode == 0, said
    deploy()
    with real_worker.running():
        first = started(root)
        until(lambda: list(root.glob("work/.resume/train-fivek/states-*/*.pt")), 300, "a saved state")
        prefect("flow-run", "cancel", str(first))
        until(lambda: not family.members(root), 30, "the end of every process")
        until(lambda: state_of(first) == "CANCELLED", 60, "the cancelled state")
        assert not (root / "work/train/fivek/model").exists()
        second = started(root)
        until(lambda: state_of(second) == "COMPLETED", 600, "the second run")
    logs = "".join(path.read_text() for path in root.glob("work/logs/*/train@fivek.log"))
    assert "going on from step" in logs
    require_undisturbed(root, tiny_project, tiny_project.outputs(twin), "cancelled while it trained")


@pytest.mark.alone
def test_a_worker_runs_schedules_and_cancels(server: str, project: Path, tmp_path: Path) -> None:
    write_project(tmp_path / "twin")
    write_params(tmp_path / "twin", datasets="[a]")
    dvc(tmp_path / "twin", "repro", "-q")
    deploy()
    with real_worker.running():
        # cancelled in the middle: every process is gone within 30 s
        write_params(project, datasets="[a]", sleep="work/train/a")
        first = started(project)
        until(lambda: (project / "pid").exists(), 300, "the sleeping stage")
        assert len(family.members(project)) >= 2
        prefect("flow-run", "cancel", str(first))
        asked = time.monotonic()
        until(lambda: not family.members(project), 30, "the end of the cancelled stage")
        assert time.monotonic() - asked < 30
        until(lambda: state_of(first) == "CANCELLED", 60, "the cancelled state")

        # the next run is right, and a parameter reaches no shell
        (project / "awake").touch()
        second = started(project, targets=["report"])
        third = started(project, targets=[HOSTILE])
        until(lambda: state_of(second) == "COMPLETED", 300, "the second run")
        until(lambda: state_of(third) == "FAILED", 300, "the run with a hostile target")
        assert not list(ROOT.glob("owned")) and not list(project.rglob("owned"))
        assert "up to date" in dvc(project, "status")
        assert outputs(project) == outputs(tmp_path / "twin")  # nobody disturbed it

        # a schedule that is switched on fires
        write_params(project, datasets="[a]", train=2)
        deployment = ask(lambda client: client.read_deployment_by_name("chain/reproduce"))
        every = [(IntervalSchedule(interval=timedelta(seconds=10)), True)]
        ask(lambda client: client.update_deployment(deployment.id, DeploymentUpdate(parameters={"root": str(project)})))
        ask(lambda client: client.create_deployment_schedules(deployment.id, every))
        until(lambda: text(project / "report").endswith("train 2\nreport 1\n"), 300, "the scheduled run")
        ask(lambda client: client.delete_deployment(deployment.id))
    with workspace.hold(project, wait=True):
        assert not family.members(project)


@pytest.mark.alone
def test_a_worker_retrains_and_reports(server: str, tmp_path: Path) -> None:
    """What is deployed for every week and every night, on the project's own chain, profile tiny."""
    root = tmp_path / "lab" / "project"
    tiny_project.write_project(root)
    deploy()
    with real_worker.running():
        week = started(root, "retrain/retrain", dataset="fivek", inbox="data.inbox")  # a folder that nobody has made
        until(lambda: state_of(week) == "COMPLETED", 600, "the retraining")
        assert [row.release.name for row in registry.rows(root) if row.use] == ["model-fivek@v1.0.0"]
        night = started(root, "report/report", rev="retrain")
        until(lambda: state_of(night) == "COMPLETED", 600, "the report")
    (page,) = (root / "work/reports").glob("*/index.html")
    assert "fivek" in page.read_text()
    assert not family.members(root)


@pytest.mark.alone
def test_a_run_whose_machine_is_gone_has_crashed_and_the_next_one_is_right(server: str, project: Path) -> None:
    """The shipped automation, with times that a test can wait for: a worker and its flow killed at once."""
    beat, silent = 30, 70  # Prefect's least; more than two beats
    with watched("a run that has gone silent has crashed", silent):
        deploy()
        write_params(project, datasets="[a]", sleep="work/train/a")
        with real_worker.running(PREFECT_FLOWS_HEARTBEAT_FREQUENCY=str(beat)) as gone:
            lost = started(project)
            until(lambda: (project / "pid").exists(), 300, "the sleeping stage")
            time.sleep(beat + 5)
            doomed = psutil.Process(gone.pid)
            spared = pids(family.members(project))
            for process in (doomed, *doomed.children(recursive=True)):
                if process.pid not in spared:
                    process.kill()
            assert family.members(project), "the stage went with its flow: nothing is orphaned here"
            until(lambda: state_of(lost) == "CRASHED", 3 * silent, "the crashed state")
        (project / "awake").touch()
        with real_worker.running():
            again = started(project)
            until(lambda: state_of(again) == "COMPLETED", 300, "the next run")
        assert not family.members(project)
        assert (project / "report").read_text() == "photo of a\ndecode 1\ntrain 1\nreport 1\n"


@pytest.mark.alone
def test_a_run_that_a_worker_took_and_never_began_has_crashed(server: str, project: Path) -> None:
    """The other automation: a worker killed before the run's process began, with all that it had started."""
    late = 60
    with watched("a run that was taken and never began has crashed", late):
        deploy()
        write_params(project, datasets="[a]")
        with real_worker.running() as gone:
            lost = started(project)
            until(lambda: state_of(lost) == "PENDING", 300, "taking it")
            doomed = psutil.Process(gone.pid)
            for process in (doomed, *doomed.children(recursive=True)):
                process.kill()
        assert state_of(lost) == "PENDING"
        with real_worker.running():
            again = started(project)
            until(lambda: state_of(lost) == "CRASHED", 3 * late, "the crashed state")
            until(lambda: state_of(again) == "COMPLETED", 300, "the next run")
        assert "up to date" in dvc(project, "status")


def automations() -> dict[str, dict[str, Any]]:
    """What is shipped, by name."""
    return {watch["name"]: watch for watch in yaml.safe_load(AUTOMATIONS.read_text())["automations"]}


@contextmanager
def watched(name: str, seconds: int) -> Iterator[None]:
    """That one, with a time that a test can wait for."""
    watch = automations()[name]
    soon = {**watch, "name": f"soon: {name}", "trigger": {**watch["trigger"], "within": seconds}}
    prefect("automation", "create", "--from-json", json.dumps(soon))
    try:
        yield
    finally:
        for made in ask(lambda client: client.read_automations_by_name(soon["name"])):
            ask(lambda client: client.delete_automation(made.id))  # noqa: B023


def pids(processes: Iterable[psutil.Process]) -> set[int]:
    return {process.pid for process in processes}


@pytest.mark.skipif(postgres.PROGRAMS is None, reason="no PostgreSQL (Debian: apt install postgresql)")
def test_a_server_on_postgresql_that_asks_who_is_there(project: Path) -> None:
    """As a lab runs it: the chain's runs are rows of that database, and who does not know the word gets in nowhere."""
    write_params(project, datasets="[a]")
    word = "lab:not-a-secret"
    with postgres.running() as port:
        url = f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url, "PREFECT_SERVER_API_AUTH_STRING": word}
        address, home = real_server.launch(settings)
        client = {**os.environ, "PREFECT_API_URL": address, "PREFECT_HOME": home}
        stranger = run(project, client)
        said, _ = stranger.communicate(timeout=240)
        assert stranger.returncode != 0 and "401" in said
        with temporary_settings({PREFECT_API_URL: address}):
            assert "401" in doctor_prefect.check_prefect(ROOT)[0].what
        with temporary_settings({PREFECT_API_URL: address, PREFECT_API_AUTH_STRING: word}):
            assert doctor_prefect.check_prefect(ROOT)[0].level == "good"
        finished = run(project, client | {"PREFECT_API_AUTH_STRING": word})
        said, _ = finished.communicate(timeout=240)
        assert finished.returncode == 0, said
        assert postgres.ask(port, "select state_type from flow_run") == "COMPLETED"
        assert int(postgres.ask(port, "select count(*) from task_run where state_type = 'COMPLETED'")) == 3
    assert "up to date" in dvc(project, "status")


def test_what_a_server_is_to_watch_can_be_created(server: str) -> None:
    prefect("automation", "create", "--from-file", str(AUTOMATIONS))
    for name, watch in automations().items():
        (found,) = ask(lambda client: client.read_automations_by_name(name))  # noqa: B023
        assert found.enabled and found.trigger.within == timedelta(seconds=watch["trigger"]["within"])
        assert found.trigger.expect == set(watch["trigger"]["expect"])
        assert found.actions[0].state.value == "CRASHED"


def test_the_doctor_says_what_is_not_deployed(server: str) -> None:
    deploy()
    assert [finding.level for finding in doctor_prefect.check_prefect(ROOT)] == ["good", "good"]
    deployment = ask(lambda client: client.read_deployment_by_name("report/report"))
    ask(lambda client: client.delete_deployment(deployment.id))
    missing = doctor_prefect.check_prefect(ROOT)[1]
    assert missing.level == "note" and "no deployment named report" in missing.what and "deploy --all" in missing.mend


def test_photos_announced_in_a_row_start_one_retraining(server: str, tmp_path: Path) -> None:
    """The shipped trigger, switched on and with a time that a test can wait for."""
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (retrain,) = [entry for entry in tree["deployments"] if entry["name"] == "retrain"]
    (trigger,) = retrain["triggers"]
    tree["deployments"] = [retrain | {"name": "soon", "triggers": [trigger | {"enabled": True, "within": 10}]}]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(tree))
    prefect("work-pool", "create", real_worker.POOL, "--type", "process", "--overwrite")
    prefect("deploy", "--all", "--prefect-file", str(tmp_path / "prefect.yaml"))
    deployment = ask(lambda client: client.read_deployment_by_name("retrain/soon"))

    def runs() -> list[dict[str, Any]]:
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
        return [run.parameters for run in ask(lambda client: client.read_flow_runs(deployment_filter=wanted, limit=9))]

    try:
        for _ in range(3):
            prefect("events", "emit", "diffretouch.inbox.photo", "--resource-id", "inbox")
            assert not runs(), "started before the last photo had come"
        until(runs, 120, "the run")
        time.sleep(12)
        assert runs() == [trigger["parameters"]]
    finally:
        ask(lambda client: client.delete_deployment(deployment.id))


def test_what_is_deployed_runs_one_at_a_time_and_not_by_itself() -> None:
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    limits = {entry["name"]: entry.get("concurrency_limit", {}).get("limit") for entry in tree["deployments"]}
    # parts of one chain are made at the same time
    assert limits == {"reproduce": 1, "report": 1, "retrain": 1, "sample-part": None}
    for entry in tree["deployments"]:
        assert entry["work_pool"]["name"] == "gpu"
        assert not any(schedule["active"] for schedule in entry.get("schedules", []))
        assert not any(trigger["enabled"] for trigger in entry.get("triggers", []))
