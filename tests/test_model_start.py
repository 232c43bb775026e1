"""The network at real size, and starts from trained weights: Stable Diffusion's layouts, an earlier model."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import diffretouch.model  # noqa: F401 - makes diffusers importable beside a CPU build of torch

# isort: split
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffretouch.bilateral_grid import identity_affine
from diffretouch.config import Train, load
from diffretouch.errors import ConfigError, UserError
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import new_autoencoder, new_pipeline, new_unet, trained_autoencoder
from diffretouch.model.grid import GridHead, Guide
from diffretouch.model.start import parameter_groups
from diffretouch.model.widened import WidenedConv
from diffretouch.seeds import generator
from tests.test_model import tiny_train

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = "diffusion_pytorch_model.safetensors"
CONTEXT = 12
"""Width of a text token in the small bases; 768 and 1024 in the real ones."""


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def save_base(folder: Path, linear: bool) -> Path:
    """Random weights in Stable Diffusion's layout: 1.x (8 heads, conv projections) or 2.x (heads scaled, linear)."""
    heads: dict[str, Any] = {"attention_head_dim": 8}
    if linear:
        heads = {"attention_head_dim": [1, 2, 4, 4], "use_linear_projection": True, "upcast_attention": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        widths = (16, 32, 64, 64)
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=widths, cross_attention_dim=CONTEXT, norm_num_groups=8, **heads
        )
        down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
        vae = AutoencoderKL(
            down_block_types=down, up_block_types=up, block_out_channels=(8,) * 4, latent_channels=4, norm_num_groups=8
        )
    for name, part in (("unet", unet), ("vae", vae)):
        part.save_pretrained(folder / name)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = DDIMScheduler(**betas, clip_sample=False) if linear else PNDMScheduler(**betas, skip_prk_steps=True)
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def settings(folder: Path, **changes: Any) -> Train:
    """The train section that starts from `folder`."""
    base = load().train.model_dump()
    small = {
        "channels": (16, 32, 64, 64),
        "attention": (True, True, True, False),
        "layers_per_block": 2,
        "norm_groups": 8,
        "network_size": 128,
        "condition_gain": 1.0,
        "learning_rate": 1e-6,
        "head_learning_rate": 1e-4,
        "start": {"source": str(folder), "sha256": sha256(folder / "unet" / WEIGHTS)},
        "autoencoder": base["autoencoder"] | {"sha256": sha256(folder / "vae" / WEIGHTS)},
    }
    return Train.model_validate(base | small | changes)


def start(folder: Path, **changes: Any) -> RetouchPipeline:
    train = settings(folder, **changes)
    vae = trained_autoencoder(train)
    assert vae is not None
    return new_pipeline(train, vae, "fixed_large", seed=2)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_base(tmp_path_factory.mktemp(name), name == "sd2") for name in ("sd1", "sd2")}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_base(tmp_path / "base", linear=True)


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def batch() -> dict[str, Tensor]:
    draw = generator("start")
    shapes = {"latent": (2, 4, 16, 16), "seen": (2, 3, 16, 16), "photo": (2, 3, 20, 28), "c": (2, 4)}
    return {name: torch.rand(shape, generator=draw) for name, shape in shapes.items()} | {"t": torch.tensor([999, 250])}


