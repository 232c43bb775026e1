"""Losses by hand, the loop's determinism and resumption, and steps cut into parts."""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DynamoBackend
from torch import Tensor, nn

from diffretouch.attributes import ATTRIBUTES, scores, soft_clamp
from diffretouch.color import srgb_to_linear
from diffretouch.config import Autoencoder, Train
from diffretouch.errors import ConfigError, UserError
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import new_autoencoder, new_pipeline
from diffretouch.model.start import parameter_groups
from diffretouch.seeds import generator
from diffretouch.training import autoencoder, losses, resume
from diffretouch.training.augment import expose, gains
from diffretouch.training.data import GroundTruths, unit
from diffretouch.training.diffusion import DiffRetouchObjective, Networks, pipeline_with
from diffretouch.training.loop import fit
from diffretouch.training.objective import Part, parts
from diffretouch.training.ranks import new_accelerator
from diffretouch.training.resume import CutShort, States, Stopped, flat
from diffretouch.training.validation import Validation
from tests.test_model import tiny_train

GOLDEN = {
    "none": [
        [1.15146, 0.031198, 0, 6.4387],
        [1.10215, 0.041425, 0, 2.84307],
        [1.10403, 0.02506, 0, 1.83936],
        [1.07466, 0.069048, 0, 8.52897],
        [1.00917, 0.022527, 0, 5.03577],
        [0.962022, 0.040304, 0, 2.80565],
        [1.01348, 0.056216, 0, 7.87587],
        [0.967608, 0.045187, 0, 6.44689],
        [1.13936, 0.035288, 0, 1.36139],
        [0.956497, 0.024993, 0, 1.66192],
    ],
    "published": [
        [1.15146, 0.031198, 2.77259, 6.4387],
        [1.10215, 0.041425, 2.77339, 5.3439],
        [1.10393, 0.02522, 2.75544, 5.29838],
        [1.07361, 0.07244, 1.37238, 9.55151],
        [1.00977, 0.019876, 2.74644, 6.60068],
        [0.963502, 0.042186, 2.64245, 7.81689],
        [1.01843, 0.061455, 2.60428, 10.9507],
        [0.976562, 0.050481, 1.30826, 8.30376],
        [1.14831, 0.034796, 2.54218, 7.66451],
        [0.961611, 0.025968, 1.2427, 4.28601],
    ],
    "ours": [
        [1.15146, 0.045371, 3.54719, 2.47884],
        [1.10215, 0.05437, 3.86766, 6.88023],
        [1.10498, 0.016015, 1.89971, 2.50705],
        [1.07556, 0.047688, 2.32656, 7.6382],
        [1.01278, 0.038735, 2.88526, 5.91992],
        [0.962875, 0.030133, 2.6762, 5.50401],
        [1.01639, 0.037517, 3.15322, 6.76318],
        [0.97529, 0.047803, 2.57898, 3.74811],
        [1.14335, 0.046648, 3.53656, 3.87412],
        [0.958342, 0.030857, 2.35834, 7.01546],
    ],
}
"""eps, pixel, control and the norm of the gradient of ten steps, by control loss."""
SCALE = torch.tensor([0.05, 0.1, 0.001, 20.0])


def _settings(**changes: object) -> Train:
    base = {"steps": 6, "batch_size": 2, "log_every": 2, "validate_every": 6, "checkpoint_every": 2, "warmup_steps": 2}
    return Train.model_validate({**tiny_train().model_dump(), **base, **changes})


def ground_truths() -> GroundTruths:
    """Three smooth photos, two experts: one darker and cooler, one brighter and warmer."""
    draw = generator("truths")
    photos = nn.functional.interpolate(torch.rand(3, 3, 4, 4, generator=draw) * 0.6, size=(16, 16), mode="bilinear")
    factors = torch.tensor([[0.7, 0.8, 0.9], [1.5, 1.4, 1.2]])[None, :, :, None, None]
    results = photos[:, None] * factors
    s = torch.stack([scores(r, 16) for r in results])
    mid, half = (s.amax(1) + s.amin(1)) / 2, (s.amax(1) - s.amin(1)) / 2
    latent = torch.randn(3, 2, 4, 8, 8, generator=draw)
    to16 = [(x * 65535).round().to(torch.uint16) for x in (photos, results)]
    c = (s - mid[:, None]) / half[:, None]
    return GroundTruths(*to16, c, mid, half, s, latent, torch.full_like(latent, 0.1))


truths = pytest.fixture(ground_truths, scope="module")


def _objective(truths: GroundTruths, settings: Train) -> DiffRetouchObjective:
    with torch.random.fork_rng(devices=[]):
        vae = new_autoencoder(settings.autoencoder)
    pipe = new_pipeline(settings, vae, "fixed_small", settings.seed)
    return DiffRetouchObjective(pipe, truths, truths.half.mean(0), torch.ones(3, 4, dtype=torch.bool), settings)


