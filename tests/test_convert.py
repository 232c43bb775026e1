"""`diffretouch convert` against a plain-torch twin of the released network, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffretouch.config import Train, load
from diffretouch.errors import UserError
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import new_pipeline, trained_autoencoder
from diffretouch.model.convert import RECORD, convert
from diffretouch.model.ldm_file import read_checkpoint
from diffretouch.model.ldm_plan import Options, account, parts
from diffretouch.model.start import parameter_groups
from diffretouch.seeds import generator
from diffretouch.training.diffusion import DiffRetouchObjective, Networks
from diffretouch.training.objective import Part
from tests.fake_chain import ROOT
from tests.ldm_twin import REAL, Size, Twin, random_twin
from tests.test_cli import leftovers, no_file_over, run, said
from tests.test_model_start import WEIGHTS, sha256
from tests.test_training import ground_truths

SIDE = 16
SMALL = Options(network_size=8 * SIDE, head_channels=16)
TINY = Size()
WORDS = ("--network-size", str(8 * SIDE), "--head-channels", "16")
ROUNDING = 1e-4
"""Largest difference between two fp32 computations of the same network; values have a spread of .3 to .7."""
UNET = "model.diffusion_model."


@cache
def twin(size: Size = TINY) -> Twin:
    return random_twin(size)


def state() -> dict[str, Tensor]:
    return dict(twin().state_dict())


def write(path: Path, tensors: dict[str, Tensor], **beside: object) -> Path:
    """As Lightning does."""
    torch.save({"state_dict": tensors, "epoch": 3, "global_step": 100, "optimizer_states": [{}], **beside}, path)
    return path


def converted(folder: Path, size: Size = TINY, options: Options = SMALL) -> RetouchPipeline:
    convert(write(folder / "adobe.ckpt", dict(twin(size).state_dict())), folder / "model", options)
    pipe = RetouchPipeline.from_pretrained(folder / "model", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> RetouchPipeline:
    return converted(tmp_path_factory.mktemp("converted"))


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def photos(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 8 * SIDE, 8 * SIDE, generator=generator("photos"))


def released(c: Tensor) -> Tensor:
    """c as the release has it: cool-positive."""
    return torch.cat([c[:, :3], -c[:, 3:]], dim=1)


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator("draws", *shape))


def apart(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def faults(pipe: RetouchPipeline, reference: Twin) -> dict[str, float]:
    """Largest differences of one U-Net call, the grid, D and the autoencoder."""
    photo, z, c, t = photos(), draws(2, 4, SIDE, SIDE), draws(2, 4), torch.tensor([200, 999])
    eps, grid = pipe.predict(z, t, pipe.network_input(photo), c)
    r = photo * 2 - 1
    their_eps, their_grid = reference.predict(z, t, reference.network_input(r, SIDE), released(c))
    vae, their_vae = pipe.vae, reference.first_stage_model
    return {
        "eps": apart(eps, their_eps),
        "grid": apart(grid, their_grid),
        "D": apart(pipe.retouch(photo, their_grid), (reference.retouch(r, their_grid) + 1) / 2),
        "encoder": apart(vae.encode(r).latent_dist.mean, their_vae.encode(r)),
        "decoder": apart(vae.decode(z).sample, their_vae.decode(z)),
    }


# it computes what the original computes


@pytest.mark.parametrize(
    "size", [Size(), Size(linear=False, layers=2, attends=(False, True, True), last_relu=True, vae_layers=2)]
)
def test_one_call_computes_what_the_twin_computes(tmp_path: Path, size: Size) -> None:
    options = Options(network_size=8 * SIDE, head_channels=16, last_relu=size.last_relu)
    found = faults(converted(tmp_path, size, options), twin(size))
    assert max(found.values()) < ROUNDING, found


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_sampling_is_twenty_plain_ddpm_steps(tmp_path: Path, variance: str) -> None:
    options = Options(variance=variance, network_size=8 * SIDE, head_channels=16)
    pipe, photo, c, r = converted(tmp_path, options=options), photos(), draws(2, 4), photos() * 2 - 1
    out = pipe(photo, c, generator=generator("noise"))
    draw = generator("noise")
    noises = [torch.randn(2, 4, SIDE, SIDE, generator=draw) for _ in range(20)]
    grid = twin().sample(twin().network_input(r, SIDE), released(c), noises, variance)
    assert apart(out.grids, grid) < ROUNDING
    assert apart(torch.stack(out.images), ((twin().retouch(r, grid) + 1) / 2).clamp(0, 1)) < ROUNDING
    other = "fixed_small" if variance == "fixed_large" else "fixed_large"
    assert apart(out.grids, twin().sample(twin().network_input(r, SIDE), released(c), noises, other)) > 50 * ROUNDING


@pytest.mark.parametrize(
    ("change", "feels"),
    [
        ({"condition_signs": None}, "eps"),
        ({"photo_range": "unit"}, "D"),
        ({"network_resize": "antialiased"}, "eps"),
    ],
)
def test_every_switch_is_needed(pipe: RetouchPipeline, change: dict[str, str], feels: str) -> None:
    settings = {name: value for name, value in pipe.config.items() if name not in pipe.components and name[0] != "_"}
    other = RetouchPipeline(**pipe.components, **{**settings, **change})
    assert faults(other, twin())[feels] > 100 * ROUNDING


def test_the_comparison_feels_heads_guide_range_matrix_and_grid_order(tmp_path: Path, pipe: RetouchPipeline) -> None:
    heads = converted(tmp_path, options=Options(network_size=8 * SIDE, head_channels=32))
    assert faults(heads, twin())["eps"] > 100 * ROUNDING
    pipe.guide.symmetric = False
    assert faults(pipe, twin())["D"] > 100 * ROUNDING
    pipe.guide.symmetric = True
    pipe.guide.matrix.copy_(pipe.guide.matrix.T.clone())
    assert faults(pipe, twin())["D"] > 100 * ROUNDING
    pipe.guide.matrix.copy_(pipe.guide.matrix.T.clone())
    last = pipe.grid_head.layers[6]
    for weight in (last.weight, last.bias):
        weight.copy_(weight.unflatten(0, (12, 8)).transpose(0, 1).flatten(0, 1).clone())
    assert faults(pipe, twin())["grid"] > 100 * ROUNDING
    for weight in (last.weight, last.bias):
        weight.copy_(weight.unflatten(0, (8, 12)).transpose(0, 1).flatten(0, 1).clone())
    assert max(faults(pipe, twin()).values()) < ROUNDING


def test_training_goes_on_from_a_converted_checkpoint(tmp_path: Path) -> None:
    """With the value ranges and signs of the original, which params.yaml does not name."""
    pipe, folder = converted(tmp_path), tmp_path / "model"
    base = load().train.model_dump()
    theirs = {
        "channels": (32, 64, 64),
        "attention": (True, True, False),
        "layers_per_block": 1,
        "norm_groups": 32,
        "head_channels": 16,
        "network_size": 8 * SIDE,
        "condition_gain": 1.0,
        "start": {"source": str(folder), "sha256": sha256(folder / "unet" / WEIGHTS)},
        "autoencoder": base["autoencoder"] | {"sha256": sha256(folder / "vae" / WEIGHTS)},
    }
    settings = Train.model_validate(base | theirs)
    found = trained_autoencoder(settings)
    assert found is not None
    again = new_pipeline(settings, found, "fixed_small", seed=3)
    assert max(faults(again, twin()).values()) < ROUNDING
    for name in ("condition_signs", "photo_range", "network_resize"):
        assert again.config[name] == pipe.config[name]
    latents = {"latent_mean": draws(3, 2, 4, SIDE, SIDE), "latent_std": torch.full((3, 2, 4, SIDE, SIDE), 0.1)}
    truths = replace(ground_truths(), **latents)
    seen = torch.ones(3, 4, dtype=torch.bool)
    objective = DiffRetouchObjective(again, truths, truths.half.mean(0), seen, settings)
    with torch.enable_grad():
        losses = objective.losses(Networks(again), Part(0, 0, 2, 2))
        losses["loss"].backward()
    assert losses.keys() >= {"eps", "pixel", "control"} and losses["loss"].isfinite()
    for group in parameter_groups(again, settings):
        for parameter in group["params"]:
            assert parameter.grad is not None and parameter.grad.isfinite().all()


def test_half_precision_weights_become_fp32_of_the_same_value(tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in state().items() if name not in ("betas", "alphas_cumprod")}
    convert(write(tmp_path / "half.ckpt", halves), tmp_path / "model", SMALL)
    unet = RetouchPipeline.from_pretrained(tmp_path / "model").unet
    assert torch.equal(unet.conv_in.weight, halves[f"{UNET}input_blocks.0.0.weight"].float())


# the real size


@cache
def real_shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Twin(REAL).state_dict().items()}


def test_the_real_checkpoint_has_the_published_number_of_parameters() -> None:
    networks = parts(real_shapes(), Options())
    counts = {name: part.parameters for name, part in networks.items()}
    assert counts["unet"] == 840_471_688 and counts["grid_head"] == 13_584 and counts["guide"] == 109
    assert abs(sum(counts.values()) - 924.1e6) < 0.1e6
    assert account(real_shapes(), networks).keys() == {
        "buffers of the noise schedule (betas are compared with our own)",
        "of the loss's learned variance",
    }
    assert networks["unet"].network.config.attention_head_dim == (5, 10, 20, 20)


@pytest.mark.parametrize("size", [REAL, Size(), Size(attends=(False, True, True), layers=2)])
def test_names_are_those_of_diffusers_own_conversion(size: Size) -> None:
    """An outsider's answer: its conversion is given numbers in the tensors' places, and says where each went."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Twin(size).state_dict().items()}
    networks = parts(shapes, Options(head_channels=size.head_channels))
    names = list(shapes)
    numbered = {name: torch.tensor(float(i)).expand(shapes[name]) for i, name in enumerate(names)}
    for part, prefix, theirs in (
        ("unet", UNET, convert_ldm_unet_checkpoint),
        ("vae", "first_stage_model.", convert_ldm_vae_checkpoint),
    ):
        network = networks[part].network
        found = theirs({name: n for name, n in numbered.items() if name.startswith(prefix)}, network.config)
        assert {key: names[int(n.flatten()[0])] for key, n in found.items()} == networks[part].names
        assert {key: tuple(n.shape) for key, n in found.items()} == networks[part].shapes