@pytest.mark.parametrize("name", ["fivek", "ppr10k"])
def test_real_profiles_have_the_published_size(name: str) -> None:
    """As published: 924.1 M parameters with the autoencoder; 83,653,863 are Stable Diffusion's autoencoder's."""
    train = load(ROOT / "profiles" / f"{name}.yaml").train
    with torch.device("meta"):
        vae = new_autoencoder(train.autoencoder)
        parts = [new_unet(train), vae, GridHead(train.grid_depth), Guide()]
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [840_471_688, 83_653_863, 13_584, 109]
    assert sum(counts) / 1e6 == pytest.approx(924.1, abs=0.1)


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_eps_is_the_bases_with_biases_for_cross_attention(bases: dict[str, Path], name: str) -> None:
    outsider = UNet2DConditionModel.from_pretrained(bases[name] / "unet")
    cross = [m for key, m in outsider.named_modules() if key.endswith(".attn2")]
    assert len(cross) == 16
    for attention in cross:
        torch.nn.init.zeros_(attention.to_out[0].weight)
    x = batch()
    text = torch.randn(2, 77, CONTEXT, generator=generator("text"))
    with torch.no_grad():
        expected = outsider(x["latent"], x["t"], encoder_hidden_states=text).sample
        eps, grid = start(bases[name]).predict(x["latent"], x["t"], x["seen"], x["c"])
    assert float((eps - expected).abs().max() / expected.abs().max()) < 1e-5
    assert torch.equal(grid, identity_affine()[None, :, None, None, None].expand_as(grid))


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_every_weight_is_copied_widened_or_new(bases: dict[str, Path], name: str) -> None:
    theirs, ours = load_file(bases[name] / "unet" / WEIGHTS), start(bases[name]).unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["conv_in.weight"][:, :4], theirs["conv_in.weight"])
    assert not ours["conv_in.weight"][:, 4:].any() and ours["conv_in.weight"].shape[1] == 7
    for key in ("conv_out.weight", "conv_out.bias"):
        assert torch.equal(ours[key][:4], theirs[key]) and not ours[key][4:].any() and len(ours[key]) == 8
    new = {key for key in ours if ".attn2.to_k." in key or ".attn2.to_v." in key}
    assert len(new) == 32 and all(ours[key].shape[1] == 4 and not ours[key].any() for key in new)
    same = ours.keys() - new - {"conv_in.weight", "conv_out.weight", "conv_out.bias"}
    assert all(torch.equal(ours[key], theirs[key]) for key in same)


def test_heads_and_schedule_are_the_bases(bases: dict[str, Path]) -> None:
    first, second = start(bases["sd1"]), start(bases["sd2"])
    heads = [
        [block.attentions[0].transformer_blocks[0].attn1.heads for block in pipe.unet.down_blocks[:3]]
        for pipe in (first, second)
    ]
    assert heads == [[8, 8, 8], [1, 2, 4]]
    assert [pipe.unet.config.use_linear_projection for pipe in (first, second)] == [False, True]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    for pipe in (first, second):
        assert torch.allclose(pipe.scheduler.betas, betas, rtol=1e-6)
        config = pipe.scheduler.config
        assert (config.prediction_type, config.variance_type, config.clip_sample) == ("epsilon", "fixed_large", False)
        assert pipe.latent_size == 16


def test_the_photo_stays_as_it_is(bases: dict[str, Path]) -> None:
    x = batch()
    pipe = start(bases["sd2"])
    out = pipe(x["photo"], x["c"], num_inference_steps=2, generator=generator("noise"))
    assert torch.equal(torch.stack(out.images), x["photo"])


def _step(pipe: RetouchPipeline, optimiser: torch.optim.Optimizer) -> None:
    x = batch()
    eps, grid = pipe.predict(x["latent"], x["t"], x["seen"], x["c"])
    target = torch.randn(eps.shape, generator=generator("noise"))
    loss = (eps - target).square().mean() + (pipe.retouch(x["photo"], grid) - x["photo"] * 0.5).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def test_gradients_reach_every_new_part(bases: dict[str, Path]) -> None:
    pipe = start(bases["sd2"])
    groups = parameter_groups(pipe, settings(bases["sd2"]))
    optimiser = torch.optim.AdamW(groups, lr=0)

    def moved() -> set[str]:
        parts = {"unet": pipe.unet, "grid_head": pipe.grid_head, "guide": pipe.guide}
        named = {f"{name}.{key}": p for name, part in parts.items() for key, p in part.named_parameters()}
        assert all(p.grad is None for p in named.values() if not p.requires_grad)
        return {key for key, p in named.items() if p.requires_grad and p.grad is not None and p.grad.any()}

    _step(pipe, optimiser)
    first = moved()
    values = {f"unet.{key}" for key, _ in pipe.unet.named_parameters() if key.endswith("attn2.to_v.weight")}
    assert len(values) == 16 and values | {"unet.conv_in.new_weight", "grid_head.layers.6.weight"} <= first
    assert "unet.conv_out.new_weight" not in first
    _step(pipe, optimiser)
    head = {f"grid_head.{key}" for key, _ in pipe.grid_head.named_parameters()}
    # the guide is heard once the grid's bins differ
    rest = {"unet.conv_out.new_weight", "unet.conv_out.new_bias", *head, "guide.matrix", "guide.slopes", "guide.bias"}
    assert rest - {"grid_head.layers.0.weight"} <= moved()
    _step(pipe, optimiser)
    assert rest <= moved()


