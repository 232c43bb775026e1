"""RetouchPipeline: a photo and four sliders in, the retouched photo and its grid out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from torch import Tensor
from torch.nn.functional import interpolate

from diffretouch.bilateral_grid import slice_and_apply
from diffretouch.config import FIRST_TIMESTEP
from diffretouch.files.atomic import write_text
from diffretouch.model.attention import use_single_token
from diffretouch.model.card import CARD, model_card
from diffretouch.model.grid import GridHead, Guide
from diffretouch.model.steps import starting_noise, timesteps

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What params.yaml's precisions mean for `RetouchPipeline.autocast_dtype`."""
PIXELS_A_LATENT = 8
"""Side in pixels that a latent's side stands for."""


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
        vae: the autoencoder of training's ground truths; kept with the model it belongs to.
        grid_head: grid features to grid.
        guide: photo to guide.
        scheduler: DDPM, eps-prediction.
        condition_gain: c is multiplied by this before it enters the network; 0 makes it blind to c.
        lowest_timestep, highest_timestep: where the grid was trained; the last call must lie inside.
        num_inference_steps: U-Net calls this model was validated with, the default.
        last_timestep: timestep of the last call it was validated with, the default.
        slider_mixing: (4,4); what a user asks for is c, a row, and c times this is what enters as above; it sets what
            each slider moves (`training.sliders`). None: c as it was trained.
        condition_signs: c's four numbers are multiplied by these, 1 or -1 (the network learned the opposite direction).
        photo_range: of R where the grid is applied: "unit", [0,1], or "symmetric", [-1,1]. The result is in [0,1].
        network_resize: how the network sees a photo: "antialiased", or "nearest" pixels of its antialiased square of 8
            times the latent's side.
        output: "grid", or "autoencoder": the picture is then its decoder's, of the last call's Z_0, without a grid.
        origin: what the model was made from, JSON-able: the fields of `card.Origin`; they make the model card.

    `pipe.to(torch.bfloat16)` and `from_pretrained(..., dtype=torch.float16)` halve the U-Net's and the autoencoder's
    weights; noise, grid, guide and pictures stay fp32.
    """

    autocast_dtype: torch.dtype | None = None
    """The U-Net's arithmetic where it is less than that of its weights, which it leaves as they are."""

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
        slider_mixing: list[list[float]] | None = None,
        condition_signs: list[float] | None = None,
        photo_range: str = "unit",
        network_resize: str = "antialiased",
        output: str = "grid",
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _one_of("photo_range", photo_range, ("unit", "symmetric"))
        _one_of("network_resize", network_resize, ("antialiased", "nearest"))
        _one_of("output", output, ("grid", "autoencoder"))
        signs = [1.0] * 4 if condition_signs is None else [float(sign) for sign in condition_signs]
        if len(signs) != 4 or {abs(sign) for sign in signs} != {1}:
            raise ValueError(f"condition_signs are four of 1 and -1, got {condition_signs!r}")
        if slider_mixing is not None and [len(row) for row in slider_mixing] != [4] * 4:
            raise ValueError(f"slider_mixing is 4 x 4, got {slider_mixing!r}")
        use_single_token(unet)  # here, so that a loaded model rounds as the trained one did
        self.register_modules(unet=unet, vae=vae, grid_head=grid_head, guide=guide, scheduler=scheduler)
        self.register_to_config(
            condition_gain=condition_gain,
            lowest_timestep=lowest_timestep,
            highest_timestep=highest_timestep,
            num_inference_steps=num_inference_steps,
            last_timestep=last_timestep,
            slider_mixing=slider_mixing,
            condition_signs=signs,
            photo_range=photo_range,
            network_resize=network_resize,
            output=output,
            origin=json.loads(json.dumps(origin or {}, allow_nan=False)),
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> RetouchPipeline:
        """A saved model from its folder or the hub; options as diffusers has them.

        Raises ValueError or OSError where there is none.
        """
        # as words: of a Path that does not exist, diffusers fails to say so
        return super().from_pretrained(str(pretrained_model_name_or_path), **options)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write the model and its card into a folder, weights as safetensors; options as diffusers has them.

        Raises:
            ValueError: options that would write pickles, or push to the hub, where diffusers replaces the card.
        """
        if not options.pop("safe_serialization", True):
            raise ValueError("safe_serialization=False would write pickles: models are saved as safetensors only")
        if options.pop("push_to_hub", False):
            raise ValueError("push_to_hub replaces the model card: save, then `hf upload REPOSITORY FOLDER`")
        super().save_pretrained(save_directory, safe_serialization=True, **options)
        write_text(Path(save_directory) / CARD, model_card(self))

    @property
    def latent_size(self) -> int:
        """Side of the square latent."""
        return int(self.unet.config.sample_size)

    @property
    def picture_size(self) -> int:
        """Side in pixels of the square that the autoencoder encodes to a latent and decodes from it."""
        return PIXELS_A_LATENT * self.latent_size

    def predict(self, latent: Tensor, timestep: Tensor, photo: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """One U-Net call: Z_t (N,4,h,h), t (N,), `network_input` photo (N,3,h,h), c (N,4) -> eps (N,4,h,h), grid."""
        eps, features = self.call_unet(latent, timestep, photo, condition)
        return eps, self.grid_head(features)

    def call_unet(self, latent: Tensor, timestep: Tensor, photo: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """As `predict`, but up to the grid's features, (N,4,h,h): the part that may run in 16 bits."""
        columns = zip(condition.unbind(1), self.config.condition_signs, strict=True)
        token = (torch.stack([c * sign for c, sign in columns], dim=1) * self.config.condition_gain)[:, None]
        less, kind = self.autocast_dtype, self.unet.dtype
        with torch.autocast(latent.device.type, less, enabled=less is not None):
            seen = torch.cat([latent, photo], dim=1).to(kind)
            out = self.unet(seen, timestep, encoder_hidden_states=token.to(kind)).sample
        eps, features = out.to(latent.dtype).chunk(2, dim=1)
        return eps, features

    def network_input(self, photo: Tensor) -> Tensor:
        """What the U-Net sees of a photo: sRGB in [0,1], (N,3,H,W) -> (N,3,h,h) in [-1,1], squared."""
        side = self.latent_size
        if self.config.network_resize == "nearest":
            # pixels of the square that the autoencoder would have seen
            return interpolate(_square(photo, self.picture_size), size=(side, side), mode="nearest") * 2 - 1
        return _square(photo, side) * 2 - 1

    def retouch(self, photo: Tensor, grid: Tensor) -> Tensor:
        """D = A applied to R: (N,3,H,W) in [0,1], grid -> (N,3,H,W), not clamped."""
        guide = self.guide(photo)
        if self.config.photo_range == "symmetric":
            return (slice_and_apply(grid, guide, photo * 2 - 1) + 1) / 2
        return slice_and_apply(grid, guide, photo)

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
        # on the CPU: a GPU's antialiased reduction fails for large photos, for want of shared memory
        seen = torch.cat([self.network_input(photo[None].cpu()) for photo in photos]).to(self.device)
        told = _mixed(condition.float(), self.config.slider_mixing).to(self.device)
        grids, z0 = self.denoise(seen, told, calls, last, generator)
        if self.config.output == "autoencoder":
            images = [
                _at_size(made[None], photo.shape[1:])[0] for made, photo in zip(self.decode(z0), photos, strict=True)
            ]
        else:
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
    ) -> tuple[Tensor, Tensor]:
        """Ancestral DDPM sampling (Ho 2020): `network_input` photos, c as trained -> the last call's grids and Z_0."""
        shape = (len(seen), 4, self.latent_size, self.latent_size)
        latent = starting_noise(shape, generator, seen)
        self.scheduler.set_timesteps(timesteps=timesteps(num_inference_steps, last_timestep), device=seen.device)
        steps = self.scheduler.timesteps
        for step in steps:
            eps, grid = self.predict(latent, step.expand(len(seen)), seen, condition)
            if step != steps[-1]:
                latent = self.scheduler.step(eps, step, latent, generator=generator).prev_sample
        # DDPM (Ho 2020), equation 15: what is left when the predicted noise is taken away
        alpha = self.scheduler.alphas_cumprod.to(latent)[steps[-1]]
        return grid, (latent - (1 - alpha).sqrt() * eps) / alpha.sqrt()

    @torch.no_grad()
    def decode(self, z0: Tensor) -> Tensor:
        """The autoencoder's pictures of latents: (N,4,h,h) -> (N,3,8h,8h) in [0,1]."""
        decoded = self.vae.decode((z0 / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
        return (decoded.to(z0.dtype) / 2 + 0.5).clamp(0, 1)


def _mixed(condition: Tensor, mixing: list[list[float]] | None) -> Tensor:
    """(N,4) times (4,4), row by row: a photo's c rounds alike in every batch."""
    if mixing is None:
        return condition
    told = torch.zeros_like(condition)
    for c, row in zip(condition.unbind(1), condition.new_tensor(mixing), strict=True):
        told = told + c[:, None] * row
    return told


def _at_size(photo: Tensor, size: tuple[int, ...]) -> Tensor:
    return interpolate(photo, size=size, mode="bilinear", antialias=True, align_corners=False)


def _square(photo: Tensor, side: int) -> Tensor:
    return _at_size(photo, (side, side))


def _one_of(name: str, value: str, legal: tuple[str, ...]) -> None:
    if value not in legal:
        raise ValueError(f"{name} is one of {legal}, got {value!r}")