def _away_from_identity(objective: DiffRetouchObjective) -> Tensor:
    """The grid head's last weights, drawn anew, so that c and noise show in the results."""
    weight: Tensor = objective.pipe.grid_head.layers[-1].weight
    nn.init.normal_(weight, std=0.3, generator=generator("w"))
    return weight


def _run(
    truths: GroundTruths, settings: Train, folder: Path, stop_at: int | None = None, validate: Any = None
) -> tuple[RetouchPipeline, list[dict[str, float]]]:
    objective, points = _objective(truths, settings), list[dict[str, float]]()

    def on_point(point: dict[str, float]) -> None:
        points.append(point)
        if stop_at == point["step"]:
            signal.raise_signal(signal.SIGTERM)

    fit(
        net=Networks(objective.pipe),
        objective=objective,
        groups=parameter_groups(objective.pipe, settings),
        settings=settings,
        accelerator=new_accelerator("cpu"),
        states=States(folder, flat(settings.model_dump(mode="json"), "train"), keep=2),
        validate=validate or (lambda net, step, stopping: {"val_psnr": 1.0}),
        on_point=on_point,
    )
    return objective.pipe, points


def _saved(folder: Path) -> list[int]:
    """Steps of all states in it."""
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("states-*/*.pt"))


def _weights(pipe: RetouchPipeline) -> Tensor:
    return torch.cat([p.flatten() for part in (pipe.unet, pipe.grid_head, pipe.guide) for p in part.parameters()])


@pytest.mark.parametrize("control", ["none", "published", "ours"])
def test_every_variant_learns_and_repeats(truths: GroundTruths, tmp_path: Path, control: str) -> None:
    settings = _settings(control_loss=control, steps=30, log_every=10)
    first, points = _run(truths, settings, tmp_path / "a")
    second, again = _run(truths, settings, tmp_path / "b")
    assert torch.equal(_weights(first), _weights(second)) and points == again
    assert points[-1]["eps"] < points[0]["eps"] and points[-1]["val_psnr"] == 1.0


