"""What the stages that judge cost: attributes, evaluate, embed and study, in CPU seconds of one process.

`python -m benchmarks.judging [--photos 3]` makes photos of 720 x 480 pixels with five experts' results and all pictures
that the profile `fivek` samples of a photo, and measures what the stages do to each. t-SNE takes all pictures at once:
it is timed at two sizes, and what it costs at another lies on n log n through them. LPIPS runs with a random backbone,
which takes as long as the real one and whose values are thrown away. Results: benchmarks/results/judging.{json,md}.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffretouch import torchvision_ops
from diffretouch.config import Params, load
from diffretouch.evaluation import measure, style, tsne
from diffretouch.files.atomic import write_json, write_text
from diffretouch.files.pictures import jpeg8, read_srgb, reduce_to, write_picture, write_png8
from diffretouch.sampling.sweeps import requests
from diffretouch.stages.attributes import score_pictures
from diffretouch.stages.study import JPEG_QUALITY

RESULTS = Path(__file__).parent / "results"
WIDTH, HEIGHT = 720, 480
POINTS = 1000, 4000
"""Pictures that t-SNE is timed with."""


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    params = load(Path("profiles/fivek.yaml"))
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "scikit-learn", "scikit-image", "lpips")},
        "load average before": round(os.getloadavg()[0], 1),
        "pixels": f"{WIDTH} x {HEIGHT}",
        "photos": asked.photos,
    }
    with tempfile.TemporaryDirectory(prefix="judging-") as top:
        photos = [photo_of(Path(top), params, number) for number in range(asked.photos)]
        facts["seconds"] = by_picture(photos, params, backbone(Path(top)))
    settings = params.embed
    for count in POINTS:
        points = np.random.default_rng(0).standard_normal((count, len(style.FEATURES)))
        place = partial(tsne.project, perplexity=settings.perplexity, iterations=settings.iterations, seed=0)
        facts["seconds"][f"t-SNE of {count:,} pictures"] = cpu_seconds(partial(place, points))
    write_json(RESULTS / "judging.json", facts)
    write_text(RESULTS / "judging.md", report(facts))
    print(report(facts))


def photo_of(top: Path, params: Params, number: int) -> measure.Photo:
    """Input, experts' results and sampled pictures on the disk, in the formats the stages write."""
    dataset, name, draw = params.datasets[0], f"p{number}", np.random.default_rng(number)
    patches = np.kron(draw.random((HEIGHT // 16, WIDTH // 16, 3)), np.ones((16, 16, 1)))
    scene = patches * 0.7 + draw.random((HEIGHT, WIDTH, 3)) * 0.1

    def retouched(seed: int) -> measure.metrics.Picture:
        gain = np.random.default_rng((number, seed)).uniform(0.8, 1.2, 3)
        return np.clip(scene * gain, 0, 1).astype(np.float32)

    experts = {}
    for place, x in enumerate(params.corpus(dataset).experts):
        experts[x] = top / f"{name}-{x}.tif"
        write_picture(experts[x], retouched(place))
    write_picture(top / f"{name}.tif", scene)
    settings = params.sample
    sampled = []
    for key, wanted in enumerate(
        requests(dataset, name, dict.fromkeys(experts, (0.0,) * 4), 0, settings.random_draws, settings.axis_points)
    ):
        path = top / f"{name}-{key}.png"
        write_png8(path, retouched(100 + key))
        sampled.append(measure.Sampled(key, wanted.sweep, wanted.expert, path))
    return measure.Photo(name, top / f"{name}.tif", experts, None, tuple(sampled))


def backbone(top: Path) -> tuple[str, Path, str | None]:
    """AlexNet's weights as torchvision names them, random."""
    torchvision_ops.declare_missing()
    from torchvision.models import alexnet

    path = top / "alexnet.pth"
    torch.save(alexnet(weights=None).state_dict(), path)
    return "alex", path, hashlib.sha256(path.read_bytes()).hexdigest()


def by_picture(photos: list[measure.Photo], params: Params, lpips: tuple[str, Path, str | None]) -> dict[str, float]:
    """CPU seconds of each stage's work, all photos after one that only warms up."""
    size = params.attributes.size

    def each(work: Callable[[measure.Photo], object]) -> float:
        work(photos[0])
        return cpu_seconds(lambda: [work(photo) for photo in photos]) / len(photos)

    def for_study(photo: measure.Photo) -> None:
        jpeg8(reduce_to(read_srgb(photo.input), long_edge=params.study.long_edge), JPEG_QUALITY)

    return {
        "attributes, a ground truth": each(lambda p: score_pictures(list(p.experts.values()), size))
        / len(photos[0].experts),
        "evaluate without LPIPS, a test photo": each(partial(measure.measure, ruler=measure.Ruler(size, None))),
        "evaluate with LPIPS, a test photo": each(partial(measure.measure, ruler=measure.Ruler(size, lpips))),
        "embed, a picture": each(lambda photo: style.describe(read_srgb(photo.input))),
        "study, a picture": each(for_study),
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of this process, one run."""
    start = time.process_time()
    work()
    return round(time.process_time() - start, 4)


def tsne_seconds(facts: dict[str, Any], count: int) -> float:
    """On the line in n log n through the two sizes measured."""
    (few, low), (many, high) = ((n, facts["seconds"][f"t-SNE of {n:,} pictures"]) for n in POINTS)
    cost = [n * math.log(n) for n in (few, many, count)]
    return float(low + (high - low) * (cost[2] - cost[0]) / (cost[1] - cost[0]))


def report(facts: dict[str, Any]) -> str:
    """Markdown: a line a figure."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = ["# What judging costs", "", f"{facts['date']}, {facts['machine']}, {versions};"]
    lines += [f"pictures of {facts['pixels']}, {facts['photos']} photos, one thread;"]
    lines += [f"load average {facts['load average before']}.", "", "| what | CPU seconds |", "|---|---:|"]
    lines += [f"| {what} | {seconds:.3g} |" for what, seconds in facts["seconds"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
