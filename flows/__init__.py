"""Prefect on top of DVC: when, where and how often stages run. The package below knows neither.

Prefect reads its environment once, at its first import, so what every flow here relies on is said before that; what a
person has set already stays.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows.family import FLOW, birth

for _name, _value in {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # a first start creates the database: 17 to 23 s on two cores
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}.items():
    os.environ.setdefault(_name, _value)

# by which the embedded server of a flow that was killed is known
os.environ[FLOW] = f"{os.getpid()} {birth(os.getpid())}"

# stages call `diffretouch`, which lies beside the interpreter, whether or not the environment was activated
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
