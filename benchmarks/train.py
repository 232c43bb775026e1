"""Training as the project does it beside a plain eager loop: ground truths a second, memory, FLOPs utilisation.

`python -m benchmarks.train [--profile cpu] [--batch N] [--threads N] [--seconds S] [--rounds 3] [--compiled]
[--leave-out WAY] [PART ...]` writes benchmarks/results/train-<profile>-<device>.{json,md}. Parts: with (L_cl as the
profile has it), without (none); without a name, both. Parts not named keep their earlier results. The profile is fivek
where there is a GPU, else cpu.

The ways, all of the same network from random weights, batch, losses, optimiser, clipping and average of the weights:

 - ours: `training.loop.fit` as the stage calls it, in the profile's precision: cross-attention's single-token shortcut,
   latents that were encoded beforehand, torch.compile where the profile's runtime says so;
 - ours, eager: the same without torch.compile, where the profile has it; with `--compiled`, where it has not, ours,
   compiled (on a CPU it takes minutes to start);
 - plain: an eager loop of some ten lines with diffusers' own attention and norms, in which the autoencoder encodes the
   ground truths of each step;
 - plain, fp32: the same without bf16, where the profile has bf16. torch's defaults hold: TF32 in convolutions alone.

Each way trains in a process of its own, in windows of `--seconds` by turns, `--rounds` times; a figure is the median of
the windows, a ratio the median of the ratios within a round. On a GPU a process is gone before the next one starts, so
memory is one way's alone; on the CPU the others wait without work. Ground truths (a photo with one expert's result)
are made up and lie in memory: reading them is not measured, and neither is validating or saving. Where a way finds too
little memory on the GPU, all begin again with half the batch; `--leave-out "plain, fp32"` leaves out the one that needs
the most.

Model FLOPs are those of `ours` on one ground truth, whichever way is timed: multiplications and additions of the
matrix products and convolutions in one forward and backward pass of the trained networks, nothing computed twice (no
gradient checkpointing, no recomputed attention), no autoencoder, nothing elementwise; with L_cl, of all its branches.
Utilisation is model FLOPs a second over the device's published dense rate in bf16; it is left out in fp32, and where no
rate is known. GiB is the most that tensors held on the GPU during a window, or the most that the process held of the
CPU's memory.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks._train_report import KINDS, report
from benchmarks._train_running import Running, TooLargeError
from benchmarks._train_worker import Asked
from diffretouch.config import Params, load
from diffretouch.devices import pick_device
from diffretouch.files.atomic import write_json, write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PARTS = ("with", "without")


def main() -> None:
    """Measure the parts asked for; the results are written anew after each."""
    asked = arguments()
    params = load(asked.profile)
    device = pick_device(params.runtime.device).type
    path = RESULTS / f"train-{asked.profile.stem}-{device}.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for part in asked.parts:
        control = params.train.control_loss if part == "with" else "none"
        print(f"== {part} L_cl ({control})", flush=True)
        before = round(os.getloadavg()[0], 1)
        results[part] = measure(asked, params, control, device)
        results[part]["facts"] |= {"load average before": before, "load average after": round(os.getloadavg()[0], 1)}
        write_json(path, results)
        write_text(path.with_suffix(".md"), report(results))
    print(report(results))


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--profile", default="fivek" if gpu else "cpu", help="a file of profiles/")
    parser.add_argument("--batch", type=int, help="ground truths a step; the profile's if not named")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; the profile's if not named")
    parser.add_argument("--seconds", type=float, default=20.0 if gpu else 4.0, help="of a window")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each way")
    parser.add_argument("--compiled", action="store_true", help="ours with torch.compile, where the profile has none")
    parser.add_argument("--leave-out", action="append", default=[], metavar="WAY", help="one of the ways but ours")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(PARTS)}")
    asked.parts = asked.parts or PARTS
    asked.profile = ROOT / f"profiles/{asked.profile}.yaml"
    return asked


def measure(asked: argparse.Namespace, params: Params, control: str, device: str) -> dict[str, Any]:
    """Every way's windows, with the largest batch up to the one asked for that all of them have memory for."""
    batch = asked.batch or params.train.batch_size
    while True:
        ways = processes(asked, params, control, batch)
        try:
            said, windows = by_turns(ways, asked.rounds, asked.seconds, keep=device == "cpu")
        except TooLargeError as too_large:
            if batch == 1:
                sys.exit(f"{too_large}: not even one ground truth a step fits into this GPU's memory")
            batch //= 2
            print(f"{too_large}: again with {batch} ground truths a step", flush=True)
            continue
        facts = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "device": said["ours"]["device"] or f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "threads": ways["ours"].threads,
            "versions": {name: version(name) for name in ("torch", "diffusers", "accelerate")},
            "network_size": params.train.network_size,
            "parameters": said["ours"]["parameters"],
            "precision": params.train.precision,
            "control_loss": control,
            "batch": batch,
            "model GFLOP a ground truth": round(said["ours"]["flops"] / 1e9, 3),
        }
        return {"facts": facts, "ways": {name: summed(found, windows) for name, found in windows.items()}}


