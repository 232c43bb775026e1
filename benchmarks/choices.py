"""How training's choices were made: one setting changed at a time, measured on validation photos, three seeds.

`python -m benchmarks.choices [--seeds 0 1 2] [NAME ...]` trains every choice of CHOICES on the fivek demo, as long as
the demo's own training, on its training photos without four of their scenes, and measures on those scenes and the val
split: never on test photos. It goes on where it was stopped (work/.choices) and writes reports/choices.csv and
reports/choices.md: each choice's mean over seeds and photos, and its difference from the choice in use with a 95 %
interval from resampling scenes and seeds together.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import PARAMS, Params
from diffretouch.files.atomic import write_json, write_text
from diffretouch.model.build import new_pipeline
from diffretouch.model.start import parameter_groups
from diffretouch.training import prepare
from diffretouch.training.diffusion import DiffRetouchObjective, Networks, pipeline_with
from diffretouch.training.loop import fit
from diffretouch.training.ranks import new_accelerator
from diffretouch.training.resume import States
from diffretouch.training.validation import Validation

DATASET, HELD_OUT_SCENES, RESAMPLES = "fivek", 4, 2000
FOLDER, OUT = Path("work/.choices"), Path("reports/choices.csv")
ANY_T = {"timesteps": [0, 999], "pixel_timesteps": [0, 999]}
CHOICES: dict[str, dict[str, Any]] = {
    "in use": {},
    "L_cl none": {"control_loss": "none"},
    "L_cl published, tau .1": {"control_loss": "published"},
    "L_cl published, tau .5": {"control_loss": "published", "tau": 0.5},
    "L_cl published, tau .1, gradient through D alone": {"control_loss": "published", "published_gradient": "own"},
    "L_cl ours without differences": {"control_difference": 0.0},
    "L_cl ours, differences twice": {"control_difference": 2.0},
    "lambda 1": {"control_weight": 1.0},
    "lambda 9": {"control_weight": 9.0},
    "beta 5": {"pixel_weight": 5.0},
    "beta 60": {"pixel_weight": 60.0},
    "c dropped, 10 %": {"condition_dropout": 0.1},
    "c dropped by component, 10 %": {"condition_dropout": 0.1, "dropout_by_component": True},
    "any t, 20 calls to t = 200 (the paper's)": {**ANY_T, "validation_steps": 20, "validation_last_timestep": 200},
    "any t, 3 calls to t = 900": ANY_T,
    "noise at any t, grid from 900": {"timesteps": [0, 999]},
    "one call at t = 999": {"validation_steps": 1, "validation_last_timestep": 999},
}
"""Overrides of the `train` section."""


def main() -> None:
    """Every choice with every seed, two at a time, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--one", action="store_true", help="train and measure here: one name, one seed")
    parser.add_argument("name", nargs="*", help=f"some of: {', '.join(CHOICES)}".replace("%", "%%"))
    asked = parser.parse_args()
    if unknown := set(asked.name) - CHOICES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(CHOICES)}")
    if asked.one:
        trained(asked.name[0], asked.seeds[0])
        return
    wanted = [(name, seed) for seed in asked.seeds for name in asked.name or CHOICES]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(choice: tuple[str, int]) -> None:
        name, seed = choice
        if not result(name, seed).exists():
            print(f"== {name}, seed {seed}", flush=True)
            command = [sys.executable, "-m", "benchmarks.choices", "--one", "--seeds", str(seed), name]
            subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(run, wanted))
    table = summary(pd.DataFrame([row for name in CHOICES for seed in asked.seeds for row in rows(name, seed)]))
    write_text(OUT, table.round(4).to_csv(index=False, lineterminator="\n"))
    write_text(OUT.with_suffix(".md"), markdown(table, asked.seeds))
    print(markdown(table, asked.seeds))


def result(name: str, seed: int) -> Path:
    """What a trained choice achieved, by photo."""
    return FOLDER / f"{list(CHOICES).index(name):02d}-{seed}.json"