# every tensor has a place or a reason


def refusal(folder: Path, tensors: dict[str, Tensor], options: Options = SMALL) -> str:
    with pytest.raises(UserError) as told:
        convert(write(folder / "odd.ckpt", tensors), folder / "model", options)
    assert not (folder / "model").exists()
    return str(told.value)


def test_known_extras_are_listed_by_name_and_change_nothing(tmp_path: Path, pipe: RetouchPipeline) -> None:
    copy = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in state().items() if name.startswith(UNET)}
    extras = {
        "sqrt_alphas_cumprod": torch.zeros(1000),
        "lvlb_weights": torch.full((1000,), torch.nan),
        "model_ema.decay": torch.tensor(0.9999),
        "first_stage_model.loss.logvar": torch.tensor(0.0),
        "extra.one": torch.zeros(1),
        **copy,
    }
    options = Options(network_size=8 * SIDE, head_channels=16, unused=("extra.*",))
    made = convert(write(tmp_path / "adobe.ckpt", {**state(), **extras}), tmp_path / "model", options)
    assert {name for names in made.unused.values() for name in names} == {*extras, "betas", "alphas_cumprod", "logvar"}
    assert made.beside == ["epoch", "global_step", "optimizer_states"]
    record = json.loads((tmp_path / "model" / RECORD).read_text())
    assert record["mapped"].keys() | {n for names in record["unused"].values() for n in names} == {*state(), *extras}
    assert record["mapped"][f"{UNET}input_blocks.0.0.weight"] == "unet/conv_in.weight"
    again = RetouchPipeline.from_pretrained(tmp_path / "model")
    for part in ("unet", "vae", "grid_head", "guide"):
        ours, theirs = getattr(again, part).state_dict(), getattr(pipe, part).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_unknown_missing_and_misshapen_tensors_are_refused_by_name(tmp_path: Path) -> None:
    tensors = state() | {"cond_stage_model.weight": torch.zeros(3), f"{UNET}label_emb.0.weight": torch.zeros(3)}
    del tensors["hdrdecoder.guide.bias"], tensors[f"{UNET}output_blocks.0.0.skip_connection.bias"]
    tensors[f"{UNET}time_embed.0.bias"] = torch.zeros(127)
    text = refusal(tmp_path, tensors)
    assert re.search(r"2 unknown.*--unused.*cond_stage_model\.weight.*label_emb\.0\.weight", text)
    assert re.search(r"2 missing.*output_blocks\.0\.0\.skip_connection\.bias.*hdrdecoder\.guide\.bias", text)
    many = [f"ema.{number}" for number in range(12)]
    text_of_many = refusal(tmp_path, state() | dict.fromkeys(many, torch.zeros(1)))
    assert all(f"{name}," in text_of_many + "," for name in many)
    assert re.search(r"1 of another shape: \S*time_embed\.0\.bias is \[127\], expected \[128\]", text)


