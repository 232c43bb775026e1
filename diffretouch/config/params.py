"""All of `params.yaml`, and how it is read."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from diffretouch.config.base import Section
from diffretouch.config.comparing import Compare
from diffretouch.config.gating import Gate
from diffretouch.config.judging import Embed, Evaluate, Report, Sample, Study
from diffretouch.config.pictures import Attributes, Corpus, Decode
from diffretouch.config.runtime import Runtime
from diffretouch.config.training import Train
from diffretouch.errors import ConfigError

PARAMS = Path("params.yaml")


class Params(Section):
    """All of `params.yaml`."""

    datasets: tuple[str, ...]
    """The matrix of `dvc.yaml`."""
    corpora: dict[str, Corpus]
    decode: Decode
    attributes: Attributes
    train: Train
    sample: Sample
    evaluate: Evaluate
    embed: Embed
    study: Study
    report: Report
    compare: Compare
    gate: Gate
    runtime: Runtime

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        missing = [name for name in self.datasets if name not in self.corpora]
        if missing:
            raise ValueError(f"datasets names {missing}, but corpora has only {sorted(self.corpora)}")
        validated = self.train.validation_steps, self.train.validation_last_timestep
        sampled = self.sample.steps, self.sample.last_timestep
        if validated != sampled:
            raise ValueError(
                f"train.validation_steps and .validation_last_timestep {validated} differ from sample.steps and "
                f".last_timestep {sampled}: validation would judge another sampler than the one in use"
            )
        told = self.train.condition == "expert" and self.train.output == "grid"
        if told and self.train.control_loss == "ours" and self.attributes.scheme != "expert_range":
            raise ValueError(
                "train.control_loss ours asks for the scores that c means in attributes.scheme expert_range, not in "
                f"{self.attributes.scheme}: set scheme expert_range, or control_loss none or published"
            )
        for name in self.compare.arms:
            try:
                self.arm(name, self.train.seed)
            except ValidationError as error:
                faults = [
                    f"{'.'.join(map(str, e['loc'])) or 'parameters'}: {_explain(dict(e))}" for e in error.errors()
                ]
                raise ValueError(f"compare.arms.{name} does not fit: {'; '.join(faults)}") from error
        return self

    def arm(self, name: str, seed: int) -> Params:
        """These parameters as an arm of `compare` has them: its overrides, its seed, and no arms of its own.

        Only what is measured is sampled, the test photos without random tastes, and training validates at its end.
        """
        arm, tree = self.compare.arms[name], self.model_dump(mode="json")
        tree["train"] = _merged(tree["train"], {"seed": seed, **arm.train})
        tree["train"]["validate_every"] = tree["train"]["steps"]
        tree["sample"] = _merged(tree["sample"], {"random_draws": 1, "splits": ["test"], **arm.sample})
        tree["compare"]["arms"] = {}
        return Params.model_validate(tree)

    def corpus(self, dataset: str) -> Corpus:
        """The corpus section of `dataset`; ConfigError names the known ones."""
        if dataset not in self.datasets:
            raise ConfigError(f"unknown dataset {dataset!r}: {PARAMS} has {', '.join(self.datasets)}")
        return self.corpora[dataset]


def load(path: Path = PARAMS) -> Params:
    """Read and check a params file; raises ConfigError with every fault, its place and what is allowed there."""
    if not path.exists():
        raise ConfigError(f"{path} not found in {Path.cwd()}: run this from the root of the repository")
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [f"{path} does not fit the schema:"]
        lines += [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {_explain(dict(e))}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tree` with `changes`, section by section."""
    inner = {key: _merged(tree[key], value) for key, value in changes.items() if isinstance(tree.get(key), dict)}
    return {**tree, **changes, **inner}


def _explain(error: dict) -> str:
    """One pydantic error in plain words; a mistyped key is answered with the nearest real one."""
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key; {hint}"
    if error["type"] == "missing":
        return "this key is missing"
    return f"{error['msg']} (got {error['input']!r})" if error["type"] != "value_error" else error["msg"]


def _keys_at(loc: tuple) -> list[str]:
    model: type[BaseModel] = Params
    for part in loc:
        if model is Params and part == "corpora":
            model = Corpus
        elif part in model.model_fields and isinstance(model.model_fields[part].annotation, type):
            model = model.model_fields[part].annotation  # type: ignore[assignment]
    return sorted(model.model_fields)
