"""Applying a grid to a 24-megapixel photo: in bands of rows (what the pipeline does) against all at once.

`python -m benchmarks.grid` runs each way in a process of its own, in turn, and prints seconds, peak memory and ratios.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from diffretouch.bilateral_grid import apply_affine, slice_and_apply, slice_grid

HEIGHT, WIDTH, ROUNDS = 4000, 6000, 3


def once(way: str) -> dict[str, float]:
    """Seconds and peak MiB of one application in this process."""
    draw = torch.Generator().manual_seed(0)
    grid = torch.rand(1, 12, 8, 16, 16, generator=draw)
    photo = torch.rand(1, 3, HEIGHT, WIDTH, generator=draw)
    guide = photo.mean(1, keepdim=True)
    start = time.perf_counter()
    with torch.no_grad():
        slice_and_apply(grid, guide, photo) if way == "bands" else apply_affine(slice_grid(grid, guide), photo)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.perf_counter() - start, "peak_mib": peak}


def main() -> None:
    """Both ways in turn, ROUNDS times; medians and their ratios."""
    found: dict[str, list[dict[str, float]]] = {"bands": [], "at once": []}
    for _ in range(ROUNDS):
        for way, results in found.items():
            command = [sys.executable, "-m", "benchmarks.grid", way]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    medians = {w: {k: statistics.median(x[k] for x in runs) for k in runs[0]} for w, runs in found.items()}
    for way, numbers in medians.items():
        print(f"{way:8} {numbers['seconds']:6.2f} s  peak {numbers['peak_mib']:6.0f} MiB")
    for key in ("seconds", "peak_mib"):
        print(f"at once / bands, {key}: {medians['at once'][key] / medians['bands'][key]:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(once(sys.argv[1])))
    else:
        main()
