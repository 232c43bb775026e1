"""`python -m flows.registry`: the models of this repository, which of them are in use, and why."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from diffretouch.errors import UserError
from diffretouch.releases import IN_USE, PREFIX, Release, Tag, line, model_of, new_tags, releases
from flows import git_process
from flows.commandline import add_root

EPILOG = """\
what it prints
  model               decision  tag in use           since             why
  model-fivek@v2.0.0  promote   model-fivek#prod#3   2026-11-27 06:55  better by ...
  model-fivek@v1.0.0  promote                                          the first model ...

the same by other means
  dvc artifacts get . model-fivek --stage prod -o DIR      the files of the model in use
  git tag --list 'model-fivek#prod#*' --sort=taggerdate    what was in use when; the last line is in use now
  git show 'model-fivek@v2.0.0:reports/fivek/verdict/verdict.json'   why (verdict.html beside it is to be read)

next
  python -m flows.lineage model-fivek     the data, parameters and code it came from
  python -m flows.rollback fivek          back to the model before
  git push origin --tags                  tell others

exit codes
  0 done   1 a model in use has no verdict that allows it   2 not a repository of this kind
"""


class Row(NamedTuple):
    """A version as people see it."""

    release: Release
    use: Tag | None
    """Its newest tag of use, where it is the one in use."""
    decision: str
    why: str


def verdict_folder(dataset: str) -> Path:
    """Where a model's commit holds verdict.json and verdict.html, from the root."""
    return Path("reports") / dataset / "verdict"


def verdict(root: Path, release: Release) -> dict[str, Any] | None:
    """The verdict that was committed with a model, None where there is none."""
    text = git_process.read_file(root, release.commit, (verdict_folder(release.dataset) / "verdict.json").as_posix())
    return None if text is None else json.loads(text)


def objection(root: Path, release: Release) -> str:
    """Why a model may not be in use; empty where the gate promoted it for the use that params.yaml names now.

    UserError where params.yaml names none.
    """
    told = verdict(root, release)
    if told is None or told.get("decision") != "promote":
        found = "no verdict of the gate" if told is None else f"the verdict {told.get('decision')!r} of the gate"
        return f"{release.name} has {found}, and every model in use has one that promotes it"
    use = _wanted_use(root)
    if use == "commercial" and told.get("use") != use:
        return (
            f"{release.name} was judged for {told.get('use', 'research')}, and params.yaml's gate.use is {use} now: "
            "nobody asked whether its licences allow that"
        )
    return ""


def _wanted_use(root: Path) -> str:
    """params.yaml's gate.use, whatever else is in it; UserError where it cannot be read."""
    try:
        return str(yaml.safe_load((root / "params.yaml").read_text())["gate"]["use"])
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise UserError(
            f"params.yaml does not say gate.use ({error!r}); `diffretouch profile cpu` writes a whole one"
        ) from error


def known(root: Path, dataset: str) -> list[Release]:
    """Every version of the dataset's model, the newest first."""
    return releases(git_process.tags(root), model_of(dataset))[::-1]


def in_use(root: Path, dataset: str) -> Release | None:
    """The dataset's model in use."""
    found = line(git_process.tags(root), model_of(dataset))
    return found[-1] if found else None


def put_in_use(root: Path, release: Release, words: str) -> str:
    """Put a version that is known in use again; the name of the new tag."""
    names = new_tags(git_process.tags(root), release.model, int(time.time()), version=False)
    git_process.put_in_use(root, names, release, words)
    return names.use


def rows(root: Path) -> list[Row]:
    """Every version, by model, the newest first."""
    tags = git_process.tags(root)
    models = sorted({tag.name.partition("@")[0].partition("#")[0] for tag in tags if tag.name.startswith(PREFIX)})
    found = []
    for model in models:
        used = line(tags, model)
        known = releases(tags, model)
        for release in [*([] if not used or used[-1] in known else used[-1:]), *reversed(known)]:
            told = verdict(root, release) or {}
            current = used[-1:] == [release]
            uses = [tag for tag in tags if tag.commit == release.commit and tag.name.startswith(f"{model}#{IN_USE}#")]
            use = max(uses, key=lambda tag: tag.time) if current else None
            found.append(Row(release, use, told.get("decision", "no verdict"), told.get("summary", "")))
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.registry",
        description="List the models of this repository: versions, the one in use, and the gate's verdict on each.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_root(parser)
    root = parser.parse_args(argv).root.resolve()
    try:
        found = rows(root)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not found:
        print("no model has a version yet: `python -m flows.retrain` trains, judges and tags the first")
        return 0
    print(_table(found))
    try:
        objections = [words for row in found if row.use and (words := objection(root, row.release))]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for words in objections:
        print(f"in use: {words}; `python -m flows.retrain` trains and judges its successor", file=sys.stderr)
    return 1 if objections else 0


def _table(found: list[Row]) -> str:
    cells = [("model", "decision", "tag in use", "since", "why")]
    for row in found:
        since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(row.use.time)) if row.use else ""
        cells.append((row.release.name, row.decision, row.use.name if row.use else "", since, row.why))
    widths = [max(len(line_[i]) for line_ in cells) for i in range(4)]
    padded = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(line_[:4], widths, strict=True)), line_[4]])
        for line_ in cells
    )
    return "\n".join(text.rstrip() for text in padded)


if __name__ == "__main__":
    sys.exit(main())
