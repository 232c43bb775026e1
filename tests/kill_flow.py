"""Faults put into a chain: kill -9 of flow, dvc, a stage or a worker; then outputs as if nothing had been killed.

In the small project of stand-ins for stages (tests/small_project.py), or in the real one (tests/tiny_project.py).
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import psutil

from flows import family
from tests import real_worker, small_project
from tests.fake_chain import ROOT
from tests.kill import require_same
from tests.small_project import dvc, until

VICTIMS = ("flow", "dvc", "stage", "worker")
RUN_S = 300
LOOK_S = 5.0


def run(root: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """The chain in `root`, as a process of its own."""
    words = [sys.executable, "-m", "flows.reproduce", "--root", str(root)]
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_while_running(
    root: Path,
    kills: int,
    seed: int,
    environment: Mapping[str, str],
    victims: Sequence[str] = VICTIMS,
    project: ModuleType = small_project,
) -> dict[str, int]:
    """`kills` chains of the `project` in `root` with one process killed at a random moment, each followed by one that
    ends.

    How many of each were killed. Raises AssertionError where outputs are not those of an undisturbed run, DVC does not
    call them up to date, or a process is left.
    """
    draw, killed = random.Random(seed), Counter[str]()
    took = finish(root, environment, "undisturbed")
    undisturbed = project.outputs(root)
    for number in range(kills):
        project.forget(root)
        victim = victims[number % len(victims)]
        if victim == "worker":
            where = f"kill {number}, of a worker"
            kill_worker(root, draw.uniform(0.0, took), where)
            killed[victim] += 1
            require_undisturbed(root, project, undisturbed, where)
            continue
        flow = run(root, environment)
        until(lambda: family.members(root) or flow.poll() is not None, RUN_S, "a stage")  # noqa: B023
        time.sleep(draw.uniform(0.0, took))
        end = time.monotonic() + LOOK_S
        while (found := victim_of(victim, flow, root, draw)) is None and flow.poll() is None and time.monotonic() < end:
            time.sleep(0.02)  # between two stages there is none for a while
        if found is None:
            victim = "flow"
        where = f"kill {number}, of {victim}"
        with suppress(psutil.NoSuchProcess):  # it has ended in this moment
            (found or psutil.Process(flow.pid)).kill()
        killed[victim] += 1
        if victim == "flow":
            flow.wait()
        else:
            said, _ = flow.communicate(timeout=RUN_S)
            assert not family.members(root), f"{where}: left behind by a flow that lives:\n{said}"
        finish(root, environment, where)
        require_undisturbed(root, project, undisturbed, where)
    return dict(killed)


def kill_worker(root: Path, after_s: float, where: str) -> None:
    """A worker killed so long after its run's first stage began; then the deployment's next run, by another worker."""
    with real_worker.running() as doomed:
        lost = real_worker.started(root)
        until(lambda: family.members(root), RUN_S, f"{where}: a stage")
        time.sleep(after_s)
        doomed.kill()
    with real_worker.running():
        again = real_worker.started(root)
        until(lambda: real_worker.state_of(again) == "COMPLETED", RUN_S, f"{where}: the next run's end")
    # its flow lives on by itself
    assert (state := real_worker.state_of(lost)) == "COMPLETED", f"{where}: the run it had started is {state}"


def require_undisturbed(root: Path, project: ModuleType, undisturbed: Mapping[str, str], where: str) -> None:
    """AssertionError unless outputs are the undisturbed ones, DVC agrees, and nothing is left running."""
    require_same(project.outputs(root), dict(undisturbed), where)
    assert not family.members(root), f"{where}: left behind"
    assert "up to date" in dvc(root, "status"), where


def finish(root: Path, environment: Mapping[str, str], where: str) -> float:
    """A run that is let alone; seconds from its first stage's beginning to its last one's end."""
    flow = run(root, environment)
    until(lambda: family.members(root) or flow.poll() is not None, RUN_S, "a stage")
    start = last = time.monotonic()
    while flow.poll() is None and time.monotonic() < start + RUN_S:
        last = time.monotonic() if family.members(root) else last
        time.sleep(0.1)
    said, _ = flow.communicate(timeout=1)
    assert flow.returncode == 0, f"{where}: {said}"
    return last - start


def victim_of(kind: str, flow: subprocess.Popen[str], root: Path, draw: random.Random) -> psutil.Process | None:
    """A process to kill; None where there is none of the kind just now."""
    if kind == "flow":
        return psutil.Process(flow.pid) if flow.poll() is None else None
    found = [process for process in family.members(root) if family.is_dvc(process) == (kind == "dvc")]
    return draw.choice(found) if found else None
