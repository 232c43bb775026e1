"""`python -m flows.lineage MODEL`: the data, parameters, code, numbers and verdict that a model came from."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from diffretouch.errors import UserError
from diffretouch.releases import Release, find, line
from flows import git_process, registry
from flows.commandline import add_root

EPILOG = """\
examples
  python -m flows.lineage fivek                    the model in use
  python -m flows.lineage model-fivek@v2           that version
  python -m flows.lineage fivek --json             for programs

what it reads
  Nothing but the model's commit: dvc.lock, data.dvc, reports/DATASET/metrics.json and reports/DATASET/verdict from git;
  the model's own card and the corpus's through DVC (cache, else remote). What cannot be had here is said to be so.

to have it again
  git checkout COMMIT, then `dvc pull` (the files), or `dvc repro` (the same files, made anew)

exit codes
  0 done   2 no such model
"""


def lineage(root: Path, release: Release) -> dict[str, Any]:
    """Everything recorded about a release, by heading; values are None where nothing is recorded."""
    commit, dataset = release.commit, release.dataset
    lock = yaml.safe_load(git_process.read_file(root, commit, "dvc.lock") or "{}").get("stages", {})
    stage = lock.get(f"train@{dataset}", {})
    model = f"work/train/{dataset}"
    subject, author, date = git_process.git(root, "show", "-s", "--format=%s%x00%an%x00%cI", commit).split("\0")
    used = line(git_process.tags(root), release.model)
    metrics = git_process.read_file(root, commit, f"reports/{dataset}/metrics.json")
    return {
        "model": {
            "name": release.name,
            "in use": bool(used) and used[-1] == release,
            "file tree": _entry(stage.get("outs", []), model),
            "card": _read(root, commit, f"{model}/model/model_index.json", "origin"),
        },
        "data": {**_tracked(root, commit, dataset), "corpus": _read(root, commit, f"data/{dataset}/corpus.yaml", None)},
        "parameters": stage.get("params", {}).get("params.yaml"),
        "code": {
            "commit": commit,
            "date": date,
            "author": author,
            "subject": subject,
            "diffretouch": git_process.git(root, "rev-parse", f"{commit}:diffretouch")
            if git_process.read_file(root, commit, "diffretouch/__init__.py")
            else None,
        },
        "metrics": None if metrics is None else json.loads(metrics),
        "verdict": registry.verdict(root, release),
    }


def _tracked(root: Path, commit: str, dataset: str) -> dict[str, Any]:
    """The corpora's checksum: of data.dvc, or of data/DATASET.dvc where each has its own."""
    for name, path in ((f"data/{dataset}.dvc", dataset), ("data.dvc", "data")):
        text = git_process.read_file(root, commit, name)
        if text is not None:
            return {"file": name, "tree": _entry(yaml.safe_load(text)["outs"], path)}
    return {"file": None, "tree": None}


def _entry(outs: list[dict[str, Any]], path: str) -> str | None:
    for out in outs:
        if out["path"] == path:
            files = f", {out['nfiles']} files" if "nfiles" in out else ""
            return f"md5 {out['md5']} ({out['size']} bytes{files})"
    return None


def _read(root: Path, commit: str, path: str, key: str | None) -> Any:
    """A YAML or JSON file that DVC keeps, or the entry `key` of it; words where its bytes are not to be had."""
    from flows import revision  # late: DVC takes a second to import

    try:
        text = revision.read_text(root, commit, path)
    except revision.Gone as error:
        return str(error)
    tree = None if text is None else yaml.safe_load(text)
    return tree if key is None or not isinstance(tree, dict) else tree.get(key)


def main(argv: list[str] | None = None) -> int:
    """Parse, gather, print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.lineage",
        description="Print the data, parameters, code, metrics and verdict that a model came from.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="fivek, model-fivek (the one in use) or model-fivek@v2")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_root(parser)
    arguments = parser.parse_args(argv)
    root = arguments.root.resolve()
    try:
        found = lineage(root, find(git_process.tags(root), arguments.model))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(_lines(found)))
    return 0


def _lines(tree: dict[str, Any], indent: int = 0) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield f"{' ' * indent}{name}"
            yield from _lines(value, indent + 2)
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            yield f"{' ' * indent}{name}"
            for item in value:
                yield f"{' ' * indent}  - {'; '.join(f'{key}: {_plain(item[key])}' for key in item)}"
        else:
            yield f"{' ' * indent}{name}: {_plain(value)}"


def _plain(value: Any) -> str:
    if value is None:
        return "not recorded"
    return ("yes" if value else "no") if isinstance(value, bool) else " ".join(str(value).split())


if __name__ == "__main__":
    sys.exit(main())
