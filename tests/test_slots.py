"""Slots of GPUs and cores: how many a stage asks for, and whose they are when their holder was killed."""

from __future__ import annotations

import contextvars
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
import yaml

from flows import family, leases, slots  # isort: skip - it sets the environment that Prefect reads at its first import
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.dvc_process import Stopped
from tests.small_project import until

CORES = f"cpu:{socket.gethostname()}"
WANTED = {"gpu:0": 1, "cpu:here": 2}
HOLD = """
import sys, time
from pathlib import Path
from flows import slots
wanted, begun = dict(zip(sys.argv[3::2], map(int, sys.argv[4::2]))), time.monotonic()
with slots.held(wanted, "another", print, lambda: time.monotonic() - begun > 100, Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One of four cores, whose locks nobody else holds, and no server."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(4)))
    monkeypatch.setenv("PREFECT_API_URL", "")
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield
    monkeypatch.undo()


def holder(seconds: float, wanted: dict[str, int], root: Path) -> subprocess.Popen[str]:
    """Another process that holds them, in a workspace."""
    words = [str(word) for pair in wanted.items() for word in pair]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(seconds), str(root), *words],
        env=os.environ.copy(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def taken(wanted: dict[str, int], seconds: float = 1) -> tuple[bool, list[str]]:
    """Whether they were to be had within so long, and what was said meanwhile and at the end."""
    said: list[str] = []
    end = time.monotonic() + seconds
    try:
        with slots.held(wanted, "this stage", said.append, lambda: time.monotonic() > end):
            return True, said
    except Stopped as error:
        return False, [*said, str(error)]


def waited(name: str) -> list[str]:
    """What who does not get these is told."""
    return [
        f"waiting for {name}, which other stages hold",
        f"this stage was stopped while it waited for {name}",
    ]


def runtime(root: Path, **changes: object) -> Path:
    root.mkdir(exist_ok=True)
    values = {"device": "cpu", "threads": 2, "workers": 3, **changes}
    (root / "params.yaml").write_text(yaml.safe_dump({"runtime": values}))
    return root


def test_a_stage_asks_for_the_cores_it_keeps_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    root = runtime(tmp_path / "p")
    asked = {kind: slots.needed(f"{kind}@a", root) for kind in ("decode", "attributes", "train", "evaluate", "embed")}
    assert asked == {kind: {CORES: n} for kind, n in zip(asked, (3, 2, 2, 3, 1), strict=True)}
    assert slots.needed("report", root) == {CORES: 1}
    assert slots.needed("compare/dvc.yaml:compare@a", root) == {CORES: 3}
    assert slots.needed("train@a", runtime(tmp_path / "p", processes=4)) == {CORES: 6}
    assert slots.needed("sample@a", root) == {CORES: 2}  # one process
    assert slots.needed("decode@a", runtime(tmp_path / "p", executor="dask")) == {CORES: 1}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv(slots.MACHINE, "m/1")
    cards = runtime(tmp_path / "p", device="cuda", processes=2)
    assert slots.needed("train@a", cards) == {"gpu:m_1:0": 1, "gpu:m_1:1": 1, "cpu:m_1": 2}
    assert slots.needed("sample@a", cards) == {"gpu:m_1:0": 1, "cpu:m_1": 1}
    assert slots.needed("decode@a", cards) == {"cpu:m_1": 3}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1,0")
    assert list(slots.needed("train@a", cards)) == ["gpu:m_1:1", "gpu:m_1:3", "cpu:m_1"]  # all in the same order
    for cores, most in ((1, 1), (2, 2), (4, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, cores=cores: set(range(cores)))
        assert slots.needed("decode@a", cards) == {"cpu:m_1": most}


def test_without_a_server_they_are_the_machines_and_a_killed_holders_are_free_at_once(
    machine: None, tmp_path: Path
) -> None:
    with holder(60, WANTED, tmp_path) as process:
        assert taken(WANTED) == (False, waited("gpu:0"))
        assert taken({"cpu:here": 3}) == (False, waited("cpu:here"))
        assert taken({"gpu:1": 1, "cpu:here": 2}) == (True, [])
        process.kill()
    assert taken(WANTED) == (True, [])
    assert taken({"cpu:here": 4}) == (True, [])
    assert taken({"cpu:here": 5}) == (True, [])  # all there are


def test_what_a_holder_starts_does_not_inherit_them(machine: None) -> None:
    with slots.held(WANTED, "this stage", print):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    assert taken(WANTED) == (True, [])
    child.kill()
    child.wait()


@pytest.mark.slow
def test_a_person_gives_a_machine_fewer_slots_or_none(server: str) -> None:
    wanted = {"cpu:there": 2}
    assert taken(wanted, 20) == (True, [])
    for limit, outcome in ((1, True), (0, False), (1, True)):
        set_limit("cpu:there", limit)
        assert taken(wanted, 3)[0] is outcome
    set_limit("cpu:there", 0)
    assert "has no slots: `prefect gcl update cpu:there --limit N` gives it some" in taken(wanted, 3)[1][0]


def set_limit(name: str, limit: int) -> None:
    """As a person does with `prefect gcl update`."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=limit))


