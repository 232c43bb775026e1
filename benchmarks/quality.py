"""The long proof: every arm of params.yaml's `compare` with every seed on one dataset, and what each of them costs.

`python -m benchmarks.quality [DATASET]` runs the stage `compare` (hours on two cores; goes on where it was stopped) and
writes benchmarks/results/quality-<dataset>.{json,md}: its numbers beside the CPU seconds of every arm, which no output
of a stage may hold. On two cores two arms run at a time, with a thread each. A step that was stopped and went on counts
with all its runs; one that was taken from an earlier comparison counts as it did then.

`python -m benchmarks.quality DATASET ARM ...` trains and measures these arms alone, and writes
quality-<dataset>-<arms>.{json,md}; the stage's outputs stay, and a later comparison takes these arms from here.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd

from diffretouch.attributes import ATTRIBUTES
from diffretouch.comparing.arms import SPENT, Run, runs, views_of
from diffretouch.comparing.numbers import Numbers, per_photo, summarise
from diffretouch.comparing.verdict import verdict
from diffretouch.config import Params, load
from diffretouch.files.atomic import write_json, write_text
from diffretouch.files.workspace import stage_dir
from diffretouch.report.numbers import signed
from diffretouch.stages import compare

RESULTS = Path("benchmarks/results")
COLUMNS = {
    "psnr": "PSNR, dB",
    "psnr_minus_mean_expert": "- experts' average",
    "psnr_minus_best_peer": "- best pooled peer",
    "ssim": "SSIM",
    "ciede2000": "dE 2000",
    "slope": "slope",
    "excess_cross_talk": "excess cross-talk",
    "texture": "texture",
    "psnr_best_of": "best of N, PSNR",
}


def main(dataset: str, *names: str) -> None:
    params = load()
    params.corpus(dataset)
    if unknown := set(names) - params.compare.arms.keys():
        sys.exit(f"unknown arms: {', '.join(sorted(unknown))}; known: {', '.join(params.compare.arms)}")
    chosen = {name: arm for name, arm in params.compare.arms.items() if name in names}
    if chosen:
        params = params.model_copy(update={"compare": params.compare.model_copy(update={"arms": chosen})})
        provenance = json.loads((stage_dir("decode", dataset) / "corpus.json").read_text())["provenance"]
        table = summarise(per_photo(compare.trained(params, dataset), dataset), params, dataset, provenance)
    else:
        compare.run(params, dataset)
        table = pd.read_parquet(stage_dir("compare", dataset) / "compare.parquet")
    spent = {run.label: cpu_seconds(run) for run in runs(params, dataset, threads=1)}
    out = RESULTS / "-".join(("quality", dataset, *chosen))
    write_json(out.with_suffix(".json"), {**facts(params, dataset), "cpu_s": spent, "numbers": rows(table)})
    text = markdown(params, dataset, table, spent, some=bool(chosen))
    write_text(out.with_suffix(".md"), text)
    print(text)


def facts(params: Params, dataset: str) -> dict[str, Any]:
    """What it was measured on."""
    return {
        "dataset": dataset,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "device": params.runtime.device,
        "arms_at_a_time": params.runtime.workers,
        "threads_together": params.runtime.threads,
        "versions": {name: version(name) for name in ("torch", "diffusers", "rawpy", "numpy")},
        "train": params.train.model_dump(mode="json"),
        "compare": params.compare.model_dump(mode="json"),
    }


def cpu_seconds(run: Run) -> dict[str, float]:
    """Step -> CPU seconds of its processes, children included; of a step run again from its start, the last time.

    `prepare`, autoencoder and views, is shared by all arms that need the same ones; where it was done, it only looks,
    so the longest time counts.
    """
    prepared = [seconds for _, seconds in whole_runs(_spent(views_of(run)))]
    out = {"prepare": max(prepared, default=0.0)} | dict(whole_runs(_spent(run.folder)))
    return {step: round(seconds, 1) for step, seconds in out.items()}


def whole_runs(lines: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Steps with their CPU seconds, in the order of `lines`; one that was stopped and went on has all of its parts."""
    out: list[tuple[str, float]] = []
    goes_on = False
    for line in lines:
        step, seconds = line["step"], line["cpu_s"]
        if goes_on and out[-1][0] == step:
            seconds += out.pop()[1]
        out.append((step, seconds))
        goes_on = line["exit"] != 0
    return out


