"""How large the networks of an ldm checkpoint are, read from the shapes of its tensors.

What the method fixes is not read: 4 latent channels, 7 channels in, 8 out, a context of width 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from diffretouch.errors import UserError
from diffretouch.model.ldm_keys import PREFIXES
from diffretouch.model.weights import LATENT_CHANNELS

Shapes = Mapping[str, tuple[int, ...]]

LEVELS = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
GROUPS = 32
"""Groups of ldm's norms, whatever their width."""


def unet_config(shapes: Shapes, head_channels: int) -> dict[str, Any]:
    """What UNet2DConditionModel is built from, read from the U-Net's tensors; UserError where they do not tell.

    Levels end at their downsampling convolution (`.op`); a level attends where a `.1.norm` stands behind a block.
    """
    own = PREFIXES["unet"]
    levels: list[list[int]] = [[]]
    attends: list[bool] = [False]
    for block in range(1, 1 + max(_indices(shapes, rf"{own}input_blocks\.(\d+)\."), default=0)):
        if any(name.startswith(f"{own}input_blocks.{block}.0.op.") for name in shapes):
            levels.append([])
            attends.append(False)
        else:
            levels[-1].append(need(shapes, f"{own}input_blocks.{block}.0.in_layers.2.weight")[0])
            attends[-1] |= f"{own}input_blocks.{block}.1.norm.weight" in shapes
    if not all(levels):
        raise UserError(f"{own}input_blocks: widths of ResBlocks by level were expected, found {levels}")
    widths = tuple(level[0] for level in levels)
    _refuse_odd(f"{own}input_blocks", widths)
    attends_at = {width for width, attend in zip(widths, attends, strict=True) if attend} | {widths[-1]}  # middle_block
    if odd := sorted(width for width in attends_at if width % head_channels):
        raise UserError(
            f"attention of width {odd} has no heads of {head_channels} channels: name others with --head-channels"
        )
    blocks = _indices(shapes, rf"{own}middle_block\.1\.transformer_blocks\.(\d+)\.")
    return {
        "in_channels": LATENT_CHANNELS + 3,
        "out_channels": LATENT_CHANNELS + 4,
        "cross_attention_dim": 4,
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": tuple(LEVELS[0][attend] for attend in attends),
        "up_block_types": tuple(LEVELS[1][attend] for attend in reversed(attends)),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        # named so in diffusers, it is the number of heads at each level
        "attention_head_dim": tuple(max(1, width // head_channels) for width in widths),
        "transformer_layers_per_block": 1 + max(blocks, default=0),
        "use_linear_projection": len(need(shapes, f"{own}middle_block.1.proj_in.weight")) == 2,
        "norm_num_groups": GROUPS,
    }


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """What AutoencoderKL is built from, read from the autoencoder's tensors; UserError where they do not tell."""
    own = f"{PREFIXES['vae']}encoder.down"
    levels = 1 + max(_indices(shapes, rf"{own}\.(\d+)\."), default=-1)
    widths = tuple(need(shapes, f"{own}.{level}.block.0.conv1.weight")[0] for level in range(levels))
    if len(widths) != 4:
        raise UserError(f"{own}: 4 levels were expected, which reduce a photo to an eighth, found {len(widths)}")
    _refuse_odd(own, widths)
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": 1 + max(_indices(shapes, rf"{own}\.0\.block\.(\d+)\."), default=0),
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": GROUPS,
    }


def need(shapes: Shapes, name: str) -> tuple[int, ...]:
    """The shape of a tensor that tells how large the network is; UserError where it is missing."""
    if name not in shapes:
        raise UserError(f"{name} is missing, by whose shape the network is known")
    return shapes[name]


def _refuse_odd(where: str, widths: Sequence[int]) -> None:
    if any(width % GROUPS for width in widths):
        raise UserError(f"{where}: widths must be multiples of {GROUPS}, found {list(widths)}")


def _indices(shapes: Shapes, pattern: str) -> set[int]:
    return {int(found[1]) for name in shapes if (found := re.match(pattern, name))}
