"""`python -m flows.rollback`: put the model before, or a named one, in use again."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from diffretouch.errors import ConfigError, UserError
from diffretouch.releases import PREFIX, Release, find, line, model_of
from flows import git_process, registry
from flows.commandline import add_root

EPILOG = """\
examples
  python -m flows.rollback fivek               the model that was in use before this one
  python -m flows.rollback fivek --to v2       that version
  python -m flows.rollback fivek --out models/fivek   and put its files there

what it does
  Reads the older model's files into a temporary folder first (from DVC's cache, else its remote), so that a model
  whose files are gone is never put in use. Then it writes one tag, model-fivek#prod#N, on the older model's commit.
  A model without a verdict of the gate, or that was judged for research while params.yaml's gate.use is commercial, is
  refused. No tag, branch or file of yours is changed or removed; `dvc artifacts get . model-fivek --stage prod` gives
  the older model from then on, and the next retraining is judged against it. Others learn of it by `git push origin
  TAG`.

exit codes
  0 done   1 nothing to go back to, not allowed, or its files are gone   2 no such model or version
"""


def rollback(root: Path, dataset: str, to: str | None, out: Path | None) -> tuple[Release, str]:
    """Put an older release in use; it and the new tag. UserError where there is none, its files are gone, or the gate
    has not allowed what it would be used for.
    """
    tags = git_process.tags(root)
    model = model_of(dataset.removeprefix(PREFIX))
    used = line(tags, model)
    if not used:
        raise ConfigError(
            f"no model of {model} is in use, so there is nothing to go back from: `python -m flows.registry`"
        )
    if to is None and len(used) < 2:
        raise UserError(f"{used[0].name} is the first: nothing was in use before it; name a version with --to")
    try:
        target = used[-2] if to is None else find(tags, f"{model}@{to}")
    except UserError as error:
        raise ConfigError(str(error)) from error
    if target == used[-1]:
        raise UserError(f"{target.name} is in use already")
    if words := registry.objection(root, target):
        raise UserError(f"{words}. Name another with --to, or train and judge one: `python -m flows.retrain`")
    bring(root, target, out)
    return target, registry.put_in_use(root, target, f"{target.name} in use again, in place of {used[-1].name}")


def bring(root: Path, release: Release, out: Path | None) -> None:
    """Read every file of a release, into `out` or a folder that is removed again; UserError where one is gone."""
    from flows import revision  # late: DVC takes a second to import

    if out is not None and out.exists():
        raise UserError(f"{out} exists: name a new folder with --out")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    # beside `out`, so that it is moved there whole or not at all
    with tempfile.TemporaryDirectory(prefix=".diffretouch-", dir=out and out.parent) as temporary:
        copy = Path(temporary) / "model"
        revision.copy_folder(root, release.commit, f"work/train/{release.dataset}/model", copy)
        if out is not None:
            copy.rename(out)


def main(argv: list[str] | None = None) -> int:
    """Parse, go back, say so; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.rollback",
        description="Put the model that was in use before, or a named version, in use again.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET", help="fivek or ppr10k (or model-fivek)")
    parser.add_argument("--to", metavar="VERSION", help="this version, such as v2 (default: the one in use before)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also put the model's files there")
    add_root(parser)
    arguments = parser.parse_args(argv)
    root = arguments.root.resolve()
    try:
        release, tag = rollback(root, arguments.dataset, arguments.to, arguments.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{release.name} is in use again (tag {tag}); tell others: git push origin '{tag}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
