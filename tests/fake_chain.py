"""A small but real chain on disk, in the formats of the stages before evaluate: no model, simple adjustments instead.

The "model" of the fixture obeys c by a known law, so the numbers of the stages after it can be foretold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.condition import expert_range, just_noticeable, photo_range
from diffretouch.config import Params
from diffretouch.files.atomic import whole
from diffretouch.files.pictures import Picture, jpeg8, reduce_to, write_picture, write_png8
from diffretouch.files.tables import write_table

ROOT = Path(__file__).resolve().parents[1]
EXPERTS = {"fivek": ("a", "b", "c"), "ppr10k": ("a", "b")}
# gamma, saturation, contrast, warmth of each expert's taste
TASTES = {"a": (0.75, 1.25, 1.15, 0.04), "b": (0.6, 0.95, 0.9, -0.03), "c": (0.9, 1.05, 1.35, 0.0)}
SCORE_SIZE = 48
DRAWS, POINTS = 2, 7
HOSTILE = "<script>alert('x')</script>"


def params(profile: Path = ROOT / "params.yaml", **sections: dict) -> Params:
    """The committed parameters, made small."""
    tree = yaml.safe_load(profile.read_text())
    for dataset, experts in EXPERTS.items():
        tree["corpora"][dataset]["experts"] = list(experts)
    tree["attributes"]["size"] = SCORE_SIZE
    tree["evaluate"]["bootstrap"] = 200
    tree["embed"] |= {"perplexity": 4.0, "iterations": 250}
    tree["study"] |= {"pairs_a_photo": 3, "repeats": 2, "long_edge": 48}
    tree["report"] |= {"photos": 2, "long_edge": 60}
    tree["runtime"]["workers"] = 1
    for name, values in sections.items():
        # the name in params.yaml stands for the rendering there
        named = {"profile": "test-1"} if name == "decode" else {}
        tree[name] |= named | values
    return Params.model_validate(tree)


def adjust(image: Picture, gamma: float, saturation: float, contrast: float, warmth: float) -> Picture:
    """A plain retouch of an sRGB picture in [0,1]."""
    grey = image.mean(-1, keepdims=True)
    out = grey + saturation * (image - grey)
    out = (np.clip(out, 0, 1) ** gamma - 0.5) * contrast + 0.5 + np.array([warmth, 0, -warmth])
    return np.clip(out, 0, 1).astype(np.float32)


def scene(seed: int, height: int, width: int) -> Picture:
    """A smooth coloured picture in [0,1] with some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [
        sum(rng.uniform(0.1, 0.4) * np.sin(rng.uniform(1, 14) * (a * x + b * y) + rng.uniform(0, 6)) for _ in range(4))
        for a, b in rng.normal(size=(3, 2))
    ]
    image = 0.42 + 0.3 * np.stack(waves, -1) + rng.normal(0, 0.01, (height, width, 3))
    return np.clip(image, 0.02, 0.98).astype(np.float32)


def photographs(long_edge: int) -> dict[str, Picture]:
    """Four real photographs for looking at the page (scikit-image's and scikit-learn's), by name."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    found = {
        "coffee": data.coffee(),
        "china": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
        "astronaut": data.astronaut(),
    }
    return {name: reduce_to((image / 255).astype(np.float32), long_edge=long_edge) for name, image in found.items()}


def model(mid: Picture, c: np.ndarray) -> Picture:
    """What stands for a model: the experts' middle, moved along the four attributes by c."""
    colour, bright, contrast, warm = c
    return adjust(
        mid, float(np.exp(-0.22 * bright)), float(np.exp(0.2 * colour)), float(np.exp(0.16 * contrast)), 0.03 * warm
    )


