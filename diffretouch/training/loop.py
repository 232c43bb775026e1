"""The training loop: one function that reads from top to bottom (METHOD section 3)."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffretouch.attributes import scores, soft_clamp
from diffretouch.color import linear_to_srgb, srgb_to_linear
from diffretouch.config import Train
from diffretouch.errors import UserError
from diffretouch.model import RetouchPipeline
from diffretouch.seeds import generator
from diffretouch.training import losses
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.resume import Stopped, load_state, save_state, stop_requests

SAY_EVERY_S = 10.0


def train(
    pipe: RetouchPipeline,
    data: GroundTruths,
    scale: Tensor,
    noticeable: Tensor,
    settings: Train,
    state_path: Path,
    marks: dict[str, str],
    validate: Callable[[RetouchPipeline], dict[str, float]],
    on_point: Callable[[dict[str, float]], None],
) -> None:
    """Train `pipe` in place; its weights end as their exponential moving average.

    Args:
        data: V views with K ground truths each.
        scale: (4,) mean half-range of the experts over the training photos.
        noticeable: (V,4) whether a view's experts differ noticeably in an attribute.
        settings: the `train` section.
        state_path, marks: the resumable state and the fingerprint it must carry.
        validate: metrics of a model on the validation photos.
        on_point: takes each point of the curves, also those of an earlier, interrupted run.

    Raises:
        UserError: the loss is not finite.
        Stopped: SIGTERM or Ctrl-C, after the state was saved.
    """
    device = pipe.device
    net = nn.ModuleDict({"unet": pipe.unet, "grid_head": pipe.grid_head, "guide": pipe.guide}).train()
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
    optimiser = torch.optim.AdamW(
        [
            {"params": net["unet"].parameters(), "lr": settings.learning_rate},
            {"params": [*net["grid_head"].parameters(), *net["guide"].parameters()], "lr": settings.head_learning_rate},
        ],
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, settings))
    parts: dict[str, Any] = {"net": net, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    first, history = 0, list[dict[str, float]]()
    if (state := load_state(state_path, marks)) is not None:
        first, history = state["step"], state["history"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        print(f"going on from step {first} of {settings.steps}", file=sys.stderr)
    for point in history:
        on_point(point)

    def save(step: int) -> None:
        save_state(
            state_path, marks, {"step": step, "history": history} | {n: p.state_dict() for n, p in parts.items()}
        )

    batch = settings.batch_size
    practises = settings.control_loss == "ours" and settings.condition == "expert"
    contrasts = settings.control_loss == "published" and settings.condition == "expert"
    started = said = time.monotonic()
    with stop_requests() as stops:
        for step in range(first, settings.steps):
            draw = generator(settings.seed, "train", step)
            view = torch.randint(len(data), (batch,), generator=draw)
            expert = torch.randint(data.experts, (batch,), generator=draw)
            photo, result = unit(data.photos[view]), unit(data.results[view, expert])
            if settings.flips:
                mirrored = torch.rand(batch, 1, 1, 1, generator=draw) < 0.5
                photo, result = (torch.where(mirrored, p.flip(3), p) for p in (photo, result))
            photo = disturb(photo, settings.input_exposure, settings.input_white_balance, draw)
            c, mid, half = data.conditions[view, expert], data.mid[view], data.half[view]
            mean, std = data.latent_mean[view, expert], data.latent_std[view, expert]
            z0 = mean + std * torch.randn(mean.shape, generator=draw)
            if settings.flips:
                z0 = torch.where(mirrored, z0.flip(3), z0)
            noise, other_noise = (torch.randn(z0.shape, generator=draw) for _ in range(2))
            low, high = settings.timesteps
            t = torch.randint(low, high + 1, (batch,), generator=draw)
            zt = pipe.scheduler.add_noise(z0, noise, t)

            branches = [(zt, c)]
            if practises:
                branches.append((zt, losses.draw_conditions(batch, draw)))
            if contrasts:
                branches += [(pipe.scheduler.add_noise(z0, other_noise, t), c), (zt, -c)]
            n = len(branches)
            z_all, c_all = (torch.cat(x).to(device) for x in zip(*branches, strict=True))
            photos = photo.to(device).repeat(n, 1, 1, 1)
            eps, grid = pipe.predict(z_all, t.to(device).repeat(n), pipe.network_input(photos), c_all)
            d = pipe.retouch(photos, grid)

            eps_loss = mse_loss(eps[:batch], noise.to(device))
            pixel_loss = mse_loss(d[:batch] * 2 - 1, result.to(device) * 2 - 1)
            control = torch.zeros((), device=device)
            if practises or contrasts:
                s = scores(soft_clamp(d), d.shape[2])
                if practises:
                    middle, reach, differ = (x.to(device).repeat(n, 1) for x in (mid, half, noticeable[view]))
                    control = losses.ours(s, c_all, middle, reach, differ, scale.to(device))
                else:
                    own, other, opposite = s.chunk(3)
                    control = losses.published(own, other, opposite, c.to(device), scale.to(device), settings.tau)
            roughness = grid.diff(dim=3).square().mean() + grid.diff(dim=4).square().mean()
            loss = (
                eps_loss
                + settings.pixel_weight * pixel_loss
                + settings.control_weight * control
                + settings.grid_smoothness * roughness
            )
            if not math.isfinite(loss.item()):
                raise UserError(f"the loss is {loss.item()} at step {step}: lower train.learning_rate")
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(net)

            done = step + 1
            if done % settings.log_every == 0 or done == settings.steps:
                values = {"loss": loss, "eps": eps_loss, "pixel": pixel_loss, "control": control, "grid": roughness}
                point = {"step": done} | {name: round(value.item(), 6) for name, value in values.items()}
                point["learning_rate"] = round(float(schedule.get_last_lr()[0]), 8)
                if done % settings.validate_every < settings.log_every or done == settings.steps:
                    point |= {name: round(value, 4) for name, value in validate(with_weights(pipe, averaged)).items()}
                history.append(point)
                on_point(point)
            if time.monotonic() - said > SAY_EVERY_S or done == settings.steps:
                said = time.monotonic()
                rate = (done - first) / (said - started)
                print(
                    f"train {done}/{settings.steps}: loss {loss.item():.4f} (eps {eps_loss.item():.4f}, pixel "
                    f"{pixel_loss.item():.4f}, control {control.item():.4f}), {rate * batch:.1f} ground truths/s, "
                    f"{(settings.steps - done) / rate:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
            if stops:
                save(done)
                print(f"stopped at step {done}: run the same command to go on from here", file=sys.stderr)
                raise Stopped(128 + stops[0])
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                save(done)
    net.load_state_dict(averaged.module.state_dict())
    net.eval()


def with_weights(pipe: RetouchPipeline, averaged: AveragedModel) -> RetouchPipeline:
    """The same pipeline around the averaged networks."""
    parts: Any = averaged.module
    modules = {name: parts[name] for name in ("unet", "grid_head", "guide")}
    return RetouchPipeline(**{**pipe.components, **modules}, **_settings(pipe))


def _settings(pipe: RetouchPipeline) -> dict[str, Any]:
    """What the pipeline was registered with beside its components."""
    return {name: value for name, value in pipe.config.items() if name not in pipe.components and name[0] != "_"}


def disturb(photo: Tensor, stops: float, balance: float, draw: torch.Generator) -> Tensor:
    """Exposure and white-balance errors a camera might have made, in linear light: sRGB (N,3,H,W) -> same, clipped."""
    uniform = torch.rand(len(photo), 3, generator=draw) * 2 - 1
    gains = 2 ** (uniform[:, :1] * stops) * torch.cat(
        [1 + balance * uniform[:, 1:2], torch.ones(len(photo), 1), 1 + balance * uniform[:, 2:]], dim=1
    )
    if stops == 0 and balance == 0:
        return photo
    return linear_to_srgb((srgb_to_linear(photo) * gains[:, :, None, None]).clamp(0, 1))


def _rate(step: int, settings: Train) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
