"""RetouchPipeline: a photo and four sliders in, the retouched photo and its grid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from torch import Tensor
from torch.nn.functional import interpolate

from diffretouch.bilateral_grid import slice_and_apply
from diffretouch.config import FIRST_TIMESTEP
from diffretouch.model.grid import GridHead, Guide


@dataclass
class RetouchOutput(BaseOutput):
    """What the pipeline gives."""

    images: list[Tensor]
    """One (3,H,W) a photo, sRGB clamped to [0,1], at the photo's own size."""
    grids: Tensor
    """(N,12,D,GH,GW)."""


class RetouchPipeline(DiffusionPipeline):
    """DiffRetouch: denoises a latent for a few steps and keeps the grid that the last U-Net call predicts.

    Args:
        unet: 7 channels in (latent, photo as RGB in [-1,1]), 8 out (eps, grid features), context width 4.
        vae: the autoencoder of training's ground truths; never called here, kept with the model it belongs to.
        grid_head: grid features to grid.
        guide: photo to guide.
        scheduler: DDPM, eps-prediction.
        condition_gain: c is multiplied by this before it enters the network; 0 makes it blind to c.
        lowest_timestep, highest_timestep: of training; the last call must lie inside.
        num_inference_steps: U-Net calls this model was validated with, the default.
        last_timestep: timestep of the last call it was validated with, the default.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        grid_head: GridHead,
        guide: Guide,
        scheduler: DDPMScheduler,
        condition_gain: float = 1.0,
        lowest_timestep: int = 0,
        highest_timestep: int = FIRST_TIMESTEP,
        num_inference_steps: int = 20,
        last_timestep: int = 200,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, vae=vae, grid_head=grid_head, guide=guide, scheduler=scheduler)
        self.register_to_config(
            condition_gain=condition_gain,
            lowest_timestep=lowest_timestep,
            highest_timestep=highest_timestep,
            num_inference_steps=num_inference_steps,
            last_timestep=last_timestep,
        )

    @property
    def latent_size(self) -> int:
        """Side of the square latent."""
        return int(self.unet.config.sample_size)

    def predict(self, latent: Tensor, timestep: Tensor, photo: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """One U-Net call: Z_t (N,4,h,h), t (N,), `network_input` photo (N,3,h,h), c (N,4) -> eps (N,4,h,h), grid."""
        token = (condition * self.config.condition_gain)[:, None]
        out = self.unet(torch.cat([latent, photo], dim=1), timestep, encoder_hidden_states=token).sample
        eps, features = out.chunk(2, dim=1)
        return eps, self.grid_head(features)

    def network_input(self, photo: Tensor) -> Tensor:
        """What the U-Net sees of a photo: sRGB in [0,1], (N,3,H,W) -> (N,3,h,h) in [-1,1], antialiased, squared."""
        size = (self.latent_size, self.latent_size)
        return interpolate(photo, size=size, mode="bilinear", antialias=True, align_corners=False) * 2 - 1

    def retouch(self, photo: Tensor, grid: Tensor) -> Tensor:
        """D = A applied to R: (N,3,H,W) in [0,1], grid -> (N,3,H,W), not clamped."""
        return slice_and_apply(grid, self.guide(photo), photo)

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor | Sequence[Tensor],
        condition: Tensor,
        num_inference_steps: int | None = None,
        last_timestep: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> RetouchOutput:
        """Retouch photos.

        Args:
            image: sRGB in [0,1], (N,3,H,W) or a sequence of (3,H,W) of any sizes.
            condition: (N,4) sliders in the order of ATTRIBUTES, [-1,1] being the experts' range.
            num_inference_steps: U-Net calls, evenly spaced from timestep 999 to `last_timestep`; the model's default.
            last_timestep: timestep of the last call, whose grid is the result; the model's default.
            generator: one, or one a photo, so that a photo's noise does not depend on the batch.

        Raises:
            ValueError: shapes or the number of generators do not fit, or the last timestep was never trained.
        """
        photos = list(image)
        calls = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        last = self.config.last_timestep if last_timestep is None else last_timestep
        low, high = self.config.lowest_timestep, self.config.highest_timestep
        if not low <= last <= high:
            raise ValueError(
                f"last_timestep {last} lies outside the timesteps this model was trained on: {low} to {high}"
            )
        if condition.shape != (len(photos), 4):
            raise ValueError(f"condition must be ({len(photos)}, 4) for {len(photos)} photos: {tuple(condition.shape)}")
        seen = torch.cat([self.network_input(photo[None].to(self.device)) for photo in photos])
        grids = self.denoise(seen, condition.to(self.device), calls, last, generator)
        images = [
            self.retouch(photo[None].to(self.device), grid[None])[0].clamp(0, 1)
            for photo, grid in zip(photos, grids, strict=True)
        ]
        return RetouchOutput(images=images, grids=grids)

    @torch.no_grad()
    def denoise(
        self,
        seen: Tensor,
        condition: Tensor,
        num_inference_steps: int,
        last_timestep: int,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> Tensor:
        """Ancestral DDPM sampling (METHOD section 4): `network_input` photos, c -> the last call's grids."""
        shape = (len(seen), 4, self.latent_size, self.latent_size)
        latent = _noise(shape, generator, seen)
        self.scheduler.set_timesteps(timesteps=timesteps(num_inference_steps, last_timestep), device=seen.device)
        steps = self.scheduler.timesteps
        for step in steps:
            eps, grid = self.predict(latent, step.expand(len(seen)), seen, condition)
            if step != steps[-1]:
                latent = self.scheduler.step(eps, step, latent, generator=generator).prev_sample
        return grid


def timesteps(calls: int, last: int) -> list[int]:
    """`calls` timesteps, evenly spaced from 999 down to `last`; one call is made at `last` itself."""
    if calls == 1:
        return [last]
    return [round(FIRST_TIMESTEP + (last - FIRST_TIMESTEP) * call / (calls - 1)) for call in range(calls)]


def _noise(shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator] | None, like: Tensor) -> Tensor:
    if not isinstance(generator, list):
        return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for {shape[0]} photos: give one, or one a photo")
    return torch.cat([torch.randn((1, *shape[1:]), generator=one, dtype=like.dtype) for one in generator]).to(
        like.device
    )