def build(
    root: Path,
    dataset: str,
    pictures: dict[str, Picture] | None = None,
    *,
    provenance: str = "simulated",
    input_kind: str = "raw",
) -> None:
    """Write decode, attributes, train and sample of `dataset` under root/work: 4 photos in 2 groups.

    Of train its history, and what a model of FiveK trained here, or one of PPR10K converted, says of itself.
    """
    experts = EXPERTS[dataset]
    sources = pictures or {f"scene{i}": scene(i, 40, 60) for i in range(4)}
    decode, sample = root / "work/decode" / dataset, root / "work/sample" / dataset
    manifest, truths, samples = [], [], []
    for i, (name, upright) in enumerate(sources.items()):
        photo_id = f"{1356 + i // 2}_{i % 2}" if dataset == "ppr10k" else f"a{4501 + i:04d}-{name}"
        dark = np.clip(upright**1.5, 0, 1)
        results = {x: adjust(dark, *TASTES[x]) for x in experts}
        paths = {"input": f"input/{photo_id}.tif"} | {f"expert_{x}": f"expert_{x}/{photo_id}.tif" for x in experts}
        for column, image in {"input": dark, **{f"expert_{x}": r for x, r in results.items()}}.items():
            write_picture(decode / paths[column], image)
        paths["mask"] = None
        if dataset == "ppr10k":
            paths["mask"] = f"mask/{photo_id}.png"
            yy, xx = np.mgrid[-1 : 1 : upright.shape[0] * 1j, -1 : 1 : upright.shape[1] * 1j]
            write_png8(decode / paths["mask"], (xx**2 + yy**2 < 0.4).astype(np.float32))
        facts = {
            "split": "test",
            "group": f"group{i // 2}",
            "licence": f"CC BY 4.0, <b>photographer {i}</b>",
            "camera": f"Sim {i % 2}",
            "categories": f"outdoors night{i // 2}",
        }
        manifest.append(
            {
                "photo_id": photo_id,
                **facts,
                "status": "ok",
                "kind": "",
                "reason": "",
                "width": upright.shape[1],
                "height": upright.shape[0],
                **paths,
            }
        )
        stack = torch.stack([torch.from_numpy(r).permute(2, 0, 1) for r in results.values()])
        s = scores(stack, SCORE_SIZE).double()
        settings = params().attributes
        c = expert_range(s, just_noticeable(photo_range(s)[0], settings)).numpy()
        for k, x in enumerate(experts):
            truths.append(
                {"photo_id": photo_id, "expert": x, **facts}
                | {f"score_{a}": float(s[k, j]) for j, a in enumerate(ATTRIBUTES)}
                | {f"c_{a}": float(c[k, j]) for j, a in enumerate(ATTRIBUTES)}
            )
        mid = np.mean(list(results.values()), axis=0)
        for sweep, expert, number, condition in _sweeps(experts, c, np.random.default_rng(i)):
            path = f"{sweep}/{photo_id}_{expert or ''}{number}.png"
            write_png8(sample / path, model(mid, condition))
            samples.append(
                {
                    "photo_id": photo_id,
                    **facts,
                    "sweep": sweep,
                    "expert": expert,
                    "sample": number,
                    "seed": 2**62 + len(samples),
                    "scheduler": "ddpm",
                    "steps": 2,
                    **{f"c_{a}": float(v) for a, v in zip(ATTRIBUTES, condition, strict=True)},
                    "path": path,
                }
            )
    write_table(decode / "manifest.parquet", pd.DataFrame(manifest))
    quarantine(root, dataset, [("a0009-broken", "unreadable", f"LibRaw cannot read {HOSTILE}.dng: data error")])
    card = {"name": f"{dataset} demo", "provenance": provenance, "licence": "CC0", "notes": "made by a test"}
    named = {"decode_profile": "linear-srgb-2", "decode_settings": params().decode.rendering}
    (decode / "corpus.json").write_text(json.dumps(card | named | {"input": input_kind}))
    write_table(root / "work/attributes" / dataset / "attributes.parquet", pd.DataFrame(truths))
    (root / "work/attributes" / dataset / "scales.json").write_text(params().attributes.model_dump_json())
    write_table(sample / "samples.parquet", pd.DataFrame(samples))
    _history(root / "work/train" / dataset / "history.jsonl")
    converted = {"provenance": "converted", "licence": "non-commercial", "notes": f"Converted from {HOSTILE}.ckpt."}
    origin = {"dataset": card["name"], "licence": "CC0"} if dataset == "fivek" else converted
    (root / "work/train" / dataset / "model").mkdir(exist_ok=True)
    (root / "work/train" / dataset / "model" / "model_index.json").write_text(json.dumps({"origin": origin}))


def quarantine(
    root: Path,
    dataset: str,
    photos: Sequence[tuple[str, str, str]],
    pictures: Mapping[str, Picture] | None = None,
    **facts: str,
) -> None:
    """Add rows (photo_id, kind, reason) that were not used to the manifest, and thumbnails from `pictures` by id."""
    decode = root / "work/decode" / dataset
    row = {"split": "train", "group": HOSTILE, "licence": "", "camera": "", "categories": ""}
    row |= {"status": "quarantined", "width": 0, "height": 0, **facts}
    bad = [row | {"photo_id": photo_id, "kind": kind, "reason": reason} for photo_id, kind, reason in photos]
    manifest = pd.read_parquet(decode / "manifest.parquet")
    write_table(decode / "manifest.parquet", pd.concat([manifest, pd.DataFrame(bad)], ignore_index=True))
    for photo_id, image in (pictures or {}).items():
        with whole(decode / "quarantine" / f"{photo_id}.jpg") as temporary:
            temporary.write_bytes(jpeg8(image, 90))


def _sweeps(experts, c, rng):
    """(sweep, expert, sample, condition) of one photo."""
    for k, x in enumerate(experts):
        yield "expert", x, 0, c[k]
    yield "neutral", None, 0, np.zeros(4)
    for name, low, high in (("random_0_1", 0, 1), ("random_1_2", 1, 2), ("random_2_3", 2, 3)):
        for number in range(DRAWS):
            yield name, None, number, rng.uniform(low, high, 4) * rng.choice([-1, 1], 4)
    for axis, attribute in enumerate(ATTRIBUTES):
        for number, value in enumerate(np.linspace(-1, 1, POINTS)):
            yield f"axis_{attribute}", None, number, np.eye(4)[axis] * value


def _history(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"step": s, "loss": 1 / (1 + s / 100), "eps": 0.8 / (1 + s / 90), "pixel": 0.2 / (1 + s / 200), "control": 0.1}
        for s in range(20, 600, 20)
    ]
    lines += [{"step": s, "val_psnr": 15 + s / 100, "note": "unknown"} for s in (200, 400, 600)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def draw_attributes(path: Path) -> None:
    """A plot where the attributes stage leaves its own."""
    from matplotlib import pyplot as plt

    from diffretouch.files.figures import save

    figure, axes = plt.subplots(figsize=(3, 1))
    axes.plot([0, 1])
    save(figure, path, dpi=50)
