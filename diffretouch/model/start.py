"""Training that starts from trained weights: Stable Diffusion's, or an earlier RetouchPipeline's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from diffretouch.config import FIRST_TIMESTEP, Train
from diffretouch.errors import ConfigError, UserError
from diffretouch.model.pipeline import RetouchPipeline
from diffretouch.model.weights import LATENT_CHANNELS, WEIGHTS_FILE, check, find, read_config
from diffretouch.model.widened import WidenedConv

OURS = {"in_channels": LATENT_CHANNELS + 3, "out_channels": LATENT_CHANNELS + 4, "cross_attention_dim": 4}
"""What differs from a base U-Net: the photo comes in, grid features go out, c is the context."""
BASES_OWN = {
    *("sample_size", "block_out_channels", "down_block_types", "up_block_types", "layers_per_block"),
    *("attention_head_dim", "use_linear_projection", "upcast_attention", "norm_num_groups", "norm_eps"),
}
"""What a base U-Net's configuration may choose; all else must be diffusers' default, as it is in Stable Diffusion."""
BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")


def start_folder(train: Train) -> Path | None:
    """The folder `train.start` names, its U-Net's checksum verified; None for random weights."""
    start = train.start
    if start.source is None or start.sha256 is None:
        return None
    folder = find(start.source, "train.start.source", "start from random weights")
    check(folder / "unet" / WEIGHTS_FILE, start.sha256, "a U-Net")
    return folder


def holds_pipeline(folder: Path) -> bool:
    """Whether `folder` holds a RetouchPipeline, and not a base model."""
    index = folder / "model_index.json"
    return index.exists() and read_config(index).get("_class_name") == RetouchPipeline.__name__