def test_no_tensor_can_be_lost_or_misshapen() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in state().items()}
    networks = parts(shapes, SMALL)
    names = [name for name in shapes if name.startswith(("model", "first", "hdr"))]
    assert len(names) == 517
    for name in names:
        with pytest.raises(UserError, match=f"1 missing: {re.escape(name)}"):
            account({other: shape for other, shape in shapes.items() if other != name}, networks)
        with pytest.raises(UserError, match=f"1 of another shape: {re.escape(name)} is"):
            account({**shapes, name: (*shapes[name], 3)}, networks)


@pytest.mark.parametrize(
    "name",
    [
        f"{UNET}input_blocks.0.0.weight",
        f"{UNET}input_blocks.1.0.in_layers.2.weight",
        f"{UNET}input_blocks.1.1.norm.weight",
        f"{UNET}input_blocks.2.0.op.weight",
        f"{UNET}middle_block.1.proj_in.weight",
        f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_v.weight",
        "first_stage_model.encoder.down.2.block.0.conv1.weight",
        "hdrdecoder.coefficients.pred2.0.weight",
        "hdrdecoder.guide.thresholds",
    ],
)
def test_tensors_that_tell_the_size_are_named_too(name: str) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in state().items()}
    for changed in ({other: s for other, s in shapes.items() if other != name}, {**shapes, name: (*shapes[name], 3)}):
        with pytest.raises(UserError) as told:
            account(changed, parts(changed, SMALL))
        assert name.rpartition(".")[0] in str(told.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({f"{UNET}input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, r"is \[32, 9, 3, 3\], expected \[32, 7, 3, 3\]"),
        ({f"{UNET}out.2.bias": torch.full((8,), torch.nan)}, r"not finite: model\.diffusion_model\.out\.2\.bias"),
        ({"betas": torch.linspace(1e-4, 0.02, 1000)}, r"0\.000100 to 0\.020000.*0\.000850 to 0\.012000"),
    ],
)
def test_another_network_or_schedule_is_refused(tmp_path: Path, change: dict[str, Tensor], words: str) -> None:
    assert re.search(words, refusal(tmp_path, state() | change))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(network_size=8 * SIDE, head_channels=24), r"no heads of 24 channels.*--head-channels"),
        (Options(network_size=100, head_channels=16), r"--network-size 100 must be a multiple of 32"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: Options, words: str) -> None:
    assert re.search(words, refusal(tmp_path, state(), options))


