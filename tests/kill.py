"""Faults put into the decode stage: kill -9 at random moments, then the outputs of a run that was never killed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from diffretouch.files.workspace import journal_file
from tests.fake_chain import ROOT

STAGE = [sys.executable, "-c", "from diffretouch.cli import main; main()"]
COMMAND = [*STAGE, "decode", "fivek"]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def environment() -> dict[str, str]:
    """For a stage run by hand: this tree's package, one thread of OpenMP."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def kill_while_decoding(root: Path, kills: int, seed: int) -> None:
    """In `root` (holding data/fivek): `kills` runs killed at random moments, each followed by one that ends.

    Raises AssertionError where the outputs are not those of an undisturbed run, or a process is left behind.
    """
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    out, draw = root / "work/decode", random.Random(seed)
    start = time.monotonic()
    subprocess.run(COMMAND, cwd=root, env=environment(), check=True, capture_output=True)
    took, undisturbed = time.monotonic() - start, digests(out)
    for number in range(kills):
        # every other one into what an earlier kill left, the others from the start
        if number % 2 == 0:
            shutil.rmtree(root / "work")
        # a group of its own: the workers are to die with it, or by themselves
        run = subprocess.Popen(COMMAND, cwd=root, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        moment = draw.uniform(0.2, 1.0) * took
        time.sleep(moment)
        run.send_signal(signal.SIGKILL)
        run.wait()
        again = subprocess.run(COMMAND, cwd=root, env=environment(), capture_output=True, text=True, check=False)
        where = f"kill {number} after {moment:.2f} s of {took:.2f} s"
        assert again.returncode == 0, f"{where}: {again.stderr}"
        require_same(digests(out), undisturbed, where)
        assert (root / journal_file("fivek")).exists()


def require_same(found: dict[str, str], undisturbed: dict[str, str], where: str) -> None:
    """AssertionError, with their names, where files are missing, too many or other than in an undisturbed run."""
    differing = sorted(name for name in found.keys() | undisturbed.keys() if found.get(name) != undisturbed.get(name))
    assert not differing, f"{where}: {differing} differ"
