"""The optimiser of `train.optimiser`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from diffretouch.config import Train
from diffretouch.errors import ConfigError


def new_optimiser(groups: list[dict[str, Any]], settings: Train) -> torch.optim.Optimizer:
    """AdamW over `groups` of parameters; ConfigError where 8-bit averages are asked for and cannot be had."""
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "train.optimiser adamw8bit needs the package bitsandbytes, which is not installed: "
            "`pip install -c constraints.txt -e '.[adamw8bit]'`, or set it to adamw"
        )
    import bitsandbytes  # type: ignore[import-not-found]

    return bitsandbytes.optim.AdamW8bit(groups, weight_decay=settings.weight_decay)
