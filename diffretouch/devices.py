"""The device of `runtime.device`."""

from __future__ import annotations

import torch

from diffretouch.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """`auto` takes a GPU when there is one; ConfigError when cuda is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device is cuda, but torch sees no GPU here: set it to auto or cpu in params.yaml")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
