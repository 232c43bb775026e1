"""Names of ldm checkpoints beside those of diffusers.

Every name is made from the network that will hold the tensor, so each of its tensors has exactly one name, and none is
forgotten or guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "grid_head": "hdrdecoder.",
    "guide": "hdrdecoder.",
}
"""Of the tensors' names of each part."""
SHOWN = 8
"""Names of a kind that a message shows."""

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
GRID_HEAD = {
    f"layers.{2 * i}": f"coefficients.{name}.0" for i, name in enumerate(("splat1", "splat2", "pred1", "pred2"))
}
GUIDE = {
    "matrix": "guide.M",
    "matrix_bias": "guide.M_bias",
    "thresholds": "guide.thresholds",
    "slopes": "guide.slopes",
    "bias": "guide.bias",
}


def unet_names(attends: Sequence[bool], layers: int) -> dict[str, str]:
    """Modules of a UNet2DConditionModel to ldm's: {"conv_in": "input_blocks.0.0", ...}; below them names are equal."""
    last = len(attends) - 1
    names = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "mid_block.attentions.0": "middle_block.1",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    names |= _below("mid_block.resnets.0", "middle_block.0", UNET_RESNET)
    names |= _below("mid_block.resnets.1", "middle_block.2", UNET_RESNET)
    for level, attend in enumerate(attends):
        for layer in range(layers):
            block = f"input_blocks.{1 + level * (layers + 1) + layer}"
            names |= _below(f"down_blocks.{level}.resnets.{layer}", f"{block}.0", UNET_RESNET)
            if attend:
                names[f"down_blocks.{level}.attentions.{layer}"] = f"{block}.1"
        if level < last:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
    for level, attend in enumerate(reversed(attends)):
        for layer in range(layers + 1):
            block = f"output_blocks.{level * (layers + 1) + layer}"
            names |= _below(f"up_blocks.{level}.resnets.{layer}", f"{block}.0", UNET_RESNET)
            if attend:
                names[f"up_blocks.{level}.attentions.{layer}"] = f"{block}.1"
        if level < last:
            names[f"up_blocks.{level}.upsamplers.0.conv"] = f"{block}.{2 if attend else 1}.conv"
    return names


def vae_names(levels: int, layers: int) -> dict[str, str]:
    """Modules of an AutoencoderKL to ldm's, whose decoder counts its levels from the finest."""
    names = {name: name for name in ("quant_conv", "post_quant_conv")}
    for side in ("encoder", "decoder"):
        names |= {f"{side}.{name}": f"{side}.{name}" for name in ("conv_in", "conv_out")}
        names[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        names |= _below(f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", VAE_ATTENTION)
        for i in range(2):
            names |= _below(f"{side}.mid_block.resnets.{i}", f"{side}.mid.block_{i + 1}", VAE_RESNET)
    for level in range(levels):
        down, up = f"encoder.down.{level}", f"decoder.up.{levels - 1 - level}"
        for layer in range(layers):
            names |= _below(f"encoder.down_blocks.{level}.resnets.{layer}", f"{down}.block.{layer}", VAE_RESNET)
        for layer in range(layers + 1):
            names |= _below(f"decoder.up_blocks.{level}.resnets.{layer}", f"{up}.block.{layer}", VAE_RESNET)
        if level < levels - 1:
            names[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"{down}.downsample.conv"
            names[f"decoder.up_blocks.{level}.upsamplers.0.conv"] = f"{up}.upsample.conv"
    return names


def translate(keys: Iterable[str], names: Mapping[str, str], part: str) -> dict[str, str]:
    """Names of a part's tensors in the checkpoint: {"conv_in.weight": "model.diffusion_model.input_blocks...", ...}."""
    return {key: PREFIXES[part] + _translated(key, names) for key in keys}


def _translated(key: str, names: Mapping[str, str]) -> str:
    module, rest = key, ""
    while module and module not in names:
        module, _, last = module.rpartition(".")
        rest = f".{last}{rest}"
    return names[module] + rest


def _below(module: str, other: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"{module}.{ours}": f"{other}.{theirs}" for ours, theirs in names.items()}


def few(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
