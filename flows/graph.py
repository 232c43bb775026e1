"""The stages of dvc.yaml and what each waits for, as DVC itself resolves them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage

DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""dvc.yaml hands the name to a shell: nothing that one could take for more than a word."""


class UnknownTarget(Exception):
    """A target that names no stage; the message names the nearest ones."""


class BrokenGraph(Exception):
    """DVC cannot read the project; the message is DVC's."""


@dataclass(frozen=True)
class Stage:
    """One stage instance of dvc.yaml."""

    name: str
    """As DVC addresses it: `train@fivek`, `report`."""
    needs: tuple[str, ...]
    """Names of the stages whose outputs it reads, sorted."""

    @property
    def dataset(self) -> str | None:
        """What follows the @, None for a stage over all datasets."""
        return self.name.partition("@")[2] or None


def read(root: Path) -> list[Stage]:
    """All stages of dvc.yaml and what they need, each after those it needs, otherwise in the order of dvc.yaml.

    As for `dvc repro`, a stage of another file that none of these needs (compare/dvc.yaml) is left out, and so is a
    corpus (`data.dvc`): a node of DVC's graph too, but nothing can be run for it.
    """
    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            order = {stage: i for i, stage in enumerate(repo.index.stages)}
            own = [stage for stage in graph if Path(stage.path) == Path(repo.root_dir) / "dvc.yaml"]
    except DvcException as error:
        raise BrokenGraph(f"DVC cannot read the project in {root}: {error}") from error
    if strange := [stage.name for stage in own if not DATASET.fullmatch(stage.name.partition("@")[2] or "none")]:
        raise BrokenGraph(
            f"{strange[0]!r} in {root} is for no dataset that can be: in params.yaml's `datasets`, a name of letters, "
            "digits, _, . and - was expected"
        )
    graph = graph.subgraph({*own, *(need for stage in own for need in nx.descendants(graph, stage))})
    names = {stage: address(stage, root) for stage in graph if not stage.is_data_source}
    # DVC's edges point from a stage to what it needs
    sequence = nx.lexicographical_topological_sort(graph.reverse(), key=order.__getitem__)
    return [
        Stage(names[stage], tuple(sorted(names[other] for other in graph.successors(stage) if other in names)))
        for stage in sequence
        if stage in names
    ]


def address(stage: PipelineStage, root: Path) -> str:
    """What `dvc repro` in `root` calls the stage, whatever the current folder is."""
    file = Path(stage.path).relative_to(root)
    return str(stage.name) if file == Path("dvc.yaml") else f"{file}:{stage.name}"


def select(stages: list[Stage], targets: list[str], datasets: list[str]) -> list[Stage]:
    """The stages that `targets` name with everything they need, or all; of those, the ones of `datasets`, or all.

    A target is a stage instance (`train@fivek`) or a stage (`train`, every dataset).
    """
    chosen = {stage.name: stage for stage in stages}
    if targets:
        chosen = _with_needs([name for target in targets for name in _matching(target, list(chosen))], chosen)
    if not datasets:
        return [stage for stage in stages if stage.name in chosen]
    known = sorted({stage.dataset for stage in stages if stage.dataset})
    unknown = [name for name in datasets if name not in known]
    if unknown:
        raise UnknownTarget(f"dvc.yaml has no dataset {', '.join(unknown)}; it has {', '.join(known)}")
    return [stage for stage in stages if stage.name in chosen and stage.dataset in datasets]


def timeouts(stages: list[Stage], words: list[str]) -> dict[str, float]:
    """Seconds by stage, of words like `train=3600` or `train@fivek=3600`; UnknownTarget for anything else."""
    found = {}
    for word in words:
        name, _, seconds = word.rpartition("=")
        try:
            found[name] = float(seconds)
        except ValueError:
            found[name] = 0.0
        if not found[name] > 0:
            raise UnknownTarget(f"a timeout is STAGE=SECONDS with more than 0 seconds, not {word!r}")
        _matching(name, [stage.name for stage in stages])
    return found


def _matching(target: str, names: list[str]) -> list[str]:
    found = [name for name in names if target in (name, name.partition("@")[0])]
    if not found:
        near = difflib.get_close_matches(target, [*names, *(name.partition("@")[0] for name in names)], n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise UnknownTarget(f"dvc.yaml has no stage {target}; {hint}")
    return found


def _with_needs(names: list[str], stages: dict[str, Stage]) -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    while names:
        name = names.pop()
        if name not in found:
            found[name] = stages[name]
            names += stages[name].needs
    return found