# the file


class Malicious:
    """Making it again runs a command."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.file}",)


def test_a_malicious_pickle_is_named_and_does_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = write(tmp_path / "adobe.ckpt", state(), callbacks=Malicious(ran))
    with pytest.raises(UserError, match=r"posix\.system.*nothing of it is read.*container without network"):
        convert(path, tmp_path / "model", SMALL)
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes(pickle.dumps({"state_dict": Malicious(ran)}))
    with pytest.raises(UserError, match="damaged or no checkpoint"):
        convert(bare, tmp_path / "model", SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adobe.ckpt", "bare.ckpt"]
    pickle.loads(bare.read_bytes())
    assert ran.exists(), "the stand-in would have run where it is loaded"


def test_the_advice_for_foreign_objects_works(tmp_path: Path) -> None:
    """A callback's class in the file, as Lightning leaves them: the command of the message makes it convertible."""
    path = write(tmp_path / "adobe.ckpt", state(), callbacks=argparse_namespace())
    with pytest.raises(UserError, match=r"argparse\.Namespace") as told:
        read_checkpoint(path)
    command = str(told.value).split("\n  python ")[1]
    subprocess.run(f"{sys.executable} {command}", shell=True, cwd=tmp_path, check=True)
    tensors, beside = read_checkpoint(tmp_path / "tensors.ckpt")
    assert beside == [] and all(torch.equal(tensors[name], tensor) for name, tensor in state().items())


