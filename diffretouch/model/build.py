"""The networks from the `train` section of `params.yaml`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

from diffretouch.config import Autoencoder, Train
from diffretouch.model.grid import GridHead, Guide
from diffretouch.model.pipeline import AUTOCAST, RetouchPipeline
from diffretouch.model.shrinking import make_shrinking
from diffretouch.model.start import earlier_pipeline, holds_pipeline, scheduler_like, start_folder, widened_unet
from diffretouch.model.weights import LATENT_CHANNELS, load_autoencoder


def new_unet(train: Train) -> UNet2DConditionModel:
    """A U-Net of the configured widths: 4 latent + 3 photo channels in, 4 eps + 4 grid features out, c as one token."""
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in train.attention]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(train.attention)]
    return UNet2DConditionModel(
        sample_size=train.network_size // 8,
        in_channels=LATENT_CHANNELS + 3,
        out_channels=LATENT_CHANNELS + 4,
        block_out_channels=train.channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        mid_block_type="UNetMidBlock2DCrossAttn",
        layers_per_block=train.layers_per_block,
        cross_attention_dim=4,
        # named so in diffusers, it is the number of heads at each level
        attention_head_dim=tuple(max(1, width // train.head_channels) for width in train.channels),
        norm_num_groups=train.norm_groups,
        use_linear_projection=True,
    )


def new_scheduler(variance: str) -> DDPMScheduler:
    """Stable Diffusion's noise schedule: T=1000, sqrt(beta) linear; no clipping of latents."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        variance_type=variance,
        clip_sample=False,
    )


def new_autoencoder(settings: Autoencoder) -> AutoencoderKL:
    """An AutoencoderKL of factor 8, not yet fitted."""
    levels, full = len(settings.channels), settings.shape == "stable_diffusion"
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.channels,
        layers_per_block=2 if full else 1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=settings.norm_groups,
        mid_block_add_attention=full,
    )
    if settings.init == "shrink":
        make_shrinking(vae)
    return vae


def trained_autoencoder(train: Train) -> AutoencoderKL | None:
    """The one `train.autoencoder` names, else the one beside the weights of `train.start`; None: fit a small one.

    Raises UserError when it is absent or its checksum differs.
    """
    named, start = train.autoencoder, train.start
    if named.source is not None and named.sha256 is not None:
        return load_autoencoder(named.source, named.sha256)
    if start.source is not None and named.sha256 is not None:
        return load_autoencoder(start.source, named.sha256, "train.start.source")
    return None


def new_pipeline(train: Train, autoencoder: AutoencoderKL, variance: str, seed: int) -> RetouchPipeline:
    """The model at step 0: from random weights, which depend on `seed` alone, or from those `train.start` names.

    It leaves every photo as it is, unless it goes on from an earlier training. Raises UserError where the trained
    weights are absent, altered or unfit.
    """
    settings: dict[str, Any] = {
        "condition_gain": train.condition_gain if train.condition == "expert" else 0.0,
        "lowest_timestep": train.pixel_timesteps[0],
        "highest_timestep": train.pixel_timesteps[1],
        "num_inference_steps": train.validation_steps,
        "last_timestep": train.validation_last_timestep,
        "output": train.output,
        "slider_mixing": None,
    }
    folder = start_folder(train)
    if folder is not None and holds_pipeline(folder):
        pipe = earlier_pipeline(folder, train, autoencoder, variance)
        pipe.register_to_config(**settings)
        pipe.autocast_dtype = AUTOCAST[train.precision]
        return pipe
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs, too
        unet = new_unet(train) if folder is None else widened_unet(folder, train)
        grid_head, guide = GridHead(train.grid_depth), Guide()
    scheduler = new_scheduler(variance) if folder is None else scheduler_like(folder, variance)
    pipe = RetouchPipeline(
        unet=unet, vae=autoencoder, grid_head=grid_head, guide=guide, scheduler=scheduler, **settings
    )
    pipe.autocast_dtype = AUTOCAST[train.precision]
    return pipe
