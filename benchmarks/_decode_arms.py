"""The ways that decode's benchmark compares, in the folder that holds data/fivek: what each costs a setting."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import _decode_work
from benchmarks._decode_work import Bare
from diffretouch.config import Params, load
from diffretouch.corpus.layout import list_photos
from diffretouch.decoding import task
from diffretouch.decoding.photo import Settings
from diffretouch.decoding.task import Task
from diffretouch.files.workspace import corpus_dir, stage_dir
from diffretouch.processes import supervised
from diffretouch.stages import decode

BASE = load(Path(__file__).parents[1] / "params.yaml")
WORKERS = 2
PLAIN = Path("plain")
DCRAW_QUALITY = {"LINEAR": "0", "AHD": "3", "DHT": "11"}


@dataclass(frozen=True)
class Setting:
    """What is asked of decode."""

    demosaic: str
    experts: tuple[str, ...] = ("a", "b")
    """None: the photos' RAWs alone, which the stage itself never does; its work on a photo is called instead."""
    short_edge: int | None = None
    """Where given, half-size developing is allowed."""

    def __str__(self) -> str:
        size = "full size" if self.short_edge is None else f"half size, short edge {self.short_edge}"
        return f"{self.demosaic}, {size}, {f'{len(self.experts)} experts' if self.experts else 'RAWs alone'}"

    def params(self, registration: float | None = 1.0) -> Params:
        """params.yaml's, for this."""
        tree = BASE.model_dump(mode="json")
        tree["corpora"]["fivek"] |= {"experts": ["a", "b"], "short_edge": self.short_edge}
        wanted = {"demosaic": self.demosaic, "half_size": self.short_edge is not None, "registration": registration}
        tree["decode"] |= wanted | {"profile": "bench-1", "input": "raw", "picture": {"format": "tif", "bits": 16}}
        tree["runtime"] |= {"workers": WORKERS, "executor": "process"}
        return Params.model_validate(tree)

    def tasks(self) -> list[Task]:
        """What the stage hands its workers."""
        params = self.params()
        settings = Settings(stage_dir("decode", "fivek"), params.decode, params.corpora["fivek"])
        photos = list_photos(corpus_dir("fivek"), "ab")
        kept = [replace(photo, experts={x: photo.experts[x] for x in self.experts}) for photo in photos]
        return [Task(photo, settings, "", {}, None) for photo in kept]

    def bare(self) -> list[Bare]:
        """The same for bare rawpy."""
        half = self.short_edge is not None
        photos = [one.photo for one in self.tasks()]
        return [Bare(p.raw, p.experts, PLAIN, self.demosaic, half, self.short_edge) for p in photos]


def speed(setting: Setting, photos: int, rounds: int, dcraw: str | None) -> dict[str, Any]:
    """Every way by turns, `rounds` times, on the first `photos` photos: seconds of the clock and of CPU; the checks."""
    tasks, plain = setting.tasks()[:photos], setting.bare()[:photos]
    ways: dict[str, Callable[[], object]] = {"bare rawpy": lambda: run(_decode_work.bare, plain)}
    if setting.experts and photos == len(setting.tasks()):
        ways["stage"] = lambda: decode.run(setting.params(), "fivek")
        ways["stage, registration null"] = lambda: decode.run(setting.params(None), "fivek")
    else:
        ways["stage"] = lambda: run(task.work, tasks)
    if dcraw is not None:
        ways["dcraw_emu, RAWs alone"] = lambda: run_dcraw(dcraw, setting, plain)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, act in ways.items():
            print(f"   {setting}: {way}", flush=True)
            found[way].append(cost(act))
            if way == "stage" and setting.short_edge is None:
                require_same(plain[0])
    _fresh()
    checks = pd.DataFrame(list(supervised(_decode_work.in_checks, tasks[:4], workers=WORKERS, lost=_lost)))
    ratios = [s["cpu_seconds"] / b["cpu_seconds"] for s, b in zip(found["stage"], found["bare rawpy"], strict=True)]
    clock = [s["seconds"] / b["seconds"] for s, b in zip(found["stage"], found["bare rawpy"], strict=True)]
    in_checks = checks.filter(like="CPU").mean().sum() * photos
    bare_cpu = statistics.median(x["cpu_seconds"] for x in found["bare rawpy"])
    return {
        "photos": photos,
        "rounds": rounds,
        "ways": {way: summed(runs) for way, runs in found.items()},
        "stage / bare, clock": statistics.median(clock),
        "stage / bare, CPU": statistics.median(ratios),
        "stage without checks / bare, CPU": statistics.median(ratios) - in_checks / bare_cpu,
        "checks, seconds a photo": checks.fillna(0).mean().to_dict(),
    }


def run(work: Callable[..., Any], items: list[Any]) -> list[Any]:
    """In as many processes as the stage has, of the same kind."""
    return list(supervised(work, items, workers=WORKERS, lost=_lost))


def cost(act: Callable[[], object]) -> dict[str, float]:
    """Seconds of the clock and of CPU, children's included; begun with nothing left to write to the disk."""
    _fresh()
    start, used = time.perf_counter(), _cpu()
    act()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": _cpu() - used}


def run_dcraw(program: str, setting: Setting, photos: list[Bare]) -> None:
    """LibRaw's own command line, as many at a time, with the same demosaicking; it writes plain linear TIFFs."""
    options = ["-q", DCRAW_QUALITY[setting.demosaic], "-4", "-w", "-c", "0", "-o", "1", "-T"]
    options += ["-h"] if setting.short_edge is not None else []
    PLAIN.mkdir()

    def one(photo: Bare) -> None:
        command = [program, *options, "-Z", f"{PLAIN}/{photo.source.stem}.tif", str(photo.source)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, photos))


def require_same(photo: Bare) -> None:
    """RuntimeError unless the input that the stage has just made is what bare rawpy makes: the same file."""
    _decode_work.bare(replace(photo, experts={}))
    name = f"input/{photo.source.stem}.tif"
    found, expected = (folder / name for folder in (stage_dir("decode", "fivek"), PLAIN))
    if found.read_bytes() != expected.read_bytes():
        raise RuntimeError(f"the stage's {name} is not that of bare rawpy: they cannot be compared")


def peaks(setting: Setting) -> dict[str, float]:
    """MiB at the peak of a process that makes one photo, beyond those after imports."""
    ways: dict[str, tuple[Callable[..., float], Any]] = {
        "rawpy's picture alone": (_decode_work.peak_mib_of_rawpy, setting.bare()[0]),
        "bare rawpy": (_decode_work.peak_mib, setting.bare()[0]),
        "stage": (_decode_work.peak_mib, setting.tasks()[0]),
    }
    found = {}
    for way, (work, item) in ways.items():
        _fresh()
        (found[way],) = supervised(work, [item], workers=1, lost=_lost)
    return found


def summed(runs: list[dict[str, float]]) -> dict[str, float]:
    """Smallest and median of what `cost` found."""
    return {
        f"{name}, {word}": of(run[name] for run in runs)
        for name in runs[0]
        for word, of in (("min", min), ("median", statistics.median))
    }


def _lost(item: object, reason: str) -> Any:
    raise RuntimeError(f"{item}: {reason}")


def _fresh() -> None:
    for folder in (Path("work"), PLAIN):
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)
