"""Losses by hand, the loop's determinism and resumption, and a stage stopped and run again."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffretouch.attributes import scores
from diffretouch.config import Train
from diffretouch.errors import UserError
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import new_autoencoder, new_pipeline
from diffretouch.seeds import generator
from diffretouch.training import autoencoder, losses
from diffretouch.training.data import GroundTruths
from diffretouch.training.loop import disturb, train
from diffretouch.training.resume import Stopped, fingerprint, load_state, save_state
from tests.test_model import tiny_train

SCALE = torch.tensor([0.05, 0.1, 0.001, 20.0])


def _settings(**changes: object) -> Train:
    base = {"steps": 6, "batch_size": 2, "log_every": 2, "validate_every": 6, "checkpoint_every": 2, "warmup_steps": 2}
    return Train.model_validate({**tiny_train().model_dump(), **base, **changes})


@pytest.fixture(scope="module")
def truths() -> GroundTruths:
    """Three photos, two experts: one darker and cooler, one brighter and warmer."""
    draw = generator("truths")
    photos = torch.rand(3, 3, 16, 16, generator=draw) * 0.6
    gains = torch.tensor([[0.7, 0.8, 0.9], [1.5, 1.4, 1.2]])[None, :, :, None, None]
    results = photos[:, None] * gains
    s = torch.stack([scores(r, 16) for r in results])
    mid, half = (s.amax(1) + s.amin(1)) / 2, (s.amax(1) - s.amin(1)) / 2
    latent = torch.randn(3, 2, 4, 8, 8, generator=draw)
    to16 = [(x * 65535).round().to(torch.uint16) for x in (photos, results)]
    c = (s - mid[:, None]) / half[:, None]
    return GroundTruths(*to16, c, mid, half, s, latent, torch.full_like(latent, 0.1))


def _run(truths: GroundTruths, settings: Train, path: Path, stop_at: int | None = None) -> tuple[RetouchPipeline, list]:
    vae = new_autoencoder(settings.autoencoder, settings.norm_groups)
    pipe, points = new_pipeline(settings, vae, "fixed_small", settings.seed), []

    def on_point(point: dict[str, float]) -> None:
        points.append(point)
        if stop_at == point["step"]:
            signal.raise_signal(signal.SIGTERM)

    train(
        pipe=pipe,
        data=truths,
        scale=SCALE,
        noticeable=torch.ones(3, 4, dtype=torch.bool),
        settings=settings,
        state_path=path,
        marks=fingerprint({"params": settings.model_dump(mode="json")}),
        validate=lambda model: {"val_psnr": 1.0},
        on_point=on_point,
    )
    return pipe, points


def _weights(pipe: RetouchPipeline) -> Tensor:
    return torch.cat([p.flatten() for part in (pipe.unet, pipe.grid_head, pipe.guide) for p in part.parameters()])


@pytest.mark.parametrize("control", ["none", "published", "ours"])
def test_every_variant_learns_and_repeats(truths: GroundTruths, tmp_path: Path, control: str) -> None:
    settings = _settings(control_loss=control, steps=30, log_every=10)
    first, points = _run(truths, settings, tmp_path / "a.pt")
    second, again = _run(truths, settings, tmp_path / "b.pt")
    assert torch.equal(_weights(first), _weights(second)) and points == again
    assert points[-1]["eps"] < points[0]["eps"] and points[-1]["val_psnr"] == 1.0


def test_stopped_and_run_again_equals_undisturbed(truths: GroundTruths, tmp_path: Path) -> None:
    whole, points = _run(truths, _settings(), tmp_path / "whole.pt")
    with pytest.raises(Stopped) as stopped:
        _run(truths, _settings(), tmp_path / "cut.pt", stop_at=4)
    assert stopped.value.code == 143
    resumed, again = _run(truths, _settings(), tmp_path / "cut.pt")
    assert torch.equal(_weights(whole), _weights(resumed)) and points == again


def test_a_state_of_another_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_state(tmp_path / "s.pt", fingerprint({"params": 1, "code": 2}), {"step": 5})
    assert load_state(tmp_path / "s.pt", fingerprint({"params": 1, "code": 3})) is None
    assert "made with other code" in capsys.readouterr().err
    state = load_state(tmp_path / "s.pt", fingerprint({"params": 1, "code": 2}))
    assert state is not None and state["step"] == 5


def test_a_loss_that_is_not_finite_stops(truths: GroundTruths, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at step \d+: lower train.learning_rate"):
        _run(truths, _settings(learning_rate=1e30, clip_norm=1e30, steps=20), tmp_path / "s.pt")


def test_blind_network_ignores_c(truths: GroundTruths, tmp_path: Path) -> None:
    pipe, _ = _run(truths, _settings(condition="none"), tmp_path / "s.pt")
    photo = torch.rand(1, 3, 16, 16, generator=generator("photo"))
    a, b = (
        pipe(photo, c, num_inference_steps=1, generator=generator("n")).grids
        for c in (torch.ones(1, 4), -torch.ones(1, 4))
    )
    assert torch.equal(a, b)


def test_ours_by_hand() -> None:
    mid, half = torch.tensor([[0.2, 0.5, 0.002, 150.0]]), SCALE[None]
    c = torch.tensor([[1.0, -0.5, 0.0, 0.25]])
    noticeable = torch.tensor([[True, True, True, False]])
    assert float(losses.ours(mid + c * half, c, mid, half, noticeable, SCALE)) == pytest.approx(0, abs=1e-9)
    # one mean half-range off: huber with its knee at 0.5 gives 0.5 (1 - 0.25); temperature is free
    off = mid + c * half + SCALE * torch.tensor([[1.0, 0.0, 0.0, 9.0]])
    assert float(losses.ours(off, c, mid, half, noticeable, SCALE)) == pytest.approx(0.375, rel=1e-4)


def test_published_by_hand_and_blind_to_the_sign() -> None:
    own, near, far = (torch.tensor([[x, 0.5, 0.001, 150.0]]) for x in (0.30, 0.31, 0.20))
    c = torch.tensor([[0.7, 0.0, 0.0, 0.0]])
    tau = 0.1
    e_near, e_far = math.exp(-0.01 / 0.05 / tau), math.exp(-0.10 / 0.05 / tau)
    expected = -math.log(e_near / (e_near + e_far))
    assert float(losses.published(own, near, far, c, SCALE, tau)) == pytest.approx(expected, rel=1e-4)
    assert losses.published(own, near, far, -c, SCALE, tau) == losses.published(own, near, far, c, SCALE, tau)


def test_practised_conditions() -> None:
    c = losses.draw_conditions(4000, generator("c"))
    single = (c != 0).sum(1) == 1
    assert c.abs().max() <= 1 and 0.45 < single.float().mean() < 0.55
    assert (c[single] != 0).sum(0).min() > 400


def test_disturbance_is_a_gain_in_linear_light() -> None:
    grey = torch.full((1, 3, 4, 4), 0.3)
    assert torch.equal(disturb(grey, 0, 0, generator("d")), grey)
    one, other = (disturb(grey, 0.5, 0.05, generator("d", i)) for i in range(2))
    assert not torch.equal(one, other) and (one - grey).abs().max() < 0.12


def test_fitted_autoencoder_has_unit_latents() -> None:
    settings = tiny_train().autoencoder
    pictures = torch.rand(4, 3, 64, 64, generator=generator("pictures"))
    vae = autoencoder.fit(settings, 8, pictures, seed=0)
    mean, std = autoencoder.encode(vae, pictures)
    assert mean.shape == (4, 4, 8, 8)
    assert float((mean.var() + std.square().mean()).sqrt()) == pytest.approx(1, abs=0.05)
    again = autoencoder.fit(settings, 8, pictures, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), again.parameters(), strict=True))
