"""How training's choices were made: one setting changed at a time, measured on validation photos, three seeds.

`python -m benchmarks.choices` trains every choice of CHOICES on the fivek demo for 1,400 steps, half of the cpu
profile's (some two and a half hours on two cores), on its training photos without four of their scenes, and measures on
those scenes and the val split: never on test photos. Sliders are as they were trained, but for the choices that set
them afterwards. It goes on where it was stopped (work/.choices,
benchmarks/results/choices.json) and writes reports/choices.csv and reports/choices.md: each choice's mean over seeds
and photos, and its difference from the choice in use with a 95 % interval from resampling scenes and seeds together.
What was measured with other settings, data, code or versions is measured again.

`python -m benchmarks.choices NAME ... --seeds 0` measures these, beside the choice in use, and prints their table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import PARAMS, Params
from diffretouch.devices import compute_alike
from diffretouch.files.atomic import write_json, write_text
from diffretouch.model.build import new_pipeline
from diffretouch.model.start import parameter_groups
from diffretouch.training import prepare
from diffretouch.training.diffusion import DiffRetouchObjective, Networks, pipeline_with
from diffretouch.training.loop import fit
from diffretouch.training.ranks import new_accelerator
from diffretouch.training.resume import States
from diffretouch.training.sliders import mix_sliders
from diffretouch.training.validation import Validation

DATASET, STEPS, HELD_OUT_SCENES, RESAMPLES = "fivek", 1400, 4, 2000
PREPARING = 2
"""Threads of the autoencoder's fit, whichever process does it: with another number it rounds otherwise, and trainings
that start from it differ by a tenth of a dB."""
FOLDER, KEPT, OUT = Path("work/.choices"), Path("benchmarks/results/choices.json"), Path("reports/choices.csv")
PUBLISHED = {"control_loss": "published", "control_weight": 1.0}  # the paper's lambda
SET = {"slider_photos": 1000}
ANY_T = {"timesteps": [0, 999], "pixel_timesteps": [0, 999]}
CHOICES: dict[str, dict[str, Any]] = {
    "in use": {},
    "L_cl none": {"control_loss": "none"},
    "L_cl published, tau .1": PUBLISHED,
    "L_cl published, tau .5": {**PUBLISHED, "tau": 0.5},
    "L_cl published, tau .1, gradient through D alone": {**PUBLISHED, "published_gradient": "own"},
    "L_cl ours without differences": {"control_difference": 0.0},
    "L_cl ours, differences once": {"control_difference": 1.0},
    "L_cl ours without another expert's c": {"control_pairs": 0.0},
    "lambda .1": {"control_weight": 0.1},
    "lambda .5": {"control_weight": 0.5},
    "beta 20": {"pixel_weight": 20.0},
    "beta 80": {"pixel_weight": 80.0},
    "weight decay .01": {"weight_decay": 0.01},
    "network of 256 pixels, as much CPU time": {"network_size": 256, "steps": 600},
    "c dropped, 10 %": {"condition_dropout": 0.1},
    "c dropped by component, 10 %": {"condition_dropout": 0.1, "dropout_by_component": True},
    "any t, 20 calls to t = 200 (the paper's)": {**ANY_T, "validation_steps": 20, "validation_last_timestep": 200},
    "any t, 3 calls to t = 900": ANY_T,
    "noise at any t, grid from 900": {"timesteps": [0, 999]},
    "learning rate 2e-3": {"learning_rate": 2e-3, "head_learning_rate": 2e-3},
    "one call at t = 999": {"validation_steps": 1, "validation_last_timestep": 999},
    "sliders untangled": {**SET, "slider_reach": 1.0},
    "sliders untangled, reach 1.2 (in use)": {**SET, "slider_reach": 1.2},
    "sliders untangled, reach 1.4": {**SET, "slider_reach": 1.4},
}
"""Overrides of the `train` section."""


SEEDS = [0, 1, 2]
Key = tuple[str, int]
"""A choice and a seed."""


def main() -> None:
    """Every choice with every seed, two at a time, then the tables."""
    asked = parse(sys.argv[1:])
    compute_alike(torch.device("cpu"))
    if asked.one:
        print(json.dumps(trained(asked.name[0], asked.seeds[0])))
        return
    wanted = {"in use", *(asked.name or CHOICES)}
    before = measured()
    known = current(before, asked.seeds)
    left = [(n, seed) for seed in asked.seeds for n in CHOICES if n in wanted and (n, seed) not in known]
    lock, environment = threading.Lock(), {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(key: Key) -> None:
        name, seed = key
        print(f"== {name}, seed {seed}", flush=True)
        command = [sys.executable, "-m", "benchmarks.choices", *words(name, seed)]
        found = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
        with lock:
            known[key] = found
            write_json(KEPT, [found for _, found in sorted((before | known).items())])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(run, left))
    table = summary(pd.DataFrame([row for name in CHOICES for seed in asked.seeds for row in rows(known, name, seed)]))
    page = markdown(table, [found for (name, seed), found in known.items() if name in wanted and seed in asked.seeds])
    if not asked.name and asked.seeds == SEEDS:
        write_text(OUT, table.round(4).to_csv(index=False, lineterminator="\n"))
        write_text(OUT.with_suffix(".md"), page)
    print(page)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; ends with an explanation where it names no choice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--one", action="store_true", help="train and measure here: one name, one seed")
    parser.add_argument("name", nargs="*", help=f"some of: {', '.join(CHOICES)}".replace("%", "%%"))
    asked = parser.parse_args(argv)
    if unknown := set(asked.name) - CHOICES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(CHOICES)}")
    return asked


def words(name: str, seed: int) -> list[str]:
    """The command line that trains and measures one choice: the name first, `--seeds` would take it for a number."""
    return ["--one", name, "--seeds", str(seed)]


def measured() -> dict[Key, dict[str, Any]]:
    """Whatever was measured before, of the choices that are left."""
    found = json.loads(KEPT.read_text()) if KEPT.exists() else []
    return {(one["choice"], one["seed"]): one for one in found if one["choice"] in CHOICES}


def current(before: dict[Key, dict[str, Any]], seeds: list[int]) -> dict[Key, dict[str, Any]]:
    """Of `before`, what holds for just these settings, data, code and versions; also prepares every seed's views."""
    same = {}
    for seed in seeds:
        for name in CHOICES:
            key, params = (name, seed), settings_of(name, seed)
            ready = prepared(params)[1]
            if key in before and before[key]["of"] == depends_on(ready, params):
                same[key] = before[key]
    return same


