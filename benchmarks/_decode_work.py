"""What decode's benchmark and soak have worker processes do; a module of its own, because work is sent by name."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import rawpy
import tifffile
from numpy.typing import NDArray

from diffretouch.decoding import ledger, photo
from diffretouch.decoding.task import Done, Task, work
from diffretouch.files import formats, pictures, raw
from diffretouch.files.icc import icc
from diffretouch.files.srgb import light_of_steps, srgb_encode
from diffretouch.worker import Reserve

STRIP = 256
# what a script that trusts its files would leave out, and where it is called
CHECKS: dict[str, list[tuple[Any, str]]] = {
    "is stable": [(raw, "check_stable")],
    "is not empty": [(raw, "check_filled"), (photo, "check_filled")],
    "registration": [(photo, "check_registration"), (photo, "_grey")],
    "digests of files": [(ledger.Digests, "of")],
    "EXIF": [(raw, "read_exif")],
    "waiting for the disk": [(os, "fsync")],
}


@dataclass(frozen=True)
class Bare:
    """A photo for `bare`."""

    source: Path
    experts: dict[str, Path]
    out: Path
    demosaic: str
    half_size: bool
    short_edge: int | None


def bare(item: Bare, _: Reserve | None = None) -> None:
    """The least that makes the same files: LibRaw, tables, LittleCMS, tifffile; no check, no digest, no flush."""
    light = develop(item)
    size = None
    if item.short_edge is not None:
        scale = item.short_edge / min(light.shape[:2])
        size = round(light.shape[0] * scale), round(light.shape[1] * scale)
    write(item, "input", encoded(light, size))
    del light
    for name, path in item.experts.items():
        with tifffile.TiffFile(path) as file:
            profile = file.pages.first.tags.valueof(34675)
            stored = file.pages.first.asarray()
        image = imagecodecs.cms_transform(
            stored, profile, icc("srgb"), colorspace="rgb", outcolorspace="rgb", outdtype="uint16"
        )
        if size is not None:
            image = _reduced(light_of_steps(), image, size)
        write(item, f"expert_{name}", image)


def develop(item: Bare) -> NDArray[np.uint16]:
    """Bare rawpy: 16-bit linear light as the stage asks LibRaw for it."""
    with rawpy.imread(str(item.source)) as opened:
        light: NDArray[np.uint16] = opened.postprocess(
            gamma=(1, 1),
            no_auto_bright=True,
            output_bps=16,
            use_camera_wb=True,
            adjust_maximum_thr=0.0,
            demosaic_algorithm=rawpy.DemosaicAlgorithm[item.demosaic],
            half_size=item.half_size,
        )
    return light


def encoded(light: NDArray[np.uint16], size: tuple[int, int] | None) -> NDArray[np.uint16]:
    """To 16-bit sRGB by a table, or by way of a smaller size."""
    if size is not None:
        return _reduced(np.arange(65536, dtype=np.float32) / np.float32(65535), light, size)
    image = np.empty(light.shape, np.uint16)
    for top in range(0, len(light), STRIP):
        image[top : top + STRIP] = _curve()[light[top : top + STRIP]]
    return image


def write(item: Bare, name: str, image: NDArray[np.uint16]) -> None:
    """With the stage's compression."""
    path = item.out / name / f"{item.source.stem}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    formats.write_tiff(path, image, icc("srgb"))


def _reduced(table: NDArray[np.float32], steps: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.uint16]:
    light = np.stack([pictures.resize(table.take(steps[..., k], mode="clip"), size) for k in range(3)], axis=2)
    return pictures.to_uint(srgb_encode(light, out=light), 16)


@cache
def _curve() -> NDArray[np.uint16]:
    light = np.arange(65536) / 65535
    return pictures.to_uint(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055), 16)


def in_checks(item: Task, reserve: Reserve) -> dict[str, float]:
    """The stage's own work on a photo: seconds of each of CHECKS, of CPU and of the clock."""
    spent: dict[str, float] = defaultdict(float)
    with _clocked(spent):
        done = work(item, reserve)
    _require_ok(done)
    return dict(spent)


@contextmanager
def _clocked(spent: dict[str, float]) -> Iterator[None]:
    places = [(name, owner, attribute) for name, found in CHECKS.items() for owner, attribute in found]
    before = [getattr(owner, attribute) for _, owner, attribute in places]
    for (name, owner, attribute), function in zip(places, before, strict=True):
        setattr(owner, attribute, _with_clock(name, function, spent))
    try:
        yield
    finally:
        for (_, owner, attribute), function in zip(places, before, strict=True):
            setattr(owner, attribute, function)


def _with_clock(name: str, function: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def clocked(*words: Any, **named: Any) -> Any:
        start = time.process_time(), time.perf_counter()
        try:
            return function(*words, **named)
        finally:
            spent[f"{name}, CPU"] += time.process_time() - start[0]
            spent[f"{name}, clock"] += time.perf_counter() - start[1]

    return clocked


def peak_mib(item: Bare | Task, reserve: Reserve) -> float:
    """MiB that this process grows by, at its peak, while it works on a photo; for a new process."""
    (_curve(), photo._curve(0.0), light_of_steps())  # tables made once a process are not the photo's
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux, proc_pid_clear_refs(5))
    before = _status("VmHWM")
    if isinstance(item, Task):
        _require_ok(work(item, reserve))
    else:
        bare(item)
    return _status("VmHWM") - before


def peak_mib_of_rawpy(item: Bare, _: Reserve) -> float:
    """As `peak_mib`, of rawpy alone: its 16-bit picture and nothing else."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmHWM")
    develop(item)
    return _status("VmHWM") - before


def _require_ok(done: Done) -> None:
    if done.record.row["status"] != "ok":
        raise RuntimeError(f"{done.photo_id} cannot be used: {done.record.row['reason']}")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


TIMES = Path("times.jsonl")


def timed(task: Task, reserve: Reserve) -> Done:
    """`diffretouch.decoding.task.work` with a line in TIMES: the photo and the CPU and wall seconds it took."""
    start = time.perf_counter(), time.process_time()
    done = work(task, reserve)
    took = {"seconds": time.perf_counter() - start[0], "cpu_seconds": time.process_time() - start[1]}
    with TIMES.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"photo": task.photo.photo_id, **took}) + "\n")
    return done