def earlier_pipeline(folder: Path, train: Train, autoencoder: AutoencoderKL, variance: str) -> RetouchPipeline:
    """An earlier training or a converted checkpoint with its own grid head, guide and value ranges."""
    pipe = RetouchPipeline.from_pretrained(folder, vae=autoencoder, local_files_only=True, dtype=torch.float32)
    config = pipe.unet.config
    if odd := {name: config[name] for name, value in OURS.items() if config[name] != value}:
        raise UserError(f"{folder}/unet has {odd}, but a RetouchPipeline's has {OURS}")
    told: dict[str, tuple[Any, Any]] = {"grid_depth": (train.grid_depth, pipe.grid_head.config.depth)}
    if train.condition == "expert":
        told["condition_gain"] = (train.condition_gain, pipe.config.condition_gain)
    _agree(config, train, folder, told)
    pipe.unet.register_to_config(sample_size=train.network_size // 8)
    pipe.register_modules(scheduler=DDPMScheduler.from_config(pipe.scheduler.config, variance_type=variance))
    return pipe


def widened_unet(folder: Path, train: Train) -> UNet2DConditionModel:
    """The base's U-Net with 3 more inputs and 4 more outputs, all zero, and a context of width 4 that is not heard yet.

    Its eps are those of the base whose cross-attentions give their output biases. Heads and the kind of projection are
    the base's own.
    """
    config = {**_defaults(), **read_config(folder / "unet" / "config.json")}
    _refuse_other_networks(config, folder / "unet" / "config.json")
    _agree(config, train, folder, {})
    with torch.device("meta"):
        base = UNet2DConditionModel.from_config(config)
        unet = UNet2DConditionModel.from_config({**config, **OURS, "sample_size": train.network_size // 8})
    file = folder / "unet" / WEIGHTS_FILE
    weights = load_file(file)
    _refuse_other_weights(weights, base.state_dict(), file)
    unet.load_state_dict(_widened(weights, unet.state_dict()), assign=True)
    unet.conv_in = WidenedConv(unet.conv_in, trained=LATENT_CHANNELS, dim=1)
    unet.conv_out = WidenedConv(unet.conv_out, trained=LATENT_CHANNELS, dim=0)
    return unet


def scheduler_like(folder: Path, variance: str) -> DDPMScheduler:
    """The base's noise schedule, without clipping; raises UserError when the base does not predict eps."""
    file = folder / "scheduler" / "scheduler_config.json"
    config = read_config(file)
    predicts, steps = config.get("prediction_type", "epsilon"), config.get("num_train_timesteps", 1000)
    if predicts != "epsilon":
        raise UserError(
            f"{file}: this base predicts {predicts}, but the network here predicts the noise (epsilon): start from "
            "Stable Diffusion 1.x, 2-base or 2.1-base instead"
        )
    if steps != FIRST_TIMESTEP + 1:
        raise UserError(f"{file}: this base has {steps} timesteps, but {FIRST_TIMESTEP + 1} are needed")
    betas = {name: config[name] for name in BETAS if name in config}
    return DDPMScheduler(num_train_timesteps=steps, variance_type=variance, clip_sample=False, **betas)


def parameter_groups(pipe: RetouchPipeline, train: Train) -> list[dict[str, Any]]:
    """What the optimiser moves, and how fast; frozen weights are left out.

    The U-Net learns at `learning_rate`, the grid head and the guide at `head_learning_rate`, and so do the parts of a
    U-Net started from Stable Diffusion that are new in it: the added channels of its first and last convolution and
    W_v of every cross-attention.
    """
    grown = isinstance(pipe.unet.conv_in, WidenedConv)
    new = [*pipe.grid_head.parameters(), *pipe.guide.parameters()]
    trained: list[nn.Parameter] = []
    for name, parameter in pipe.unet.named_parameters():
        fresh = grown and (".new_" in name or name.endswith(".attn2.to_v.weight"))
        (new if fresh else trained).append(parameter)
    return [
        {"params": [p for p in group if p.requires_grad], "lr": rate}
        for group, rate in ((trained, train.learning_rate), (new, train.head_learning_rate))
    ]


def _widened(base: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights (fp32) of the shapes of `like`: the base's where it has any, zero elsewhere and in all of W_k and W_v."""
    weights = {name: torch.zeros(wanted.shape, dtype=torch.float32) for name, wanted in like.items()}
    for name, weight in weights.items():
        if not name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")):
            weight[tuple(map(slice, base[name].shape))] = base[name]
    return weights


def _defaults() -> dict[str, Any]:
    parameters = inspect.signature(UNet2DConditionModel.__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name != "self"}


def _refuse_other_networks(config: Mapping[str, Any], file: Path) -> None:
    """Raise UserError unless this is the U-Net of Stable Diffusion 1.x or 2.x, of any width."""
    if (config["in_channels"], config["out_channels"]) != (LATENT_CHANNELS, LATENT_CHANNELS):
        raise UserError(
            f"{file} has {config['in_channels']} channels in and {config['out_channels']} out, but a base whose latent "
            f"has {LATENT_CHANNELS} channels, and nothing beside it, is needed"
        )
    usual = {name: value for name, value in _defaults().items() if name not in BASES_OWN | OURS.keys()}
    odd = {
        name: value
        for name, value in config.items()
        if name not in BASES_OWN | OURS.keys() and name[0] != "_" and (name not in usual or value != usual[name])
    }
    kinds = [*config["down_block_types"]], [kind.replace("Up", "Down") for kind in reversed(config["up_block_types"])]
    if not set(kinds[0]) <= {"CrossAttnDownBlock2D", "DownBlock2D"} or kinds[0] != kinds[1]:
        odd |= {name: config[name] for name in ("down_block_types", "up_block_types")}
    if odd:
        raise UserError(
            f"{file} is not the U-Net of Stable Diffusion 1.x or 2.x: "
            + ", ".join(f"{name} is {value!r}" for name, value in sorted(odd.items()))
        )


def _refuse_other_weights(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path) -> None:
    """Raise UserError, with names, unless the file holds exactly the weights that its configuration asks for."""
    wrong = [f"{name} is unknown" for name in sorted(weights.keys() - wanted.keys())]
    wrong += [f"{name} is missing" for name in sorted(wanted.keys() - weights.keys())]
    wrong += [
        f"{name} has shape {[*weights[name].shape]}, not {[*wanted[name].shape]}"
        for name in sorted(weights.keys() & wanted.keys())
        if weights[name].shape != wanted[name].shape
    ]
    if wrong:
        raise UserError(f"{file} does not fit the config.json beside it:\n" + "\n".join(f"  {line}" for line in wrong))


def _agree(config: Mapping[str, Any], train: Train, folder: Path, told: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise ConfigError, with both values, where `params.yaml` describes another network than the one started from."""
    shape = {
        "channels": (train.channels, tuple(config["block_out_channels"])),
        "attention": (train.attention, tuple("CrossAttn" in kind for kind in config["down_block_types"])),
        "layers_per_block": (train.layers_per_block, config["layers_per_block"]),
        "norm_groups": (train.norm_groups, config["norm_num_groups"]),
    }
    wrong = [
        f"  train.{name} is {_shown(here)} in params.yaml, but {_shown(there)} in the start"
        for name, (here, there) in {**shape, **told}.items()
        if here != there
    ]
    if wrong:
        raise ConfigError(f"params.yaml does not describe the network in {folder}:\n" + "\n".join(wrong))


def _shown(value: Any) -> Any:
    """As YAML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(str(_shown(item)) for item in value)}]" if isinstance(value, tuple) else value