def settings_of(name: str, seed: int) -> Params:
    """params.yaml for STEPS steps with a choice's overrides; it is measured on all validation photos at the end."""
    tree = yaml.safe_load(PARAMS.read_text())
    fixed = {"seed": seed, "steps": STEPS, "validation_photos": 1000, "validate_every": 10**9, "slider_photos": 0}
    tree["train"] |= fixed | CHOICES[name]
    sampler = {"steps": tree["train"]["validation_steps"], "last_timestep": tree["train"]["validation_last_timestep"]}
    tree["sample"] |= sampler
    return Params.model_validate(tree)


def prepared(params: Params) -> tuple[dict[str, pd.DataFrame], prepare.Prepared]:
    """The photos for train and val, and what is trained on: choices of one seed and network size share it."""
    device = torch.device("cpu")
    photos = held_out(params.corpus(DATASET).experts)
    views = FOLDER / f"views-{params.train.seed}-{params.train.network_size}"
    torch.set_num_threads(PREPARING)
    prepare.prepare(params, DATASET, views, device, photos)
    torch.set_num_threads(1)  # as everything else here
    return photos, prepare.open_prepared(params, DATASET, views, device)


def depends_on(ready: prepare.Prepared, params: Params) -> str:
    """Digest of all that the result of a choice depends on."""
    return hashlib.sha256(json.dumps(ready.marks(params.train), sort_keys=True).encode()).hexdigest()


def trained(name: str, seed: int) -> dict[str, Any]:
    """Train one choice, and what it achieved by photo."""
    by = commit()
    params = settings_of(name, seed)
    settings = params.train
    photos, ready = prepared(params)
    pipe = new_pipeline(settings, ready.vae, params.corpus(DATASET).sampler_variance, seed)
    states = States(FOLDER / f"states-{list(CHOICES).index(name):02d}-{seed}", ready.marks(settings), keep=1)
    net = Networks(pipe)
    fit(
        net=net,
        objective=DiffRetouchObjective(pipe, ready.train, ready.scale, ready.noticeable(ready.train), settings),
        groups=parameter_groups(pipe, settings),
        settings=settings,
        accelerator=new_accelerator("cpu"),
        states=states,
        validate=lambda _net, _step, _stopping: {},
        on_point=lambda _point: None,
    )
    pipe = pipeline_with(pipe, net)
    mix_sliders(pipe, ready.train, ready.noticeable(ready.train), settings)
    found = Validation(ready.val, ready.noticeable(ready.val), seed).measure(pipe)
    spent = resource.getrusage(resource.RUSAGE_SELF)
    states.clear()
    return {
        "choice": name,
        "seed": seed,
        "commit": by,
        "of": depends_on(ready, params),
        "cpu_seconds": round(spent.ru_utime + spent.ru_stime),
        "scenes": photos["val"]["group"].tolist(),
        "psnr": [round(value, 4) for value in found.psnr.mean(1).tolist()],
        "slope": [[None if x != x else round(x, 4) for x in photo] for photo in found.slope.tolist()],
    }


