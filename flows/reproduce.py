"""`python -m flows.reproduce`: the DAG of dvc.yaml, one Prefect task a stage, on Prefect's embedded server.

The same as a deployment: flows/deployed.py.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from flows.commandline import add_amounts, add_root, end_on_sigterm

if TYPE_CHECKING:
    from pathlib import Path

    from flows.chain import Result

EPILOG = """\
examples
  python -m flows.reproduce                   bring everything up to date
  python -m flows.reproduce --dataset fivek   the stages of one dataset (not `report`, which reads them all)
  python -m flows.reproduce evaluate@fivek    one stage and what it needs, like `dvc repro evaluate@fivek`
  python -m flows.reproduce train             that stage of every dataset, and what it needs
  python -m flows.reproduce --sample-parts 8  sample@... in 8 parts by a server's workers, which share this folder
  python -m flows.reproduce --profile fivek   `diffretouch profile fivek` first: the parameters of real size

what it does
  Each task calls `dvc repro --single-item STAGE`. DVC decides whether the stage has to run: one that is up to date
  ends at once in the state UpToDate, so after `dvc repro` there is nothing to do. A stage that fails leaves those below
  it not run; the others go on. Prefect's server is started for the run and stopped with it (12 s the first time); set
  PREFECT_API_URL to record the run on a server of your own. Ctrl-C or SIGTERM ends the running stage first, then this.
  Every line of a stage goes to work/logs/RUN/STAGE.log too.

  One chain runs in a workspace at a time: a second one says who runs, or waits with --wait. What a killed one left
  running is ended before anything starts. Independent stages run together, as far as there are slots: a stage holds
  gpu:MACHINE:N where it uses a GPU, and as many of cpu:MACHINE as it keeps cores busy. Chains of one server queue for
  them, and without one, yours on this machine.

exit codes
  0 everything is up to date   130, 143 stopped
  1 a stage failed, another chain runs, or dvc.lock waits for the end of a merge
  2 no such stage, dataset or profile, or a broken dvc.yaml
"""


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print the table; the exit code."""
    arguments = _parse(argv)
    end_on_sigterm()
    # late, so that --help answers at once
    from diffretouch.errors import UserError
    from flows import family, workspace

    try:
        with workspace.hold(arguments.root, arguments.wait):
            return _run(arguments)
    except (workspace.Busy, family.Unstoppable) as error:
        print(error, file=sys.stderr)
        return 1
    except workspace.NoWorkspace as error:
        print(error, file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    from diffretouch import profiles
    from diffretouch.errors import ConfigError
    from flows import graph

    try:
        if arguments.profile and profiles.use(arguments.profile, arguments.root):
            print(f"params.yaml is now profiles/{arguments.profile}.yaml; the one before is params.yaml.before")
        stages = graph.select(graph.read(arguments.root), arguments.target, arguments.dataset)
        timeouts = graph.timeouts(stages, arguments.timeout)
    except (graph.UnknownTarget, graph.BrokenGraph, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    from flows import chain

    try:
        results = chain.run_held(stages, arguments.root, arguments.max_workers, timeouts, arguments.sample_parts)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(_table(results))
    if all(result.outcome not in ("failed", "not run") for result in results):
        return 0
    print(f"\n{_next(arguments.root)}", file=sys.stderr)
    return 1


def _next(root: Path) -> str:
    """What to type after a failure."""
    from flows import clone

    missing = [name for name in clone.corpora(root) if not (root / name).with_suffix("").exists()]
    if missing:
        return (
            f"what {', '.join(missing)} tracks is not here: `dvc pull {' '.join(missing)}` where a remote has it, "
            "`diffretouch demo-data` for the demo's, `diffretouch ingest` for your own"
        )
    return "`python -m flows.doctor` looks for what is missing or broken here"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m flows.reproduce",
        description="Bring the stages of dvc.yaml up to date, one Prefect task a stage instance.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", nargs="*", metavar="TARGET", help="a stage instance or a stage; all when none is given"
    )
    parser.add_argument("--dataset", action="append", default=[], help="only this dataset's stages (may be repeated)")
    parser.add_argument(
        "--profile", metavar="NAME", help="make profiles/NAME.yaml the params.yaml in use first (default: as it is)"
    )
    add_amounts(parser)
    parser.add_argument("--wait", action="store_true", help="wait for another chain in this workspace to end")
    add_root(parser)
    arguments = parser.parse_args(argv)
    arguments.root = arguments.root.resolve()
    return arguments


def _table(results: list[Result]) -> str:
    """One line a stage: name, outcome, seconds; then what went wrong."""
    width = max([len(result.stage) for result in results], default=0)
    lines = [""]
    for result in results:
        seconds = "" if result.seconds is None else f"{result.seconds:8.1f} s"
        lines.append(f"{result.stage:<{width}}  {result.outcome:<10}{seconds}".rstrip())
    lines += [f"\n{result.stage}: {result.message}" for result in results if result.outcome == "failed"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
