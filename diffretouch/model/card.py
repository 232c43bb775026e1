"""The model card that lies beside a saved model, in the hub's layout: YAML front matter, then plain words.

The text depends on the model alone: no date, path or machine is in it.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import yaml
from diffusers import DiffusionPipeline

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import FIRST_TIMESTEP

CARD = "README.md"


class Scales(TypedDict):
    """What c is measured in: the attribute stage's scales.json."""

    scheme: str
    """How c follows from the scores of one photo's experts."""
    size: int
    """Side in pixels of the square a picture is scored at."""
    just_noticeable: dict[str, float]
    """Half-ranges under which experts count as agreeing: of the score (contrast: of its middle)."""
    half_range: dict[str, float]
    """Mean half-range of the experts over the training photos: what one unit of c is worth, in the score's units."""


class Origin(TypedDict, total=False):
    """What a model was made from; the card leaves out what is not told."""

    dataset: str
    provenance: Literal["real", "simulated", "converted"]
    licence: str
    """Of the training data, and so of the model."""
    notes: str
    decode_profile: str
    """Name and version of the rendering that the training photos went through."""
    attributes: Scales
    weights: str
    """Of trained weights that say no more of themselves: the hub's id, or the folder's name."""
    sha256: str
    """Of those."""
    start: Origin
    """Of the model whose weights the training started from."""
    autoencoder: Origin
    """Of the autoencoder, where it was not fitted to the training photos."""


PROVENANCE = {
    "real": "It was trained on the work of real retouchers.",
    "simulated": "It was trained on a simulated corpus, whose experts are rules, not people. Numbers and models from a "
    "simulated corpus say nothing about real retouchers.",
    "converted": "It was converted from a checkpoint in the ldm layout, which does not record what it was trained on.",
}

BODY = """
# {title}

A diffusion model that retouches a photo as an expert might. It never outputs pixels: it outputs an affine bilateral
grid, which is applied to the photo at the photo's own size, so texture survives. Four sliders choose a style inside
the range that experts span, and other noise gives another retouching of the same style. The method is DiffRetouch
(Duan et al., AAAI 2025, arXiv 2407.03757).
{ablation}
## Use

It is a diffusers pipeline whose class comes with the package `diffretouch`; all weights are safetensors.

```python
from pathlib import Path

import torch
from diffretouch.files.pictures import read_srgb, write_png8
from diffretouch.model import RetouchPipeline

pipe = RetouchPipeline.from_pretrained(".")  # the folder of this card
photo = torch.from_numpy(read_srgb(Path("photo.png"))).permute(2, 0, 1)
condition = torch.tensor([[0.0, 0.5, 0.0, 0.0]])  # {attributes}
out = pipe([photo], condition, generator=torch.Generator().manual_seed(0))
write_png8(Path("retouched.png"), out.images[0].permute(1, 2, 0).numpy())
```

## Values

- Photos and results: sRGB in [0,1], (3, height, width) of any size; results are clamped.
- Condition c, four numbers in this order: {attributes}. Larger is more colourful,
  brighter, of more contrast, warmer; [-1,1] is the experts' range, 0 its middle; beyond it results drift off.{scheme}
- Inside: {mixing}c is multiplied by {factors} and enters as one token of width 4. The network sees the photo at
  {side} x {side}, its aspect ratio ignored, as RGB in [-1,1] ({resize}). The grid, 12 x {depth} x {cells} x {cells}, is
  applied to the photo in {photo_range}; the guide reads it in {guide_range}.
{scales}
## Sampling

Ancestral DDPM on Stable Diffusion's noise schedule, eps-prediction, no guidance. Defaults: {calls} U-Net calls, evenly
spaced from timestep {first} to {last}, posterior variance `{variance}`; the last call's grid is the result. The grid
was trained on timesteps {low} to {high}.

## Parameters

| part | parameters |
|---|---:|
{parameters}

## Data, provenance and licence

{data}
"""


ABLATION = """
This model is an ablation: it has no grid, its pictures come from the autoencoder's decoder, and texture suffers.
"""
SCALES = """
One unit of c is the experts' mean half-range over the training photos, scored at {size} x {size} pixels. Experts whose
half-range on a photo is under the just-noticeable difference (contrast: a share of the middle) count as agreeing.

| attribute | one unit of c | just noticeable |
|---|---:|---:|
{rows}"""


