"""A saved model is the model: the same bits, every switch, where it comes from, and a card that is true."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import interpolate

from diffretouch.attributes import ATTRIBUTES
from diffretouch.files.pictures import write_png8
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import new_autoencoder, new_pipeline
from diffretouch.model.grid import Guide
from diffretouch.seeds import generator
from tests.test_model import tiny_train

ORIGIN: dict[str, Any] = {
    "dataset": "fivek demo",
    "provenance": "simulated",
    "licence": "CC0, a photographer",
    "notes": "Made by rules: two {curly} words.",
    "decode_profile": "linear-srgb-2",
    "attributes": {
        "scheme": "expert_range",
        "size": 64,
        "just_noticeable": dict(zip(ATTRIBUTES, (0.01, 0.02, 0.05, 5.0), strict=True)),
        "half_range": dict(zip(ATTRIBUTES, (0.063, 0.121, 0.0019, 31.5), strict=True)),
    },
}
ODD = {
    "condition_gain": 40.0,
    "lowest_timestep": 700,
    "highest_timestep": 980,
    "num_inference_steps": 2,
    "last_timestep": 750,
    "slider_mixing": [[1.2, -0.3, 0.0, 0.1], [0.0, 1.0, 0.0, 0.0], [0.0, 0.2, 1.5, 0.0], [0.1, 0.0, 0.0, 0.9]],
    "condition_signs": [1.0, -1.0, 1.0, -1.0],
    "photo_range": "symmetric",
    "network_resize": "nearest",
    "origin": ORIGIN,
}
"""Nothing at its default."""


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """Networks away from the identity, so that every switch shows."""
    train = tiny_train()
    parts = new_pipeline(train, new_autoencoder(train.autoencoder), "fixed_large", seed=1).components
    torch.nn.init.normal_(parts["grid_head"].layers[-1].weight, std=0.3, generator=generator("test"))
    guide = Guide(input_range="symmetric")
    with torch.no_grad():
        for weight in guide.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator("guide"))
    return {**parts, "guide": guide}


def make(parts: dict[str, Any], **settings: Any) -> RetouchPipeline:
    pipe = RetouchPipeline(**{**parts, **settings})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def photos(count: int = 2, height: int = 20, width: int = 30) -> Tensor:
    return torch.rand(count, 3, height, width, generator=generator("photos"))


def condition() -> Tensor:
    return torch.rand(2, 4, generator=generator("c")) * 2 - 1


def results(pipe: RetouchPipeline) -> tuple[Tensor, Tensor]:
    out = pipe(photos(), condition(), generator=generator("noise"))
    return torch.stack(out.images), out.grids


def plain(part: Any) -> dict[str, Any]:
    """A part's config without diffusers' own notes."""
    return {name: value for name, value in part.config.items() if name[0] != "_"}


# saved and loaded


def test_a_loaded_model_is_the_saved_one(
    parts: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = make(parts, **ODD)
    pipe.save_pretrained(tmp_path)
    logging.getLogger("diffusers").addHandler(caplog.handler)
    again = RetouchPipeline.from_pretrained(tmp_path, local_files_only=True)
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert not caplog.records, caplog.text
    for first, second in zip(results(pipe), results(again), strict=True):
        assert torch.equal(first, second)
    for name, value in ODD.items():
        assert again.config[name] == pipe.config[name] == value, name
    assert plain(again.scheduler) == plain(pipe.scheduler)
    assert again.scheduler.config.variance_type == "fixed_large" and not again.scheduler.config.clip_sample
    assert again.guide.config.input_range == "symmetric"
    assert {name: str(p.dtype) for name, p in again.unet.named_parameters()} == {
        name: str(p.dtype) for name, p in pipe.unet.named_parameters()
    }


def test_all_weights_are_safetensors(parts: dict[str, Any], tmp_path: Path) -> None:
    make(parts, **ODD).save_pretrained(tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    weights = {f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae", "grid_head", "guide")}
    configs = {f"{part}/config.json" for part in ("unet", "vae", "grid_head", "guide")}
    assert found == weights | configs | {"scheduler/scheduler_config.json", "model_index.json", "README.md"}
    for name in weights:
        with safe_open(tmp_path / name, "pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float32}  # noqa: SIM118


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("way", ["loaded", "moved", "autocast"])
def test_sixteen_bits_are_the_networks_and_never_the_pictures(
    parts: dict[str, Any], tmp_path: Path, way: str, kind: torch.dtype
) -> None:
    for output in ("grid", "autoencoder"):
        pipe = make(parts, **ODD | {"output": output})
        pipe.save_pretrained(tmp_path)
        less = RetouchPipeline.from_pretrained(tmp_path, local_files_only=True, dtype=kind if way == "loaded" else None)
        less.set_progress_bar_config(disable=True)
        if way == "moved":
            less.to(kind)
        elif way == "autocast":
            less.autocast_dtype = kind
        weights = {
            part: {weight.dtype for weight in less.components[part].parameters()}
            for part in ("unet", "vae", "grid_head", "guide")
        }
        half = {torch.float32 if way == "autocast" else kind}
        assert weights == {"unet": half, "vae": half, "grid_head": {torch.float32}, "guide": {torch.float32}}
        for part in ("grid_head", "guide"):
            was = pipe.components[part].state_dict()
            assert all(torch.equal(weight, was[name]) for name, weight in less.components[part].state_dict().items())
        seen: set[torch.dtype] = set()
        less.unet.conv_in.register_forward_hook(lambda _layer, _given, made, seen=seen: seen.add(made.dtype))
        (images, grids), (exact, exact_grids) = results(less), results(pipe)
        assert seen == {kind} and images.dtype == grids.dtype == torch.float32
        # bfloat16 keeps 8 bits of a number, float16 11
        near = {torch.bfloat16: 0.1, torch.float16: 0.0125}[kind]
        for found, right in ((images, exact), (grids, exact_grids)):
            assert 0 < (found - right).abs().max() < near * right.std(), output


def test_a_model_saved_before_the_switches_loads_as_it_was(parts: dict[str, Any], tmp_path: Path) -> None:
    old = make({**parts, "guide": Guide()})
    old.save_pretrained(tmp_path)
    for file, keys in {
        "model_index.json": (
            *("slider_mixing", "condition_signs", "photo_range", "network_resize", "output", "origin"),
        ),
        "grid_head/config.json": ("last_relu",),
    }.items():
        tree = json.loads((tmp_path / file).read_text())
        for key in keys:
            del tree[key]
        (tmp_path / file).write_text(json.dumps(tree))
    again = RetouchPipeline.from_pretrained(tmp_path, local_files_only=True)
    again.set_progress_bar_config(disable=True)
    for first, second in zip(results(old), results(again), strict=True):
        assert torch.equal(first, second)
    photo = photos()
    by_hand = interpolate(photo, size=(8, 8), mode="bilinear", antialias=True, align_corners=False) * 2 - 1
    assert torch.equal(again.network_input(photo), by_hand)


def test_pickles_and_the_hub_are_refused(parts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="safetensors only"):
        make(parts).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ValueError, match="hf upload"):
        make(parts).save_pretrained(tmp_path, push_to_hub=True)
    assert not list(tmp_path.iterdir())


# the switches


def test_signs_turn_sliders_round(parts: dict[str, Any]) -> None:
    plain, turned = (
        make(parts, num_inference_steps=1),
        make(parts, num_inference_steps=1, condition_signs=[1, -1, 1, -1]),
    )
    c = condition()
    ours = turned(photos(), c, generator=generator("n")).grids
    assert torch.equal(ours, plain(photos(), c * torch.tensor([1, -1, 1, -1]), generator=generator("n")).grids)
    assert not torch.equal(ours, plain(photos(), c, generator=generator("n")).grids)


def test_sliders_are_mixed_row_by_row(parts: dict[str, Any]) -> None:
    """c, a row, times the matrix."""
    mixing = [[1.2, -0.3, 0.0, 0.1], [0.0, 1.0, 0.0, 0.0], [0.0, 0.2, 1.5, 0.0], [0.1, 0.0, 0.0, 0.9]]
    plain, mixed = make(parts, num_inference_steps=1), make(parts, num_inference_steps=1, slider_mixing=mixing)
    c = condition()
    ours = mixed(photos(), c, generator=generator("n")).grids
    theirs = plain(photos(), c @ torch.tensor(mixing), generator=generator("n")).grids
    torch.testing.assert_close(ours, theirs)
    whole = torch.tensor([[1, 0, 1, -1], [0, -1, 0, 1]])
    theirs_of_whole = plain(photos(), whole.float() @ torch.tensor(mixing), generator=generator("n")).grids
    torch.testing.assert_close(mixed(photos(), whole, generator=generator("n")).grids, theirs_of_whole)
    turned = plain(photos(), c @ torch.tensor(mixing).T, generator=generator("n")).grids
    assert (ours - turned).abs().max() > 100 * (ours - theirs).abs().max()


def test_a_symmetric_photo_is_mapped_there_and_back(parts: dict[str, Any]) -> None:
    pipe, photo = make(parts, photo_range="symmetric"), photos()
    # twice R in [-1,1], plus .1: 2 (2 x - 1) + .1 -> back to [0,1]
    grid = (torch.eye(3, 4) * 2 + torch.eye(4)[3] * 0.1).flatten()[None, :, None, None, None].expand(2, -1, 8, 2, 2)
    assert torch.allclose(pipe.retouch(photo, grid), (2 * (2 * photo - 1) + 0.1 + 1) / 2, atol=1e-6)
    unit = make(parts, photo_range="unit")
    assert torch.allclose(unit.retouch(photo, grid), 2 * photo + 0.1, atol=1e-6)


def test_nearest_takes_pixels_of_the_square_photo(parts: dict[str, Any]) -> None:
    pipe, square = make(parts, network_resize="nearest"), photos(height=64, width=64)
    assert torch.equal(pipe.network_input(square), square[:, :, ::8, ::8] * 2 - 1)
    other = photos(height=100, width=40)
    resized = interpolate(other, size=(64, 64), mode="bilinear", antialias=True, align_corners=False)
    assert torch.equal(pipe.network_input(other), resized[:, :, ::8, ::8] * 2 - 1)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"photo_range": "byte"}, r"photo_range is one of \('unit', 'symmetric'\), got 'byte'"),
        ({"network_resize": "area"}, "network_resize is one of .*, got 'area'"),
        ({"condition_signs": [1, 1, -1]}, "four of 1 and -1"),
        ({"condition_signs": [1, 1, 1, 2]}, "four of 1 and -1"),
        ({"slider_mixing": [[1.0] * 4] * 3}, "slider_mixing is 4 x 4"),
        ({"origin": {"notes": float("nan")}}, "JSON"),
    ],
)
def test_wrong_settings_are_named(parts: dict[str, Any], setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(parts, **setting)


# the card


def card(parts: dict[str, Any], folder: Path, **settings: Any) -> str:
    make(parts, **settings).save_pretrained(folder)
    return (folder / "README.md").read_text()


def test_the_card_is_in_the_hubs_layout(parts: dict[str, Any], tmp_path: Path) -> None:
    text = card(parts, tmp_path, **ODD)
    front = ModelCard(text).data.to_dict()
    assert front == yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "other" and front["library_name"] == "diffusers"
    assert front["pipeline_tag"] == "image-to-image" and "simulated-data" in front["tags"]


def test_the_card_tells_everything_and_only_what_is_known(parts: dict[str, Any], tmp_path: Path) -> None:
    text = card(parts, tmp_path / "told", **ODD)
    words = re.sub(r"\s+", " ", text)
    for told in (
        "# DiffRetouch, fivek demo",
        "say nothing about real retouchers",
        "CC0, a photographer",
        "two {curly} words",
        "linear-srgb-2",
        "`expert_range`",
        "| contrast | 0.0019 | 0.05 |",
        "| temperature | 31.5 | 5 |",
        "64 x 64 pixels",
        "c x [1.2 -0.3 0 0.1; 0 1 0 0; 0 0.2 1.5 0; 0.1 0 0 0.9], which sets the sliders; then c is multiplied",
        "multiplied by 40, -40, 40, -40",
        "in [-1,1]; the guide reads it in [-1,1]",
        "2 U-Net calls, evenly spaced from timestep 999 to 750, posterior variance `fixed_large`",
        "The grid was trained on timesteps 700 to 980",
        "grid, 12 x 8 x 2 x 2",
    ):
        assert told in words, told
    counts = {name: sum(p.numel() for p in parts[name].parameters()) for name in ("unet", "vae", "grid_head", "guide")}
    assert f"| in all | {sum(counts.values()):,} |" in text and f"| U-Net | {counts['unet']:,} |" in text
    bare = card(parts, tmp_path / "bare")
    assert "license: unknown" in bare and bare.rstrip().endswith("Not recorded.")
    assert not any(words in bare for words in ("first becomes", "retouchers", "None", "| attribute |"))
    real = card(parts, tmp_path / "real", origin={**ORIGIN, "provenance": "real"})
    assert "the work of real retouchers" in real and "simulated" not in real


def test_the_licence_of_the_weights_it_started_from_is_kept(parts: dict[str, Any], tmp_path: Path) -> None:
    start = {"provenance": "converted", "licence": "non-commercial use only", "notes": "Converted from adobe.ckpt."}
    text = card(parts, tmp_path, origin={**ORIGIN, "start": start})
    assert "license_name: non-commercial" in text
    own, _, earlier = text.partition("It started from the weights of another model")
    assert "CC0, a photographer" in own and "- Licence: non-commercial use only" in earlier and "adobe.ckpt" in earlier


def test_a_model_without_grid_says_so(parts: dict[str, Any], tmp_path: Path) -> None:
    assert "the autoencoder's decoder" in card(parts, tmp_path / "without", output="autoencoder")
    assert "the autoencoder's decoder" not in card(parts, tmp_path / "with")


def test_the_card_is_always_the_same_text(parts: dict[str, Any], tmp_path: Path) -> None:
    first, second = card(parts, tmp_path / "a", **ODD), card(parts, tmp_path / "b", **ODD)
    assert first == second and str(tmp_path) not in first and str(Path.home()) not in first
    assert not re.search(r"\b20[3-9]\d|\d\d:\d\d|\d{4}-\d\d-\d\d", first)


def test_the_cards_python_runs(parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = card(parts, tmp_path, **ODD)
    write_png8(tmp_path / "photo.png", photos(1)[0].permute(1, 2, 0).numpy())
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    assert (tmp_path / "retouched.png").exists()
