"""benchmarks.train compares like with like, and counts what a network needs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import train
from benchmarks._train_report import report, utilisation
from benchmarks._train_running import TooLargeError
from benchmarks._train_ways import model_flops, new_objective, train_ours, train_plainly
from diffretouch.config import Train, load
from diffretouch.training.diffusion import Networks
from diffretouch.training.objective import Part
from tests.test_model import tiny_train

SIZE = 16
CPU = torch.device("cpu")


def settings(**changes: Any) -> Train:
    return tiny_train().model_copy(update={"batch_size": 2, "control_loss": "ours", **changes})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_plain_way_has_the_same_losses_and_gradients(precision: str) -> None:
    found = []
    for with_stock_attention in (False, True):
        objective = new_objective(settings(precision=precision), SIZE, CPU, plain=with_stock_attention)
        torch.nn.init.constant_(objective.pipe.grid_head.layers[-1].weight, 0.01)  # else c has no say
        losses = objective.losses(Networks(objective.pipe), Part(0, 0, 2, 2))
        losses["loss"].backward()
        named = {name: p.grad for name, p in objective.pipe.unet.named_parameters() if p.requires_grad}
        found.append(({name: float(value.detach()) for name, value in losses.items()}, named))
    (ours, ours_grad), (plain, plain_grad) = found
    exact = precision == "fp32"
    assert ours == pytest.approx(plain, rel=1e-5 if exact else 0.02)
    extra = {name for name in plain_grad if name not in ours_grad}
    assert extra and all(any(part in name for part in ("attn2.to_q", "attn2.to_k", "norm2")) for name in extra)
    for name, gradient in ours_grad.items():
        if exact:
            torch.testing.assert_close(gradient, plain_grad[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("control", ["none", "ours"])
def test_model_flops_are_those_of_the_layers_by_hand(control: str) -> None:
    objective = new_objective(settings(control_loss=control), SIZE, CPU, plain=False)
    counted = [0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Two operations a product; the gradients of the weights and, where they are needed, of the input, as many."""
        weight = module.weight
        assert isinstance(weight, Tensor)
        products = output.numel() * weight[0].numel()
        counted[0] += 2 * products * (1 + int(weight.requires_grad) + int(inputs[0].requires_grad))

    def attend(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        photos, length, width = output.shape
        counted[0] += 3 * 2 * 2 * photos * length * length * width

    pipe = objective.pipe
    for part in (pipe.unet, pipe.grid_head):
        for name, module in part.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.register_forward_hook(count)
            if name.endswith("attn1"):
                module.register_forward_hook(attend)
    guide = 2 * 2 * SIZE * SIZE * 9 * (2 if control == "ours" else 1)  # a 3 x 3 matrix at each pixel, and its gradient
    assert model_flops(objective) == counted[0] + guide


@pytest.mark.parametrize("loop", [train_ours, train_plainly])
def test_both_loops_tell_of_their_steps(loop: Callable[..., None]) -> None:
    objective = new_objective(settings(divergence=1e9), SIZE, CPU, plain=loop is train_plainly)
    before = objective.pipe.unet.conv_in.weight.detach().clone()
    ticks = []

    class Enough(BaseException):
        pass

    def tick(steps: int) -> None:
        ticks.append(steps)
        if len(ticks) == 2:
            raise Enough

    with pytest.raises(Enough):
        loop(objective, 2, tick)
    assert ticks == [2, 2]
    assert not torch.equal(objective.pipe.unet.conv_in.weight, before)


def test_utilisation_is_the_share_of_the_devices_rate_in_bf16() -> None:
    assert utilisation(494.5e12, "NVIDIA H200", "bf16") == pytest.approx(0.5)
    assert utilisation(208.75e12, "NVIDIA H200 NVL", "bf16") == pytest.approx(0.25)
    assert utilisation(31.2e12, "NVIDIA A100-SXM4-80GB", "bf16") == pytest.approx(0.1)
    assert utilisation(1e12, "NVIDIA H200", "fp32") is None and utilisation(1e12, "x86_64, 2 cores", "bf16") is None


def test_a_gpu_too_small_for_a_way_halves_the_batch_of_all_and_the_table_says_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The processes are made up: no GPU is too small for them here."""
    tried = []
    said = {"ours": {"device": "NVIDIA H200", "parameters": 924_139_244, "flops": 2e12}}

    def by_turns(ways: dict[str, Any], rounds: int, seconds: float, *, keep: bool) -> tuple[Any, Any]:
        batches = {way.batch for way in ways.values()}
        tried.append(batches)
        if max(batches) > 4:
            raise TooLargeError("plain, fp32")
        took = {"ours": 0.1, "plain": 0.2, "plain, fp32": 0.4}
        windows = {"seconds a step": 0.0, "CPU seconds a step": 0.05, "steps": 9, "GiB": 30.0}
        return said, {name: [windows | {"seconds a step": took[name]}] * rounds for name in ways}

    monkeypatch.setattr(train, "by_turns", by_turns)
    asked = argparse.Namespace(
        batch=16, threads=4, rounds=3, seconds=1.0, compiled=False, leave_out=[], profile=train.ROOT / "profiles/x.yaml"
    )
    params = load()
    params = params.model_copy(update={"train": params.train.model_copy(update={"precision": "bf16"})})
    found = train.measure(asked, params, "ours", "cuda")
    assert tried == [{16}, {8}, {4}] and found["facts"]["batch"] == 4
    assert json.loads(json.dumps(found)) == found
    found["facts"] |= {"load average before": 0.1, "load average after": 1.2}
    rows = {line.split(" | ")[0]: line.split(" | ") for line in report({"with": found}).splitlines()}
    # 4 ground truths of 2 TFLOP in .1 s are 80 TFLOP/s, 8.1 % of an H200's 989
    assert rows["| ours"][1:] == ["0.100", "0.050", "1.00", "1.00", "40.00", "80", "8.1%", "30.0 |"]
    assert rows["| plain"][3:8] == ["2.00", "1.00", "20.00", "40", "4.0%"]
    assert rows["| plain, fp32"][3:8] == ["4.00", "1.00", "10.00", "20", ""]
