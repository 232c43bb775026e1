"""The single-token shortcut against diffusers' own attention: output, gradients, precision, compilation."""

from __future__ import annotations

import copy

import pytest
import torch

import diffretouch.model  # noqa: F401 - makes diffusers importable beside a CPU build of torch

# isort: split
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor

from diffretouch.model.attention import SingleToken, SkippedNorm, use_single_token
from diffretouch.seeds import generator

LIMIT = {torch.float64: 1e-12, torch.float32: 1e-5}


def _unet(linear: bool) -> UNet2DConditionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return UNet2DConditionModel(
            sample_size=8,
            in_channels=7,
            out_channels=8,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=4,
            attention_head_dim=(2, 4),
            norm_num_groups=4,
            use_linear_projection=linear,
        )


def _pair(linear: bool = True, dtype: torch.dtype = torch.float32) -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    """The same weights twice: diffusers' own attention, and the shortcut."""
    own = _unet(linear).to(dtype)
    short = copy.deepcopy(own)
    use_single_token(short)
    return own, short


def _call(unet: UNet2DConditionModel, dtype: torch.dtype = torch.float32) -> Tensor:
    draw = generator("attention")
    x, c = torch.randn(2, 7, 8, 8, generator=draw, dtype=dtype), torch.randn(2, 1, 4, generator=draw, dtype=dtype)
    return unet(x, torch.tensor([500, 900]), encoder_hidden_states=c).sample


def _gradients(unet: UNet2DConditionModel, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    out = _call(unet, dtype)
    (out * torch.randn(out.shape, generator=generator("loss"), dtype=dtype)).sum().backward()
    return {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_output_and_gradients_are_diffusers_own(linear: bool, dtype: torch.dtype) -> None:
    own, short = _pair(linear, dtype)
    assert _apart(_call(short, dtype), _call(own, dtype)) < LIMIT[dtype]
    theirs, ours = _gradients(own, dtype), _gradients(short, dtype)
    skipped = {name for name, p in short.named_parameters() if not p.requires_grad}
    assert ours.keys() == theirs.keys() - skipped
    scale = max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in ours.items():
        assert float((gradient - theirs[name]).abs().max()) < LIMIT[dtype] * scale, name
    # nothing is lost: what the shortcut freezes would not have moved
    assert all(float(theirs[name].abs().max()) < LIMIT[dtype] * scale for name in skipped)


def test_what_is_skipped() -> None:
    _, short = _pair()
    blocks = [m for m in short.modules() if isinstance(m, BasicTransformerBlock)]
    assert len(blocks) == 4
    for block in blocks:
        assert isinstance(block.attn2.processor, SingleToken) and not isinstance(block.attn1.processor, SingleToken)
        assert isinstance(block.norm2, SkippedNorm) and not isinstance(block.norm3, SkippedNorm)
        frozen = {name for name, p in block.named_parameters() if not p.requires_grad}
        assert frozen == {"attn2.to_q.weight", "attn2.to_k.weight", "norm2.weight", "norm2.bias"}


def test_weights_keep_their_names_and_twice_is_once() -> None:
    own, short = _pair()
    use_single_token(short)
    before, after = own.state_dict(), short.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(_call(_pair()[1]), _call(short))


@pytest.mark.parametrize("tokens", [2, 77])
def test_more_than_one_token_is_refused(tokens: int) -> None:
    _, short = _pair()
    with pytest.raises(ValueError, match=rf"one token was expected, \(N, 1, 4\), got \(1, {tokens}, 4\)"):
        short(torch.zeros(1, 7, 8, 8), 5, encoder_hidden_states=torch.zeros(1, tokens, 4))
    with pytest.raises(ValueError, match="got None"):
        short(torch.zeros(1, 7, 8, 8), 5, encoder_hidden_states=None)


def test_bf16_autocast() -> None:
    own, short = _pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs, ours = _call(own), _call(short)
        gradients = _gradients(short)
    assert ours.dtype == theirs.dtype and _apart(ours, _call(own)) < 0.03 and _apart(ours, theirs) < 0.03
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients.values())


def test_gradient_checkpointing() -> None:
    _, plain = _pair()
    spared = copy.deepcopy(plain).train()
    spared.enable_gradient_checkpointing()
    first, second = _gradients(plain.train()), _gradients(spared)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_compiles_without_a_break() -> None:
    """One transformer block, forward and backward in one graph each."""
    _, short = _pair()
    plain = next(m for m in short.modules() if isinstance(m, BasicTransformerBlock))
    twin = copy.deepcopy(plain)
    x, c = torch.randn(2, 16, 8, generator=generator("x")), torch.randn(2, 1, 4, generator=generator("c"))
    theirs = plain(x, encoder_hidden_states=c)
    ours = torch.compile(twin, backend="aot_eager", fullgraph=True)(x, encoder_hidden_states=c)
    assert _apart(ours, theirs) < LIMIT[torch.float32]
    for out in (theirs, ours):
        out.square().sum().backward()
    for first, second in zip(plain.parameters(), twin.parameters(), strict=True):
        assert first.grad is second.grad is None or _apart(second.grad, first.grad) < LIMIT[torch.float32]