def test_new_parts_have_a_rate_of_their_own(bases: dict[str, Path]) -> None:
    """Adam's first step moves a weight by its rate, whatever the gradient."""
    pipe = start(bases["sd1"])
    groups = parameter_groups(pipe, settings(bases["sd1"]))
    parts = (pipe.unet, pipe.grid_head, pipe.guide)
    told = [p for group in groups for p in group["params"]]
    asked = {p for part in parts for p in part.parameters() if p.requires_grad}
    assert len(told) == len(asked) and set(told) == asked
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    _step(pipe, torch.optim.AdamW(groups, lr=0, weight_decay=0))
    change = {key: (value - before[key]).abs() for key, value in pipe.unet.state_dict().items()}
    rate = {"old": pytest.approx(1e-6, rel=0.1), "new": pytest.approx(1e-4, rel=0.01)}
    assert float(change["conv_in.weight"][:, :4].max()) == rate["old"]
    assert float(change["conv_in.weight"][:, 4:].max()) == rate["new"]
    assert float(change["conv_out.bias"][:4].max()) == rate["old"]
    key = "mid_block.attentions.0.transformer_blocks.0.attn2."
    assert float(change[key + "to_v.weight"].max()) == rate["new"]
    assert float(change[key + "to_out.0.bias"].max()) == rate["old"]
    assert not change[key + "to_q.weight"].any()


def test_from_nothing_the_groups_are_unet_and_heads() -> None:
    train = tiny_train()
    pipe = new_pipeline(train, new_autoencoder(train.autoencoder), "fixed_small", seed=1)
    unet, heads = parameter_groups(pipe, train)
    assert unet["params"] == [p for p in pipe.unet.parameters() if p.requires_grad]
    assert heads["params"] == [*pipe.grid_head.parameters(), *pipe.guide.parameters()]
    assert (unet["lr"], heads["lr"]) == (train.learning_rate, train.head_learning_rate)


@pytest.mark.parametrize(("dim", "shape"), [(0, (8, 5)), (1, (5, 7))])
def test_a_widened_convolution_is_the_plain_one(dim: int, shape: tuple[int, int]) -> None:
    plain, other = (torch.nn.Conv2d(shape[1], shape[0], 3, padding=1) for _ in range(2))
    wide = WidenedConv(plain, trained=4, dim=dim)
    x = torch.randn(2, shape[1], 6, 6)
    assert torch.equal(wide(x), plain(x))
    wide.load_state_dict(other.state_dict())
    assert torch.equal(wide(x), other(x))
    plain.load_state_dict(wide.state_dict())
    assert torch.equal(plain(x), other(x))
    with pytest.raises(RuntimeError, match="Missing key"):
        wide.load_state_dict({"bias": other.bias})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*scale"):
        wide.load_state_dict(other.state_dict() | {"scale": other.bias})


def test_a_started_model_is_saved_as_any_other(bases: dict[str, Path], tmp_path: Path) -> None:
    pipe, x = start(bases["sd1"]), batch()
    pipe.save_pretrained(tmp_path)
    again = RetouchPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert isinstance(again.unet.conv_in, torch.nn.Conv2d)
    first, second = (p(x["photo"], x["c"], num_inference_steps=2, generator=generator("n")) for p in (pipe, again))
    assert torch.equal(first.grids, second.grids)


