"""A peer's pictures of the test photos, in the tables of the sample stage, so that the evaluate stage measures them."""

from __future__ import annotations

import pandas as pd
import torch
from safetensors.torch import load_file

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Params
from diffretouch.devices import pick_device
from diffretouch.errors import UserError
from diffretouch.files.pictures import read_srgb, write_png8
from diffretouch.files.scales import read_scales
from diffretouch.files.tables import FACTS, read_table, write_table
from diffretouch.files.workspace import new_dir, require, stage_dir
from diffretouch.peers import Peer, new_peer
from diffretouch.progress import track

OF_PHOTO = ["split", *FACTS]
WEIGHTS = "peer.safetensors"


def run(params: Params, dataset: str, network: str, _letter: str = "") -> None:
    """Retouch the test photos at their decoded size: a samples table with the one sweep `neutral`, c being 0."""
    torch.set_num_threads(params.runtime.threads)
    peer, decoded = _trained(params, dataset, network), stage_dir("decode", dataset)
    manifest = read_table(decoded / "manifest.parquet", ["photo_id", "status", "input", *OF_PHOTO])
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
        keys = {"photo_id": str(photo["photo_id"]), **photo[OF_PHOTO].to_dict(), "sweep": "neutral", "expert": None}
        rows.append({**keys, "sample": 0, "seed": 0, "scheduler": "none", "steps": 1, **c, "path": name})
    write_table(out / "samples.parquet", pd.DataFrame(rows).astype({"expert": "string"}))


def _trained(params: Params, dataset: str, network: str) -> Peer:
    peer = new_peer(network, params.train.seed)
    peer.load_state_dict(load_file(require(stage_dir("train", dataset) / WEIGHTS, "peer-train")))
    peer.detail = int(read_scales(dataset)["size"])
    return peer.eval().to(pick_device(params.runtime.device))
