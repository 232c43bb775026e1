"""The steps of a peer's arm that differ from ours: how it is trained, and how its pictures are made."""

from __future__ import annotations

import json
import sys

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Params
from diffretouch.devices import pick_device
from diffretouch.errors import UserError
from diffretouch.files.atomic import whole, write_text
from diffretouch.files.pictures import read_srgb, write_png8
from diffretouch.files.tables import read_table, write_table
from diffretouch.files.workspace import new_dir, require, stage_dir, training_dir
from diffretouch.peers import Peer, new_peer
from diffretouch.peers.objective import PeerObjective
from diffretouch.progress import track
from diffretouch.training import ranks
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.loop import fit
from diffretouch.training.prepare import open_prepared
from diffretouch.training.resume import States

FACTS = ["split", "group", "licence", "camera", "categories"]
WEIGHTS = "peer.safetensors"


def train(params: Params, dataset: str, network: str, letter: str = "") -> None:
    """Train the peer `network` on the prepared views, of all experts or of the one with this `letter`.

    The same command goes on where an interrupted run stopped.
    """
    torch.set_num_threads(params.runtime.threads)
    settings, folder = params.train, training_dir(dataset)
    accelerator = ranks.new_accelerator(params.runtime.device)
    device = accelerator.device
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    prepared = open_prepared(params, dataset, folder / "views", device)
    expert = params.corpus(dataset).experts.index(letter) if letter else None
    peer = new_peer(network, settings.seed).to(device)
    marks = {**prepared.marks(settings), "network": network, "expert": letter}
    history: list[dict[str, float]] = []
    fit(
        net=peer,
        objective=PeerObjective(peer, prepared.train, settings, expert),
        groups=peer.groups(settings.learning_rate),
        settings=settings,
        accelerator=accelerator,
        states=(states := States(folder, marks, params.runtime.keep_checkpoints)),
        validate=lambda averaged, _step, _stopping: {"val_psnr": _psnr(averaged, prepared.val, expert, device)},
        on_point=history.append,
    )
    out = new_dir(stage_dir("train", dataset))
    with whole(out / WEIGHTS) as temporary:
        save_file({name: value.contiguous().cpu() for name, value in peer.state_dict().items()}, temporary)
    write_text(out / "history.jsonl", "".join(json.dumps(point) + "\n" for point in history))
    states.clear()
    accelerator.end_training()


def sample(params: Params, dataset: str, network: str, _letter: str = "") -> None:
    """Retouch the test photos at their decoded size: a samples table with the one sweep `neutral`, c being 0."""
    torch.set_num_threads(params.runtime.threads)
    peer, decoded = _trained(params, dataset, network), stage_dir("decode", dataset)
    manifest = read_table(decoded / "manifest.parquet", ["photo_id", "status", "input", *FACTS])
    photos = manifest[(manifest["status"] == "ok") & (manifest["split"] == "test")]
    if photos.empty:
        raise UserError(f"{dataset} has no usable test photos: see {decoded}/manifest.parquet")
    out, rows = new_dir(stage_dir("sample", dataset)), []
    for _, photo in track(photos.iterrows(), f"sample {dataset}", len(photos)):
        picture = torch.from_numpy(read_srgb(decoded / photo["input"])).permute(2, 0, 1)[None]
        with torch.no_grad():
            made = peer(picture.to(next(peer.parameters()).device))[0].clamp(0, 1).cpu()
        name = f"{photo['photo_id']}/neutral_0.png"
        write_png8(out / name, made.permute(1, 2, 0).numpy())
        c = {f"c_{a}": 0.0 for a in ATTRIBUTES}
        keys = {"photo_id": str(photo["photo_id"]), **photo[FACTS].to_dict(), "sweep": "neutral", "expert": None}
        rows.append({**keys, "sample": 0, "seed": 0, "scheduler": "none", "steps": 1, **c, "path": name})
    write_table(out / "samples.parquet", pd.DataFrame(rows).astype({"expert": "string"}))


def _trained(params: Params, dataset: str, network: str) -> Peer:
    peer = new_peer(network, params.train.seed)
    peer.load_state_dict(load_file(require(stage_dir("train", dataset) / WEIGHTS, "peer-train")))
    return peer.eval().to(pick_device(params.runtime.device))


@torch.no_grad()
def _psnr(peer: nn.Module, data: GroundTruths, expert: int | None, device: torch.device) -> float:
    """To the experts it learns from, on whole validation photos at training size."""
    experts = range(data.experts) if expert is None else [expert]
    found = []
    for i in range(len(data)):
        made = peer(unit(data.photos[i : i + 1]).to(device)).clamp(0, 1).cpu()
        errors = torch.stack([(made[0] - unit(data.results[i, k])).square().mean() for k in experts])
        found.append(float((-10 * errors.clamp(min=1e-10).log10()).mean()))
    print(f"val_psnr {sum(found) / len(found):.2f}", file=sys.stderr, flush=True)
    return sum(found) / len(found)
