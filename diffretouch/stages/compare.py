"""compare: ablations and deterministic peers, trained and measured like the model, side by side on one page."""

from __future__ import annotations

import json
from collections import deque

import torch

from diffretouch.comparing.arms import Run, open_folder, runs, take_views, views_of
from diffretouch.comparing.numbers import per_photo, small, summarise
from diffretouch.comparing.page import render
from diffretouch.comparing.pictures import gather, sheet
from diffretouch.comparing.schedule import Job, run_all
from diffretouch.config import Params
from diffretouch.devices import pick_device
from diffretouch.errors import ConfigError
from diffretouch.files.atomic import whole, write_text
from diffretouch.files.figures import save
from diffretouch.files.tables import write_table
from diffretouch.files.workspace import new_dir, publish, report_dir, require, stage_dir


def run(params: Params, dataset: str) -> None:
    """Every arm that is not done with every seed; then the tables, compare.csv, compare.png and compare.html.

    Stopped, the same command goes on. On a GPU one arm runs at a time, else `runtime.workers` of them, with
    `runtime.threads` shared among them, one each at least.
    """
    card = json.loads(require(stage_dir("decode", dataset) / "corpus.json", f"dvc repro decode@{dataset}").read_text())
    arms = trained(params, dataset)

    torch.set_num_threads(params.runtime.threads)
    out = new_dir(stage_dir("compare", dataset))
    values = per_photo(arms, dataset)
    write_table(out / "per_photo.parquet", values)
    table = summarise(values, params, dataset, card["provenance"])
    write_table(out / "compare.parquet", table)
    with whole(out / "compare.csv") as temporary:
        small(table).to_csv(temporary, index=False, lineterminator="\n")
    publish(out / "compare.csv", dataset)
    photos = gather(arms, params, dataset)
    write_text(report_dir(dataset) / "compare.html", render(dataset, card, params, table, photos))
    save(
        sheet(photos, params, title=f"{dataset} ({card['provenance']} corpus), test photos"),
        out / "compare.png",
        dpi=100,
    )
    publish(out / "compare.png", dataset)


def trained(params: Params, dataset: str) -> list[Run]:
    """Every arm of `compare.arms` with every seed, trained and measured: what is not done is, seed by seed.

    First comes what several of them start from.
    """
    settings, experts = params.compare, params.corpus(dataset).experts
    if settings.expert not in experts:
        raise ConfigError(f"compare.expert is {settings.expert!r}, but {dataset} has the experts {', '.join(experts)}")
    at_a_time = 1 if pick_device(params.runtime.device).type == "cuda" else params.runtime.workers
    threads, what = max(1, params.runtime.threads // at_a_time), f"compare {dataset}"
    arms = runs(params, dataset, threads)
    todo = [arm for arm in arms if arm.todo()]
    for arm in todo:
        if changed := arm.changed(arm.todo()[0]):
            print(f"{what}: {arm.label} is done again: {changed}", flush=True)
    first = {views_of(arm): arm for arm in reversed(todo) if arm.todo()[0] == arm.steps[0]}
    prepare = []
    for folder, arm in first.items():
        open_folder(folder, arm.params)
        prepare.append(Job(f"views of seed {arm.seed}", folder, deque([("prepare", arm.dataset)])))
    run_all(prepare, at_a_time, threads, what)
    run_all([_job(arm) for arm in todo], at_a_time, threads, what)
    return arms


def _job(arm: Run) -> Job:
    def begin(step: str) -> None:
        arm.open()
        if step == arm.steps[0]:
            take_views(arm, views_of(arm))

    return Job(arm.label, arm.folder, deque(arm.words(step) for step in arm.todo()), begin, arm.finished)
