"""The same work here and on a real dask scheduler with two workers: the same rows, files and losses."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import psutil
import pytest

from diffretouch import dask_client
from diffretouch.config import Runtime, load
from diffretouch.corpus.demo import write_demo
from diffretouch.decoding.ledger import Journal
from diffretouch.errors import PhotoError, UserError
from diffretouch.executors import run_everywhere
from diffretouch.files.workspace import journal_file
from diffretouch.stages import decode
from diffretouch.worker import Reserve
from tests import fake_chain
from tests.kill import digests

ROOT = Path(__file__).resolve().parent.parent
BEACON = Path("shared/.dask")
CODE = ["executors.py", "processes.py", "worker.py"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.02)


@contextmanager
def started(log: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen]:
    """`dask WORDS` in a folder of its own, ended afterwards."""
    path = os.pathsep.join([environment.pop("PYTHONPATH", ""), str(ROOT)])
    with (
        log.open("w") as out,
        subprocess.Popen(
            [sys.executable, "-m", "dask", *words, "--no-dashboard"],
            cwd=log.parent,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "PYTHONPATH": path},
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def scheduler(folder: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen]]:
    file = folder / "scheduler.json"
    words = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    with started(folder / "scheduler.log", *words, **environment) as process:
        until(lambda: file.exists() and file.read_text().rstrip().endswith("}"))  # whole
        yield json.loads(file.read_text())["address"], process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A scheduler that gives a task up once its worker has died, and two workers, which it needs."""
    folder = tmp_path_factory.mktemp("dask")
    with scheduler(folder, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as (address, _):
        worker = ("worker", address, "--nthreads", "1")
        with started(folder / "one.log", *worker) as one, started(folder / "two.log", *worker) as two:
            from distributed import Client

            with Client(address, timeout=60, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            yield address, [one, two]


@pytest.fixture
def address(cluster, tmp_path: Path, monkeypatch) -> str:
    """The scheduler's, in a new current folder."""
    monkeypatch.chdir(tmp_path)
    return cluster[0]


def runtime(address: str | None) -> Runtime:
    executor = "process" if address is None else "dask"
    own = {"device": "cpu", "threads": 1, "workers": 2, "memory_gib": 1.0, "executor": executor, "scheduler": address}
    return Runtime.model_validate({**load(ROOT / "params.yaml").runtime.model_dump(), **own})


def lost(item: str, reason: str) -> dict[str, str]:
    return {"photo": item, "reason": reason}


def develop(photo: str, reserve: Reserve, out: Path) -> dict[str, str]:
    """Write a file and return a row, unless the photo is a bad one."""
    reserve(10)
    match photo:
        case "segfault":
            ctypes.string_at(0)
        case "endless":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        case "raises":
            raise PhotoError("no mosaic in it", "unreadable")
        case "kills the dask worker":
            assert "multiprocessing.spawn" in " ".join(psutil.Process(os.getppid()).cmdline()), "no dask worker"
            os.kill(os.getppid(), signal.SIGKILL)
    out.mkdir(parents=True, exist_ok=True)
    (out / photo).write_bytes(hashlib.sha256(photo.encode()).digest())
    return {"photo": photo, "reason": "", "prepared": os.environ["PREPARED"]}


def prepare(how: str) -> None:
    os.environ["PREPARED"] = how


def everything(items: list[str], address: str | None, out: Path, beacon: Path = BEACON) -> list[dict[str, str]]:
    settings = {"runtime": runtime(address), "code": CODE, "beacon": beacon, "lost": lost, "cpu_seconds": 0.5}
    results = run_everywhere(partial(develop, out=out), items, setup=partial(prepare, "yes"), **settings)
    return sorted(results, key=lambda row: row["photo"])


def test_both_executors_give_the_same_rows_and_files(address: str) -> None:
    photos = [*(f"a{number:04d}" for number in range(70)), "segfault", "endless"]
    here, there = everything(photos, None, Path("here")), everything(photos, address, Path("there"))
    assert there == here
    assert {row["photo"]: row["reason"] for row in here if row["reason"]} == {
        "segfault": "the process reading it died of SIGSEGV",
        "endless": "it took more than 0.5 s of CPU time",
    }
    files = [{file.name: file.read_bytes() for file in Path(name).iterdir()} for name in ("here", "there")]
    assert files[0] == files[1]
    assert len(files[0]) == 70
    assert not BEACON.exists()


def test_the_decode_stage_writes_the_same_bytes_on_dask(address: str) -> None:
    """Pictures, the small picture of what is quarantined, manifest and records."""
    write_demo(Path("data"), limit=3)
    broken = sorted(Path("data/fivek/dng").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:50_000])
    for where, folder in ((None, "here"), (address, "there")):
        own = {"executor": "process" if where is None else "dask", "scheduler": where, "workers": 2}
        wanted = {"demosaic": "LINEAR", "max_quarantined_share": 0.5}
        decode.run(fake_chain.params(decode=wanted, runtime=own), "fivek")
        assert Journal(journal_file("fivek")).digests.known  # of what was read, wherever that was
        shutil.move("work", folder)
    here, there = digests(Path("here/decode")), digests(Path("there/decode"))
    assert there == here
    assert {"fivek/manifest.parquet", "fivek.records.parquet", f"fivek/quarantine/{broken.stem}.jpg"} <= set(there)
    manifest = pd.read_parquet("there/decode/fivek/manifest.parquet").set_index("photo_id")
    assert sorted(manifest["status"]) == ["ok", "ok", "quarantined"]
    assert manifest.loc[broken.stem, "kind"] == "unreadable"


def test_nothing_to_do_asks_nobody() -> None:
    assert everything([], "tcp://127.0.0.1:1", Path("out")) == []


def test_an_exception_arrives_from_a_dask_worker(address: str) -> None:
    with pytest.raises(PhotoError, match="no mosaic in it") as caught:
        everything(["a", "raises", "b"], address, Path("out"))
    assert caught.value.kind == "unreadable"
    assert "in develop" in caught.value.__notes__[0]
    assert not BEACON.exists()


def test_only_the_photo_that_kills_its_dask_worker_is_lost(address: str) -> None:
    photos = ["a", "b", "kills the dask worker", "c", "d"]
    rows = everything(photos, address, Path("out"))
    assert [row["photo"] for row in rows if not row["reason"]] == ["a", "b", "c", "d"]
    assert [row["reason"] for row in rows if row["reason"]] == [
        "the dask worker that was reading it was killed, most likely for want of memory"
    ]


def grandchildren(nannies: list[subprocess.Popen]) -> list[psutil.Process]:
    """Processes that the dask workers of `nannies` started for photos."""
    family = {process for nanny in nannies for process in psutil.Process(nanny.pid).children(recursive=True)}
    everybody = psutil.process_iter(["cmdline"])
    return [one for one in everybody if one in family and "diffretouch.worker" in " ".join(one.info["cmdline"] or [])]


def slow(item: int, _: Reserve, log: Path) -> int:
    with log.open("a") as file:
        file.write(f"{item}\n")
    time.sleep(0.05)
    return item


def test_work_that_nobody_waits_for_any_more_stops(cluster, address: str) -> None:
    log = Path("log").absolute()
    work = partial(slow, log=log)
    settings = {"runtime": runtime(address), "code": CODE, "beacon": BEACON, "lost": lost}
    results = run_everywhere(work, list(range(129)), **settings)
    first = [next(results) for _ in range(32)]
    assert len(first) == 32
    assert grandchildren(cluster[1]) != []
    results.close()
    until(lambda: grandchildren(cluster[1]) == [])
    assert len(log.read_text().split()) < 129


def test_a_worker_without_the_shared_storage_is_named(address: str) -> None:
    with pytest.raises(UserError, match=r"dask worker tcp://\S+ does not see /proc/self/cwd/beacon.*mounted"):
        everything(["a"], address, Path("out"), beacon=Path("/proc/self/cwd/beacon"))


def test_a_scheduler_that_is_not_there_is_named(monkeypatch) -> None:
    monkeypatch.setattr(dask_client, "PATIENCE_S", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        with pytest.raises(UserError, match=f"no dask scheduler answers at {address}.*`dask scheduler`.*`dask worker"):
            everything(["a"], address, Path("out"))


def test_a_scheduler_without_workers_with_wrong_ones_and_gone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "elsewhere" / "diffretouch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('an old checkout')")
    with scheduler(tmp_path) as (address, process):
        monkeypatch.setattr(dask_client, "PATIENCE_S", 0.5)
        with pytest.raises(UserError, match=f"{address} has no worker: type `dask worker {address} --nthreads 4`"):
            everything(["a"], address, Path("out"))
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        worker = ("worker", address, "--nthreads", "1")
        with (
            started(tmp_path / "old.log", *worker, PYTHONPATH=str(package.parent)),
            pytest.raises(
                UserError, match=r"dask worker tcp://\S+ cannot run this code: .*an old checkout.*pip install"
            ),
        ):
            everything(["a"], address, Path("out"))
        with started(tmp_path / "worker.log", *worker):
            settings = {"runtime": runtime(address), "code": CODE, "beacon": BEACON, "lost": lost}
            results = run_everywhere(partial(slow, log=tmp_path / "log"), list(range(100)), **settings)
            next(results)
            process.kill()
            with pytest.raises(UserError, match=f"the dask scheduler {address} went away"):
                list(results)


def test_another_version_on_a_worker_is_named() -> None:
    here = dask_client.identity(CODE)
    there = {**here, "torch": "1.0"}
    dask_client.require_same(here, "tcp://a:1", dask_client.identity(CODE), "tcp://s:1")
    with pytest.raises(
        UserError, match=r"tcp://a:1 would give other results, it has torch 1\.0 instead of \d.*pip inst"
    ):
        dask_client.require_same(here, "tcp://a:1", there, "tcp://s:1")


def test_dask_that_is_not_installed_is_answered_with_what_to_type(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '\.\[dask\]'"):
        everything(["a"], "tcp://127.0.0.1:1", Path("out"))
