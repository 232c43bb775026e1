"""Packages: what is installed against what this package asks for, and what is known of the versions that clash."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from diffretouch.doctor.finding import Finding

OLDEST = (3, 11)
CLASHES = {
    "fastapi": "every flow run of Prefect 3.8.8 fails with a newer one",
    "sqlalchemy": "with 2.1 Prefect's scheduled runs are silently never created",
    "prefect": "flows and Prefect's database are those of this version",
}
INSTALL = "python -m pip install -c constraints.txt"


def check_versions(
    wanted: Iterable[str] | None = None,
    installed: Callable[[str], str] = version,
    python: tuple[int, ...] | None = None,
) -> list[Finding]:
    """A finding for each package out of range; one good one where all fit.

    Without arguments: this package's own requirements, what is installed, and the running Python.
    """
    running = python or sys.version_info[:3]
    found = []
    if running[:2] < OLDEST:
        spelled = ".".join(map(str, running))
        found.append(
            Finding("fault", "python", f"Python {spelled}, 3.11 or newer is needed", "make PYTHON=python3.11 repro")
        )
    ranges = [Requirement(text) for text in (wanted if wanted is not None else requires("diffretouch") or ())]
    core = [each for each in ranges if each.marker is None or each.marker.evaluate({"extra": ""})]
    for each in core:
        try:
            have = installed(each.name)
        except PackageNotFoundError:
            found.append(Finding("fault", "packages", f"{each.name} is missing", f"{INSTALL} '{each}'"))
            continue
        if not each.specifier.contains(have, prereleases=True):
            why = CLASHES.get(each.name.lower())
            words = f"{each.name} {have} is outside {each.specifier}" + (f": {why}" if why else "")
            found.append(Finding("fault", "packages", words, f"{INSTALL} '{each}'"))
    if found:
        return found
    spoken = ", ".join(f"{name} {installed(name)}" for name in sorted(CLASHES) if any(r.name == name for r in core))
    return [Finding("good", "packages", f"{len(core)} requirements fit; {spoken or 'none is known to clash'}")]