def model_card(pipe: DiffusionPipeline) -> str:
    """README.md of a RetouchPipeline."""
    origin: Origin = pipe.config["origin"]
    licences = _licences(origin)
    non_commercial = any("non-commercial" in licence.lower() for licence in licences)
    front: dict[str, Any] = {
        "license": "other" if licences else "unknown",
        **({"license_name": "non-commercial" if non_commercial else "see-below"} if licences else {}),
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image",
        "tags": ["diffretouch", "photo-retouching", "bilateral-grid"],
    }
    if "provenance" in origin:
        front["tags"].append(f"{origin['provenance']}-data" if origin["provenance"] != "converted" else "converted")
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{BODY.format(**_facts(pipe, origin))}"


def _facts(pipe: DiffusionPipeline, origin: Origin) -> dict[str, Any]:
    config = pipe.config
    scales = origin.get("attributes")
    side = pipe.unet.config.sample_size
    mixing = config["slider_mixing"]
    rows = "; ".join(" ".join(f"{value:g}" for value in row) for row in mixing or [])
    factors = [config["condition_gain"] * sign for sign in config["condition_signs"]]
    ranges = {"unit": "[0,1]", "symmetric": "[-1,1]"}
    return {
        "title": f"DiffRetouch, {origin['dataset']}" if "dataset" in origin else "DiffRetouch",
        "ablation": ABLATION if config["output"] == "autoencoder" else "",
        "attributes": ", ".join(ATTRIBUTES),
        "scheme": f" Scheme: `{scales['scheme']}`." if scales else "",
        "mixing": f"c, a row, first becomes c x [{rows}], which sets the sliders; then " if mixing else "",
        "factors": f"{factors[0]:g}" if len(set(factors)) == 1 else ", ".join(f"{factor:g}" for factor in factors),
        "side": side,
        "resize": config["network_resize"],
        "depth": pipe.grid_head.config.depth,
        "cells": -(-side // 4),  # two strided convolutions
        "photo_range": ranges[config["photo_range"]],
        "guide_range": ranges[pipe.guide.config.input_range],
        "scales": _scales(scales) if scales else "",
        "calls": config["num_inference_steps"],
        "first": FIRST_TIMESTEP,
        "last": config["last_timestep"],
        "variance": pipe.scheduler.config.variance_type,
        "low": config["lowest_timestep"],
        "high": config["highest_timestep"],
        "parameters": "\n".join(f"| {name} | {count:,} |" for name, count in _counts(pipe).items()),
        "data": _data(origin),
    }


def _scales(scales: Scales) -> str:
    """A table of the attributes' units."""
    half, limit = scales["half_range"], scales["just_noticeable"]
    rows = "".join(f"| {name} | {half[name]:g} | {limit[name]:g} |\n" for name in ATTRIBUTES)
    return SCALES.format(size=scales["size"], rows=rows)


def _counts(pipe: DiffusionPipeline) -> dict[str, int]:
    """Parameters by part."""
    parts = {"U-Net": pipe.unet, "autoencoder (frozen)": pipe.vae, "grid head": pipe.grid_head, "guide": pipe.guide}
    counts = {name: sum(weight.numel() for weight in part.state_dict().values()) for name, part in parts.items()}
    return counts | {"in all": sum(counts.values())}


def _licences(origin: Origin) -> list[str]:
    """Of the data, of the weights it started from, and of the autoencoder."""
    own = [origin["licence"]] if origin.get("licence") else []
    others = [origin[part] for part in ("start", "autoencoder") if part in origin]
    return own + [licence for other in others for licence in _licences(other)]


def _data(origin: Origin) -> str:
    """A list; what the weights of the start were made from stands below, by the same words."""
    told = {
        "Training data": origin.get("dataset"),
        "Weights": f"{origin['weights']}, SHA-256 `{origin['sha256']}`" if "weights" in origin else None,
        "Provenance": PROVENANCE[origin["provenance"]] if "provenance" in origin else None,
        "Rendering of the photos": origin.get("decode_profile"),
        "Licence": origin.get("licence"),
        "Notes": origin.get("notes"),
    }
    lines = [f"- {name}: {words}" for name, words in told.items() if words]
    if origin.get("start"):
        lines += ["", "It started from the weights of another model:", "", _data(origin["start"])]
    if origin.get("autoencoder"):
        lines += ["", "Its autoencoder is another model's:", "", _data(origin["autoencoder"])]
    return "\n".join(lines) or "Not recorded."