@pytest.mark.slow
def test_a_limit_that_is_changed_fails_neither_its_holder_nor_who_waits(server: str) -> None:
    said: list[str] = []
    got: list[tuple[bool, list[str]]] = []
    waiting = threading.Thread(target=contextvars.copy_context().run, args=(lambda: got.append(taken(wanted, 60)),))
    wanted = {"gpu:then": 1}
    with slots.held(wanted, "this stage", said.append):
        waiting.start()
        time.sleep(3)
        set_limit("gpu:then", 0)
        time.sleep(3)
    assert len(said) == 1 and said[0].startswith("gpu:then could not be given back")  # the server divides by the limit
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name("gpu:then")
    waiting.join(60)
    assert [held for held, _ in got] == [True]


@pytest.mark.slow
def test_slots_that_the_server_has_let_go_are_taken_again(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 1)
    first: list[UUID] = []
    take = leases._taken

    def noted(*of: Any) -> UUID:
        first.append(take(*of))
        return first[-1]

    monkeypatch.setattr(leases, "_taken", noted)
    said: list[str] = []
    with slots.held({"gpu:lost": 1}, "this stage", said.append), get_client(sync_client=True) as client:
        time.sleep(2.5)
        assert said == []  # renewed
        client.release_concurrency_slots_with_lease(first[0])
        until(lambda: len(said) == 2, 20, "taking it again")
        assert "has let gpu:lost go" in said[0] and said[1] == "gpu:lost is held again"
        assert taken({"gpu:lost": 1}, 3)[0] is False
    assert taken({"gpu:lost": 1}, 3)[0] is True


