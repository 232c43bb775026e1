"""New networks from the `train` section of `params.yaml`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from diffretouch.config import Autoencoder, Train
from diffretouch.errors import UserError
from diffretouch.model.grid import GridHead, Guide
from diffretouch.model.pipeline import RetouchPipeline

LATENT_CHANNELS = 4
AUTOENCODER_FILE = "diffusion_pytorch_model.safetensors"


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


def new_autoencoder(settings: Autoencoder, norm_groups: int) -> AutoencoderKL:
    """A small AutoencoderKL of factor 8, not yet fitted."""
    levels = len(settings.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=norm_groups,
        mid_block_add_attention=False,
    )


def load_autoencoder(source: str, sha256: str) -> AutoencoderKL:
    """The frozen autoencoder named in `params.yaml`: a local folder, or a hub id already in the local hub cache.

    Nothing is downloaded silently. Raises UserError when it is absent or its checksum differs.
    """
    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(source, local_files_only=True))
        except (LocalEntryNotFoundError, RepositoryNotFoundError, HfHubHTTPError, ValueError, OSError) as error:
            raise UserError(
                f"train.autoencoder.source {source!r} is neither a folder nor in the local hub cache; fetch it with "
                f"`hf download {source}`, or set the source to null to fit a small one"
            ) from error
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    file = folder / AUTOENCODER_FILE
    if not file.exists():
        raise UserError(f"{file} not found: an AutoencoderKL in diffusers' layout was expected in {folder}")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(f"{file} has sha256 {found}, but params.yaml expects {sha256}")
    return AutoencoderKL.from_pretrained(folder, local_files_only=True)


def new_pipeline(train: Train, autoencoder: AutoencoderKL, variance: str, seed: int) -> RetouchPipeline:
    """An untrained model that leaves every photo as it is; its weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, grid_head, guide = new_unet(train), GridHead(train.grid_depth), Guide()
    return RetouchPipeline(
        unet=unet,
        vae=autoencoder,
        grid_head=grid_head,
        guide=guide,
        scheduler=new_scheduler(variance),
        condition_gain=train.condition_gain if train.condition == "expert" else 0.0,
        lowest_timestep=train.timesteps[0],
        highest_timestep=train.timesteps[1],
        num_inference_steps=train.validation_steps,
        last_timestep=train.validation_last_timestep,
    )