def test_stopped_and_run_again_equals_undisturbed(truths: GroundTruths, tmp_path: Path) -> None:
    settings = _settings(steps=8, log_every=3)  # so that it stops between two points of the curves, too
    whole, points = _run(truths, settings, tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        _run(truths, settings, tmp_path / "cut", stop_at=3)
    assert stopped.value.code == 143
    resumed, again = _run(truths, settings, tmp_path / "cut")
    assert torch.equal(_weights(whole), _weights(resumed)) and points == again


def test_a_stop_that_leaves_no_time_to_save_falls_back_to_the_last_state(
    truths: GroundTruths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _settings(steps=9, log_every=3, checkpoint_every=2)
    whole, _ = _run(truths, settings, tmp_path / "whole")
    monkeypatch.setattr("diffretouch.training.resume.SLOWEST_SAVE_S", 0.0)
    with pytest.raises(Stopped):
        _run(truths, settings, tmp_path / "cut", stop_at=6)
    assert "stopped at step 7, the 1 steps since step 6 will be done again" in capsys.readouterr().err
    resumed, _ = _run(truths, settings, tmp_path / "cut")
    assert "going on from step 6 of 9" in capsys.readouterr().err
    assert torch.equal(_weights(whole), _weights(resumed))


def _be_rank(rank: int, port: int) -> None:
    """This process is one of two."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)

    def refused(**_options: object) -> None:
        raise AssertionError("torch's barrier takes a GPU wherever torch was built for one")

    torch.distributed.barrier = refused


def _two_processes(rank: Callable[[int, int, Path], None], folder: Path) -> None:
    """`rank(number, port, folder)` in two processes that train together; raises what one of them raised."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    both = torch.multiprocessing.spawn(rank, (port, folder), nprocs=2, join=False)
    assert both is not None
    end = time.monotonic() + 300
    try:
        while not both.join(timeout=1):
            assert time.monotonic() < end, "they wait for each other"
    finally:
        for process in both.processes:
            process.kill()


def _stopped_rank(rank: int, port: int, folder: Path) -> None:
    """One of two processes that are asked to stop when the last save took longer than there is time for."""
    _be_rank(rank, port)
    resume.SLOWEST_SAVE_S = 1e-9
    with pytest.raises(Stopped) as stopped:
        _run(ground_truths(), _settings(steps=9, log_every=3, checkpoint_every=2), folder, stop_at=6)
    assert stopped.value.code == 143


def test_two_processes_agree_on_whether_there_is_time_to_save(tmp_path: Path) -> None:
    """Only the first of them saves and so knows: the other must not wait for a save that is left out."""
    _two_processes(_stopped_rank, tmp_path)
    assert _saved(tmp_path) == [4, 6]


def _rank_of_its_own(rank: int, port: int, folder: Path) -> None:
    """One of two processes on machines that do not share their folders: the first has a saved state."""
    _be_rank(rank, port)
    last = _saved(folder / "0")[-1]
    with pytest.raises(UserError, match=rf"different steps, {0 if rank else last} here and up to {last} elsewhere"):
        _run(ground_truths(), _settings(), folder / str(rank))


def test_processes_that_would_go_on_from_different_steps_are_refused(truths: GroundTruths, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        _run(truths, _settings(), tmp_path / "0", stop_at=4)
    _two_processes(_rank_of_its_own, tmp_path)


def test_before_a_save_was_timed_its_size_tells_whether_it_fits(tmp_path: Path) -> None:
    states = States(tmp_path, {}, keep=1)
    small, large = ({"net": {"w": torch.empty(size, device="meta")}} for size in (10**6, 4 * 10**9))
    assert states.fits(small) and not states.fits(large)
    states.save(1, {})
    assert states.fits(large)  # by the last one, which took no time
    assert States(tmp_path, {}, keep=1).fits(large)  # which the run that goes on knows, too


def test_a_machines_accelerate_settings_move_nothing(
    truths: GroundTruths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch` hands on what `accelerate config` was told; params.yaml alone says what is done."""
    plain, points = _run(truths, _settings(), tmp_path / "plain")
    told = {"MIXED_PRECISION": "bf16", "GRADIENT_ACCUMULATION_STEPS": "4", "DYNAMO_BACKEND": "EAGER"}
    for name, value in told.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        pipe, others = _run(truths, _settings(), tmp_path / "told")
        assert Accelerator().gradient_accumulation_steps == 4  # they do move accelerate
        assert new_accelerator("cpu").state.dynamo_plugin.backend == DynamoBackend.NO
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert torch.equal(_weights(plain), _weights(pipe)) and points == others


@pytest.mark.parametrize(("precision", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_is_that_of_the_networks_layers_and_of_no_loss(
    truths: GroundTruths, precision: str, kind: torch.dtype
) -> None:
    objective = _objective(truths, _settings(precision=precision))
    seen: set[torch.dtype] = set()
    objective.pipe.unet.conv_in.register_forward_hook(lambda _layer, _given, made: seen.add(made.dtype))
    (part,) = parts(0, 2, 1, 0, 1)
    found = objective.losses(Networks(objective.pipe), part)
    assert seen == {kind} and {value.dtype for value in found.values()} == {torch.float32}
    seen.clear()
    with torch.no_grad():
        out = pipeline_with(objective.pipe, Networks(objective.pipe))(
            torch.rand(1, 3, 16, 16, generator=generator("p")), torch.zeros(1, 4), generator=generator("n")
        )
    assert seen == {kind} and out.images[0].dtype == torch.float32  # so validation computes as training does


def test_the_global_random_states_are_left_alone(
    truths: GroundTruths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_seed: int) -> None:
        raise AssertionError("the GPUs' random states are global, too")

    def states() -> tuple[object, ...]:
        legacy = np.random.get_state()  # noqa: NPY002 - the global one is meant
        return random.getstate(), str(legacy), torch.random.get_rng_state().tolist()

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refused)
    before = states()
    autoencoder.fit(tiny_train().autoencoder, torch.rand(2, 3, 64, 64, generator=generator("p")), seed=0)
    pipe, _ = _run(truths, _settings(control_loss="published", condition_dropout=0.2), tmp_path)
    pipe(torch.rand(1, 3, 16, 16, generator=generator("p")), torch.ones(1, 4), generator=generator("n"))
    assert states() == before


def test_only_the_newest_states_are_kept(truths: GroundTruths, tmp_path: Path) -> None:
    _run(truths, _settings(), tmp_path)
    assert _saved(tmp_path) == [4, 6]


@pytest.mark.parametrize(
    ("at", "fitting", "kept"), [(6, True, [4, 6]), (3, True, [2, 3]), (3, False, [2])], ids=["save", "fits", "too slow"]
)
def test_a_stop_during_validation_keeps_its_step_and_its_point_is_made_again(
    truths: GroundTruths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, fitting: bool, kept: list[int]
) -> None:
    settings = _settings(steps=9, log_every=3, validate_every=3, checkpoint_every=2)
    whole, points = _run(truths, settings, tmp_path / "whole")

    def long(_net: object, step: int, stopping: Callable[[], bool]) -> dict[str, float]:
        if step == at:
            assert not stopping()
            signal.raise_signal(signal.SIGTERM)
            assert stopping()
            raise CutShort
        return {"val_psnr": 1.0}

    if not fitting:
        monkeypatch.setattr("diffretouch.training.resume.SLOWEST_SAVE_S", 0.0)
    with pytest.raises(Stopped) as stopped:
        _run(truths, settings, tmp_path / "cut", validate=long)
    assert stopped.value.code == 143 and _saved(tmp_path / "cut") == kept
    with pytest.raises(Stopped):  # and while the point is made again
        _run(truths, settings, tmp_path / "cut", validate=long)
    resumed, again = _run(truths, settings, tmp_path / "cut")
    assert torch.equal(_weights(whole), _weights(resumed)) and points == again


def test_states_of_another_run_are_refused_by_their_fields_names_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = ({"tau": 0.1, "channels": [8, 8]}, {"tau": 0.2, "channels": [8, 16]})
    for step in (600, 700):
        States(tmp_path, flat(old, "train"), keep=2).save(step, {})
    for step in (200, 300, 400):
        states = States(tmp_path, flat(new, "train"), keep=2)
        assert (states.newest() is None) == (step == 200)
        states.save(step, {})
    said = capsys.readouterr().err
    assert "step-000000700.pt is of another run: train.tau was 0.1, is 0.2, train.channels.1 was 8, is 16" in said
    assert "kept" in said and said.count("another run") == 1
    assert _saved(tmp_path) == [300, 400, 600, 700]
    states.clear()
    state = States(tmp_path, flat(old, "train"), keep=2).newest()
    assert state is not None and state["step"] == 700 and _saved(tmp_path) == [600, 700]


def test_a_loss_that_is_not_finite_stops(truths: GroundTruths, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is nan at step \d+: lower train.learning_rate"):
        _run(truths, _settings(learning_rate=1e30, clip_norm=1e30, steps=20), tmp_path)


@pytest.mark.parametrize("bad_step", [3, 5], ids=["before a save", "in the last step"])
def test_a_gradient_that_is_not_finite_stops_and_its_weights_are_not_saved(
    truths: GroundTruths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad_step: int
) -> None:
    """The losses of that step are finite: they were computed before."""
    real, steps = nn.utils.clip_grad_norm_, iter(range(6))

    def spoiled(parameters: list[Tensor], most: float) -> Tensor:
        if next(steps) == bad_step:
            parameters[0].grad = torch.full_like(parameters[0], float("nan"))
        return real(parameters, most)

    with monkeypatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", spoiled)
        with pytest.raises(UserError, match=rf"gradient_norm is nan at step {bad_step}: lower .* saved state is kept"):
            _run(truths, _settings(), tmp_path / "cut")
    assert _saved(tmp_path / "cut") == ([2] if bad_step == 3 else [2, 4])
    resumed, _ = _run(truths, _settings(), tmp_path / "cut")
    whole, _ = _run(truths, _settings(), tmp_path / "whole")
    assert torch.equal(_weights(whole), _weights(resumed))


def test_a_step_takes_a_gradient_of_the_clipped_norm(
    truths: GroundTruths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, norms = torch.optim.AdamW.step, []

    def seen(optimiser: torch.optim.AdamW) -> None:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        real(optimiser)

    monkeypatch.setattr(torch.optim.AdamW, "step", seen)
    _, points = _run(truths, _settings(clip_norm=0.25, log_every=1), tmp_path)
    assert min(point["gradient_norm"] for point in points) > 0.25
    assert norms == pytest.approx([0.25] * 6, rel=1e-4)


def test_the_rate_warms_up_and_falls_by_a_cosine_to_zero(truths: GroundTruths, tmp_path: Path) -> None:
    """After each of six steps, two of them to warm up: the rate of the next one."""
    _, points = _run(truths, _settings(learning_rate=0.01, log_every=1), tmp_path)
    eighth = math.sqrt(0.5) / 2
    rates = [0.01 * share for share in (1, 1, 0.5 + eighth, 0.5, 0.5 - eighth, 0)]
    assert [point["learning_rate"] for point in points] == pytest.approx(rates, abs=1e-8)


def test_what_takes_too_long_after_a_stop_is_left_undone(tmp_path: Path) -> None:
    """A step or a save that hangs: the exit code is that of the signal all the same."""
    code = (
        "import signal, sys, time\nfrom diffretouch.training.resume import stop_requests\n"
        "with stop_requests(0.5):\n    print('here', flush=True)\n    time.sleep(60)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stdout.readline() == b"here\n"
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=30)
    assert run.returncode == 143 and b"left where it was" in said


def test_a_training_that_diverges_stops(truths: GroundTruths, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training diverges: eps is .* before step 4, an untrained network's is 1 "):
        _run(truths, _settings(divergence=1.0001, learning_rate=0.3, clip_norm=1e30), tmp_path / "noise")
    pixels = {"pixel_weight": 1e4, "head_learning_rate": 3.0, "clip_norm": 1e30, "steps": 40}
    with pytest.raises(UserError, match=r"training diverges: loss is .* before step \d+, the first point's is "):
        _run(truths, _settings(divergence=3.0, **pixels), tmp_path / "pixels")


def test_eight_bit_averages_need_their_package(
    truths: GroundTruths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffretouch.training.optimisers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="bitsandbytes, which is not installed"):
        _run(truths, _settings(optimiser="adamw8bit"), tmp_path)


def test_eight_bit_averages_are_saved_and_go_on(truths: GroundTruths, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra adamw8bit")
    # it keeps what has fewer than 4096 numbers in 32 bits
    settings = _settings(optimiser="adamw8bit", channels=(32, 32), steps=8, log_every=3)
    whole, points = _run(truths, settings, tmp_path / "whole")
    with pytest.raises(Stopped):
        _run(truths, settings, tmp_path / "cut", stop_at=3)
    (newest,) = (tmp_path / "cut").glob("states-*/*-000000004.pt")
    assert "dtype=torch.uint8" in repr(torch.load(newest, weights_only=True)["optimiser"])
    resumed, again = _run(truths, settings, tmp_path / "cut")
    assert torch.equal(_weights(whole), _weights(resumed)) and points == again
    exact, _ = _run(truths, settings.model_copy(update={"optimiser": "adamw"}), tmp_path / "exact")
    moved = _weights(exact) - _weights(_objective(truths, settings).pipe)
    assert 0 < (_weights(whole) - _weights(exact)).norm() < 0.2 * moved.norm()


def test_blind_network_ignores_c(truths: GroundTruths, tmp_path: Path) -> None:
    pipe, _ = _run(truths, _settings(condition="none"), tmp_path)
    photo = torch.rand(1, 3, 16, 16, generator=generator("photo"))
    a, b = (
        pipe(photo, c, num_inference_steps=1, generator=generator("n")).grids
        for c in (torch.ones(1, 4), -torch.ones(1, 4))
    )
    assert torch.equal(a, b)


def test_the_parts_of_a_step_cover_it_once() -> None:
    taken = [(p.first, p.last, p.total) for rank in range(3) for p in parts(7, 2, 4, rank, 3)]
    assert sorted(taken) == [(first, first + 2, 24) for first in range(0, 24, 2)]


@pytest.mark.parametrize("control", ["none", "published", "ours"])
def test_a_steps_loss_is_the_mean_of_its_parts(truths: GroundTruths, control: str) -> None:
    changes = {"control_loss": control, "timesteps": [0, 999], "pixel_timesteps": [400, 999], "condition_dropout": 0.3}
    objective = _objective(truths, _settings(**changes))
    net = Networks(objective.pipe)

    def gradient(*shares: Part) -> tuple[float, Tensor]:
        net.zero_grad()
        total = sum(objective.losses(net, share)["loss"] / len(shares) for share in shares)
        assert isinstance(total, Tensor)
        total.backward()
        found = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        return float(total.detach()), torch.cat(found)

    whole = gradient(Part(3, 0, 8, 8))
    cut = gradient(*parts(3, 2, 4, 0, 1))
    assert whole[0] == pytest.approx(cut[0], rel=1e-5)
    torch.testing.assert_close(whole[1], cut[1], rtol=1e-4, atol=1e-6)


def test_the_grid_learns_only_from_its_own_timesteps(truths: GroundTruths) -> None:
    settings = _settings(timesteps=[0, 999], pixel_timesteps=[900, 999])
    objective = _objective(truths, settings)
    t = objective._draw(Part(0, 0, 64, 64)).t
    with torch.no_grad():
        found = objective.losses(Networks(objective.pipe), Part(0, 0, 64, 64))
    everywhere = _objective(truths, _settings(timesteps=[0, 999], pixel_timesteps=[0, 999]))
    with torch.no_grad():
        full = everywhere.losses(Networks(everywhere.pipe), Part(0, 0, 64, 64))
    assert 0 < int((t >= 900).sum()) < 30
    assert float(found["eps"]) == float(full["eps"]) and 0 < float(found["pixel"]) < 0.6 * float(full["pixel"])


@pytest.mark.parametrize("by_component", [False, True])
def test_dropped_conditions(truths: GroundTruths, by_component: bool) -> None:
    objective = _objective(truths, _settings(condition_dropout=0.4, dropout_by_component=by_component))
    kept = objective._draw(Part(0, 0, 500, 500)).kept
    assert 0.5 < float(kept.mean()) < 0.7
    alike = (kept == kept[:, :1]).all(1)
    assert bool(alike.all()) is not by_component


@pytest.mark.parametrize("routing", ["all", "own"])
def test_the_published_loss_is_that_of_its_three_results(truths: GroundTruths, routing: str) -> None:
    """D of c and noise, D+ of c and other noise, D- of -c and noise; with `own` the last two are constants."""
    changes = {"timesteps": [0, 999], "pixel_timesteps": [500, 999], "condition_dropout": 0.3}
    objective = _objective(truths, _settings(control_loss="published", published_gradient=routing, **changes))
    weight, pipe, part = _away_from_identity(objective), objective.pipe, Part(0, 0, 8, 8)
    found = objective.losses(Networks(pipe), part)["control"]
    (gradient,) = torch.autograd.grad(found, weight)

    drawn = objective._draw(part)
    photo, _, z0, c = objective._ground_truths(drawn)
    told = c * drawn.kept

    def scored(noise: Tensor, condition: Tensor) -> Tensor:
        zt = pipe.scheduler.add_noise(z0, noise, drawn.t)
        _, grid = pipe.predict(zt, drawn.t, pipe.network_input(photo), condition)
        return scores(soft_clamp(pipe.retouch(photo, grid)), 16)

    first, alike, opposite = scored(drawn.noise, told), scored(drawn.other_noise, told), scored(drawn.noise, -told)
    if routing == "own":
        alike, opposite = alike.detach(), opposite.detach()
    each = losses.published(first, alike, opposite, told, truths.half.mean(0), objective.settings.tau)
    late = drawn.t >= 500
    assert 0 < int(late.sum()) < 8 and 0 < int(drawn.kept.sum()) < 32
    expected = each[late].sum() / 8
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, weight)[0], rtol=1e-3, atol=1e-6)
    assert float(gradient.abs().max()) > 1e-3


def test_what_is_learned_from_is_photo_result_and_latent_of_one_expert_seen_alike(truths: GroundTruths) -> None:
    objective = _objective(truths, _settings(input_exposure=0.3))
    drawn = objective._draw(Part(0, 0, 12, 12))
    photo, result, z0, c = objective._ground_truths(drawn)
    assert 0 < int(drawn.mirrored.sum()) < 12
    for i, (view, expert) in enumerate(zip(drawn.view.tolist(), drawn.expert.tolist(), strict=True)):
        latent = truths.latent_mean[view, expert] + truths.latent_std[view, expert] * drawn.posterior[i]
        seen = [unit(truths.photos[view]), unit(truths.results[view, expert]), latent]
        if bool(drawn.mirrored[i]):
            seen = [x.flip(2) for x in seen]
        seen[0] = expose(seen[0][None], drawn.gains[i : i + 1])[0]
        for made, expected in zip((photo[i], result[i], z0[i]), seen, strict=True):
            torch.testing.assert_close(made, expected)
        assert torch.equal(c[i], truths.conditions[view, expert])


def test_a_dropped_c_is_dropped_in_every_branch_of_the_published_loss(truths: GroundTruths) -> None:
    objective = _objective(truths, _settings(control_loss="published", condition_dropout=1.0))
    with torch.no_grad():
        assert float(objective.losses(Networks(objective.pipe), Part(0, 0, 4, 4))["control"]) == 0


def test_ours_by_hand() -> None:
    mid, half = torch.tensor([[0.2, 0.5, 0.002, 150.0]]), SCALE[None]
    c = torch.tensor([[1.0, -0.5, 0.0, 0.25]])
    noticeable = torch.tensor([[True, True, True, False]])
    both, asked = (c, -c), (mid + c * half, mid - c * half)

    def found(one: Tensor, other: Tensor, difference: float) -> float:
        return float(losses.ours((one, other), both, mid, half, noticeable, SCALE, difference))

    assert found(*asked, 1.0) == pytest.approx(0, abs=1e-9)
    # one of the two a mean half-range off: their average is off by a half, huber .125; their step by one, huber with
    # its knee at .5 gives .5 (1 - .25); temperature is free
    off = SCALE * torch.tensor([[1.0, 0.0, 0.0, 9.0]])
    assert found(asked[0] + off, asked[1], 0.0) == pytest.approx(0.125, rel=1e-4)
    assert found(asked[0] + off, asked[1], 2.0) == pytest.approx(0.125 + 2 * 0.375, rel=1e-4)
    # both off alike: how they differ is right
    assert found(asked[0] + off, asked[1] + off, 2.0) == pytest.approx(0.375, rel=1e-4)
    # the wrong way round costs more than doing nothing
    assert found(asked[1], asked[0], 1.0) > found(mid, mid, 1.0) > 0


def test_ours_parts_the_branches_however_far_both_are_from_what_is_asked() -> None:
    """The middle missed by three half-ranges, both results alike: they are pulled apart as if it were not missed."""
    c, mid, half = torch.eye(4)[:1], torch.zeros(1, 4), SCALE[None]

    def pull(miss: float) -> Tensor:
        s = (mid + miss * half).requires_grad_()
        t = (mid + miss * half).requires_grad_()
        losses.ours((s, t), (c, -c), mid, half, torch.ones(1, 4, dtype=torch.bool), SCALE, 1.0).sum().backward()
        return t.grad - s.grad

    torch.testing.assert_close(pull(3.0), pull(0.0))
    assert float(pull(3.0)[0, 0]) > 0 and not pull(3.0)[0, 1:].any()


def test_paired_branches_are_told_and_shown_another_expert(truths: GroundTruths) -> None:
    objective = _objective(truths, _settings(control_pairs=0.5))
    drawn = objective._draw(Part(0, 0, 400, 400))
    assert 150 < int(drawn.paired.sum()) < 250 and bool((drawn.other_expert != drawn.expert).all())
    told = objective._practised(drawn)
    of_other = truths.conditions[drawn.view, drawn.other_expert]
    assert torch.equal(told[drawn.paired], of_other[drawn.paired])
    assert torch.equal(told[~drawn.paired], drawn.practised[~drawn.paired])
    shown = objective._result(drawn, drawn.other_expert)
    straight = ~drawn.mirrored.flatten()
    expected = unit(truths.results[drawn.view, drawn.other_expert])
    assert torch.equal(shown[straight], expected[straight]) and torch.equal(
        shown[~straight], expected[~straight].flip(3)
    )


def test_the_pixel_loss_is_a_mean_over_both_experts(truths: GroundTruths) -> None:
    """At the start every result is the photo itself, so the loss can be counted by hand."""
    part = Part(0, 0, 400, 400)
    objective = _objective(truths, _settings(control_pairs=0.5, input_exposure=0.0, input_white_balance=0.0))
    drawn = objective._draw(part)
    photo, result, _, _ = objective._ground_truths(drawn)
    own, other = (
        (2 * (photo - shown)).square().mean((1, 2, 3))
        for shown in (result, objective._result(drawn, drawn.other_expert))
    )
    with torch.no_grad():
        found = float(objective.losses(Networks(objective.pipe), part)["pixel"])
    assert found == pytest.approx(float((own.sum() + other[drawn.paired].sum()) / 600), rel=1e-4)


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
    grey = torch.full((2, 3, 4, 4), 0.3)
    factors = gains(2, 0.5, 0.05, generator("d"))
    found = srgb_to_linear(expose(grey, factors)) / srgb_to_linear(grey)
    torch.testing.assert_close(found, factors[:, :, None, None].expand_as(grey), rtol=1e-4, atol=1e-5)
    assert not torch.equal(factors[0], factors[1]) and float(factors.log2().abs().max()) < 0.6
    assert torch.equal(gains(2, 0, 0, generator("d")), torch.ones(2, 3))


def test_fitted_autoencoder_has_unit_latents() -> None:
    settings = tiny_train().autoencoder
    pictures = torch.rand(4, 3, 64, 64, generator=generator("pictures"))
    vae = autoencoder.fit(settings, pictures, seed=0)
    mean, std = autoencoder.encode(vae, pictures)
    assert mean.shape == (4, 4, 8, 8)
    assert float((mean.var() + std.square().mean()).sqrt()) == pytest.approx(1, abs=0.05)
    again = autoencoder.fit(settings, pictures, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("shape", ["small", "stable_diffusion"])
def test_an_autoencoder_can_begin_by_shrinking(shape: str) -> None:
    """Against averages of 8 x 8 pixels, each as large as they were; the norms compress contrast a little."""
    settings = tiny_train().autoencoder.model_dump() | {"shape": shape, "init": "shrink", "norm_groups": 1}
    settings = Autoencoder.model_validate(settings | {"channels": (8, 16, 16, 32), "steps": 1, "learning_rate": 1e-9})
    pictures = torch.rand(2, 3, 8, 8, generator=generator("pictures")).repeat_interleave(8, 2).repeat_interleave(8, 3)
    noise = 0.2 * torch.rand(2, 3, 64, 64, generator=generator("noise")) - 0.1
    noise = noise - nn.functional.avg_pool2d(noise, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    vae = autoencoder.fit(settings, pictures, seed=0)
    with torch.no_grad():
        posterior = vae.encode((pictures + noise) * 2 - 1).latent_dist
        made = vae.decode(posterior.mean).sample / 2 + 0.5
    shrunk = nn.functional.avg_pool2d(pictures, 8) * 2 - 1
    torch.testing.assert_close(posterior.mean[:, :3], shrunk, rtol=0.06, atol=0.01)
    torch.testing.assert_close(made * 2 - 1, pictures * 2 - 1, rtol=0.1, atol=0.02)
    assert float(posterior.std.max()) < 0.06


@pytest.mark.parametrize("control", ["none", "published", "ours"])
def test_ten_steps_have_the_golden_losses(truths: GroundTruths, tmp_path: Path, control: str) -> None:
    """So that no change of the code moves training unnoticed; another processor may round its last digits otherwise."""
    changes = {"control_loss": control, "condition_dropout": 0.2, "control_weight": 1.0}
    # what the profile may tune is no change of the code
    changes |= {"pixel_weight": 20.0, "control_difference": 1.0, "weight_decay": 0.01}
    _, points = _run(truths, _settings(steps=10, log_every=1, **changes), tmp_path)
    found = [[point[name] for name in ("eps", "pixel", "control", "gradient_norm")] for point in points]
    for step, expected in zip(found, GOLDEN[control], strict=True):
        assert step == pytest.approx(expected, rel=2e-3)


def test_training_ends_in_the_moving_average_of_its_weights(truths: GroundTruths, tmp_path: Path) -> None:
    """Counted by hand from the weights after each step: the first is taken whole."""
    after: list[Tensor] = []

    def keep(net: nn.Module) -> Tensor:
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    for steps in (1, 2, 3):
        # warm-up alone, so that a shorter run takes the same steps
        changes = {"warmup_steps": 3, "checkpoint_every": 9, "log_every": 9, "validate_every": 9}
        settings = _settings(steps=steps, ema_decay=0.0, **changes)
        pipe, _ = _run(truths, settings, tmp_path / str(steps))
        after.append(keep(Networks(pipe)))
    pipe, _ = _run(truths, settings.model_copy(update={"ema_decay": 0.7}), tmp_path / "averaged")
    expected = after[0]
    for weights in after[1:]:
        expected = 0.7 * expected + 0.3 * weights
    torch.testing.assert_close(keep(Networks(pipe)), expected)
    assert not torch.equal(expected, after[-1])


def test_validation_by_a_loop(truths: GroundTruths) -> None:
    """PSNR with each expert's own c, and half of what a slider moves from end to end in the photo's half-ranges."""
    objective = _objective(truths, _settings())
    _away_from_identity(objective)
    noticeable = torch.ones(3, 4, dtype=torch.bool)
    noticeable[1, 2] = False
    found = Validation(truths, noticeable, seed=5).measure(objective.pipe)
    photos, results = unit(truths.photos), unit(truths.results)

    def made(photo: int, c: Tensor, what: str) -> Tensor:
        return objective.pipe(photos[photo : photo + 1], c[None], generator=[generator(5, what, photo)]).images[0]

    for photo in range(3):
        for expert in range(2):
            miss = made(photo, truths.conditions[photo, expert], "expert") - results[photo, expert]
            expected = 10 * math.log10(1 / float(miss.square().mean()))
            assert float(found.psnr[photo, expert]) == pytest.approx(expected, rel=1e-4)
        for slider in range(4):
            c = torch.zeros(4)
            c[slider] = 1.0
            up, down = (scores(made(photo, end, "axis")[None], 16)[0, slider] for end in (c, -c))
            expected = float((up - down) / 2 / truths.half[photo, slider])
            slope = float(found.slope[photo, slider])
            assert (
                math.isnan(slope) if (photo, slider) == (1, 2) else slope == pytest.approx(expected, rel=1e-3, abs=1e-5)
            )
    assert found.means()["val_psnr"] == pytest.approx(float(found.psnr.mean()))
    means = [found.means()[f"val_slope_{name}"] for name in ATTRIBUTES]
    expected = [float(column[~column.isnan()].mean()) for column in found.slope.T]
    assert means == pytest.approx(expected)


def test_without_a_grid_the_autoencoder_makes_the_picture(truths: GroundTruths, tmp_path: Path) -> None:
    """The ablation: the decoder's picture of the Z_0 that diffusers' own scheduler finds in the last call's noise."""
    settings = _settings(output="autoencoder", timesteps=[0, 999], pixel_timesteps=[0, 999], steps=4)
    pipe, points = _run(truths, settings, tmp_path)
    assert {points[-1][name] for name in ("pixel", "control", "grid")} == {0.0}
    assert points[-1]["loss"] == points[-1]["eps"] > 0
    photo, c = torch.rand(1, 3, 20, 36, generator=generator("photo")), torch.full((1, 4), 0.5)
    made = pipe(photo, c, num_inference_steps=1, last_timestep=999, generator=generator("n"))
    latent = torch.randn(1, 4, 8, 8, generator=generator("n"))
    with torch.no_grad():
        eps, _ = pipe.predict(latent, torch.tensor([999]), pipe.network_input(photo), c)
        z0 = pipe.scheduler.step(eps, 999, latent).pred_original_sample
        decoded = pipe.vae.decode(z0 / pipe.vae.config.scaling_factor).sample / 2 + 0.5
    assert made.images[0].shape == (3, 20, 36)
    expected = torch.nn.functional.interpolate(decoded.clamp(0, 1), (20, 36), mode="bilinear", antialias=True)
    torch.testing.assert_close(made.images[0], expected[0])
