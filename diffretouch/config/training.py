"""The section `train`: network, losses, optimiser."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from diffretouch.config.base import Positive, Section, Share, Timestep


def _check_groups(widths: tuple[int, ...], groups: int) -> None:
    """Group norms split every width evenly."""
    if odd := [width for width in widths if width % groups]:
        raise ValueError(f"widths {odd} are not multiples of norm_groups {groups}")


class Autoencoder(Section):
    """Where the frozen autoencoder comes from, or how a small one is fitted."""

    source: str | None
    """A folder, or a hub id in the local cache, of a diffusers AutoencoderKL; null takes the one beside the weights of
    `start` (its vae/), or fits one in this stage where `start` is null too."""
    sha256: str | None
    """Checksum of its safetensors file; required with a source, here or in `start`."""
    shape: Literal["small", "stable_diffusion"]
    """Of the fitted one: stable_diffusion has two layers a block and attends in the middle (83.65 M parameters at its
    widths 128, 256, 512, 512), small has one layer and no attention."""
    channels: tuple[Positive, Positive, Positive, Positive]
    """Widths of the fitted one: four levels, hence a factor of 8."""
    norm_groups: Positive
    """Of the fitted one. As many as a level has channels, each channel is normalised by itself over the whole picture,
    and its mean, brightness or a colour, hardly passes."""
    steps: Positive
    """Optimiser steps of the fit."""
    batch_size: Positive
    crop: Positive
    """Side in pixels of the random crops it is fitted on."""
    learning_rate: float = Field(gt=0)
    init: Literal["random", "shrink"]
    """What the fit begins with: shrink copies pictures at an eighth of their size and enlarges them again before its
    first step, so that a short fit passes on colour; it needs norm_groups 1 and widths of 8 at least."""

    @model_validator(mode="after")
    def _whole(self) -> Autoencoder:
        if self.source is not None and self.sha256 is None:
            raise ValueError("a source needs the sha256 of its diffusion_pytorch_model.safetensors beside it")
        _check_groups(self.channels, self.norm_groups)
        if self.init == "shrink" and (self.norm_groups > 1 or min(self.channels) < 8):
            raise ValueError(
                f"init shrink needs norm_groups 1 and widths of 8 at least, not {self.norm_groups} and {self.channels}"
            )
        return self


class Start(Section):
    """Trained weights the network starts from."""

    source: str | None
    """A folder, or a hub id in the local cache: Stable Diffusion 1.x or 2.x in diffusers' layout, or a RetouchPipeline
    (an earlier training, a converted checkpoint); null starts from random weights. Heads, noise schedule and, for a
    RetouchPipeline, grid head, guide and value ranges are its own; channels, attention, layers_per_block and
    norm_groups must be the same there as here."""
    sha256: str | None
    """Checksum of its unet/diffusion_pytorch_model.safetensors; required with a source."""

    @model_validator(mode="after")
    def _checksum(self) -> Start:
        if self.source is not None and self.sha256 is None:
            raise ValueError("a source needs the sha256 of its unet/diffusion_pytorch_model.safetensors beside it")
        return self


class Train(Section):
    """The network, its losses and its optimiser (Duan 2025)."""

    seed: int
    start: Start
    steps: Positive
    """Optimiser steps; training ends by steps, never by the clock."""
    batch_size: Positive
    """Ground truths a process takes at a time; a step sees accumulation times as many from every process."""
    accumulation: Positive
    """Batches whose gradients are added up to one step."""
    precision: Literal["fp32", "bf16"]
    """Of the U-Net's arithmetic, in validation, too; weights, grid, losses and averages stay in fp32."""
    network_size: Positive
    """Side in pixels of the square the network sees; latents are an eighth of it."""
    channels: tuple[Positive, ...]
    """Width of the U-Net at each level."""
    attention: tuple[bool, ...]
    """Whether a level attends (and so sees c), one value a level."""
    layers_per_block: Positive
    head_channels: Positive
    """Channels of an attention head; a trained `start` brings its own number of heads."""
    norm_groups: Positive
    """Of the U-Net."""
    grid_depth: Positive
    """Guide bins of the bilateral grid."""
    output: Literal["grid", "autoencoder"]
    """Where the picture comes from: the grid, applied to the photo; or, as in diffusion models without a grid (the
    ablation), the autoencoder's decoder at the network's size. That one learns from the noise loss alone."""
    condition: Literal["expert", "none"]
    """none trains the same network blind to c (the ablation)."""
    condition_gain: float = Field(gt=0)
    """c is multiplied by this before it enters the network."""
    condition_dropout: Share
    """Share of ground truths whose c becomes 0 in training."""
    dropout_by_component: bool
    """Drop each of c's four numbers for itself, and not all of them together."""
    timesteps: tuple[Timestep, Timestep]
    """Lowest and highest training timestep."""
    pixel_timesteps: tuple[Timestep, Timestep]
    """Of these, where the grid learns: the pixel and the control loss; the sampler's last call must lie inside."""
    pixel_weight: float = Field(ge=0)
    """beta: weight of the pixel loss (means over elements, pictures in [-1,1])."""
    control_loss: Literal["none", "published", "ours"]
    """L_cl, which makes results follow c: the published one (Duan 2025), ours (`training.losses`), or none."""
    control_weight: float = Field(ge=0)
    """lambda."""
    control_difference: float = Field(ge=0)
    """In L_cl `ours`, the weight of how two results of a photo differ beside that of where their average lies."""
    control_pairs: Share
    """In L_cl `ours`, share of ground truths whose second branch is told the c of another expert of the same photo, and
    compared with that expert's result as well; the others' practise any c."""
    grid_smoothness: float = Field(ge=0)
    """Weight of the mean squared difference between neighbouring cells of the grid, in the plane."""
    tau: float = Field(gt=0)
    """Temperature of the published L_cl, on scores scaled by the experts' mean half-range."""
    published_gradient: Literal["all", "own"]
    """Whether the published L_cl teaches through all of its three branches, or through D's own alone."""
    optimiser: Literal["adamw", "adamw8bit"]
    """adamw8bit keeps its two averages in 8 bits; it needs a GPU and the package bitsandbytes."""
    learning_rate: float = Field(gt=0)
    """Of the U-Net."""
    head_learning_rate: float = Field(gt=0)
    """Of grid head and guide, and of what is new in a U-Net started from Stable Diffusion's weights."""
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    ema_decay: Share
    flips: bool
    """Mirror photo and expert together, left to right, half the time."""
    views: Positive
    """Views of a training photo: the whole, and views - 1 fixed crops with scores and c of their own."""
    input_exposure: float = Field(ge=0)
    """Largest exposure error put on the photo (not on the experts' results), in stops, in linear light."""
    input_white_balance: float = Field(ge=0, lt=1)
    """Largest error put on the photo's red and blue gains, as a share."""
    log_every: Positive
    """Steps between points of the curves."""
    validate_every: Positive
    """Steps between measurements on the validation photos."""
    validation_photos: Positive
    """Photos in those measurements at most, evenly spread over the val split."""
    validation_steps: Positive
    """U-Net calls a picture in those measurements, and a saved model's default: must equal sample.steps."""
    validation_last_timestep: Timestep
    """Timestep of their last call, and a saved model's default: must equal sample.last_timestep."""
    slider_photos: int = Field(ge=0)
    """Training photos, evenly spread, on which a trained model's sliders are measured, to be mixed so that each drags
    others along no further than the experts tie them together (`training.sliders`); 0 leaves c as it was trained."""
    slider_reach: float = Field(gt=0)
    """The mixed sliders move their own attribute so many times as far as the trained ones, which fall short on other
    photos."""
    checkpoint_every: Positive
    """Steps between resumable states in work/.resume."""
    divergence: float = Field(gt=1)
    """Training stops when, between two points of the curves, the noise loss is above this, which is 1 for an untrained
    network, or the whole loss above so many times the first point's.
    """
    autoencoder: Autoencoder

    @model_validator(mode="after")
    def _shape(self) -> Train:
        if len(self.channels) != len(self.attention):
            raise ValueError(f"channels has {len(self.channels)} levels but attention {len(self.attention)}")
        low, high = self.pixel_timesteps
        if not self.timesteps[0] <= low <= high <= self.timesteps[1]:
            raise ValueError(
                f"pixel_timesteps {[low, high]} must be [lowest, highest] within timesteps {[*self.timesteps]}"
            )
        if not low <= self.validation_last_timestep <= high:
            raise ValueError(
                f"validation_last_timestep {self.validation_last_timestep} lies outside pixel_timesteps "
                f"[{low}, {high}]: the grid of that call would come from a timestep never trained"
            )
        # latents are an eighth, each U-Net level below the first halves them, the grid is a quarter of them
        unit = 8 * max(4, 2 ** (len(self.channels) - 1))
        if self.network_size % unit:
            raise ValueError(f"network_size {self.network_size} must be a multiple of {unit} for these channels")
        if self.start.source is not None and self.autoencoder.sha256 is None:
            raise ValueError(
                "a start needs autoencoder.sha256 too: the checksum of the diffusion_pytorch_model.safetensors in "
                "autoencoder.source, or, where that is null, in the vae/ of start.source"
            )
        if self.autoencoder.crop > self.network_size:
            raise ValueError(
                f"autoencoder.crop {self.autoencoder.crop} is larger than network_size {self.network_size}"
            )
        _check_groups(self.channels, self.norm_groups)
        return self