def processes(asked: argparse.Namespace, params: Params, control: str, batch: int) -> dict[str, Asked]:
    """What each way's process is asked."""
    precision, compiles = params.train.precision, params.runtime.compile

    def way(precision: str, *, plain: bool, compiled: bool) -> Asked:
        threads = asked.threads or params.runtime.threads
        return Asked(str(asked.profile), control, batch, threads, precision, plain, compiled)

    found = {"ours": way(precision, plain=False, compiled=compiles)}
    if compiles or asked.compiled:
        found["ours, eager" if compiles else "ours, compiled"] = way(precision, plain=False, compiled=not compiles)
    found["plain"] = way(precision, plain=True, compiled=False)
    if precision != "fp32":
        found["plain, fp32"] = way("fp32", plain=True, compiled=False)
    if unknown := set(asked.leave_out) - (found.keys() - {"ours"}):
        sys.exit(f"--leave-out {', '.join(sorted(unknown))}: expected any of {', '.join(list(found)[1:])}")
    return {name: asked_of for name, asked_of in found.items() if name not in asked.leave_out}


Windows = dict[str, list[dict[str, Any]]]
"""Way to what its process measured in each round."""


def by_turns(
    ways: dict[str, Asked], rounds: int, seconds: float, *, keep: bool
) -> tuple[dict[str, dict[str, Any]], Windows]:
    """What the ways' processes say of themselves, and their windows; `keep` lets them live from round to round."""
    said: dict[str, dict[str, Any]] = {}
    windows: Windows = {name: [] for name in ways}
    with ExitStack() as alive:
        running: dict[str, Running] = {}
        for _ in range(rounds):
            for name, way in ways.items():
                run = running.get(name) or alive.enter_context(Running(name, way))
                said[name] = run.said
                windows[name].append(run.window(seconds))
                print(f"   {name}: {windows[name][-1]['seconds a step']:.3f} s a step", flush=True)
                if keep:
                    running[name] = run
                else:
                    alive.close()
    return said, windows


def summed(found: list[dict[str, Any]], windows: Windows) -> dict[str, Any]:
    """Medians over a way's windows, and how many times longer a step takes than in the other ways."""
    ratios = {
        kind: {
            name: median(one[kind] / another[kind] for one, another in zip(found, other, strict=True))
            for name, other in windows.items()
            if other is not found
        }
        for kind in KINDS
    }
    return {
        **{kind: median(window[kind] for window in found) for kind in KINDS},
        **{f"{kind}, over": ratios[kind] for kind in KINDS},
        "GiB": max(window["GiB"] for window in found),
        "windows": found,
    }


if __name__ == "__main__":
    main()
