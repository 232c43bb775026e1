"""Supervised processes: real ones, that crash, hang, are killed, wait for memory and lose their parent."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from diffretouch.errors import PhotoError, UserError
from diffretouch.processes import Memory, map_in_processes, supervised
from diffretouch.worker import Reserve, Worker

ROOT = Path(__file__).resolve().parent.parent
TOGETHER = 2
NOTHING = pickle.dumps((None, None, None))
"""A worker's task, for one that is given no item."""


def lost(item: object, reason: str) -> str:
    return f"{item}: {reason}"


def square(item: int, _: Reserve) -> str:
    return f"{item}: {item * item}"


def by_name(item: str, _: Reserve) -> str:
    """Do what the item says, as a damaged photo might."""
    match item:
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            sys.exit(3)
        case "endless":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # in C, as far as Python knows
    return f"{item}: read"


def run(work: Callable, items: list, workers: int = TOGETHER, **settings) -> list[str]:
    return sorted(supervised(work, items, workers=workers, lost=lost, **settings))


def note(path: Path, text: str) -> None:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{time.monotonic()} {os.getpid()} {text}\n")


def notes(path: Path) -> list[tuple[float, int, str]]:
    lines = [line.split(maxsplit=2) for line in path.read_text().splitlines()] if path.exists() else []
    return sorted((float(when), int(pid), text) for when, pid, text in lines)


