"""The long proof: three seeds of the full model and of the same network blind to c, on one dataset's test photos.

`python -m benchmarks.quality [DATASET]` runs train, sample and evaluate for every arm in work/.quality/, goes on where
it was stopped, and writes benchmarks/results/quality-<dataset>.{json,md}. The blind network has one U-Net pass a step
where the full one has two (L_cl's second branch), so it gets twice the steps: as many passes, about as long.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import pandas as pd
import yaml

from diffretouch.config import PARAMS, load
from diffretouch.files.atomic import write_json, write_text

SEEDS = (0, 1, 2)
ARMS = ("full", "blind")
ROWS = (
    ("expert", "all", "psnr"),
    ("input", "all", "psnr"),
    ("mean_expert", "all", "psnr"),
    ("neutral", "all", "psnr"),
    ("expert_minus_input", "all", "psnr"),
    ("expert_minus_mean_expert", "all", "psnr"),
    *(
        ("control", attribute, metric)
        for metric in ("slope", "spearman")
        for attribute in ("colorfulness", "brightness", "contrast", "temperature")
    ),
)
RESULTS = Path("benchmarks/results")


def main(dataset: str) -> None:
    """Run what is missing; the table is written anew after every arm."""
    load().corpus(dataset)
    numbers: dict[str, dict[str, float]] = {}
    for seed in SEEDS:
        for arm in ARMS:
            folder = run_arm(dataset, arm, seed)
            numbers[f"{arm}-{seed}"] = read_numbers(folder / "reports" / dataset / "metrics.csv")
            write_results(dataset, numbers)
    print(table(dataset, numbers))


def write_results(dataset: str, numbers: dict[str, dict[str, float]]) -> None:
    """Everything measured so far, with what it was measured on."""
    facts = {
        "dataset": dataset,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, CPU only",
        "versions": {name: version(name) for name in ("torch", "diffusers", "rawpy", "numpy")},
        "train": load().train.model_dump(mode="json"),
    }
    write_json(RESULTS / f"quality-{dataset}.json", {**facts, "runs": numbers})
    write_text(RESULTS / f"quality-{dataset}.md", table(dataset, numbers))


def run_arm(dataset: str, arm: str, seed: int) -> Path:
    """One arm's folder, with its metrics made."""
    folder = Path("work/.quality") / dataset / f"{arm}-{seed}"
    tree = yaml.safe_load(PARAMS.read_text())
    tree["train"]["seed"] = seed
    # the random sweeps are not in the table
    tree["sample"]["random_draws"] = 1
    if arm == "blind":
        tree["train"] |= {"condition": "none", "steps": 2 * tree["train"]["steps"]}
    wanted = yaml.safe_dump(tree, sort_keys=False)
    mark, done = fingerprint(dataset, wanted), folder / "done"
    if done.exists() and done.read_text() == mark:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "work").mkdir(parents=True)
    for stage in ("decode", "attributes"):
        source = Path("work") / stage
        if not (source / dataset).exists():
            sys.exit(f"{source / dataset} not found: run `dvc repro {stage}@{dataset}` first")
        (folder / "work" / stage).symlink_to(source.resolve())
    (folder / PARAMS).write_text(wanted)
    for stage in ("train", "sample", "evaluate"):
        print(f"== {dataset} {arm} seed {seed}: {stage}", flush=True)
        command = "import sys; from diffretouch.cli import main; sys.argv[0] = 'diffretouch'; main()"
        subprocess.run([sys.executable, "-c", command, stage, dataset], cwd=folder, check=True)
    done.write_text(mark)
    return folder


def fingerprint(dataset: str, params: str) -> str:
    """Changes with the parameters, the package's code or the ground truths: an arm is taken up only under the same."""
    digest = hashlib.sha256(params.encode())
    truths = Path("work/attributes") / dataset / "attributes.parquet"
    for path in [*sorted(Path("diffretouch").rglob("*.py")), *([truths] if truths.exists() else [])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_numbers(path: Path) -> dict[str, float]:
    """ROWS of one run's metrics.csv."""
    lines = pd.read_csv(path).query("split == 'test'").set_index(["row", "slice", "metric"])["mean"]
    return {"/".join(key): float(lines[key]) for key in ROWS if key in lines.index}


def table(dataset: str, numbers: dict[str, dict[str, float]]) -> str:
    """Markdown: a line a number, a column a run, and the mean of each arm."""
    columns = {f"{arm} {seed}": numbers.get(f"{arm}-{seed}", {}) for arm in ARMS for seed in SEEDS}
    lines = [f"# Quality on the {dataset} demo's test photos", ""]
    lines += ["| number | " + " | ".join([*columns, *(f"{arm} mean" for arm in ARMS)]) + " |"]
    lines += ["|---" * (len(columns) + len(ARMS) + 1) + "|"]
    for key in map("/".join, ROWS):
        cells = [run.get(key) for run in columns.values()]
        for arm in ARMS:
            known = [run[key] for name, run in columns.items() if name.startswith(arm) and key in run]
            cells.append(mean(known) if known else None)
        lines.append(f"| {key} | " + " | ".join("" if c is None else f"{c:.3f}" for c in cells) + " |")
    psnr = "expert/all/psnr"
    both = [seed for seed in SEEDS if columns[f"full {seed}"] and columns[f"blind {seed}"]]
    won = [columns[f"full {seed}"][psnr] - columns[f"blind {seed}"][psnr] for seed in both]
    if won:
        lines += ["", f"c is worth {mean(won):+.2f} dB on average ({', '.join(f'{w:+.2f}' for w in won)} by seed)."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        print(__doc__)
    else:
        main(*sys.argv[1:] or ("fivek",))
