"""params.yaml and the profiles: complete, checked at load, and answered with names when mistyped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from diffretouch.config import Params, load
from diffretouch.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ["cpu", "fivek", "ppr10k", "tiny"]


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = (ROOT / "params.yaml").read_text()
    assert text.count(old) == 1, f"{old!r} must occur once in params.yaml"
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_the_cpu_profile_is_the_committed_params_file() -> None:
    assert (ROOT / "profiles" / "cpu.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_complete(name: str) -> None:
    """Every key of the schema is written out, so that no default hides in the code."""
    path = ROOT / "profiles" / f"{name}.yaml"
    assert load(path).model_dump(mode="json") == _as_json(yaml.safe_load(path.read_text()))
    assert [f"{model.__name__}.{field}" for model in _models(Params) for field in _defaults(model)] == []


def _as_json(tree: dict) -> dict:
    return Params.model_validate(tree).model_dump(mode="json", exclude_unset=True)


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [field.annotation for field in model.model_fields.values()]
    return [
        model,
        *(m for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel) for m in _models(kind)),
    ]


def _defaults(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not field.is_required()]


@pytest.mark.parametrize(
    ("name", "short_edge", "variance"), [("fivek", 480, "fixed_small"), ("ppr10k", 360, "fixed_large")]
)
def test_real_profiles_have_the_papers_size(name: str, short_edge: int, variance: str) -> None:
    params = load(ROOT / "profiles" / f"{name}.yaml")
    assert params.datasets == (name,)
    assert (params.corpora[name].short_edge, params.corpora[name].sampler_variance) == (short_edge, variance)
    assert (params.train.network_size, params.train.channels) == (512, (320, 640, 1280, 1280))
    assert (params.sample.steps, params.sample.last_timestep, params.train.timesteps) == (20, 200, (0, 999))
    assert params.attributes.size == 512


@pytest.mark.parametrize(
    ("old", "new", "place", "meant"),
    [
        ("  warmup_steps:", "  warmup_step:", "train.warmup_step", "warmup_steps"),
        ("  bootstrap:", "  bootstraps:", "evaluate.bootstraps", "bootstrap"),
        ("{test_from: 4501", "{test_form: 4501", "corpora.fivek.split.test_form", "test_from"),
        ("{colorfulness:", "{colourfulness:", "attributes.just_noticeable.colourfulness", "colorfulness"),
        ("\nruntime:", "\nruntimes:", "runtimes", "runtime"),
    ],
)
def test_a_mistyped_key_is_answered_with_both_names(tmp_path: Path, old: str, new: str, place: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(edited(tmp_path, old, new))
    said = str(caught.value)
    assert f"{place}: unknown key; did you mean '{meant}'?" in said
    assert "this key is missing" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  demosaic: AHD", "  demosaic: AHDD", "AHDD"),
        ("  warmup_steps: 50", "  warmup_steps: -1", "train.warmup_steps"),
        ("datasets: [fivek, ppr10k]", "datasets: [fivek, mine]", "mine"),
        ("  confidence: 0.95", "  confidence: high", "evaluate.confidence"),
        ("    source: null", "    source: some/vae", "sha256"),
        ("  attention: [", "  attention: [true, ", "levels"),
        ("  network_size: 128", "  network_size: 120", "multiple of 64"),
        ("\n  norm_groups: 8", "\n  norm_groups: 7", "train: .*norm_groups 7"),
        ("\n    norm_groups: 8", "\n    norm_groups: 7", "train.autoencoder: .*norm_groups 7"),
        ("    init: random", "    init: shrink", "train.autoencoder: .*shrink needs norm_groups 1 .* not 8"),
        ("    crop: 64", "    crop: 512", "larger than network_size"),
        ("  splits: [test]", "  splits: [val]", "must hold test"),
        ("  steps: 3", "  steps: 300", "300 steps do not fit"),
        ("  validation_steps: 3", "  validation_steps: 2", "another sampler than the one in use"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(edited(tmp_path, old, new))


@pytest.mark.parametrize("name", PROFILES)
def test_what_is_committed_bears_this_projects_name(name: str) -> None:
    decode = load(ROOT / "profiles" / f"{name}.yaml").decode
    assert decode.profile == "linear-srgb-2"
    assert decode.rendering == "demosaic AHD, highlights Clip, half_size true, baseline_exposure true"


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("demosaic", "AHD", "DHT"),
        ("highlights", "Clip", "Ignore"),
        ("half_size", "true", "false"),
        ("baseline_exposure", "true", "false"),
    ],
)
def test_another_rendering_needs_another_name(tmp_path: Path, key: str, value: str, other: str) -> None:
    path = edited(tmp_path, f"  {key}: {value}", f"  {key}: {other}")
    with pytest.raises(ConfigError) as caught:
        load(path)
    said = str(caught.value)
    assert "decode: " in said and "linear-srgb-2 stands for demosaic AHD, highlights Clip, half_size true" in said
    assert f"here it says {key} {other}: give another rendering a name of your own, such as profile: mylab-1" in said
    path.write_text(path.read_text().replace("profile: linear-srgb-2", "profile: mylab-1"))
    assert f"{key} {other}" in load(path).decode.rendering


def test_a_name_of_this_projects_kind_that_stands_for_nothing_is_refused(tmp_path: Path) -> None:
    for name in ("linear-srgb-1", "linear-srgb-3", "linear-srgb-"):
        with pytest.raises(ConfigError, match=f"{name} is none of linear-srgb-2: .*such as mylab-1"):
            load(edited(tmp_path, "profile: linear-srgb-2", f"profile: {name}"))


def test_what_develops_nothing_is_free_under_every_name(tmp_path: Path) -> None:
    for old, new in (("registration: 1.0", "registration: 2.0"), ("format: tif", "format: png")):
        assert load(edited(tmp_path, old, new)).decode.profile == "linear-srgb-2"


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = edited(tmp_path, "  confidence: 0.95", "  confidence: 7")
    path.write_text(path.read_text().replace("  demosaic: AHD", "  demosaic: none"))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "evaluate.confidence" in str(caught.value)
    assert "decode.demosaic" in str(caught.value)


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    # YAML 1.1 takes 1e-4 for a string
    assert load(edited(tmp_path, "  weight_decay: 0.3", "  weight_decay: 1e-4")).train.weight_decay == 0.0001


def test_broken_yaml_and_an_absent_file_are_said_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(broken)
    with pytest.raises(ConfigError, match="root of the repository"):
        load(tmp_path / "absent.yaml")


def test_the_last_call_must_lie_where_training_was(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="last_timestep"):
        load(edited(tmp_path, "  last_timestep: ", "  last_timestep: 1 #"))


@pytest.mark.parametrize("scheme", ["ternary", "deviation", "quantile"])
def test_our_control_loss_needs_the_scheme_it_asks_in(tmp_path: Path, scheme: str) -> None:
    path = edited(tmp_path, "  scheme: expert_range", f"  scheme: {scheme}")
    said = f"control_loss ours asks .* not in {scheme}: set scheme expert_range, or control_loss none or published"
    with pytest.raises(ConfigError, match=said):
        load(path)
    text = path.read_text()
    for old, new in (
        ("  control_loss: ours", "  control_loss: none"),
        ("  control_loss: ours", "  control_loss: published"),
        ("  condition: expert", "  condition: none"),
    ):
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        assert load(path).attributes.scheme == scheme
    path.write_text(
        text.replace("  control_loss: ours", "  control_loss: none").replace(
            "experts: all, train: {steps: 2800}", "experts: all, train: {steps: 2800, control_loss: ours}"
        )
    )
    with pytest.raises(ConfigError, match=f"compare.arms.full does not fit: .*{said}"):
        load(path)


def test_params_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(ROOT / "params.yaml").train.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "said"), [(["decode", "fivk"], "fivek, ppr10k"), (["profile", "gpu"], "cpu, fivek, ppr10k, tiny")]
)
def test_a_wrong_name_on_the_command_line_exits_2(words: list[str], said: str) -> None:
    script = "from diffretouch.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
