"""The device of `runtime.device`."""

from __future__ import annotations

import torch

from diffretouch.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """`auto` takes a GPU when there is one; ConfigError when cuda is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device is cuda, but torch sees no GPU here: set it to auto or cpu in params.yaml")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on `device`. A GPU is not waited for: it may still be at work on what came before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def compute_alike(device: torch.device) -> None:
    """Have this process's training repeat bit for bit on a CPU.

    A GPU has no deterministic gradient of the slicing, so there it repeats to rounding whatever the other operations
    do, and their slower forms would buy nothing.
    """
    torch.use_deterministic_algorithms(device.type == "cpu")
    # else every new tensor is filled first, against code that reads what it has not written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