def commit() -> str:
    """The code that measures; "-dirty" where files differ from the commit."""
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def held_out(experts: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """The demo's photos for train and val, some scenes of train moved to val."""
    found = prepare.usable_photos(DATASET, experts)
    scenes = sorted(found["train"]["group"].unique())
    away = found["train"]["group"].isin(scenes[:: max(1, len(scenes) // HELD_OUT_SCENES)][:HELD_OUT_SCENES])
    return {"train": found["train"][~away], "val": pd.concat([found["val"], found["train"][away]])}


def rows(known: dict[Key, dict[str, Any]], name: str, seed: int) -> list[dict[str, Any]]:
    """A row a photo; none where the choice was not measured."""
    if (found := known.get((name, seed))) is None:
        return []
    slopes = np.array(found["slope"], dtype=float)
    return [
        {"choice": name, "seed": seed, "photo": i, "scene": scene, "psnr": psnr}
        | dict(zip(ATTRIBUTES, slope, strict=True))
        for i, (scene, psnr, slope) in enumerate(zip(found["scenes"], found["psnr"], slopes, strict=True))
    ]


def summary(photos: pd.DataFrame) -> pd.DataFrame:
    """A row a choice: means, the mean slope, and the differences from what is in use with their intervals."""
    measures = ["psnr", *ATTRIBUTES, "slope"]
    photos = photos.assign(slope=photos[list(ATTRIBUTES)].mean(axis=1))
    out = []
    base = photos[photos["choice"] == "in use"].set_index(["seed", "photo"])
    for name, found in photos.groupby("choice", sort=False):
        row: dict[str, Any] = {"choice": name, "seeds": found["seed"].nunique()}
        row |= {measure: found[measure].mean() for measure in measures}
        away = found.set_index(["seed", "photo"])[["psnr", "slope"]] - base[["psnr", "slope"]]
        away = away.assign(scene=found.set_index(["seed", "photo"])["scene"]).dropna(subset="psnr").reset_index()
        for measure in ("psnr", "slope"):
            low, high = interval(away, measure)
            row |= {f"{measure}_difference": away[measure].mean(), f"{measure}_low": low, f"{measure}_high": high}
        out.append(row)
    return pd.DataFrame(out)


def interval(away: pd.DataFrame, measure: str) -> tuple[float, float]:
    """95 % interval of the mean of `measure` when scenes and seeds are drawn again, with repetition."""
    cells = away.pivot_table(index="scene", columns="seed", values=measure, aggfunc=["sum", "count"])
    sums, counts = cells["sum"].to_numpy(), cells["count"].to_numpy()
    rng = np.random.default_rng(0)
    scenes = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
    seeds = rng.integers(sums.shape[1], size=(RESAMPLES, sums.shape[1]))
    drawn = [np.nansum(sums[s][:, k]) / np.nansum(counts[s][:, k]) for s, k in zip(scenes, seeds, strict=True)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def markdown(table: pd.DataFrame, trainings: list[dict[str, Any]]) -> str:
    """The table for people, with the code that it was measured by."""
    commits = Counter(one["commit"] for one in trainings).most_common()
    by = ", ".join(f"{name} {count}" for name, count in commits)
    several = " What changed between these was judged, not measured, to leave trainings alone." if commits[1:] else ""
    heads = ["choice", "seeds", "PSNR", "difference", *ATTRIBUTES, "mean slope", "difference"]
    lines = [
        "# Choices of training",
        "",
        f"{STEPS} steps, torch {torch.__version__}; trainings by commit: {by}.{several}",
        "",
        "`python -m benchmarks.choices`: the fivek demo (simulated experts),",
        "validation photos and four held-out training scenes, each expert's own c (an oracle). PSNR in dB; slopes of",
        "the four sliders, 1 is as asked; they are as trained, but in the last three rows. In brackets 95 % intervals",
        "of the difference from what is in use, over scenes and seeds.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for row in table.to_dict("records"):
        slopes = " | ".join(f"{row[a]:.2f}" for a in ATTRIBUTES)
        away = [
            f"{row[f'{measure}_difference']:+.2f} [{row[f'{measure}_low']:+.2f}, {row[f'{measure}_high']:+.2f}]"
            for measure in ("psnr", "slope")
        ]
        cells = [
            row["choice"],
            str(row["seeds"]),
            f"{row['psnr']:.2f}",
            away[0],
            slopes,
            f"{row['slope']:.2f}",
            away[1],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
