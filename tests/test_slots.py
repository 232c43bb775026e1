"""Slots of GPUs and cores: how many a stage asks for, and whose they are when their holder was killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from flows import family, slots

pytestmark = pytest.mark.xdist_group("prefect")
CORES = f"cpu:{socket.gethostname()}"
HOLD = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
import flows
from flows import slots
from prefect import flow
from prefect.client.orchestration import get_client

@flow(persist_result=False)
def hold(root, then, wanted):
    begun = time.monotonic()
    late = lambda: time.monotonic() - begun > 30
    with slots.held(wanted, Path(root), lambda line: print(line, flush=True), late) as ours:
        print("held" if ours else "not held", round(time.monotonic() - begun, 1), flush=True)
        if then == "die":
            os.kill(os.getpid(), 9)
    with get_client(sync_client=True) as client:
        print("left", *(client.read_global_concurrency_limit_by_name(name).active_slots for name in wanted), flush=True)

hold(sys.argv[1], sys.argv[2], {"gpu:0": 1, "cpu:here": int(sys.argv[3])})
"""

AGE = """
import asyncio
from datetime import timedelta
from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage

async def age(storage):
    for lease in await storage.read_active_lease_ids():
        await storage.renew_lease(lease, timedelta(seconds=-1))

asyncio.run(age(ConcurrencyLeaseStorage()))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Prefect's, of an embedded server; whatever it left running is ended."""
    yield tmp_path / "home"
    family.end_lost_servers()


def hold(root: Path, home: Path, then: str = "end", count: int = 2) -> list[str]:
    """What a flow said that holds a GPU and cores for a moment, or dies holding them."""
    log = home.with_name("said")
    with log.open("w") as file:  # no pipe: a server that outlives the flow would keep it open
        subprocess.run(
            [sys.executable, "-c", HOLD, str(root), then, str(count)],
            env={**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": "", "PREFECT_LOGGING_LEVEL": "ERROR"},
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
    return log.read_text().splitlines()


def runtime(root: Path, **changes: object) -> Path:
    root.mkdir(exist_ok=True)
    (root / "params.yaml").write_text(
        yaml.safe_dump({"runtime": {"device": "cpu", "threads": 2, "workers": 3, **changes}})
    )
    return root


def test_a_stage_asks_for_the_cores_it_keeps_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_cores", lambda: 5)
    root = runtime(tmp_path / "p")
    asked = {kind: slots.needed(f"{kind}@a", root) for kind in ("decode", "attributes", "train", "evaluate", "embed")}
    assert asked == {kind: {CORES: n} for kind, n in zip(asked, (3, 2, 2, 3, 1), strict=True)}
    assert slots.needed("report", root) == {CORES: 1}
    assert slots.needed("compare/dvc.yaml:compare@a", root) == {CORES: 2}
    assert slots.needed("train@a", runtime(tmp_path / "p", processes=4)) == {CORES: 5}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = runtime(tmp_path / "p", device="cuda", processes=2)
    assert slots.needed("train@a", cards) == {"gpu:0": 1, "gpu:1": 1, CORES: 2}
    assert slots.needed("decode@a", cards) == {CORES: 3}
    monkeypatch.setenv(slots.SLOTS, "b:1, a:0")
    assert list(slots.needed("sample@a", cards)) == ["a:0", "b:1", CORES]  # everybody in the same order


@pytest.mark.slow
def test_a_killed_holders_slots_are_free_at_once(tmp_path: Path, home: Path) -> None:
    """Its embedded server is killed too, or outlives it: neither gives a slot back by itself."""
    assert hold(tmp_path, home, "die")[-1].startswith("held")
    (server,) = servers(home)
    assert took(hold(tmp_path, home)) < slots.LEASE_S / 2
    server.kill()
    assert hold(tmp_path, home, "die")[-1].startswith("held")
    assert family.end_lost_servers() >= 1
    said = hold(tmp_path, home)
    assert took(said) < slots.LEASE_S / 2 and said[-1] == "left 0 0"
    assert list((home / slots.NOTES).iterdir()) == []


@pytest.mark.slow
def test_killed_before_it_could_be_noted_a_lease_runs_out(tmp_path: Path, home: Path) -> None:
    hold(tmp_path, home, "die")
    family.end_lost_servers()
    for note in (home / slots.NOTES).iterdir():
        note.unlink()
    subprocess.run([sys.executable, "-c", AGE], env={**os.environ, "PREFECT_HOME": str(home)}, check=True)
    said = hold(tmp_path, home)
    assert took(said) < slots.LEASE_S / 2 and said[-1] == "left 0 0"


@pytest.mark.slow
def test_what_a_killed_flows_stage_still_runs_keeps_its_slots(tmp_path: Path, home: Path) -> None:
    with subprocess.Popen(["sleep", "600"], env={**os.environ, **family.mark(tmp_path, "train@a")}) as orphan:
        hold(tmp_path, home, "die")
        family.end_lost_servers()
        said = hold(tmp_path, home)
        orphan.kill()
    assert "waiting for gpu:0, whose 1 slots other stages hold" in said
    assert any(line.startswith("not held") for line in said)
    assert took(hold(tmp_path, home)) < slots.LEASE_S / 2


@pytest.mark.slow
def test_a_person_may_give_a_machine_fewer_slots(tmp_path: Path, home: Path) -> None:
    assert took(hold(tmp_path, home, count=1)) < 5
    words = ["gcl", "update", "cpu:here", "--limit", "1"]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": ""}
    subprocess.run([sys.executable, "-m", "prefect", *words], env=environment, check=True, capture_output=True)
    assert took(hold(tmp_path, home, count=2)) < 5


def took(said: list[str]) -> float:
    """Seconds until it had them."""
    return float(next(line for line in said if line.startswith("held")).split()[1])


def servers(home: Path) -> list[psutil.Process]:
    """Embedded servers on this home folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if family.SERVER in process.cmdline() and process.environ().get("PREFECT_HOME") == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