def test_an_earlier_model_goes_on_as_it_is(tmp_path: Path) -> None:
    train = tiny_train()
    vae = new_autoencoder(train.autoencoder)
    earlier = new_pipeline(train, vae, "fixed_small", seed=1)
    torch.nn.init.normal_(earlier.grid_head.layers[-1].weight, generator=generator("earlier"))
    earlier.register_modules(guide=Guide(input_range="symmetric"))
    earlier.register_to_config(num_inference_steps=17, slider_mixing=[[2.0] * 4] * 4)
    earlier.save_pretrained(tmp_path)
    taken = {
        "start": {"source": str(tmp_path), "sha256": sha256(tmp_path / "unet" / WEIGHTS)},
        "autoencoder": train.autoencoder.model_dump() | {"sha256": sha256(tmp_path / "vae" / WEIGHTS)},
    }
    going_on = Train.model_validate(train.model_dump() | taken)
    found = trained_autoencoder(going_on)
    assert found is not None and torch.equal(found.encoder.conv_in.weight, vae.encoder.conv_in.weight)
    pipe = new_pipeline(going_on, found, "fixed_large", seed=5)
    for name in ("unet", "grid_head", "guide"):
        before, after = getattr(earlier, name).state_dict(), getattr(pipe, name).state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert pipe.guide.symmetric and pipe.vae is found
    assert pipe.config.num_inference_steps == train.validation_steps
    assert pipe.config.slider_mixing is None  # c is learned as it is, and mixed anew after training
    assert pipe.scheduler.config.variance_type == "fixed_large"
    unet, heads = parameter_groups(pipe, going_on)
    assert len(heads["params"]) == 13
    assert {id(p) for p in unet["params"]} == {id(p) for p in pipe.unet.parameters() if p.requires_grad}
    wrong = going_on.model_copy(update={"grid_depth": 4, "condition_gain": 2.0, "head_channels": 4})
    with pytest.raises(ConfigError) as caught:
        new_pipeline(wrong, found, "fixed_small", seed=5)
    assert "train.grid_depth is 4 in params.yaml, but 8 in the start" in str(caught.value)
    assert f"train.condition_gain is 2.0 in params.yaml, but {train.condition_gain} in the start" in str(caught.value)
    blind = new_pipeline(wrong.model_copy(update={"grid_depth": 8, "condition": "none"}), found, "fixed_small", seed=5)
    assert blind.config.condition_gain == 0


def test_params_that_describe_another_network_are_refused(bases: dict[str, Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        start(bases["sd1"], channels=(16, 32, 64, 128), attention=(True, True, True, True), layers_per_block=1)
    for line in (
        "train.channels is [16, 32, 64, 128] in params.yaml, but [16, 32, 64, 64] in the start",
        "train.attention is [true, true, true, true] in params.yaml, but [true, true, true, false] in the start",
        "train.layers_per_block is 1 in params.yaml, but 2 in the start",
    ):
        assert line in str(caught.value)
    assert "norm_groups" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "v_prediction"},
            "predicts v_prediction, but .*epsilon",
        ),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 500}, "500 timesteps, but 1000"),
        ("unet/config.json", {"in_channels": 9}, "9 channels in and 4 out"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'"),
        ("unet/config.json", {"transformer_layers_per_block": [1, 2, 10, 1]}, "transformer_layers_per_block is"),
        ("unet/config.json", {"resnet_new_way": 1}, "resnet_new_way is 1"),
        ("unet/config.json", {"mid_block_type": None}, "mid_block_type is None"),
        ("unet/config.json", {"down_block_types": ["AttnDownBlock2D"] * 4}, "down_block_types is"),
    ],
)
def test_an_unfit_base_is_refused_in_words(base: Path, file: str, changes: dict[str, Any], said: str) -> None:
    edit(base / file, lambda content: content.update(changes))
    with pytest.raises(UserError, match=said):
        start(base)