def argparse_namespace() -> object:
    from argparse import Namespace

    return Namespace(every_n_epochs=1)


def test_a_damaged_file_is_refused_and_never_read_otherwise(tmp_path: Path) -> None:
    good = {f"w{i}": torch.arange(50.0) + i for i in range(3)}
    path = write(tmp_path / "small.ckpt", good)
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    for number in range(200):
        damaged = bytearray(whole)
        if number % 5 == 0:
            damaged = damaged[: draw.randrange(len(whole))]
        else:
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            tensors, _ = read_checkpoint(path)
        except UserError:
            refused += 1
        else:
            assert tensors.keys() == good.keys() and all(torch.equal(tensors[name], good[name]) for name in good)
    assert refused > 100


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"weights": torch.zeros(1)}, r"a dictionary of weights; expected .* state_dict"),
        ([torch.zeros(1)], r"holds a list; expected .* state_dict"),
        ({"state_dict": {"a": torch.zeros(1), "b": 3}}, r"more than tensors: b"),
    ],
)
def test_other_files_are_named(tmp_path: Path, tree: object, words: str) -> None:
    torch.save(tree, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=words):
        read_checkpoint(tmp_path / "other.ckpt")


# the folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_command_says_what_it_did_and_always_writes_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "ppr.ckpt", state())
    (tmp_path / "second").mkdir()  # empty folders are taken
    for name in ("first", "second"):
        assert run("convert", str(path), str(tmp_path / name), *WORDS, "--variance", "fixed_large") == 0
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"mapped\s+│\s+│\s+517 │\s+2,269,612", out)
    assert "betas, alphas_cumprod" in out and "logvar" in out and "optimizer_states" in out
    unet = digests(tmp_path / "first")["unet/diffusion_pytorch_model.safetensors"]
    assert f"start: {{source: {tmp_path / 'first'}, sha256: {unet}}}" in out
    pipe = RetouchPipeline.from_pretrained(tmp_path / "first")
    assert pipe.scheduler.config.variance_type == "fixed_large"
    assert (pipe.config.num_inference_steps, pipe.config.last_timestep) == (20, 200)
    assert "non-commercial" in pipe.config.origin["licence"] and "ppr.ckpt" in pipe.config.origin["notes"]
    card = (tmp_path / "first" / "README.md").read_text()
    assert "license_name: non-commercial" in card and str(tmp_path) not in card
    assert not list((tmp_path / "first").rglob("*.bin"))


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "adobe.ckpt", state())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    assert run("convert", str(path), str(tmp_path / "model"), *WORDS) == 1
    assert "model is there and not empty: name a new folder" in said(capsys)
    assert run("convert", str(path), str(path), *WORDS) == 1
    assert run("convert", str(tmp_path / "no.ckpt"), str(tmp_path / "new"), *WORDS) == 1
    assert "no.ckpt not found" in said(capsys)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adobe.ckpt", "model"]
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["mine.txt"]


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "adobe.ckpt", state())
    with no_file_over(1_000_000):
        assert run("convert", str(path), str(tmp_path / "model"), *WORDS) == 1
    assert "run the same command again once mended" in said(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["adobe.ckpt"] and leftovers(tmp_path) == []
    assert run("convert", str(path), str(tmp_path / "model"), *WORDS) == 0


def test_killed_while_writing_the_next_run_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "adobe.ckpt", state())
    script = (
        "import os, signal, sys\n"
        "import diffretouch.model.convert as module\n"
        "module.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from diffretouch.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "convert", str(path), str(tmp_path / "model"), *WORDS],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir()) == [".model.part", "adobe.ckpt"]
    assert run("convert", str(path), str(tmp_path / "model"), *WORDS) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adobe.ckpt", "model"]
    convert(path, tmp_path / "again", SMALL)
    assert digests(tmp_path / "model") == digests(tmp_path / "again")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "--help") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("Reads:", "Writes:", "Next:", "--variance", "PPR10K", "--unused"))