def _spent(folder: Path) -> list[dict[str, Any]]:
    """None where the folder was removed meanwhile."""
    path = folder / SPENT
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines over all experts, attributes or pairs, of every seed and of all; what decoders pass on by attribute."""
    decoder = table["metric"] == "slope_autoencoder"
    chosen = table[(table["slice"] == "all") | table["slice"].str.startswith("expert_") | decoder]
    return chosen.drop(columns="provenance").to_dict("records")


def markdown(
    params: Params, dataset: str, table: pd.DataFrame, spent: dict[str, dict[str, float]], *, some: bool
) -> str:
    """A line an arm with the mean and every seed, and the CPU time of training; what decoders alone make of pictures.

    The verdict comes first, unless these are `some` arms only.
    """
    settings, numbers = params.compare, Numbers(table)
    seeds = ", ".join(map(str, settings.seeds))
    if some:
        lines = [f"# {', '.join(settings.arms)} alone, on the {dataset} test photos, seeds {seeds}"]
    else:
        lines = [f"# Ablations and peers on the {dataset} test photos, seeds {seeds}", ""]
        told = [
            ("reached" if line.met else "NOT reached", line)
            for line in verdict(numbers, settings, params.train.control_loss)
        ]
        lines += [f"- {word}: {line.target}: {line.found}" for word, line in told]
    heads = ["arm", "steps", "preparation, CPU s", "training, CPU s", *COLUMNS.values()]
    lines += [
        "",
        f"Means over seeds; in brackets {params.evaluate.confidence:.0%} intervals over scenes, then the seeds.",
        "Preparation (autoencoder's fit, views, latents) is done once for all arms of a seed that need the same.",
        "",
    ]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for arm in ("input", "mean_expert", *settings.arms):
        known = settings.arms.get(arm)
        part = f"expert_{settings.expert}" if known and known.experts == "one" else "all"
        costs = [spent[f"{arm}-{seed}"] for seed in settings.seeds] if known else []
        steps = str(params.arm(arm, 0).train.steps) if known else ""
        parts = {name: part if name.startswith(("psnr", "ssim", "ciede")) else "all" for name in COLUMNS}
        cells = [_cell(numbers, arm, name, where) for name, where in parts.items()]
        times = [_mean_s(costs, *named) for named in (("prepare",), ("train", "peer-train"))]
        lines.append("| " + " | ".join([arm, steps, *times, *cells]) + " |")
    for arm in settings.arms:
        if numbers.get(arm, "psnr_autoencoder") is None:
            continue
        passed = ", ".join(f"{name} {_cell(numbers, arm, 'slope_autoencoder', name)}" for name in ATTRIBUTES)
        near, texture = (_cell(numbers, arm, f"{name}_autoencoder", "all") for name in ("psnr", "texture"))
        alone = f"{arm}: of the experts' own results, its autoencoder alone makes PSNR {near} dB, texture {texture}"
        lines += ["", f"{alone}, slopes of {passed}."]
    return "\n".join(lines) + "\n"


def _mean_s(costs: list[dict[str, float]], *steps: str) -> str:
    """Mean over seeds of what these steps took, in CPU seconds; empty where none of them was done."""
    found = [seconds for cost in costs for step, seconds in cost.items() if step in steps]
    return f"{mean(found):.0f}" if found else ""


def _cell(numbers: Numbers, arm: str, metric: str, part: str) -> str:
    found = numbers.get(arm, metric, part)
    if found is None:
        return ""
    text = signed if "minus" in metric else "{:.3f}".format
    by_seed = ", ".join(text(value) for value in numbers.seeds(arm, metric, part))
    return f"{text(found.mean)} [{text(found.low)}, {text(found.high)}]" + (f" ({by_seed})" if by_seed else "")


if __name__ == "__main__":
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        print(__doc__)
    else:
        main(*sys.argv[1:] or ("fivek",))
