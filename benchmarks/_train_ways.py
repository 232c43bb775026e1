"""The ways to train that benchmarks.train compares: ground truths, objectives and loops."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffretouch.model  # noqa: F401 - makes diffusers importable beside a CPU build of torch

# isort: split
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import interpolate
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from diffretouch.attributes import scores
from diffretouch.condition import photo_range
from diffretouch.config import Train
from diffretouch.model.build import AutoencoderKL, new_autoencoder, new_pipeline
from diffretouch.model.start import parameter_groups
from diffretouch.seeds import generator
from diffretouch.training import autoencoder
from diffretouch.training.augment import mirror
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.diffusion import DiffRetouchObjective, Drawn, Networks
from diffretouch.training.loop import fit
from diffretouch.training.objective import Part
from diffretouch.training.optimisers import new_optimiser
from diffretouch.training.ranks import new_accelerator
from diffretouch.training.resume import States

VIEWS, EXPERTS = 4, 2
ENDLESS = 10**9


@dataclass(frozen=True)
class EncodedInStep(DiffRetouchObjective):
    """The same losses of the same ground truths, whose latents the autoencoder makes again in each step."""

    pictures: Tensor
    """(V,K,3,S,S) uint16, S = train.network_size."""

    def _ground_truths(self, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        photo, result, _, c = super()._ground_truths(drawn)
        device, vae = self.pipe.device, self.pipe.vae
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            seen = unit(self.pictures[drawn.view, drawn.expert].to(device)) * 2 - 1
            posterior = vae.encode(seen).latent_dist
        z0 = (posterior.mean + posterior.std * drawn.posterior.to(device)).float() * vae.config.scaling_factor
        (z0,) = mirror(drawn.mirrored.to(device), z0)
        return photo, result, z0, c


def ground_truths(vae: AutoencoderKL, settings: Train, size: int) -> tuple[GroundTruths, Tensor]:
    """Smooth random photos with two experts' gammas at `size`, and the experts' results at the network's size."""
    side, draw = settings.network_size, generator("benchmark")
    photos = interpolate(torch.rand(VIEWS, 3, 9, 9, generator=draw), size=(side, side), mode="bilinear")
    large = torch.stack([photos**gamma for gamma in (0.6, 1.5)], dim=1)
    small, results = (
        interpolate(x, size=(size, size), mode="bilinear", antialias=True) for x in (photos, large.flatten(0, 1))
    )
    results = results.unflatten(0, (VIEWS, EXPERTS))
    s = torch.stack([scores(result, size) for result in results])
    ranges = [photo_range(of_photo) for of_photo in s]
    mid, half = (torch.stack(x) for x in zip(*ranges, strict=True))
    mean, std = (x.unflatten(0, (VIEWS, EXPERTS)) for x in autoencoder.encode(vae, large.flatten(0, 1)))
    c = (s - mid[:, None]) / half[:, None]
    return GroundTruths(_steps(small), _steps(results), c, mid, half, s, mean, std), _steps(large)


def new_objective(settings: Train, size: int, device: torch.device, *, plain: bool) -> DiffRetouchObjective:
    """The network at step 0 with random ground truths: as the project trains it, or as diffusers has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = new_autoencoder(settings.autoencoder).eval().requires_grad_(False).to(device)
    pipe = new_pipeline(settings, vae, "fixed_small", settings.seed).to(device)
    data, pictures = ground_truths(vae, settings, size)
    differ = torch.ones(VIEWS, 4, dtype=torch.bool)
    if not plain:
        return DiffRetouchObjective(pipe, data, data.half.mean(0), differ, settings)
    use_stock_attention(pipe.unet)
    return EncodedInStep(pipe, data, data.half.mean(0), differ, settings, pictures)


def use_stock_attention(unet: UNet2DConditionModel) -> None:
    """diffusers' own cross-attention again: with its norm, queries, keys and softmax, all of them trained."""
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.attn2.set_processor(AttnProcessor2_0())
            norm = nn.LayerNorm(block.norm2.normalized_shape, block.norm2.eps)
            norm.weight, norm.bias = block.norm2.weight, block.norm2.bias
            block.norm2 = norm
            block.requires_grad_(True)


def model_flops(objective: DiffRetouchObjective) -> int:
    """Of one ground truth, forward and backward: multiplications and additions in matrix products and convolutions.

    Attention is counted as its matrix products: kernels that save memory compute one of them twice.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        objective.losses(Networks(objective.pipe), Part(0, 0, 1, 1))["loss"].backward()
    objective.pipe.unet.zero_grad()
    return counter.get_total_flops()


def train_plainly(objective: DiffRetouchObjective, every: int, tick: Callable[[int], None]) -> None:
    """The loop that a script has: the same losses, optimiser, clipping and average of the weights, and no more."""
    settings, net = objective.settings, Networks(objective.pipe)
    optimiser = new_optimiser(parameter_groups(objective.pipe, settings), settings)
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
    for step in itertools.count():
        optimiser.zero_grad(set_to_none=True)
        loss = objective.losses(net, Part(step, 0, settings.batch_size, settings.batch_size))["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm)
        optimiser.step()
        averaged.update_parameters(net)
        if (step + 1) % every == 0:
            loss.item()  # waits for the GPU
            tick(every)


def train_ours(objective: DiffRetouchObjective, every: int, tick: Callable[[int], None]) -> None:
    """The project's own loop, which neither saves nor validates before it is interrupted."""
    far = {"steps": ENDLESS, "validate_every": ENDLESS, "checkpoint_every": ENDLESS, "log_every": every}
    settings = objective.settings.model_copy(update=far)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            net=Networks(objective.pipe),
            objective=objective,
            groups=parameter_groups(objective.pipe, settings),
            settings=settings,
            accelerator=new_accelerator(objective.pipe.device.type),
            states=States(Path(folder), {}, keep=1),
            validate=lambda _net, _step, _stopping: {},
            on_point=lambda _point: tick(every),
        )


def _steps(picture: Tensor) -> Tensor:
    return (picture * 65535).round().to(torch.uint16)