def until(condition: Callable[[], bool]) -> None:
    """Wait for it; the test's own timeout, generous, is the failure."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def children() -> Iterator[Callable[[], set[psutil.Process]]]:
    """Children of this process that the test started; none may be left."""
    before = set(psutil.Process().children())

    def started() -> set[psutil.Process]:
        return set(psutil.Process().children()) - before

    yield started
    assert started() == set()


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_those_of_a_loop(workers: int) -> None:
    assert run(square, list(range(20)), workers) == sorted(f"{n}: {n * n}" for n in range(20))
    assert run(square, []) == []


def crashes_after_good_ones() -> tuple[list[str], list[str]]:
    items = ["a", "segfault", "b", "exit", "c", "abort", "d"]
    wanted = [
        *(f"{good}: read" for good in "abcd"),
        "segfault: the process reading it died of SIGSEGV",
        "abort: the process reading it died of SIGABRT",
        "exit: the process reading it ended with exit code 3",
    ]
    return items, sorted(wanted)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_crashes_its_process_is_lost_and_nothing_else(workers: int) -> None:
    items, wanted = crashes_after_good_ones()
    assert run(by_name, items, workers) == wanted


def test_an_endless_loop_in_c_is_cut_by_its_cpu_time() -> None:
    reads = run(by_name, ["a", "endless", "b"], cpu_seconds=0.5)
    assert reads == ["a: read", "b: read", "endless: it took more than 0.5 s of CPU time"]


def sleep_through(item: str, _: Reserve, log: Path) -> str:
    note(log, item)
    if item == "sleeper" or (item == "stopped" and [text for *_, text in notes(log)].count(item) == 1):
        time.sleep(600)
    return f"{item}: read"


def test_what_takes_no_cpu_time_is_cut_by_the_clock_and_tried_again(tmp_path: Path) -> None:
    """The first time may have been Ctrl-Z or a sleeping laptop."""
    log = tmp_path / "log"
    reads = run(partial(sleep_through, log=log), ["sleeper", "stopped", "a"], cpu_seconds=0.1)
    assert reads == ["a: read", "sleeper: it took more than 1 s", "stopped: read"]
    assert [text for *_, text in notes(log)].count("stopped") == 2


def hold_all(item: int, reserve: Reserve, log: Path) -> str:
    note(log, "begin")
    reserve(100)
    time.sleep(0.5)
    return str(item)


def test_waiting_for_memory_is_not_held_against_an_item(tmp_path: Path) -> None:
    """The last of five waits 2 s, longer than an item may take by the clock."""
    log = tmp_path / "log"
    work = partial(hold_all, log=log)
    assert run(work, list(range(5)), workers=5, memory_bytes=100, cpu_seconds=0.15) == ["0", "1", "2", "3", "4"]
    assert len(notes(log)) == 5, "some were begun again"


def shout(item: int, _: Reserve) -> str:
    print(f"item {item}")
    return ""


def test_what_is_printed_in_a_process_is_seen(capfd, monkeypatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    run(shout, [1, 2, 3])
    assert sorted(capfd.readouterr().out.splitlines()) == ["item 1", "item 2", "item 3"]


def all_up(log: Path, workers: int) -> None:
    note(log, "up")
    until(lambda: [text for *_, text in notes(log)].count("up") >= workers)


def killed_once(item: str, _: Reserve, log: Path) -> str:
    before = [text for *_, text in notes(log)]
    note(log, f"begin {item}")
    if item == "always" or (item == "once" and "begin once" not in before):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1 if item == "slow" else 0.05)
    note(log, f"end {item}")
    return f"{item}: read"


def test_what_is_killed_is_tried_again_alone_in_a_new_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    items = ["a", "once", "b", "always", "c", "slow"]
    reads = run(partial(killed_once, log=log), items, workers=3, setup=partial(all_up, log, 3))
    reason = "the process reading it was killed (SIGKILL), most likely for want of memory"
    assert reads == ["a: read", f"always: {reason}", "b: read", "c: read", "once: read", "slow: read"]
    story = [(pid, text) for _, pid, text in notes(log) if text != "up"]
    second = max(number for number, (_, text) in enumerate(story) if text == "begin once")
    assert story[second + 1] == (story[second][0], "end once")
    assert {f"end {good}" for good in ("a", "b", "c", "slow")} <= {text for _, text in story[:second]}
    assert story[second][0] not in {pid for pid, _ in story[:second]}


def broken_by_the_one_before(item: str, _: Reserve, state: dict[str, bool] = {}) -> str:  # noqa: B006 - a process's memory
    if state.get("broken"):
        ctypes.string_at(0)
    state["broken"] = item == "breaker"
    return f"{item}: read"


def test_a_good_photo_after_one_that_broke_its_process_is_read() -> None:
    assert run(broken_by_the_one_before, ["breaker", "good"], workers=1) == ["breaker: read", "good: read"]


def reserving(item: tuple[int, int], reserve: Reserve, log: Path) -> str:
    number, size = item
    reserve(size)
    note(log, f"+{size}")
    time.sleep(0.02)
    note(log, f"-{size}")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return str(number)


def test_reserved_memory_never_exceeds_the_bound(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sizes = [40, 60, 30, 70, 10, 100, 250, 20, 50, 50, 90, 10]
    setup = partial(all_up, log, 4)
    run(partial(reserving, log=log), list(enumerate(sizes)), workers=4, memory_bytes=100, setup=setup)
    held, most, together = 0, 0, 0
    holders = 0
    for *_, text in notes(log):
        if text[0] in "+-":
            held += int(text)
            holders += 1 if text[0] == "+" else -1
            assert held <= 100 or holders == 1, "more than the bound, and not alone"
            most, together = max(most, held), max(together, holders)
    assert (held, most) == (0, 250)
    assert together > 1, "nothing ever ran together: the test shows nothing"


def test_memory_is_granted_first_come_first_served() -> None:
    memory = Memory(100)
    first, large, small = (Worker(NOTHING) for _ in range(3))
    try:
        memory.waiting.extend([(first, 60), (large, 90), (small, 1)])
        assert list(memory.grants()) == [first], "the small one would fit, but the large one came before"
        memory.release(first)
        assert list(memory.grants()) == [large, small]
    finally:
        for worker in (first, large, small):
            worker.dismiss()
            worker.fate()


def greedy(item: int, reserve: Reserve) -> str:
    reserve(1)
    reserve(2)
    return "never"


def test_reserving_twice_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"reserve\(2\) after reserve\(1\)"):
        run(greedy, [1])


class Unpicklable(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def raising(item: int, _: Reserve, error: str) -> object:
    match error:
        case "photo":
            raise PhotoError("no such thing", "missing")
        case "disk":
            raise OSError(28, "No space left on device", "work/a.tif")
        case "unpicklable":
            raise Unpicklable("a", "b")
    return lambda: "no pickle holds this"


def test_an_exception_arrives_with_the_childs_traceback() -> None:
    with pytest.raises(PhotoError, match="no such thing") as caught:
        run(partial(raising, error="photo"), [1, 2, 3])
    assert caught.value.kind == "missing"
    (told,) = caught.value.__notes__
    assert re.search(r'raised in a worker process:\nTraceback .*in raising\n.*PhotoError\("no such thing"', told, re.S)


def test_any_exception_arrives() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        run(partial(raising, error="disk"), [1])
    assert caught.value.filename == "work/a.tif"
    with pytest.raises(RuntimeError, match="Unpicklable: ab"):
        run(partial(raising, error="unpicklable"), [1])
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        run(partial(raising, error="result"), [1])


def prepare(how: str) -> None:
    if how == "raises":
        raise UserError("no such demosaic")
    if how == "dies":
        os._exit(7)
    os.environ["PREPARED"] = how


def prepared(item: int, _: Reserve) -> str:
    return os.environ["PREPARED"] + os.environ["OMP_NUM_THREADS"]


def test_setup_runs_first_and_its_failure_blames_no_item() -> None:
    assert run(prepared, [1, 2, 3], setup=partial(prepare, "yes")) == ["yes1"] * 3
    with pytest.raises(UserError, match="no such demosaic"):
        run(prepared, [1, 2, 3], setup=partial(prepare, "raises"))
    with pytest.raises(UserError, match=r"could not start: .* exit code 7.*runtime\.workers"):
        run(prepared, [1, 2, 3], setup=partial(prepare, "dies"))


def who(item: int, _: Reserve) -> int:
    return os.getpid()


def test_processes_are_no_more_than_items_and_serve_many() -> None:
    assert len(set(supervised(who, range(2), workers=8, lost=lost))) <= 2
    assert len(set(supervised(who, range(50), workers=2, lost=lost))) <= 2


def slow(item: int, _: Reserve) -> str:
    if item:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    return str(item)


def test_a_generator_closed_early_ends_its_processes(children) -> None:
    results = supervised(slow, [0, 1, 2], workers=2, lost=lost)
    assert next(results) == "0"
    assert len(children()) == 2
    results.close()
    assert children() == set()


def test_an_exception_in_the_callers_loop_ends_its_processes(children) -> None:
    def caller() -> None:
        for _ in supervised(slow, [0, 1, 2], workers=2, lost=lost):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        caller()
    assert children() == set()


PARENT = """
import signal, sys
from tests.test_processes import ROOT, lost, slow
from diffretouch.processes import supervised
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores Ctrl-C
if sys.argv[1] == "handles":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
for result in supervised(slow, [0, 1, 2], workers=2, lost=lost):
    print("first", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child that is busy in C with its parent")
@pytest.mark.parametrize(
    ("how", "number", "code"),
    [
        ("default", signal.SIGKILL, -signal.SIGKILL),
        ("default", signal.SIGTERM, -signal.SIGTERM),
        ("handles", signal.SIGTERM, 143),
        ("default", signal.SIGINT, -signal.SIGINT),
    ],
)
def test_children_end_with_their_parent(how: str, number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, how], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        assert parent.stdout.readline() == "first\n"
        its = psutil.Process(parent.pid).children()
        assert len(its) == 2
        parent.send_signal(number)
        try:
            assert parent.wait(60) == code
        finally:
            parent.kill()
        if number == signal.SIGINT:
            told = parent.stderr.read()
            assert told.count("KeyboardInterrupt") == told.count("Traceback") == 1
        until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in its))


def interrupted(item: int = 0, _: Reserve | None = None) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "did not see it"


def test_ctrl_c_is_left_to_the_parent() -> None:
    """A terminal sends it to the whole group, and one message is enough."""
    assert run(interrupted, [1], setup=interrupted) == ["did not see it"]


def double(item: int) -> int:
    time.sleep(0.1 if item == 0 else 0)
    return 2 * item


def crash_on_three(item: int) -> int:
    if item == 3:
        os.abort()
    return item


@pytest.mark.parametrize("workers", [1, 2])
def test_a_map_keeps_the_order(workers: int) -> None:
    assert list(map_in_processes(double, list(range(9)), workers)) == list(range(0, 18, 2))
    assert list(map_in_processes(double, [], workers)) == []


def test_a_map_says_what_to_do_when_a_process_is_lost() -> None:
    with pytest.raises(UserError, match=r"one of 2 worker processes was lost.*SIGABRT.*runtime\.workers"):
        list(map_in_processes(crash_on_three, list(range(9)), 2))
