"""One chain in a workspace, and nothing of an earlier one beside it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import doctor_dvc, family, reproduce, workspace
from tests.small_project import until

ROOT = Path(__file__).resolve().parent.parent

HOLDER = """
import pathlib, sys, time
from flows import workspace
with workspace.hold(pathlib.Path(sys.argv[1]), wait=sys.argv[2] == "wait"):
    with open(sys.argv[1] + "/turns", "a") as turns:
        turns.write("in\\n")
        turns.flush()
        time.sleep(float(sys.argv[3]))
        turns.write("out\\n")
"""
# its parent is gone at once; its child has no other tie to it than being one
ORPHAN = """
import os, signal, subprocess, sys, time
if os.fork():
    os._exit(0)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def leave(*_):
    open("saved", "w").write("all of it")
    sys.exit(143)
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[1] == "stubborn" else leave)
open("started", "w").close()
time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def start(root: Path, how: str, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDER, str(root), how, str(seconds)]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def leave_behind(root: Path, marked: Path, manner: str = "polite") -> None:
    words = [sys.executable, "-c", ORPHAN, manner]
    subprocess.run(words, cwd=root, env=os.environ | family.mark(marked, "train@a"), check=True)
    until((root / "started").exists, 60, "the orphan")


def test_the_second_is_told_who_holds_it(root: Path) -> None:
    with workspace.hold(root), pytest.raises(workspace.Busy) as busy, workspace.hold(root):
        pass
    said = str(busy.value)
    assert f"process {os.getpid()} since 20" in said
    assert shlex.join(sys.orig_argv[1:]) in said and "--wait" in said
    with workspace.hold(root):
        pass


def test_who_was_killed_on_another_machine_is_told_and_what_ended_by_itself_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    found: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "`" in line:
            command = line.split("`")[1]
            found.extend(subprocess.run(command, shell=True, capture_output=True, text=True).stdout.split())

    with pytest.raises(KeyError), workspace.hold(root):
        raise KeyError
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with workspace.hold(root, say=say):
        left = (root / ".dvc/tmp/flow.json").read_text()
        monkeypatch.undo()
        assert f"process {os.getpid()} of another since" in (workspace.holder(root) or "")
    assert said == []
    (root / ".dvc/tmp/flow.json").write_text(left)  # as a kill leaves it
    leave_behind(root, root)
    orphans = {f"/proc/{process.pid}/environ" for process in family.members(root)}
    with workspace.hold(root, say=say):
        pass
    assert said[0].startswith("the last run here was killed on another; ") and set(found) == orphans
    assert said[1:] == [f"ended 2 processes that an earlier run in {root} had left"]


def test_the_doctor_sees_who_holds_it(root: Path) -> None:
    (root / ".dvc/tmp").mkdir()
    assert workspace.holder(root) is None
    with workspace.hold(root):
        (finding,) = [found for found in doctor_dvc._locks(root / ".dvc/tmp") if found.area == "chain"]
        assert f"process {os.getpid()}" in finding.what
    assert workspace.holder(root) is None


def test_a_folder_without_dvc_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(workspace.NoWorkspace, match="--root"), workspace.hold(tmp_path):
        pass


