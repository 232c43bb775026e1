"""What becomes of every tensor of an ldm checkpoint: its place in our networks, or a reason why it is not used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from diffretouch.errors import UserError
from diffretouch.model import ldm_keys
from diffretouch.model.grid import GridHead, Guide
from diffretouch.model.ldm_shapes import Shapes, need, unet_config, vae_config
from diffretouch.model.pipeline import PIXELS_A_LATENT

SCHEDULE = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    *("lvlb_weights", "ddim_*"),
)
UNUSED = {
    "buffers of the noise schedule (betas are compared with our own)": SCHEDULE,
    "of the loss's learned variance": ("logvar",),
    "moving averages (EMA copies)": ("model_ema.*", "first_stage_model.model_ema.*"),
    "of the autoencoder's training losses": ("first_stage_model.loss.*",),
    "scale of the latents (kept in vae/config.json)": ("scale_factor",),
}
"""Names that are known to be no part of the network, by the reason."""
NAMED = "named by --unused"


@dataclass(frozen=True)
class Options:
    """What a checkpoint does not tell."""

    variance: str = "fixed_small"
    """Of the ancestral sampler: fixed_small for FiveK, fixed_large for PPR10K."""
    network_size: int = 512
    """Side in pixels of the square photo that the latent stands for."""
    head_channels: int = 64
    """Channels of an attention head."""
    last_relu: bool = False
    """Whether a ReLU stands before the grid head's last convolution."""
    unused: tuple[str, ...] = ()
    """Patterns of further names that are no part of the network."""
    licence: str = "non-commercial use only: the licence of the released DiffRetouch weights"


@dataclass(frozen=True)
class Part:
    """A network of ours, without weights yet, and where they come from."""

    network: Any
    names: dict[str, str]
    """Its tensors' names to the checkpoint's."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of its tensors."""
        return {name: tuple(weight.shape) for name, weight in self.network.state_dict().items()}

    @property
    def parameters(self) -> int:
        """How many numbers it learns."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def parts(shapes: Shapes, options: Options) -> dict[str, Part]:
    """The four networks, of the sizes that the checkpoint's tensors tell; UserError where they do not."""
    of_unet, of_vae = unet_config(shapes, options.head_channels), vae_config(shapes)
    levels = len(of_unet["block_out_channels"])
    unit = PIXELS_A_LATENT * max(4, 2 ** (levels - 1))  # the grid is a quarter of the latent
    if options.network_size % unit:
        raise UserError(f"--network-size {options.network_size} must be a multiple of {unit} for {levels} levels")
    depth = need(shapes, "hdrdecoder.coefficients.pred2.0.weight")[0] // 12
    knots = need(shapes, "hdrdecoder.guide.thresholds")[-1]
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=options.network_size // PIXELS_A_LATENT, **of_unet)
        vae = AutoencoderKL(**of_vae)
        head, guide = GridHead(depth, options.last_relu), Guide(knots, "symmetric")
    attends = ["CrossAttn" in kind for kind in of_unet["down_block_types"]]
    modules = {
        "unet": (unet, ldm_keys.unet_names(attends, of_unet["layers_per_block"])),
        "vae": (vae, ldm_keys.vae_names(len(of_vae["block_out_channels"]), of_vae["layers_per_block"])),
        "grid_head": (head, ldm_keys.GRID_HEAD),
        "guide": (guide, ldm_keys.GUIDE),
    }
    return {
        part: Part(network, ldm_keys.translate(network.state_dict(), names, part))
        for part, (network, names) in modules.items()
    }


def account(shapes: Shapes, networks: Mapping[str, Part], patterns: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The names that are not used, by the reason.

    Raises UserError, with names, where a tensor is unknown, missing or of another shape than its place.
    """
    wanted = {part.names[key]: shape for part in networks.values() for key, shape in part.shapes.items()}
    unused = {
        reason: [name for name in shapes if name not in wanted and _matches(name, known)]
        for reason, known in {**UNUSED, NAMED: patterns}.items()
    }
    told = {name for names in unused.values() for name in names}
    unknown = [name for name in shapes if name not in wanted and name not in told]
    missing = [name for name in wanted if name not in shapes]
    other = [
        f"{name} is {[*shapes[name]]}, expected {[*shape]}"
        for name, shape in wanted.items()
        if name in shapes and not _fits(shapes[name], shape)
    ]
    faults = {
        "unknown, so what they do cannot be converted (--unused NAME leaves one out)": unknown,
        "missing": missing,
        "of another shape": other,
    }
    if any(faults.values()):
        lines = [f"  {len(names)} {fault}: {', '.join(names)}" for fault, names in faults.items() if names]
        raise UserError("the tensors of the checkpoint are not those of DiffRetouch:\n" + "\n".join(lines))
    return {reason: names for reason, names in unused.items() if names}


def fill(part: Part, state: Mapping[str, Tensor]) -> None:
    """Give a network its weights, in fp32; UserError where they are not finite."""
    if odd := [name for name in part.names.values() if not state[name].isfinite().all()]:
        raise UserError(f"these tensors of the checkpoint are not finite: {ldm_keys.few(odd)}; fetch the file again")
    shapes = part.shapes
    weights = {key: state[name].float() for key, name in part.names.items()}
    if "matrix" in weights:
        weights["matrix"] = weights["matrix"].reshape(3, 3).T  # theirs is x M, ours M x
    part.network.load_state_dict(
        {key: weight.reshape(shapes[key]).contiguous() for key, weight in weights.items()}, strict=True, assign=True
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Equal but for dimensions of 1: ldm's autoencoder attends by 1x1 convolutions, the guide's shapes broadcast."""
    return [side for side in found if side != 1] == [side for side in wanted if side != 1]
