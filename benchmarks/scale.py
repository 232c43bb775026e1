"""What a corpus of 50,000 photos costs, part by part, from the committed measurements: `python -m benchmarks.scale`.

No figure is typed in: rates come from benchmarks/results/*.json (CPU seconds on one machine), counts from a profile,
the rest is arithmetic. What was never measured is said to be so: `--seconds-a-step`, `--seconds-a-picture` fill it in
from your own GPU (`python -m benchmarks.train` measures the first). The table goes to results/scale.md, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.judging import tsne_seconds
from diffretouch.config import Params, load

RESULTS = Path(__file__).parent / "results"
OUT = RESULTS / "scale.md"
TEST_SHARE = 0.1
"""FiveK's: 500 of 5,000."""
NEW = 1000
"""Photos of a week."""
RANGES, SLIDERS = 3, 4
"""Random c are drawn in RANGES ranges; a walk along each of SLIDERS sliders."""


class Line(NamedTuple):
    """A part of the chain."""

    part: str
    once: str
    """The whole corpus, the first time."""
    week: str
    """1,000 new photos, or nothing new."""
    bound: str
    """Where it saturates, and what moves the bound."""


class Rates(NamedTuple):
    """Measured, by the unit."""

    decode_s: float
    """CPU seconds a picture of 24 MP: half size, short edge 480, RAW and experts' pictures alike."""
    again_s: float
    """Seconds a photo of a decode that has nothing to do."""
    mb: float
    """MB a decoded picture."""
    hash_mb_s: float
    """MB that DVC hashes a second, reading them."""
    dvc_cpu: Callable[[str, int], float]
    """CPU seconds of a DVC command at so many files, on the line through two measured sizes."""
    out_s: dict[str, float]
    """CPU seconds a file of decode's output, plain files."""
    list_b: float
    """Bytes a file of the list that each version of a tracked folder is."""
    truths_s: float
    """Ground truths trained a second, the demo's network, one core."""
    judging: dict[str, float]
    """CPU seconds of what the judging stages do, by the photo or picture (`benchmarks.judging`)."""
    tsne_s: Callable[[int], float]
    """CPU seconds of t-SNE of so many pictures, extrapolated."""


def read_rates() -> Rates:
    """From the committed results."""
    decode, size, train, judging = (
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("decode", "dvc-size", "train-cpu-cpu", "judging")
    )
    half = decode["speed"]["settings"]["AHD, half size, short edge 480, 2 experts"]
    pictures = half["photos"] * 3
    small, large = size["everyday"]["cases"].values()
    few, many = small["files in data/"], large["files in data/"]
    large_files = size["bytes"]["cases"]["600 files"]
    plain = size["forms"]["cases"]["plain files"]

    def dvc_cpu(command: str, files: int) -> float:
        low, high = small[command]["cpu_seconds"], large[command]["cpu_seconds"]
        return float(low + (files - few) / (many - few) * (high - low))

    ours = train["with"]["ways"]["ours"]
    return Rates(
        decode_s=half["ways"]["stage"]["cpu_seconds, median"] / pictures,
        again_s=_again(decode["nothing-new"]),
        mb=large_files["MB"] / 600,
        hash_mb_s=large_files["MB hashed a second, less the start of DVC"],
        dvc_cpu=dvc_cpu,
        out_s={
            name: cell["cpu_seconds"] / plain["files in the folder"]
            for name, cell in plain.items()
            if isinstance(cell, dict)
        },
        list_b=1e6 * large["size of the folder's list in the cache, MB"] / many,
        truths_s=train["with"]["facts"]["batch"] / ours["CPU seconds a step"],
        judging=judging["seconds"],
        tsne_s=partial(tsne_seconds, judging),
    )


class Size(NamedTuple):
    """What is to be worked on, and with what."""

    params: Params
    photos: int
    cores: int
    step_s: float | None
    """Of training on one GPU; None where nobody measured it."""
    picture_s: float | None

    @property
    def experts(self) -> int:
        """Of the profile's first dataset."""
        return len(self.params.corpora[self.params.datasets[0]].experts)

    @property
    def pictures(self) -> int:
        """RAW and experts' files; as many come out of decode."""
        return self.photos * (1 + self.experts)

    @property
    def judged(self) -> int:
        """Test photos."""
        return round(self.photos * TEST_SHARE)


def lines(rates: Rates, size: Size) -> list[Line]:
    """The table."""
    return [
        *(_add(rates, size), _decode(rates, size), _outputs(rates, size), _attributes(rates, size)),
        *(_train(rates, size), _sample(size), _evaluate(rates, size), _embed(rates, size), _pages(rates, size)),
    ]


def _add(rates: Rates, size: Size) -> Line:
    files = size.pictures
    first = rates.dvc_cpu("`dvc add data`, the first", files)
    again = rates.dvc_cpu("`dvc add data`, one file added", files)
    status = rates.dvc_cpu("`dvc status`, no change", files)
    return Line(
        "`dvc add data`",
        f"{_time(first)} by the file, {_time(files * rates.mb / rates.hash_mb_s)} by the byte at 480 px",
        f"{_time(again)}; `dvc status` {_time(status)}",
        f"one process, the disk; each version is a list of {rates.list_b * files / 1e6:.0f} MB: a .dvc file a dataset",
    )