def trained(name: str, seed: int) -> None:
    """Train and measure one choice."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tree = yaml.safe_load(PARAMS.read_text())
    tree["train"] |= {"seed": seed, **CHOICES[name]}
    sampler = {"steps": tree["train"]["validation_steps"], "last_timestep": tree["train"]["validation_last_timestep"]}
    tree["sample"] |= sampler
    params = Params.model_validate(tree)
    settings = params.train.model_copy(update={"validation_photos": 1000, "validate_every": 10**9})
    params = params.model_copy(update={"train": settings})
    accelerator, views = new_accelerator("cpu"), FOLDER / f"views-{seed}"
    photos = held_out(params.corpus(DATASET).experts)
    prepare.prepare(params, DATASET, views, accelerator.device, photos)
    ready = prepare.open_prepared(params, DATASET, views, accelerator.device)
    pipe = new_pipeline(settings, ready.vae, params.corpus(DATASET).sampler_variance, seed)
    states = States(FOLDER / f"states-{result(name, seed).stem}", ready.marks(settings), keep=1)
    net = Networks(pipe)
    fit(
        net=net,
        objective=DiffRetouchObjective(pipe, ready.train, ready.scale, ready.noticeable(ready.train), settings),
        groups=parameter_groups(pipe, settings),
        settings=settings,
        accelerator=accelerator,
        states=states,
        validate=lambda _net, _step, _stopping: {},
        on_point=lambda _point: None,
    )
    found = Validation(ready.val, ready.noticeable(ready.val), seed).measure(pipeline_with(pipe, net))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    write_json(
        result(name, seed),
        {
            "scenes": photos["val"]["group"].tolist(),
            "psnr": found.psnr.mean(1).tolist(),
            "slope": torch.nan_to_num(found.slope, nan=-99).tolist(),
            "cpu_seconds": round(spent.ru_utime + spent.ru_stime),
        },
    )
    states.clear()


def held_out(experts: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """The demo's photos for train and val, some scenes of train moved to val."""
    found = prepare.usable_photos(DATASET, experts)
    scenes = sorted(found["train"]["group"].unique())
    away = found["train"]["group"].isin(scenes[:: max(1, len(scenes) // HELD_OUT_SCENES)][:HELD_OUT_SCENES])
    return {"train": found["train"][~away], "val": pd.concat([found["val"], found["train"][away]])}


def rows(name: str, seed: int) -> list[dict[str, Any]]:
    """A row a photo."""
    if not result(name, seed).exists():
        return []
    found = json.loads(result(name, seed).read_text())
    slopes = np.where(np.array(found["slope"]) == -99, np.nan, found["slope"])
    return [
        {"choice": name, "seed": seed, "photo": i, "scene": scene, "psnr": psnr, "cpu_seconds": found["cpu_seconds"]}
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


def markdown(table: pd.DataFrame, seeds: list[int]) -> str:
    """The table for people."""
    lines = [
        "# Choices of training",
        "",
        f"`python -m benchmarks.choices`, seeds {', '.join(map(str, seeds))}: the fivek demo (simulated experts),",
        "validation photos and four held-out training scenes, each expert's own c (an oracle). PSNR in dB; slopes of",
        "the four sliders, 1 is as asked. In brackets 95 % intervals of the difference from what is in use, over",
        "scenes and seeds.",
        "",
        "| choice | PSNR | difference | colorfulness | brightness | contrast | temperature | mean slope, difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        slopes = " | ".join(f"{row[a]:.2f}" for a in ATTRIBUTES)
        away = [
            f"{row[f'{measure}_difference']:+.2f} [{row[f'{measure}_low']:+.2f}, {row[f'{measure}_high']:+.2f}]"
            for measure in ("psnr", "slope")
        ]
        lines.append(f"| {row['choice']} | {row['psnr']:.2f} | {away[0]} | {slopes} | {row['slope']:.2f}, {away[1]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
