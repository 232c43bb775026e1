"""Faults put into the train stage: killed or asked to stop at random moments, then the bytes of a run left in peace."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import yaml

from diffretouch.files.workspace import training_dir
from tests.forked import LONGEST_S, Forked, Run
from tests.kill import STAGE, digests, environment, require_same

WORDS = ("train", "fivek")
STATES = training_dir("fivek")
LEAVES_WITHIN_S = 30.0
NOTICES_WITHIN_S = 60.0
"""A process whose parent was killed may see it no sooner than its imports are done."""
Start = Callable[..., Run]
"""(root, seconds until the signal, the signal) to how the run ended; no signal where none is named."""


def kill_while_training(root: Path, kills: int, seed: int) -> None:
    """In `root`, as `write_start` leaves it: `kills` runs killed at moments spread over a whole one, then run again.

    The moments count from the end of imports; every other run is killed twice. AssertionError where one does not take
    up the newest state, or ends with other files than an undisturbed one, those of work/.resume included.
    """
    draw = random.Random(seed)
    with Forked(*WORDS) as stage:
        trial = Trial(root, stage.run)
        for number in range(kills):
            again = [draw.random()] if number % 2 else []
            trial.stand(stage.run, [(number + draw.random()) / kills, *again], signal.SIGKILL)


def stop_while_training(root: Path, stops: int, seed: int) -> float:
    """As `kill_while_training`, asked to stop by SIGTERM: the most seconds that a run needed to leave."""
    draw = random.Random(seed)
    with Forked(*WORDS) as stage:
        trial = Trial(root, stage.run)
        moments = [(number + draw.random()) / stops for number in range(stops)]
        return max(trial.stand(stage.run, [moment], signal.SIGTERM) for moment in moments)


def disturb_two(root: Path, turns: int, seed: int) -> float:
    """As both of these, with two processes that train together: their parent is killed while they are still starting;
    then each turn kills the parent alone, kills each of the two alone, and asks the parent to stop.
    """
    draw = random.Random(seed)
    _use_two_processes(root)
    trial, longest = Trial(root, _two), 0.0
    trial.stand(_two, [0], signal.SIGKILL)
    for _ in range(turns):
        for victim in (None, 0, 1):
            trial.stand(partial(_two, victim=victim), [draw.uniform(0, 0.8)], signal.SIGKILL)
        longest = max(longest, trial.stand(_two, [draw.uniform(0, 0.8)], signal.SIGTERM))
    return longest


class Trial:
    """What a run left in peace makes of a folder, to hold disturbed ones against."""

    def __init__(self, root: Path, start: Start) -> None:
        self.root, self.start = root, start
        _forget(root)
        self.took = self._end("left in peace").seconds
        self.undisturbed = _made(root)

    def stand(self, start: Start, moments: list[float], number: int) -> float:
        """From nothing, a run disturbed at each of `moments` (shares of a whole run) in turn, then one left in peace.

        The most seconds from a signal to its run's end.
        """
        _forget(self.root)
        where = (
            f"{signal.Signals(number).name} at {', '.join(f'{share:.3f}' for share in moments)} of {self.took:.2f} s"
        )
        runs = [start(self.root, share * self.took, number) for share in moments]
        expected = {0, 1, -signal.SIGKILL} if number == signal.SIGKILL else {0, 128 + number}
        assert {run.code for run in runs} <= expected, f"{where}: {runs}"
        saved = (self.root / STATES).glob("states-*/step-*.pt")
        newest = max((int(path.stem.split("-")[1]) for path in saved), default=0)
        taken = re.search(r"going on from step (\d+)", self._end(where).said)
        assert newest == (int(taken[1]) if taken else 0), f"{where}: the state of step {newest} was not taken up"
        require_same(_made(self.root), self.undisturbed, where)
        longest = max(run.seconds for run in runs)
        assert longest < LEAVES_WITHIN_S, f"{where}: it took {longest:.1f} s to leave"
        return longest

    def _end(self, where: str) -> Run:
        run = self.start(self.root)
        assert run.code == 0, f"{where}: {run.said}"
        return run


def _two(root: Path, after: float | None = None, number: int = signal.SIGKILL, victim: int | None = None) -> Run:
    """The stage with two processes, whose parent gets the signal, or the one of them that `victim` names.

    Seconds count from when they begin to prepare, and 0 is as soon as they are there.
    """
    log = root / "said.txt"
    with log.open("w") as said:
        run = subprocess.Popen([*STAGE, *WORDS], cwd=root, env=environment(), stdout=said, stderr=said)
    try:
        _wait(lambda: run.poll() is not None or len(psutil.Process(run.pid).children()) == 2)
        if after != 0:
            _wait(lambda: run.poll() is not None or (root / STATES).exists())
        start = time.monotonic()
        if after is not None:
            time.sleep(after)
            _send(run, number, victim)
            start = time.monotonic()
        code = run.wait(LONGEST_S)
        took = time.monotonic() - start
        _wait(lambda: not _at_work(root), NOTICES_WITHIN_S)
    finally:
        run.kill()
    return Run(code, took, log.read_text())


def _send(run: subprocess.Popen[bytes], number: int, victim: int | None) -> None:
    if victim is None:
        run.send_signal(number)
    elif run.poll() is None:
        for process in psutil.Process(run.pid).children():
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if process.environ()["RANK"] == str(victim):
                    process.send_signal(number)


def _at_work(root: Path) -> list[int]:
    """Processes that run in `root`."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == root.resolve():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _wait(happened: Callable[[], object], limit_s: float = LONGEST_S) -> None:
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def _use_two_processes(root: Path) -> None:
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["runtime"]["processes"] = 2
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def _made(root: Path) -> dict[str, str]:
    """Everything that training makes."""
    return {
        f"{folder}/{name}": digest
        for folder in (STATES, Path("work/train/fivek"), Path("reports/fivek/training"))
        for name, digest in digests(root / folder).items()
    }


def _forget(root: Path) -> None:
    """As if training had never been begun."""
    for folder in (STATES, Path("work/train"), Path("reports/fivek/training")):
        shutil.rmtree(root / folder, ignore_errors=True)