def test_of_eight_that_start_at_once_one_runs_and_the_others_wait_or_say_so(root: Path) -> None:
    # longer than the last of them takes to start on a busy machine
    ways = {start(root, how, 0.2 if how == "wait" else 5): how for how in ["no"] * 5 + ["wait"] * 3}
    said = {process: process.communicate(timeout=300)[1] for process in ways}
    for process, how in ways.items():
        assert process.returncode == 0 or (how == "no" and "Busy: another chain runs" in said[process]), said[process]
    turns = (root / "turns").read_text().split()
    assert turns == ["in", "out"] * (len(turns) // 2), "two were inside together"
    assert len(turns) // 2 == sum(process.returncode == 0 for process in ways) >= 3


def test_a_killed_holder_holds_nothing_and_its_children_neither(root: Path) -> None:
    script = HOLDER.replace(
        "    with open",
        "    import subprocess; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\n    with open",
        1,
    )
    first = subprocess.Popen([sys.executable, "-c", script, str(root), "no", "60"], cwd=ROOT, start_new_session=True)
    try:
        until((root / "turns").exists, 60, "the holder")
        first.kill()
        first.wait()
        assert json.loads((root / ".dvc/tmp/flow.json").read_text())["pid"] == first.pid
        os.killpg(first.pid, 0)  # its child lives
        with workspace.hold(root):
            pass
    finally:
        os.killpg(first.pid, signal.SIGKILL)


def test_what_an_earlier_chain_left_running_has_ended_before_the_block_begins(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    leave_behind(root, root)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    leave_behind(elsewhere, elsewhere)
    assert len(family.members(root)) == 2
    said: list[str] = []
    with workspace.hold(root, say=said.append):
        assert family.members(root) == []
        # it had its time to save
        assert (root / "saved").read_text() == "all of it"
    assert said == [f"ended 2 processes that an earlier run in {root} had left"]
    assert len(family.members(elsewhere)) == 2, "another workspace's is none of ours"
    assert family.end(elsewhere, "train@b") == 0
    assert family.end(elsewhere, "train@a") == 2


def test_who_does_not_listen_is_killed(root: Path) -> None:
    leave_behind(root, root, "stubborn")
    begun = time.monotonic()
    assert family.end(root, grace_s=1.0) == 2
    assert family.members(root) == []
    assert time.monotonic() - begun >= 1.0
    assert not (root / "saved").exists()


@pytest.mark.parametrize("damage", [b"", b"schema: '2.0'\nstages:\n  decode@a:\n    cmd: 'py", b"\0" * 40])
def test_a_half_written_lock_file_is_put_back(root: Path, damage: bytes) -> None:
    file, whole = root / "dvc.lock", b"schema: '2.0'\nstages: {}\n"
    file.write_bytes(whole)
    workspace.keep(root)
    file.write_bytes(damage)
    workspace.keep(root)  # what cannot be read is not kept
    said: list[str] = []
    with workspace.hold(root, say=said.append):
        assert file.read_bytes() == whole
    assert "half written" in said[0]


def test_a_merge_of_the_lock_file_that_is_not_finished_is_a_persons_work(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, sides = root / "dvc.lock", b"<<<<<<< HEAD\nstages: {}\n=======\nstages: {a: 1}\n>>>>>>> other\n"
    file.write_bytes(b"schema: '2.0'\nstages: {}\n")
    workspace.keep(root)
    file.write_bytes(b"schema: '2.0'\n" + sides)
    assert reproduce.main(["--root", str(root)]) == 1
    assert "`git checkout --ours dvc.lock`" in capsys.readouterr().err
    assert file.read_bytes() == b"schema: '2.0'\n" + sides
    assert not (root / ".dvc/tmp/flow.json").exists() and workspace.holder(root) is None


def test_the_lock_is_open_for_writing_as_nfs_wants_it_unless_it_is_somebody_elses(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, flock = [], fcntl.flock

    def lock(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        flock(descriptor, operation)

    def refuse(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(path)
        return opened(path, flags, *mode)

    monkeypatch.setattr("fcntl.flock", lock)
    with workspace.hold(root):
        pass
    opened = os.open
    monkeypatch.setattr("os.open", refuse)
    with workspace.hold(root):
        assert workspace.holder(root)
    assert modes == [os.O_RDWR, os.O_RDONLY]


def test_a_lock_file_that_can_be_read_is_left_alone(root: Path) -> None:
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    workspace.keep(root)
    (root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    assert not workspace.mend(root)
    (root / "dvc.lock").unlink()
    assert not workspace.mend(root), "removed on purpose"
    assert not (root / "dvc.lock").exists()
