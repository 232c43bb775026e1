"""`python -m flows.doctor`: what would fail or be wrong on this machine, each with the command that mends it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffretouch.config import load
from diffretouch.doctor.corpora import check_corpora
from diffretouch.doctor.disk import check_room
from diffretouch.doctor.finding import Finding
from diffretouch.doctor.machine import check_machine
from diffretouch.doctor.versions import check_versions
from diffretouch.doctor.weights import check_weights
from diffretouch.errors import UserError
from flows.commandline import add_root

SIGNS = {"good": "ok", "note": "note", "fault": "FAULT"}
EPILOG = """\
what it looks at
  packages (versions that are known to clash), params.yaml, the corpora (whole photos, origin, licences, data.dvc),
  weights and their checksums, room on the disks, how DVC links files, DVC's remote and who holds its locks, a chain
  that runs here, the models in use and their verdicts, Prefect's server and what is deployed there, the GPU and the
  memory that training takes at the very least

what it prints
  ok     packages      35 requirements fit; fastapi 0.150.0, prefect 3.8.8, sqlalchemy 2.0.58
  note   DVC remote    no default remote: ...
                       -> dvc remote add -d NAME URL
  FAULT  weights       train.start names 'sd21', but sd21 in the local hub cache is not there
                       -> hf download sd21

  It changes nothing, opens no photo and takes some seconds. What it could not find out in that time it says; --full
  takes the time: it hashes large weights and asks a remote on the network.

exit codes
  0 nothing but ok and notes   1 a fault
"""


def examine(root: Path, *, full: bool) -> list[Finding]:
    """Every finding, in the order people read them."""
    from flows.doctor_dvc import check_dvc
    from flows.doctor_prefect import check_prefect

    found = check_versions()
    try:
        params = load(root / "params.yaml")
    except UserError as error:
        found.append(
            Finding("fault", "params.yaml", str(error), "diffretouch profile cpu (keeps the present one beside it)")
        )
    else:
        found.append(Finding("good", "params.yaml", f"fits the schema; datasets {', '.join(params.datasets)}"))
        found += check_corpora(params, root)
        found += check_weights(params, root, full=full)
        found += check_machine(params)
    found.append(check_room(root, "this tree"))
    return [*found, *check_dvc(root, full=full), *check_prefect(root)]


def main(argv: list[str] | None = None) -> int:
    """Look, print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.doctor",
        description="Say what would fail or be wrong on this machine, and what to type against it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full", action="store_true", help="hash large weights and ask a remote on the network, too")
    add_root(parser)
    arguments = parser.parse_args(argv)
    found = examine(arguments.root.resolve(), full=arguments.full)
    print("\n".join(_lines(found)))
    faults = sum(finding.level == "fault" for finding in found)
    notes = sum(finding.level == "note" for finding in found)
    print(f"\n{faults} faults, {notes} notes" if faults or notes else "\nall is well")
    return 1 if faults else 0


def _lines(found: list[Finding]) -> list[str]:
    width = max(len(finding.area) for finding in found)
    lines = []
    for finding in found:
        lines += [f"{SIGNS[finding.level]:<5}  {finding.area:<{width}}  {' '.join(finding.what.split())}"]
        lines += [f"{'':<7}{'':<{width}}  -> {finding.mend}"] if finding.mend else []
    return lines


if __name__ == "__main__":
    sys.exit(main())
