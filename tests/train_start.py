"""A folder in which the train stage runs in some seconds, on real pictures."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path

import yaml

from diffretouch.config import Params
from diffretouch.corpus.demo import write_demo
from diffretouch.corpus.split import hash_share
from diffretouch.stages import attributes, decode
from tests.fake_chain import ROOT

STEPS = 16
TINY = {
    "steps": STEPS,
    "batch_size": 2,
    "network_size": 64,
    "channels": [8, 8],
    "attention": [False, True],
    "head_channels": 8,
    "norm_groups": 8,
    "views": 1,
    "log_every": 2,
    "validate_every": 8,
    "checkpoint_every": 3,
}
AUTOENCODER = {"source": None, "steps": 2, "channels": [8, 8, 8, 8], "crop": 32, "batch_size": 2}


def write_start(root: Path) -> None:
    """A folder before training: one train and one val photo of the demo, with their attributes."""
    write_demo(root / "data", limit=2)
    (root / "data/fivek/photos.csv").unlink()  # without it every photo is a group of its own
    shares = [hash_share(path.stem) for path in sorted((root / "data/fivek/dng").iterdir())]
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["datasets"] = ["fivek"]
    tree["corpora"]["fivek"]["split"]["val_share"] = sum(shares) / 2
    tree["train"] |= TINY
    tree["train"]["autoencoder"] |= AUTOENCODER
    tree["runtime"] |= {"device": "cpu", "threads": 1, "workers": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    params = Params.model_validate(tree)
    with chdir(root):
        decode.run(params, "fivek")
        attributes.run(params, "fivek")
    shutil.rmtree(root / "data")
