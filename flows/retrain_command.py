"""The command `python -m flows.retrain`; the flow itself is in flows/retrain.py."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any

from diffretouch.errors import UserError
from flows.commandline import add_amounts, add_root, end_on_sigterm, positive

EPILOG = """\
examples
  python -m flows.retrain                                   every dataset: parameters, code or data were changed
  python -m flows.retrain --dataset fivek --inbox /srv/in   with the new photos of that folder (named as for ingest)
  python -m flows.retrain --inbox /srv/in                   every dataset, new photos in /srv/in/fivek, /srv/in/ppr10k
  python -m flows.retrain --notify mail -s retrain lab@example.org      the last option: all after it is the command
  python -m flows.retrain --notify-block slack-webhook/lab       a block saved on Prefect's server

what it does
  1 refuses what is not committed, makes a clone in .dvc/tmp/retrain with this repository's cache
  2 brings in new photos that are whole (a RAW and every expert's picture); none replaces another or is a test photo
  3 runs the dataset's stages there; DVC decides what has to run
  4 samples and measures the model in use by the same code on the same test photos, in a clone of its own
  5 lets the gate decide by params.yaml's `gate`; with --approval a person too, in Prefect's page
  6 promoted: `dvc push`, then a commit on the branch `retrain`, with reports/DATASET/verdict, and two tags, at once
  Your files, branches and data/ stay as they are. What is new is taken over by
  `git merge retrain && dvc checkout --allow-missing`.
  Killed at any moment, the same command goes on. Photos stay in the inbox: without a promotion, for the next time.

what it prints
  fivek: promote: better by 0.8 dB ... (model-fivek@v2.0.0 is in use)

next
  python -m flows.registry   python -m flows.lineage fivek   python -m flows.rollback fivek

exit codes
  0 done, promoted or not   1 a step failed   2 a mistake in the words or in params.yaml   130, 143 stopped
"""


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print; the exit code."""
    arguments = _parse(argv)
    end_on_sigterm()
    from prefect.settings import PREFECT_API_URL

    from flows import announce
    from flows.retrain import retrain

    if arguments.approval and not PREFECT_API_URL.value():
        print(
            "--approval needs a server whose pages a person can open: `prefect server start`, then set PREFECT_API_URL "
            "(http://127.0.0.1:4200/api)",
            file=sys.stderr,
        )
        return 2
    if arguments.notify:
        os.environ[announce.COMMAND] = shlex.join(arguments.notify)
    try:
        outcomes: Any = retrain(
            dataset=arguments.dataset,
            inbox=arguments.inbox,
            settle_s=arguments.settle,
            root=str(arguments.root),
            branch=arguments.branch,
            approval_s=arguments.approval,
            notify_block=arguments.notify_block,
            max_workers=arguments.max_workers,
            sample_parts=arguments.sample_parts,
            timeouts=arguments.timeout,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    for outcome in outcomes:
        release = f" ({outcome['release']} is in use)" if outcome["release"] else ""
        print(f"{outcome['dataset']}: {outcome['decision']}: {outcome['summary']}{release}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain",
        description="Train on what is new, judge the model against the one in use, promote it or say why not.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", help="only this one (default: all of params.yaml)")
    parser.add_argument("--inbox", metavar="DIR", help="folder of new photos, or of a folder of them for each dataset")
    parser.add_argument(
        "--settle",
        type=int,
        default=0,
        metavar="SECONDS",
        help="leave photos in the inbox that were written within so many seconds: somebody may be at it (default 0)",
    )
    parser.add_argument("--branch", default="retrain", help="where commits go (default: retrain)")
    parser.add_argument(
        "--approval", type=positive, metavar="SECONDS", help="before a promotion, wait so long for a person's yes"
    )
    parser.add_argument(
        "--notify",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="gets the outcomes as JSON on standard input (for a worker's runs: DIFFRETOUCH_NOTIFY in its environment)",
    )
    parser.add_argument(
        "--notify-block", metavar="TYPE/NAME", help="a notification block of Prefect's server gets them in words"
    )
    add_amounts(parser)
    add_root(parser)
    return parser.parse_args(argv)
