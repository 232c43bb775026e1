"""A small autoencoder fitted to the training photos, where `params.yaml` names none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from diffretouch.config import Autoencoder
from diffretouch.model.build import AutoencoderKL, new_autoencoder
from diffretouch.progress import track
from diffretouch.seeds import generator, seed_of

KL_WEIGHT = 1e-6


def fit(settings: Autoencoder, pictures: Tensor, seed: int, device: torch.device | None = None) -> AutoencoderKL:
    """Fit on random crops of `pictures` (M,3,S,S) in [0,1]; its scaling_factor becomes 1/std of the latents."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, "autoencoder"))
        vae = new_autoencoder(settings).to(device or torch.device("cpu"))
    optimiser = torch.optim.AdamW(vae.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    for step in track(range(settings.steps), "autoencoder", settings.steps):
        draw = generator(seed, "autoencoder", step)
        batch = random_crops(pictures, settings.batch_size, settings.crop, draw).to(vae.device) * 2 - 1
        posterior = vae.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw).to(vae.device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        loss = mse_loss(decoded, batch) + KL_WEIGHT * posterior.kl().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    vae.eval().requires_grad_(False)
    mean, std = encode(vae, pictures)
    spread = float((mean.var() + std.square().mean()).sqrt()) / float(vae.config.scaling_factor)
    vae.register_to_config(scaling_factor=1 / spread)
    return vae


def random_crops(pictures: Tensor, count: int, size: int, draw: torch.Generator) -> Tensor:
    """`count` crops (count,3,size,size) at random places of random pictures."""
    which = torch.randint(len(pictures), (count,), generator=draw).tolist()
    room = pictures.shape[2] - size + 1
    tops, lefts = (torch.randint(room, (count,), generator=draw).tolist() for _ in range(2))
    places = zip(which, tops, lefts, strict=True)
    return torch.stack([pictures[i, :, top : top + size, left : left + size] for i, top, left in places])


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled posterior of pictures (M,3,S,S) in [0,1]: mean and standard deviation, each (M,4,S/8,S/8)."""
    means, stds = [], []
    for batch in pictures.split(8):
        posterior = vae.encode(batch.to(vae.device) * 2 - 1).latent_dist
        means.append(posterior.mean.cpu())
        stds.append(posterior.std.cpu())
    scale = float(vae.config.scaling_factor)
    return torch.cat(means) * scale, torch.cat(stds) * scale