@pytest.mark.slow
def test_waiting_is_no_error_and_survives_a_server_that_is_away(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    with slots.held({"gpu:there": 1}, "this stage", print):
        assert taken({"gpu:there": 1}, 12) == (False, waited("gpu:there"))
    assert "rror" not in capfd.readouterr().err
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        ours, said = taken({"gpu:there": 1}, 3)
    assert not ours and said[0].startswith("waiting for gpu:there: the server does not answer as it should")


class Moody(BaseHTTPRequestHandler):
    """A server that is busy for two requests, then answers with a page, then as Prefect's does."""

    moods: ClassVar[list[tuple[int, str]]] = []
    returned: ClassVar[list[float]] = []
    """When slots were given back."""
    slow_s: ClassVar[float] = 0.0
    """How long it thinks about that."""
    limit: ClassVar[dict[str, object]] = {
        "id": str(uuid4()),
        "name": "gpu:moody",
        "limit": 1,
        "active": True,
        "active_slots": 0,
    }

    def do_GET(self) -> None:
        # 404: it knows no tokens against forged requests
        self._say(404 if "csrf" in self.path else 200, json.dumps({**self.limit, "slot_decay_per_second": 0.0}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if "decrement" in self.path:
            self.returned.append(time.monotonic())
            time.sleep(self.slow_s)
        answer = {"lease_id": str(uuid4()), "limits": [{"id": self.limit["id"], "name": "gpu:moody", "limit": 1}]}
        self._say(*(self.moods.pop(0) if self.moods else (200, json.dumps(answer))))

    def _say(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_is_busy_for_a_moment_or_hidden_by_a_page_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    # in which Prefect's client waits for seconds after a 503, whether or not it asks again
    monkeypatch.setattr("prefect.client.base.time", SimpleNamespace(sleep=slept.append))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
        assert taken({"gpu:moody": 1}, 30) == (True, [])
        Moody.moods[:] = [(503, "{}"), (503, "{}")]
        assert taken({"gpu:moody": 1}, 30) == (True, [])
        assert not Moody.moods and not slept
        Moody.moods[:] = [(200, "<html>")]
        ours, said = taken({"gpu:moody": 1}, 30)
        assert ours and len(said) == 1 and "does not answer as it should" in said[0]
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_next_run_in_a_workspace_gives_back_what_a_killed_one_held(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    said: list[str] = []
    notes = tmp_path / slots.NOTES
    with holder(600, {"gpu:left": 1, "cpu:left": 2}, tmp_path) as process:
        assert len([*notes.glob("*/*")]) == 2
        process.kill()
    slots.give_back_left(tmp_path / "another", said.append)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "another")
        slots.give_back_left(tmp_path, said.append)
    assert taken({"gpu:left": 1}, 2)[0] is False
    (next(notes.glob("*")) / ".nfs0001").touch()  # as a network folder has them
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        slots.give_back_left(tmp_path, said.append)
    assert len(said) == 1 and "free when their lease has run out, and not before" in said[0]
    slots.give_back_left(tmp_path, said.append)
    assert taken({"gpu:left": 1}, 2)[0] is True
    assert taken({"cpu:left": 2}, 2)[0] is True
    assert len(said) == 1 and [note.name for note in notes.glob("*/*")] == [".nfs0001"]
    slots.give_back_left(tmp_path, said.append)
    with slots.held({"gpu:left": 1}, "this stage", said.append, root=tmp_path):
        assert len([*notes.glob("*/*-*")]) == 1
    assert not [*notes.glob("*/*-*")] and len(said) == 1


@pytest.mark.slow
def test_slots_are_given_back_to_a_server_that_was_away_or_answers_late_while_the_chain_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "GIVE_BACK_S", 0.5)
    monkeypatch.setattr(Moody, "slow_s", leases.ANSWER_S + 2)
    monkeypatch.setattr(Moody, "returned", [])
    said: list[str] = []
    first = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=first.serve_forever, daemon=True).start()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{first.server_port}/api"}):
        with slots.held({"gpu:moody": 1}, "this stage", said.append, root=tmp_path):
            first.shutdown()
            first.server_close()
            ending = time.monotonic()
        assert time.monotonic() - ending < leases.ANSWER_S and not Moody.returned
    again = ThreadingHTTPServer(first.server_address, Moody)
    threading.Thread(target=again.serve_forever, daemon=True).start()
    assert not [*(tmp_path / slots.NOTES).glob("*/*")]  # nobody else is to send it, too
    until(lambda: Moody.returned, 60, "the request")
    time.sleep(Moody.slow_s + 2)
    assert len(Moody.returned) == 1 and not said
    again.shutdown()
    again.server_close()


@pytest.mark.alone
@pytest.mark.slow
def test_a_server_frees_a_killed_holders_slots_when_their_lease_has_run_out(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    with holder(600, {"gpu:far": 1}, tmp_path) as process:
        process.kill()
    assert taken({"gpu:far": 1}, 2)[0] is False
    assert taken({"gpu:far": 1}, leases.LEASE_S + 60)[0] is True


def test_the_embedded_server_of_a_killed_flow_is_ended_and_no_other() -> None:
    """Stand-ins with a server's command line: of a flow that is gone, of one that lives, one that people started."""
    gone = subprocess.run(
        [sys.executable, "-c", "import flows, os; print(os.environ['DIFFRETOUCH_FLOW'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    living = f"{os.getpid()} {family.birth(os.getpid())}"
    assert gone.split()[1] and living.split()[1]
    words = [sys.executable, "-c", "import time; time.sleep(60)", family.SERVER]
    lost, kept, theirs = (
        subprocess.Popen(words, env={**os.environ, **around})
        for around in (
            {family.FLOW: gone, family.EMBEDDED: "1"},
            {family.FLOW: living, family.EMBEDDED: "1"},
            {family.FLOW: gone},
        )
    )
    try:
        until(lambda: (family.end_lost_servers(), lost.poll())[1] is not None, 20, "the end of the lost server")
        assert kept.poll() is None and theirs.poll() is None
    finally:
        for process in (lost, kept, theirs):
            process.kill()
            process.wait()