def _decode(rates: Rates, size: Size) -> Line:
    whole = size.pictures * rates.decode_s
    new = NEW * (1 + size.experts) * rates.decode_s / size.cores
    balanced = rates.hash_mb_s / rates.mb * rates.decode_s
    return Line(
        "decode",
        f"{whole / 3600:.0f} core hours: {_time(whole / size.cores)} on {size.cores} cores",
        f"{_time(new)}; nothing new {_time(size.photos * rates.again_s)}",
        f"cores (`runtime.executor: dask`); {balanced:.0f} make as much as one DVC hashes, {rates.hash_mb_s:.0f} MB/s",
    )


def _outputs(rates: Rates, size: Size) -> Line:
    files, volume = size.pictures, size.pictures * rates.mb
    first = files * rates.out_s["`dvc repro decode`, the first: hash and cache all"]
    little = files * rates.out_s["`dvc repro decode`, one photo changed"]
    return Line(
        "DVC on decode's pictures",
        f"{_time(first)} by the file, {_time(volume / rates.hash_mb_s)} by the byte; {volume / 1e6:.2f} TB",
        f"{_time(little)}, however few are new",
        "one process, the file: reflinks or symlinks save the copies, nothing saves the hashing",
    )


def _attributes(rates: Rates, size: Size) -> Line:
    whole = size.photos * size.experts * rates.judging["attributes, a ground truth"]
    return Line("attributes", f"{_time(whole)} on one core", "the same: all photos are scored again", "one process")


def _train(rates: Rates, size: Size) -> Line:
    batch = size.params.train.batch_size
    truths = size.photos * size.experts * (1 - TEST_SHARE)
    step_s = size.step_s
    spoken = f"the demo's network {_time(truths / rates.truths_s)} on one core"
    if step_s is not None:
        steps = truths / batch
        spoken = f"{_time(steps * step_s)} on one GPU, {_time(steps * step_s / 8)} on 8; {spoken}"
    else:
        spoken = f"not measured at real size; {spoken}"
    return Line(
        "train, each ground truth once",
        f"{truths:,.0f} ground truths, {truths / batch:,.0f} steps of {batch}: {spoken}",
        "the same: training ends by steps, whatever came in",
        "GPUs: `runtime.processes`, more machines by `accelerate launch`",
    )


def _sample(size: Size) -> Line:
    sample = size.params.sample
    sweep = size.experts + 1 + RANGES * sample.random_draws + SLIDERS * sample.axis_points
    wanted = size.judged * sweep
    picture_s = size.picture_s
    spoken = "not measured at real size" if picture_s is None else f"{_time(wanted * picture_s)} on one GPU"
    return Line(
        "sample",
        f"{wanted:,.0f} pictures ({sweep} a test photo), {sample.steps} U-Net calls each: {spoken}",
        "twice that: the new model and the one in use, unless DVC's run cache has it",
        "GPUs: `--sample-parts`, a worker each",
    )


def _evaluate(rates: Rates, size: Size) -> Line:
    plain, with_lpips = (rates.judging[f"evaluate {how} LPIPS, a test photo"] for how in ("without", "with"))
    without, longer = (_time(size.judged * each / size.cores) for each in (plain, with_lpips))
    return Line(
        "evaluate",
        f"{without} on {size.cores} cores, with LPIPS {longer}",
        "the same: a new model's pictures are all new",
        f"cores of one machine (`runtime.workers`): {size.judged * with_lpips / 3600:.0f} core hours with LPIPS",
    )


def _embed(rates: Rates, size: Size) -> Line:
    shown = size.judged * (1 + size.experts + RANGES * size.params.sample.random_draws)
    described, placed = shown * rates.judging["embed, a picture"], rates.tsne_s(shown)
    return Line(
        "embed",
        f"{_time(described)} for {shown:,} pictures, and some {_time(placed)} for their t-SNE, extrapolated",
        "the same",
        "one thread, so that it is the same each time; t-SNE by n log n",
    )


def _pages(rates: Rates, size: Size) -> Line:
    pairs = size.judged * size.params.study.pairs_a_photo + size.params.study.repeats
    return Line(
        "study, report",
        f"{2 * pairs:,} pictures for raters, {_time(2 * pairs * rates.judging['study, a picture'])}; the report shows "
        f"{size.params.report.photos} photos",
        "the same",
        f"raters: {pairs:,} pairs are to be looked at; one process",
    )


def _again(idle: dict[str, Any]) -> float:
    return float(idle["seconds beyond imports, median"]) / float(idle["photos"])


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=50_000)
    parser.add_argument("--cores", type=int, default=64, help="of all machines that decode")
    parser.add_argument("--profile", type=Path, default=Path("profiles/fivek.yaml"))
    parser.add_argument("--seconds-a-step", type=float, help="of training, measured on your GPU")
    parser.add_argument("--seconds-a-picture", type=float, help="of sampling, measured on your GPU")
    asked = parser.parse_args()
    size = Size(load(asked.profile), asked.photos, asked.cores, asked.seconds_a_step, asked.seconds_a_picture)
    found = lines(read_rates(), size)
    text = f"# {asked.photos:,} photos, {asked.profile.stem}, on paper\n\n{__doc__.split(chr(10) * 2)[1]}\n\n"
    text += f"| part | the first time | {NEW:,} new photos, or none | saturates at |\n|---|---|---|---|\n"
    text += "".join(f"| {' | '.join(line)} |\n" for line in found)
    OUT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
