"""Which repository a flow works in."""

from __future__ import annotations

import os
from pathlib import Path

from prefect.runtime import deployment

from diffretouch.errors import ConfigError

ROOTS = "DIFFRETOUCH_ROOTS"
"""Folders of repositories that a deployment's run may work in beside its own, separated by colons."""


def asked_for(root: str | None) -> Path:
    """The repository `root`; the current folder without one.

    Commands of a repository's dvc.yaml are executed, and no parameter of a run is to choose whose: ConfigError where a
    deployment's run asks for another than its folder, what lies in it, or in those of ROOTS.
    """
    here, place = Path().resolve(), Path(root or ".").resolve()
    if deployment.id:
        allowed = [here, *(Path(folder).resolve() for folder in os.environ.get(ROOTS, "").split(os.pathsep) if folder)]
        if not any(folder == place or folder in place.parents for folder in allowed):
            raise ConfigError(
                f"{place} lies neither in {here}, the deployment's folder, nor in those that {ROOTS} names in the "
                "run's environment"
            )
    return place
