"""The flow on a small real DVC project of the same shape as ours: a matrix of datasets, a stage over all of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from dvc.repo import Repo

from diffretouch.errors import ConfigError
from flows import chain, deployed, dvc_process, family, graph, place, reproduce, slots, survey, workspace
from tests import kill_flow, real_server
from tests.small_project import STAGES, calls, dvc, until, write_params, write_project

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write_project(root)
    return root


@pytest.fixture(autouse=True)
def _stopped_no_more(sigterm: None) -> Iterator[None]:
    yield
    dvc_process.allow()


def outcomes(root: Path) -> dict[str, str]:
    return {result.stage: result.outcome for result in chain.run(graph.read(root), root)}


@pytest.mark.slow
def test_a_killed_dvc_bars_nobody(project: Path) -> None:
    """DVC writes .dvc/tmp/rwlock in place: killed at that moment, it leaves half of it, and no later dvc starts."""
    (project / ".dvc/tmp/rwlock").write_text('{"write": {')
    with pytest.raises(AssertionError, match="RWLock-file"):
        dvc(project, "repro")
    with pytest.raises(dvc_process.DvcBusy, match="half written"):
        dvc_process.repro("decode@a", project, print)
    assert dvc_process.repro("decode@a", project, print) == "ran"


@pytest.mark.slow
def test_a_stage_that_ends_while_another_dvc_holds_the_lock_keeps_its_work(project: Path) -> None:
    """For longer than the three seconds after which DVC by itself gives up, and with it the stage's hours."""
    write_params(project, slow=2)
    lines: list[str] = []
    held = (project / ".dvc/tmp/lock").open("a+")

    def heard(line: str) -> None:
        lines.append(line)
        if line.endswith("decode begins"):
            fcntl.flock(held, fcntl.LOCK_EX)
            threading.Timer(8, held.close).start()

    assert dvc_process.repro("decode@a", project, heard) == "ran"
    assert held.closed and dvc_process.repro("decode@a", project, print) == "up to date"
    with (project / ".dvc/tmp/lock").open("a+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(5, partial(fcntl.flock, other, fcntl.LOCK_UN)).start()
        assert dvc_process.repro("decode@a", project, lines.append) == "up to date"


def test_a_stage_waits_for_dvcs_lock_before_it_takes_slots(
    server: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(project, datasets="[a]")
    happened, needed, await_lock = list[str](), slots.needed, dvc_process.await_lock

    def asked(stage: str, root: Path) -> dict[str, int]:
        happened.append("slots")
        return needed(stage, root)

    def let_go() -> None:
        happened.append("free")
        fcntl.flock(other, fcntl.LOCK_UN)

    def waits(root: Path, say: Callable[[str], None]) -> None:
        happened.append("waits")
        threading.Timer(3, let_go).start()
        await_lock(root, say)

    monkeypatch.setattr(slots, "needed", asked)
    monkeypatch.setattr(dvc_process, "await_lock", waits)
    stages = [stage for stage in graph.read(project) if stage.name == "decode@a"]
    with (project / ".dvc/tmp/lock").open("a+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        results = chain.run(stages, project)
    assert [result.outcome for result in results] == ["ran"] and happened == ["waits", "free", "slots"]


def test_a_deployed_chain_outlives_who_reads_its_console(server: str, project: Path) -> None:
    """Its worker; rich would end the process at the next line that its main thread writes."""
    words = [sys.executable, "-c", f"from flows import deployed; deployed.reproduce(root={str(project)!r})"]
    with workspace.hold(project):
        flow = subprocess.Popen(words, env=real_server.environment(), stderr=subprocess.PIPE, text=True)
        assert flow.stderr is not None
        assert any("another chain runs in" in line for line in flow.stderr)  # as far as that line
        flow.stderr.close()
    assert flow.wait(120) == 0
    assert "up to date" in dvc(project, "status")


def test_a_slow_stage_holds_up_only_what_needs_it(server: str, project: Path) -> None:
    """Also where more stages wait for it than may run at the same time."""
    write_params(project, datasets="[a, b]", sleep="work/decode/a")

    trained = list[str]()

    def end_it() -> None:
        log, end = project / "calls.log", time.monotonic() + 120
        while not trained and time.monotonic() < end:
            if log.exists():
                trained.extend(line for line in log.read_text().splitlines() if line.startswith("train-end"))
            time.sleep(0.2)
        family.end(project, "decode@a", grace_s=1)

    other = threading.Thread(target=end_it)
    other.start()
    results = {result.stage: result.outcome for result in chain.run(graph.read(project), project, max_workers=2)}
    other.join()
    assert trained and results["train@b"] == "ran" and results["decode@a"] == "failed"


def test_a_runs_parameter_chooses_no_repository_whose_commands_are_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    other = project.parent / "other"
    assert place.asked_for(str(other)) == other  # a person's own command
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "some")
    assert place.asked_for(None) == place.asked_for(str(project / ".dvc")).parent == project
    for folder in (other, project / "..", project.with_name("project-2")):
        with pytest.raises(ConfigError, match="lies neither in"):
            place.asked_for(str(folder))
    monkeypatch.setenv(place.ROOTS, f"/nowhere:{other}")
    assert place.asked_for(str(other / "clone")) == other / "clone"


def test_a_dataset_whose_name_a_shell_would_read_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(project, datasets='["a; touch hacked"]')
    assert reproduce.main(["--root", str(project)]) == 2
    assert "is for no dataset that can be" in capsys.readouterr().err
    assert not (project / "hacked").exists()


def test_a_record_of_locks_that_can_be_read_stays(project: Path) -> None:
    file = project / ".dvc/tmp/rwlock"
    file.write_text("{}")
    assert not dvc_process._remove_corrupt_rwlock(project)
    assert file.read_text() == "{}"


def test_graph_is_dvcs_own(project: Path) -> None:
    stages = graph.read(project)
    assert [stage.name for stage in stages] == STAGES
    with Repo(str(project)) as repo:
        theirs = {(above.name, below.name) for above, below in repo.index.graph.edges if not below.is_data_source}
    assert {(stage.name, need) for stage in stages for need in stage.needs} == theirs
    assert {stage.name: stage.needs for stage in stages}["report"] == ("train@a", "train@b")


def test_the_projects_own_graph_is_dvcs_own_but_for_the_comparison() -> None:
    stages = graph.read(ROOT)
    with Repo(str(ROOT)) as repo:
        own = {stage for stage in repo.index.stages if Path(stage.path) == ROOT / "dvc.yaml"}
        edges = {(above.name, below.name) for above, below in repo.index.graph.edges if {above, below} <= own}
    assert {(stage.name, need) for stage in stages for need in stage.needs} == edges
    assert {stage.name for stage in stages} == {stage.name for stage in own} and stages[-1].name == "report"
    assert {"decode@fivek", "train@ppr10k", "study@fivek"} <= {stage.name for stage in stages}


def test_targets_bring_what_they_need(project: Path) -> None:
    stages = graph.read(project)

    def names(targets: list[str], datasets: list[str]) -> list[str]:
        return [stage.name for stage in graph.select(stages, targets, datasets)]

    assert names(["train@b"], []) == ["decode@b", "train@b"]
    assert names(["train"], []) == STAGES[:4]
    assert names([], ["a"]) == ["decode@a", "train@a"]
    assert names(["report"], ["b"]) == ["decode@b", "train@b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian@a"], "did you mean train@a"),
        (["--dataset", "c"], "it has a, b"),
        (["--profile", "gpu"], "profiles/ has none"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_right_one(
    project: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(["--root", str(project), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_broken_dvc_yaml_is_said_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "dvc.yaml").write_text("stages: 3\n")
    assert reproduce.main(["--root", str(project)]) == 2
    assert "dvc.yaml" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        reproduce.main(["--help"])
    assert exit_.value.code == 0
    assert "UpToDate" in capsys.readouterr().out


def test_of_eight_commands_at_once_one_runs_and_the_others_say_which(server: str, project: Path) -> None:
    write_params(project, slow=4)
    started = [kill_flow.run(project, real_server.environment()) for _ in range(8)]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert sorted(process.returncode for process in started) == [0] + [1] * 7
    ours = str(next(process.pid for process in started if process.returncode == 0))
    for process, text in zip(started, said, strict=True):
        if process.returncode:
            assert "another chain runs in" in text and (ours in text or "just started" in text)
    assert sorted(calls(project)) == ["decode", "decode", "report", "train", "train"]


def test_two_at_a_time_run_together_and_give_the_same(server: str, project: Path) -> None:
    write_params(project, slow=3)
    results = chain.run(graph.read(project), project, max_workers=2)
    assert [result.outcome for result in results] == ["ran"] * len(STAGES)
    lines = [line.split() for line in (project / "calls.log").read_text().splitlines()]
    times = {(name, out): float(when) for name, out, when in lines}
    assert times["decode", "work/decode/b"] < times["decode-end", "work/decode/a"]
    assert (project / "report").read_text().count("train 1") == 2 and "up to date" in dvc(project, "status")


def test_nothing_is_told_to_anybody_by_commands_typed_here() -> None:
    said = "from prefect.settings import get_current_settings as now; print(now().server.analytics_enabled)"
    environment = {name: value for name, value in os.environ.items() if "ANALYTICS" not in name and "TRACK" not in name}
    done = subprocess.run([sys.executable, "-c", said], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_runs_once_then_only_what_is_below_a_change(server: str, project: Path) -> None:
    assert outcomes(project) == dict.fromkeys(STAGES, "ran")
    assert sorted(calls(project)) == ["decode", "decode", "report", "train", "train"]
    assert outcomes(project) == dict.fromkeys(STAGES, "up to date")
    assert calls(project) == []

    write_params(project, train=2)
    assert outcomes(project) == {
        "decode@a": "up to date",
        "decode@b": "up to date",
        "train@a": "ran",
        "train@b": "ran",
        "report": "ran",
    }
    calls(project)
    write_params(project)  # the old value again: DVC has these results in its run cache
    changed = outcomes(project)
    assert (changed["train@a"], changed["report"]) == ("restored", "restored")
    assert calls(project) == []


def test_nothing_to_do_after_dvc_repro(server: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dvc(project, "repro", "-q")
    calls(project)
    assert reproduce.main(["--root", str(project)]) == 0
    assert calls(project) == []
    assert capsys.readouterr().out.count("up to date") >= len(STAGES)


def test_a_profile_is_put_in_use_before_its_stages_are_read(server: str, project: Path) -> None:
    (project / "profiles").mkdir()
    shutil.copy(ROOT / "profiles/cpu.yaml", project / "profiles")
    steps = "stages: {print: {cmd: cp params.yaml print, params: [datasets], outs: [print]}}"
    (project / "dvc.yaml").write_text(steps)
    assert reproduce.main(["--root", str(project), "--profile", "cpu"]) == 0
    assert (project / "print").read_bytes() == (ROOT / "profiles/cpu.yaml").read_bytes()
    assert "datasets: [a, b]" in (project / "params.yaml.before").read_text()
    assert deployed.reproduce(root=str(project), profile="cpu") == {"print": "up to date"}


def test_a_failure_stops_what_is_below_and_nothing_else(
    server: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(project, fail="work/train/a")
    assert reproduce.main(["--root", str(project)]) == 1
    printed, hint = capsys.readouterr()
    table = {words[0]: " ".join(words[1:]) for words in map(str.split, printed.splitlines()) if words}
    assert "`python -m flows.doctor` looks for" in hint
    assert table["train@a"].startswith("failed")
    assert table["report"].startswith("not run")
    assert table["train@b"].startswith("ran")
    assert "the step refuses" in printed  # the last lines of the stage
    assert calls(project).count("train") == 2  # a real failure is not tried again


def test_in_a_clone_without_its_data_the_last_line_says_what_to_type(
    server: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "data")
    assert reproduce.main(["--root", str(project)]) == 1
    assert "data.dvc tracks is not here: `dvc pull data.dvc` where" in capsys.readouterr().err.splitlines()[-1]


def test_a_changed_corpus_is_noticed(project: Path) -> None:
    assert survey.survey(project, []).changed_corpora == ()
    (project / "data" / "a" / "photo").write_text("another\n")
    assert survey.survey(project, []).changed_corpora == ("data.dvc",)


def test_a_held_lock_is_waited_for(server: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(project, sleep="work/decode/a")
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-q", "decode@a"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until((project / "pid").exists, 60, "the other DVC's stage")
    waiting = chain.run_stage.with_options(retry_delay_seconds=1)
    monkeypatch.setattr(chain, "run_stage", waiting)
    tries: list[str] = []
    repro = dvc_process.repro

    def release_after_the_first(
        stage: str, root: Path, log: Callable[[str], None], limit: float | None
    ) -> dvc_process.Outcome:
        tries.append(stage)
        if tries.count("decode@a") == 2:
            (project / "awake").touch()
            os.kill(int((project / "pid").read_text()), signal.SIGTERM)
            other.wait(30)
        return repro(stage, root, log, limit)

    monkeypatch.setattr(dvc_process, "repro", release_after_the_first)
    stages = graph.select(graph.read(project), ["decode@a"], [])
    assert [result.outcome for result in chain.run(stages, project)] == ["ran"]
    assert tries.count("decode@a") == 2


@pytest.mark.slow
@pytest.mark.parametrize("embedded", [False, True], ids=["SIGTERM", "Ctrl-C"])
def test_stopping_leaves_nothing_running(server: str, project: Path, embedded: bool) -> None:
    """SIGTERM reaches the program alone, Ctrl-C its whole group, and with it Prefect's embedded server."""
    write_params(project, sleep="work/decode/a")
    environment = os.environ | {"PYTHONFAULTHANDLER": "1"} | ({} if embedded else {"PREFECT_API_URL": server})
    if embedded:
        environment |= {"PREFECT_HOME": str(project.parent / "prefect")}
    flow = psutil.Popen(
        [sys.executable, "-m", "flows.reproduce", "--root", str(project)],
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        # shells start what runs in the background with Ctrl-C ignored, and that is inherited
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: (project / "pid").exists() or flow.poll() is not None, 120, "the sleeping stage")
        family = flow.children(recursive=True)
        assert any(process.pid == int((project / "pid").read_text()) for process in family)
        if embedded:
            os.killpg(flow.pid, signal.SIGINT)
        else:
            flow.terminate()
        try:
            said, _ = flow.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            below = flow.children(recursive=True)
            flow.send_signal(signal.SIGABRT)  # it tells where each of its threads is
            for process in below:  # they hold the pipe too
                process.kill()
            pytest.fail(f"it does not end:\n{flow.communicate()[0]}")
        assert flow.returncode == (130 if embedded else 143), said
        assert psutil.wait_procs(family, timeout=10)[1] == []
    finally:
        for process in [flow, *flow.children(recursive=True)] if flow.is_running() else []:
            process.kill()
    # the next run is right
    (project / "awake").touch()
    dvc(project, "repro")
    chains = [f"photo of {dataset}\ndecode 1\ntrain 1\n" for dataset in "ab"]
    assert (project / "report").read_text() == "".join([*chains, "report 1\n"])
