"""How DiffRetouch learns: noise, picture and control in one forward pass (Duan 2025)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from diffretouch.attributes import scores, soft_clamp
from diffretouch.config import Train
from diffretouch.devices import moved
from diffretouch.model import RetouchPipeline
from diffretouch.seeds import generator
from diffretouch.training import losses
from diffretouch.training.augment import expose, gains, mirror
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.objective import Part

PARTS = ("unet", "grid_head", "guide")
"""Of a pipeline, what is trained."""


class Networks(nn.Module):
    """The trained networks of a pipeline under one roof, for an optimiser and for gradients shared by processes."""

    def __init__(self, pipe: RetouchPipeline) -> None:
        super().__init__()
        self.unet: nn.Module = pipe.unet
        self.grid_head: nn.Module = pipe.grid_head
        self.guide: nn.Module = pipe.guide
        if pipe.config.output == "autoencoder":
            self.grid_head.requires_grad_(False)
            self.guide.requires_grad_(False)

    def forward(self, use: Callable[..., Any], *tensors: Tensor) -> Any:
        """`use(*tensors)`, a function of these networks: called through here, wrappers of this module see it."""
        return use(*tensors)


def pipeline_with(pipe: RetouchPipeline, networks: nn.Module) -> RetouchPipeline:
    """The same pipeline around other trained networks, for instance their average."""
    parts: Any = networks
    settings = {name: value for name, value in pipe.config.items() if name not in pipe.components and name[0] != "_"}
    same = RetouchPipeline(**{**pipe.components, **{name: getattr(parts, name) for name in PARTS}}, **settings)
    same.autocast_dtype = pipe.autocast_dtype
    return same


@dataclass(frozen=True)
class Drawn:
    """What one step draws for one part's ground truths, N of them."""

    view: Tensor
    """(N,) place in the ground truths."""
    expert: Tensor
    """(N,)"""
    other_expert: Tensor
    """(N,) another one, where there are two."""
    paired: Tensor
    """(N,) whether the branch that practises control is told that expert's c and shown that expert's result."""
    mirrored: Tensor
    """(N,1,1,1) whether photo and expert are seen in a mirror."""
    gains: Tensor
    """(N,3) errors put on the photo alone."""
    posterior: Tensor
    """(N,4,h,h) noise of the autoencoder's posterior."""
    noise: Tensor
    """(N,4,h,h) noise of Z_t."""
    other_noise: Tensor
    """(N,4,h,h) that of D+ in the published L_cl."""
    t: Tensor
    """(N,)"""
    practised: Tensor
    """(N,4) c of the branch that practises control."""
    kept: Tensor
    """(N,4) 0 where c is dropped, else 1."""


