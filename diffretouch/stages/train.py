"""train: a RetouchPipeline from the training photos of one dataset."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from dvclive import Live
from safetensors import SafetensorError
from torch import nn

from diffretouch.config import Params, Train
from diffretouch.devices import compute_alike
from diffretouch.errors import UserError
from diffretouch.files.atomic import write_text
from diffretouch.files.workspace import new_dir, report_dir, stage_dir, training_dir
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import new_pipeline
from diffretouch.model.start import parameter_groups
from diffretouch.model.weights import origin_of
from diffretouch.training import ranks
from diffretouch.training.diffusion import DiffRetouchObjective, Networks, pipeline_with
from diffretouch.training.loop import fit
from diffretouch.training.prepare import Prepared, open_prepared, prepare
from diffretouch.training.resume import States
from diffretouch.training.sliders import mix_sliders
from diffretouch.training.validation import Validation

HISTORY = "history.jsonl"


def run(params: Params, dataset: str) -> None:
    """Train on `dataset`; the same command goes on where an interrupted run stopped."""
    runtime = params.runtime
    if runtime.processes > 1 and not ranks.is_rank():
        ranks.together(runtime.processes, ["train", dataset], runtime.device)
        return
    torch.set_num_threads(runtime.threads)
    accelerator = ranks.new_accelerator(runtime.device)
    device, folder = accelerator.device, training_dir(dataset)
    compute_alike(device)
    if accelerator.is_main_process:
        prepare(params, dataset, folder / "views", device)
    ranks.meet(accelerator)
    prepared = open_prepared(params, dataset, folder / "views", device)
    data, settings = prepared.train, params.train
    pipe = _pipeline(params, dataset, prepared).to(device)
    validation = Validation(prepared.val, prepared.noticeable(prepared.val), settings.seed)
    # a step sees batch_size ground truths a process
    marks = {**prepared.marks(settings), "runtime.processes": accelerator.num_processes}
    states = States(folder, marks, runtime.keep_checkpoints)

    def validate(averaged: nn.Module, step: int, stopping: Callable[[], bool]) -> dict[str, float]:
        found = validation.measure(pipeline_with(pipe, averaged), stopping)
        found.write_sheet(_sheet(states.folder, step))
        return found.means()

    with _curves(dataset, states.folder) if accelerator.is_main_process else nullcontext() as draw:
        net = Networks(pipe)
        fit(
            net=net,
            objective=DiffRetouchObjective(
                pipe=pipe,
                data=data,
                scale=prepared.scale,
                noticeable=prepared.noticeable(data),
                settings=settings,
            ),
            groups=parameter_groups(pipe, settings),
            settings=settings,
            accelerator=accelerator,
            states=states,
            validate=validate,
            on_point=draw or (lambda _point: None),
        )
    if accelerator.is_main_process:
        mix_sliders(pipe, data, prepared.noticeable(data), settings)
        _write(new_dir(stage_dir("train", dataset)), pipe, states.folder)
        states.clear()
    accelerator.end_training()


def _pipeline(params: Params, dataset: str, prepared: Prepared) -> RetouchPipeline:
    """The model at step 0, which says what it is made from."""
    settings, data = params.train, prepared.train
    pipe = new_pipeline(settings, prepared.vae, params.corpus(dataset).sampler_variance, settings.seed)
    corpus = json.loads((stage_dir("decode", dataset) / "corpus.json").read_text())
    told = {name: corpus[name] for name in ("provenance", "licence", "notes", "decode_profile")}
    origin = {"dataset": corpus["name"], **told, "attributes": prepared.scales, **_others(pipe, settings)}
    pipe.register_to_config(origin=origin)
    if params.runtime.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    if params.runtime.compile:
        pipe.unet.compile()
    print(f"{dataset}: {len(data)} views, {data.experts} experts each", file=sys.stderr)
    return pipe


def _others(pipe: RetouchPipeline, settings: Train) -> dict[str, Any]:
    """Where the weights at step 0 are from, whose licences bind this model, too."""
    start, named = settings.start, settings.autoencoder
    told = {}
    if pipe.config.origin:
        told["start"] = pipe.config.origin
    elif start.source is not None and start.sha256 is not None:
        told["start"] = origin_of(start.source, start.sha256)
    # that of one of our own models is told with it
    source = named.source or (None if pipe.config.origin else start.source)
    if source is not None and named.sha256 is not None:
        told["autoencoder"] = origin_of(source, named.sha256)
    return told


@contextmanager
def _curves(dataset: str, folder: Path) -> Iterator[Callable[[dict[str, float]], None]]:
    """Takes each point for dvclive's curves and the JSON lines in `folder`.

    Written anew from the first point, also where training goes on; dvclive's tracking of experiments is DVC's.
    """
    report = report_dir(dataset) / "training"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Live(str(report), save_dvc_exp=False, dvcyaml=None, report=None, resume=False) as curves,
        (folder / HISTORY).open("w", buffering=1) as lines,
    ):

        def draw(point: dict[str, float]) -> None:
            lines.write(json.dumps(point) + "\n")
            curves.step = int(point["step"])
            for name, value in point.items():
                if name != "step":
                    curves.log_metric(name, value)
            curves.make_summary()

        yield draw


def _sheet(folder: Path, step: int) -> Path:
    return folder / "validation" / f"step-{step:07d}.png"


def _write(out: Path, pipe: RetouchPipeline, folder: Path) -> None:
    model = out / "model"
    try:
        pipe.save_pretrained(model)
    except SafetensorError as error:
        raise UserError(f"{model} cannot be written ({error}); the trained state is kept in {folder}") from error
    history = (folder / HISTORY).read_text()
    write_text(out / HISTORY, history)
    (out / "validation").mkdir()
    for point in map(json.loads, history.splitlines()):
        if "val_psnr" in point:
            shutil.copyfile(_sheet(folder, point["step"]), _sheet(out, point["step"]))
