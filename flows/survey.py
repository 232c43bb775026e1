"""What of a workspace is up to date, asked of DVC once, in this process.

Why: `dvc repro` of a stage that has nothing to do costs a child of about two seconds; a tree that is up to date should
cost hardly more than plain `dvc repro`. The answer is DVC's own `Stage.changed`, under its locks, as in `dvc repro`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from flows.graph import Stage, address


@dataclass(frozen=True)
class Survey:
    """What was found."""

    unchanged: frozenset[str] = frozenset()
    """Stages that have nothing to do, as long as none they need runs."""
    changed_corpora: tuple[str, ...] = ()
    """`data.dvc`, where `data/` is no longer what it says."""


def survey(root: Path, stages: list[Stage]) -> Survey:
    """Ask DVC about `stages`; where another DVC is at work nothing is known, and each stage has to ask for itself."""
    names = {stage.name for stage in stages}
    unchanged, corpora = set(), []
    try:
        with Repo(str(root)) as repo, repo.lock:
            for stage in repo.index.stages:
                if stage.is_data_source:
                    # not whether the cache has it: it does not, where demo corpora were written anew
                    if any("modified" in out.workspace_status().values() for out in stage.outs):
                        corpora.append(str(Path(stage.path).relative_to(root)))
                elif address(stage, root) in names and not stage.changed():
                    unchanged.add(address(stage, root))
    except DvcException:
        # busy, or its record of locks is half written: `dvc repro` meets the same, and is tried again
        return Survey()
    return Survey(frozenset(unchanged), tuple(corpora))