@pytest.mark.parametrize("absent", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_an_absent_part_is_named(base: Path, absent: str) -> None:
    (base / absent).unlink()
    with pytest.raises(UserError, match=f"{absent} not found"):
        start(base)


def test_weights_that_do_not_fit_their_configuration_are_named(base: Path) -> None:
    file = base / "unet" / WEIGHTS
    weights = load_file(file)
    weights["lora.up"] = weights.pop("time_embedding.linear_1.bias")
    weights["conv_in.weight"] = weights["conv_in.weight"][:, :3].contiguous()
    save_file(weights, file)
    with pytest.raises(UserError) as caught:
        start(base)
    for line in (
        "lora.up is unknown",
        "time_embedding.linear_1.bias is missing",
        "conv_in.weight has shape [16, 3, 3, 3], not [16, 4, 3, 3]",
    ):
        assert line in str(caught.value)


def test_weights_in_half_precision_are_taken_in_full(base: Path) -> None:
    file = base / "unet" / WEIGHTS
    halved = {name: weight.half() for name, weight in load_file(file).items()}
    save_file(halved, file)
    ours = start(base).unet
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert torch.equal(ours.conv_norm_out.weight, halved["conv_norm_out.weight"].float())


def test_checksums_and_absent_weights_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    train = settings(bases["sd1"])
    vae = trained_autoencoder(train)
    wrong = train.start.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(UserError, match=r"unet/diffusion_pytorch_model.safetensors has sha256 [0-9a-f]{64}, but"):
        new_pipeline(train.model_copy(update={"start": wrong}), vae, "fixed_small", 0)
    absent = train.start.model_copy(update={"source": "nobody/nothing"})
    with pytest.raises(UserError, match=r"train.start.source .*neither a folder nor in the local hub.*random weights"):
        new_pipeline(train.model_copy(update={"start": absent}), vae, "fixed_small", 0)
    empty = train.start.model_copy(update={"source": str(tmp_path)})
    with pytest.raises(UserError, match="not found: a U-Net in diffusers' layout"):
        new_pipeline(train.model_copy(update={"start": empty}), vae, "fixed_small", 0)


def test_a_hub_id_is_found_in_the_local_cache(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `hf download lab/base` leaves it: a name for the newest revision, and that revision's files."""
    cached = tmp_path / "models--lab--base"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(bases["sd1"], cached / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    train = settings(bases["sd1"])
    named = train.model_copy(update={"start": train.start.model_copy(update={"source": "lab/base"})})
    vae = trained_autoencoder(named)
    assert vae is not None
    found = new_pipeline(named, vae, "fixed_small", 0).unet.state_dict()
    there = new_pipeline(train, vae, "fixed_small", 0).unet.state_dict()
    assert all(torch.equal(found[name], there[name]) for name in there)


def test_where_the_autoencoder_comes_from(bases: dict[str, Path], tmp_path: Path) -> None:
    train = settings(bases["sd1"])
    beside = trained_autoencoder(train)
    assert beside is not None and beside.config.latent_channels == 4
    assert trained_autoencoder(tiny_train()) is None
    named = train.autoencoder.model_copy(update={"source": str(bases["sd2"] / "vae")})
    named = named.model_copy(update={"sha256": sha256(bases["sd2"] / "vae" / WEIGHTS)})
    assert trained_autoencoder(train.model_copy(update={"autoencoder": named})) is not None
    unchecked = train.autoencoder.model_copy(update={"sha256": None}).model_dump()
    with pytest.raises(ValueError, match=r"a start needs autoencoder.sha256 too.*vae/ of start.source"):
        Train.model_validate(train.model_dump() | {"autoencoder": unchecked})
    other = AutoencoderKL(block_out_channels=(8,), latent_channels=16, norm_num_groups=8)
    other.save_pretrained(tmp_path)
    strange = named.model_copy(update={"source": str(tmp_path), "sha256": sha256(tmp_path / WEIGHTS)})
    with pytest.raises(UserError, match="latents of 16 channels at 1/1 of the size"):
        trained_autoencoder(train.model_copy(update={"autoencoder": strange}))
