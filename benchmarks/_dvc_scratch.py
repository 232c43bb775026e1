"""A throw-away git and DVC repository to measure in: real commands, each a process of its own, timed from outside."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Took:
    """What one command cost: wall and CPU seconds, peak memory in MiB, and the cores everything else kept busy."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    other_cores: float


Case = dict[str, Took | float | str]
"""What was found in one case: a command or a question, and its cost or answer."""


class Scratch:
    """A git and DVC repository in `folder`, its hash database beside it, deaf to the user's own DVC settings."""

    def __init__(self, folder: Path, remote: Path) -> None:
        self.folder, self.remote = folder, remote
        self.database = folder.with_name(folder.name + ".database")

    @classmethod
    def new(cls, folder: Path, link_type: str = "reflink,copy") -> Scratch:
        """An empty repository with this `cache.type` (DVC's own choice if not named) and a remote beside it."""
        scratch = cls(folder, folder.with_name(folder.name + ".remote"))
        folder.mkdir(parents=True)
        scratch.git("init", "--quiet")
        scratch.dvc("init", "--quiet")
        scratch.dvc("config", "cache.type", link_type)
        scratch.dvc("remote", "add", "--quiet", "--default", "lab", str(scratch.remote))
        return scratch

    def clone(self, name: str) -> Scratch:
        """A second person's clone: no cache and no hash database yet, the same remote."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "measured")
        other = Scratch(self.folder.with_name(name), self.remote)
        self.git("clone", "--quiet", str(self.folder), str(other.folder))
        return other

    @property
    def cache(self) -> Path:
        """Where DVC keeps every version of every file."""
        return self.folder / ".dvc" / "cache"

    def git(self, *words: str) -> None:
        """One git command; CalledProcessError where it fails."""
        who = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org", "-c", "core.autocrlf=false")
        subprocess.run(["git", *who, *words], cwd=self.folder, check=True)

    def dvc(self, *words: str) -> Took:
        """One DVC command and its cost; RuntimeError with what it printed where it fails."""
        config = str(self.folder.with_name("no-config"))
        settings = {
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.database),
            "DVC_GLOBAL_CONFIG_DIR": config,
            "DVC_SYSTEM_CONFIG_DIR": config,
        }
        command, log = [sys.executable, "-m", "dvc", *words], self.folder.with_name(self.folder.name + ".log")
        busy, start = _busy_seconds(), time.perf_counter()
        with log.open("w") as terminal:
            process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | settings, stdout=terminal, stderr=subprocess.STDOUT
            )
            # wait4 and not wait: it tells what this child alone has used
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"dvc {' '.join(words)}: exit code {process.returncode}\n{log.read_text()}")
        cpu = usage.ru_utime + usage.ru_stime
        others = max(0.0, (_busy_seconds() - busy - cpu) / seconds)
        return Took(seconds, cpu, usage.ru_maxrss / 1024, others)

    def median(self, *words: str, rounds: int = 3) -> Took:
        """The command run `rounds` times: the run of median wall time. For commands that change nothing."""
        return sorted((self.dvc(*words) for _ in range(rounds)), key=lambda took: took.seconds)[rounds // 2]


def _busy_seconds() -> float:
    """CPU seconds all processes of the machine have used, from the first line of /proc/stat."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def fill(paths: Iterable[Path], seed: int = 0, low: int = 4 * 1024, high: int = 40 * 1024) -> None:
    """Random bytes, of a random size between `low` and `high`, into each path; the same for the same seed."""
    draw = random.Random(seed)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.randbytes(draw.randint(low, high)))


def bytes_in(folder: Path) -> int:
    """Sum of the sizes of all files below a folder; 0 where there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def free_bytes(folder: Path) -> int:
    """What the file system has left once everything is on disk."""
    os.sync()
    state = os.statvfs(folder)
    return state.f_bfree * state.f_frsize