@dataclass(frozen=True)
class DiffRetouchObjective:
    """Losses of a RetouchPipeline's networks on ground truths."""

    pipe: RetouchPipeline
    data: GroundTruths
    scale: Tensor
    """(4,) mean half-range of the experts over the training photos."""
    noticeable: Tensor
    """(V,4) whether a view's experts differ noticeably in an attribute."""
    settings: Train

    def losses(self, net: nn.Module, part: Part) -> dict[str, Tensor]:
        """eps, pixel, control and grid with their weighted sum `loss`, of the part's ground truths."""
        settings, pipe, device = self.settings, self.pipe, self.pipe.device
        drawn = self._draw(part)
        photo, result, z0, c = self._ground_truths(drawn)
        mid, half = moved(self.data.mid[drawn.view], device), moved(self.data.half[drawn.view], device)
        noticeable = moved(self.noticeable[drawn.view], device)
        noise, t = moved(drawn.noise, device), moved(drawn.t, device)
        zt = pipe.scheduler.add_noise(z0, noise, t)
        learns = (settings.pixel_timesteps[0] <= t) & (t <= settings.pixel_timesteps[1])

        told = c * moved(drawn.kept, device)
        branches = [(zt, told)]
        control = settings.control_loss if settings.condition == "expert" else "none"
        if settings.output == "autoencoder":
            seen = pipe.network_input(photo)
            eps, _ = net(pipe.call_unet, zt, t, seen, told)
            return _only_noise(mse_loss(eps, noise))
        if control == "ours":
            branches.append((zt, moved(self._practised(drawn), device)))
        if control == "published":
            branches += [(pipe.scheduler.add_noise(z0, moved(drawn.other_noise, device), t), told), (zt, -told)]
        count, own = len(branches), len(photo)
        z_all, c_all = (torch.cat(x) for x in zip(*branches, strict=True))
        eps, d, grid = net(self._retouched, z_all, t.repeat(count), photo.repeat(count, 1, 1, 1), c_all)

        parts = {
            "eps": mse_loss(eps[:own], noise),
            "pixel": _mean_where(learns, _apart(d[:own], result)),
            "control": torch.zeros((), device=device),
            "grid": grid.diff(dim=3).square().mean() + grid.diff(dim=4).square().mean(),
        }
        if control != "none":
            s, scale = scores(soft_clamp(d), d.shape[2]), moved(self.scale, device)
            if control == "ours":
                found, asked = (s[:own], s[own:]), (c_all[:own], c_all[own:])
                each = losses.ours(found, asked, mid, half, noticeable, scale, settings.control_difference)
                # a mean over all that is compared; its weights are constants, so that a step is the mean of its parts
                others = learns & moved(drawn.paired, device)
                of_others = _mean_where(others, _apart(d[own:], self._result(drawn, drawn.other_expert)))
                parts["pixel"] = (parts["pixel"] + of_others) / (1 + settings.control_pairs)
            else:
                first, alike, opposite = s.chunk(3)
                if settings.published_gradient == "own":
                    alike, opposite = alike.detach(), opposite.detach()
                each = losses.published(first, alike, opposite, told, scale, settings.tau)
            parts["control"] = _mean_where(learns, each)
        total = (
            parts["eps"]
            + settings.pixel_weight * parts["pixel"]
            + settings.control_weight * parts["control"]
            + settings.grid_smoothness * parts["grid"]
        )
        return {"loss": total, **parts}

    def _retouched(self, latent: Tensor, t: Tensor, photo: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = self.pipe.network_input(photo)
        eps, grid = self.pipe.predict(latent, t, seen, c)
        return eps, self.pipe.retouch(photo, grid), grid

    def _draw(self, part: Part) -> Drawn:
        settings, data, total = self.settings, self.data, part.total
        draw = generator(settings.seed, "train", part.step)
        latent = (total, *data.latent_mean.shape[2:])
        view = torch.randint(len(data), (total,), generator=draw)
        expert = torch.randint(data.experts, (total,), generator=draw)
        mirrored = torch.rand(total, 1, 1, 1, generator=draw) < (0.5 if settings.flips else 0.0)
        errors = gains(total, settings.input_exposure, settings.input_white_balance, draw)
        posterior, noise, other = (torch.randn(latent, generator=draw) for _ in range(3))
        low, high = settings.timesteps
        t = torch.randint(low, high + 1, (total,), generator=draw)
        practised = losses.draw_conditions(total, draw)
        kept = torch.rand(total, 4, generator=draw) >= settings.condition_dropout
        if not settings.dropout_by_component:
            kept = kept[:, :1].expand(-1, 4)
        paired = torch.rand(total, generator=draw) < settings.control_pairs
        step = 1 + torch.randint(max(1, data.experts - 1), (total,), generator=draw)
        other_expert = (expert + step) % data.experts
        everything = (
            *(view, expert, other_expert, paired, mirrored, errors),
            *(posterior, noise, other, t, practised, kept.float()),
        )
        return Drawn(*(part.of(x) for x in everything))

    def _practised(self, drawn: Drawn) -> Tensor:
        """c of the branch that practises control: another expert's, or any."""
        of_other = self.data.conditions[drawn.view, drawn.other_expert]
        return torch.where(drawn.paired[:, None], of_other, drawn.practised)

    def _result(self, drawn: Drawn, expert: Tensor) -> Tensor:
        """Results of `expert` (N,): (N,3,S,S) in [0,1], on the device, mirrored where their photos are."""
        result = unit(moved(self.data.results[drawn.view, expert], self.pipe.device))
        (result,) = mirror(moved(drawn.mirrored, self.pipe.device), result)
        return result

    def _ground_truths(self, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Photo and result (N,3,S,S) in [0,1], Z_0 (N,4,h,h) and c (N,4), on the device."""
        data, device, where = self.data, self.pipe.device, (drawn.view, drawn.expert)
        photo = unit(moved(data.photos[drawn.view], device))
        z0 = moved(data.latent_mean[where] + data.latent_std[where] * drawn.posterior, device)
        photo, z0 = mirror(moved(drawn.mirrored, device), photo, z0)
        if self.settings.input_exposure or self.settings.input_white_balance:
            photo = expose(photo, moved(drawn.gains, device))
        return photo, self._result(drawn, drawn.expert), z0, moved(data.conditions[where], device)


def _only_noise(eps: Tensor) -> dict[str, Tensor]:
    """The losses of a network without a grid."""
    zero = torch.zeros_like(eps)
    return {"loss": eps, "eps": eps, "pixel": zero, "control": zero, "grid": zero}


def _apart(made: Tensor, result: Tensor) -> Tensor:
    """Mean squared difference of pictures (N,3,H,W) in [0,1], as it is on [-1,1]: (N,)."""
    return (2 * (made - result)).square().mean((1, 2, 3))


def _mean_where(mask: Tensor, values: Tensor) -> Tensor:
    """Mean of (N,) `values` over all N, those outside `mask` counting as 0: the mean of two halves is that of both."""
    return torch.where(mask, values, 0.0).mean()
