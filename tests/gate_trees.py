"""Trees for the gate: the small chain of `fake_chain`, made better or worse, evaluated by the real stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Params
from diffretouch.files.pictures import Picture, read_srgb, write_png8
from diffretouch.stages import evaluate
from tests import fake_chain

DATASET = "fivek"
PHOTOS = 6
Change = Callable[[Picture, pd.Series, Path], Picture]
"""(picture, its row of samples, work/decode of the tree) -> what stands there instead."""


def params(**gate: object) -> Params:
    """Small, with rules that the chain of the tests can keep; sections of `gate` are merged into them."""
    floors = {"psnr": 15.0, "psnr_over_input": 0.5, "slope_mean": 0.3, "slope_each": 0.2, "spearman": 0.8}
    rules: dict[str, object] = {
        "floors": floors | {"texture": 0.6},
        "cross_talk": 5.0,
        "losses": {"psnr": 0.1, "slope": 0.1, "texture": 0.05},
        "gain": 0.1,
        "slices": {"photos": 2, "expert": 0.1, "camera": 0.1, "category": 0.1, "group": 0.1},
        "clipping": {"over_input": 0.5, "over_champion": 0.05},
        "votes": {"against": "mean_expert", "share": 0.5, "votes": 4},
        "photos": 2,
    }
    for name, value in gate.items():
        known = rules.get(name)
        rules[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return fake_chain.params(gate=rules, report={"long_edge": 60})


def build(root: Path, change: Change | None = None, pictures: dict[str, Picture] | None = None) -> Path:
    """A tree with everything that the gate reads, its pictures `change`d before they are measured."""
    fake_chain.build(root, DATASET, pictures or {f"scene{i}": fake_chain.scene(i, 40, 60) for i in range(PHOTOS)})
    learned = {"status": "ok", "kind": "", "reason": "", "licence": "CC BY 4.0, A. Photographer", "group": "learned"}
    fake_chain.quarantine(root, DATASET, [("a0001-learned", "", "")], **learned)
    write_model(root)
    # the gate reads no random tastes, and measuring them takes most of the time
    kept = ("expert", "neutral", "axis_")
    edit(root / "work/sample" / DATASET / "samples.parquet", lambda t: t[t["sweep"].str.startswith(kept)])
    if change is not None:
        repaint(root, change)
    measure(root)
    return root


def write_model(root: Path, origin: dict | None = None, weights: torch.Tensor | None = None) -> None:
    """The files of a saved model that the gate looks into."""
    model = root / "work/train" / DATASET / "model"
    (model / "unet").mkdir(parents=True, exist_ok=True)
    told = {"dataset": "fivek demo", "provenance": "simulated", "licence": "CC0"} if origin is None else origin
    (model / "model_index.json").write_text(json.dumps({"_class_name": "RetouchPipeline", "origin": told}))
    tensor = torch.zeros(3, 2) if weights is None else weights
    save_file({"conv.weight": tensor}, model / "unet" / "diffusion_pytorch_model.safetensors")


def repaint(root: Path, change: Change) -> None:
    """Replace every sampled picture by what `change` makes of it."""
    sampled = root / "work/sample" / DATASET
    for _, row in pd.read_parquet(sampled / "samples.parquet").iterrows():
        path = sampled / row["path"]
        write_png8(path, change(read_srgb(path), row, root / "work/decode" / DATASET))


def measure(root: Path) -> None:
    """The real evaluate stage; its folder is made anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        # without the plots, which no test here looks at
        patch.setattr(evaluate, "save", lambda figure, path: path.write_bytes(b""))
        patch.setattr(evaluate.plots, "psnr", lambda *_, **__: None)
        patch.setattr(evaluate.plots, "control", lambda *_, **__: None)
        evaluate.run(params(), DATASET)


def copy(tree: Path, root: Path) -> Path:
    """A tree of its own with the same files."""
    return Path(shutil.copytree(tree, root))


def truth(row: pd.Series, decoded: Path) -> Picture:
    """The expert's picture that a sample of the sweep `expert` is compared with."""
    return read_srgb(decoded / f"expert_{row['expert']}" / f"{row['photo_id']}.tif")


def nearer(share: float, only: Callable[[pd.Series], bool] = lambda _: True) -> Change:
    """Moves results towards their expert by a share of the way (below 0: away from it)."""

    def change(picture: Picture, row: pd.Series, decoded: Path) -> Picture:
        if row["sweep"] != "expert" or not only(row):
            return picture
        return np.clip(picture + share * (truth(row, decoded) - picture), 0, 1).astype(np.float32)

    return change


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Rewrite a parquet table."""
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def flat_axis(picture: Picture, row: pd.Series, decoded: Path) -> Picture:
    """Sliders that do nothing: every point along an axis shows the untouched photo."""
    if str(row["sweep"]).removeprefix("axis_") not in ATTRIBUTES:
        return picture
    return read_srgb(decoded / "input" / f"{row['photo_id']}.tif")
