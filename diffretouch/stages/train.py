"""train: a RetouchPipeline from the training photos of one dataset."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.metadata import version

import torch
from dvclive import Live
from safetensors import SafetensorError
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES
from diffretouch.code import code_fingerprint
from diffretouch.condition import conditions, just_noticeable
from diffretouch.config import Attributes, Params, Train
from diffretouch.devices import pick_device
from diffretouch.errors import UserError
from diffretouch.files.atomic import write_text
from diffretouch.files.tables import read_table
from diffretouch.files.workspace import new_dir, report_dir, resume_file, stage_dir
from diffretouch.model.build import AutoencoderKL, load_autoencoder, new_pipeline
from diffretouch.training import autoencoder
from diffretouch.training.data import Source, load_views, some_results
from diffretouch.training.loop import train
from diffretouch.training.resume import fingerprint
from diffretouch.training.validation import validator

FIT_PICTURES = 64
"""Ground truths the small autoencoder is fitted on, at most."""


def run(params: Params, dataset: str) -> None:
    """Train on `dataset`; the same command goes on where an interrupted run stopped."""
    torch.set_num_threads(params.runtime.threads)
    device = pick_device(params.runtime.device)
    # a GPU has no deterministic gradient of the slicing: there the losses repeat to rounding only
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    corpus, settings = params.corpus(dataset), params.train
    decoded, attributes = stage_dir("decode", dataset), stage_dir("attributes", dataset)
    manifest = read_table(decoded / "manifest.parquet", ["photo_id", "split", "status"])
    table = read_table(attributes / "attributes.parquet", ["split", *(f"score_{a}" for a in ATTRIBUTES)])
    scales = json.loads((attributes / "scales.json").read_text())
    scheme = Attributes.model_validate({key: scales[key] for key in ("size", "scheme", "just_noticeable")})
    scored = torch.tensor(table.loc[table["split"] == "train", [f"score_{a}" for a in ATTRIBUTES]].to_numpy())

    usable = manifest[manifest["status"] == "ok"]
    rows = {split: usable[usable["split"] == split] for split in ("train", "val")}
    for split, found in rows.items():
        if found.empty:
            raise UserError(f"{dataset} has no usable {split} photos: see {decoded}/manifest.parquet")
    fitting = some_results(rows["train"], decoded, corpus.experts, settings.network_size, FIT_PICTURES)
    vae = _autoencoder(settings, fitting, device)
    source = Source(
        folder=decoded,
        experts=corpus.experts,
        size=scheme.size,
        network_size=settings.network_size,
        make_c=partial(conditions, training=scored, settings=scheme),
        encode=partial(autoencoder.encode, vae),
    )
    data = load_views(rows["train"], source, settings.views, settings.seed)
    val = load_views(rows["val"], source, 1, settings.seed)
    print(f"{dataset}: {len(data)} views of {len(rows['train'])} photos by {data.experts} experts", file=sys.stderr)

    pipe = new_pipeline(settings, vae, corpus.sampler_variance, settings.seed).to(device)
    noticeable, val_noticeable = (x.half >= just_noticeable(x.mid, scheme) for x in (data, val))
    marks = fingerprint(
        {
            "params": settings.model_dump(mode="json"),
            "data": [data.fingerprint(), val.fingerprint(), scales],
            "code": code_fingerprint(),
            "versions": [version(name) for name in ("torch", "diffusers")],
        }
    )
    state, history = resume_file(dataset), list[dict[str, float]]()
    # the curves as they grow; dvclive's own experiment tracking is left to DVC
    with Live(str(report_dir(dataset) / "training"), save_dvc_exp=False, dvcyaml=None, report=None) as live:

        def on_point(point: dict[str, float]) -> None:
            history.append(point)
            live.step = int(point["step"])
            for name, value in point.items():
                if name != "step":
                    live.log_metric(name, value)
            live.make_summary()

        train(
            pipe=pipe,
            data=data,
            scale=torch.tensor([scales["half_range"][a] for a in ATTRIBUTES]),
            noticeable=noticeable,
            settings=settings,
            state_path=state,
            marks=marks,
            validate=validator(val, val_noticeable, settings.seed),
            on_point=on_point,
        )
    out = new_dir(stage_dir("train", dataset))
    try:
        pipe.save_pretrained(out / "model", safe_serialization=True)
    except SafetensorError as error:
        raise UserError(f"{out / 'model'} cannot be written ({error}); the trained state is kept in {state}") from error
    write_text(out / "history.jsonl", "".join(json.dumps(point) + "\n" for point in history))
    state.unlink(missing_ok=True)


def _autoencoder(settings: Train, pictures: Tensor, device: torch.device) -> AutoencoderKL:
    """The one `params.yaml` names, else a small one fitted to `pictures`; frozen."""
    named = settings.autoencoder
    if named.source is not None and named.sha256 is not None:
        return load_autoencoder(named.source, named.sha256).eval().requires_grad_(False).to(device)
    return autoencoder.fit(named, settings.norm_groups, pictures, settings.seed, device)
