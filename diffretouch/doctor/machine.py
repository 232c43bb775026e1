"""The processor's and the GPU's memory against what training by params.yaml takes at the very least."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

import psutil

from diffretouch.config import Params, Train
from diffretouch.doctor.finding import Finding, size_text
from diffretouch.doctor.versions import INSTALL

IN, OUT, TOKEN = 7, 8, 4
"""Channels of the U-Net: latents of noise and photo with the mask, noise and its affine, and the width of c."""
BYTES = {"adamw": 4 + 4 + 8 + 4, "adamw8bit": 4 + 4 + 2 + 4}
"""A parameter: itself, its gradient, the optimiser's two moments, the moving average; fp32, also under bf16."""
TIGHT = 0.5
"""Above this share of the memory the activations are unlikely to fit."""


class Gpu(NamedTuple):
    """A GPU as its driver tells."""

    name: str
    memory: int
    """Bytes."""


def gpus() -> list[Gpu]:
    """The GPUs that nvidia-smi lists: torch would tell too, and takes five seconds to import. None where it hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return []
    rows = [line.rsplit(",", 1) for line in done.stdout.splitlines() if done.returncode == 0 and "," in line]
    return [Gpu(name.strip(), int(memory) * 2**20) for name, memory in rows if memory.strip().isdigit()]


def unet_parameters(train: Train) -> int:
    """Parameters of the U-Net, layer by layer as diffusers' UNet2DConditionModel is built, for a token of width 4."""
    first, layers = train.channels[0], train.layers_per_block
    time = 4 * first

    def block(wide_in: int, wide: int) -> int:
        norms = 2 * wide_in + 2 * wide
        convolutions = 9 * wide_in * wide + wide + 9 * wide * wide + wide
        shortcut = 0 if wide_in == wide else wide_in * wide + wide
        return norms + convolutions + time * wide + wide + shortcut

    def attend(wide: int) -> int:
        projections = 2 * wide + 2 * (wide * wide + wide)
        itself = 4 * wide * wide + wide
        token = 2 * wide * wide + wide + 2 * TOKEN * wide
        forward = 8 * wide * wide + 8 * wide + 4 * wide * wide + wide
        return projections + 6 * wide + itself + token + forward

    total = first * time + time + time * time + time
    total += 9 * IN * first + first + 2 * first + 9 * first * OUT + OUT
    skips, wide_in = [first], first
    for level, wide in enumerate(train.channels):
        for _ in range(layers):
            total += block(wide_in, wide) + (attend(wide) if train.attention[level] else 0)
            wide_in = wide
            skips.append(wide)
        if level < len(train.channels) - 1:
            total += 9 * wide * wide + wide
            skips.append(wide)
    total += 2 * block(wide_in, wide_in) + attend(wide_in)
    for level in reversed(range(len(train.channels))):
        wide = train.channels[level]
        for _ in range(layers + 1):
            total += block(wide_in + skips.pop(), wide) + (attend(wide) if train.attention[level] else 0)
            wide_in = wide
        total += 9 * wide * wide + wide if level > 0 else 0
    return total


def check_machine(params: Params, found: list[Gpu] | None = None, ram: int | None = None) -> list[Finding]:
    """The device that will be used, and whether the least that training takes fits into it."""
    cards = gpus() if found is None else found
    wanted, build = params.runtime.device, version("torch")
    parameters = unet_parameters(params.train)
    least = parameters * BYTES[params.train.optimiser]
    needs = f"weights, gradients, optimiser and average of {parameters / 1e6:.0f} M parameters take {size_text(least)}"
    if wanted == "cuda" and not cards:
        return [
            Finding(
                "fault", "GPU", "runtime.device is cuda, and nvidia-smi lists none", "set it to auto in params.yaml"
            )
        ]
    if cards and wanted != "cpu" and "+cpu" in build:
        mend = "python -m pip install --force-reinstall torch==" + build.partition("+")[0]
        return [Finding("fault", "GPU", f"{cards[0].name} is here, but torch {build} cannot use it", mend)]
    uses_gpu = bool(cards) and wanted != "cpu"
    memory = min(card.memory for card in cards) if uses_gpu else ram or psutil.virtual_memory().total
    place = (
        f"{len(cards)} x {cards[0].name}, {size_text(memory)}"
        if uses_gpu
        else f"no GPU in use, {size_text(memory)} of RAM"
    )
    mend = "train.optimiser adamw8bit, smaller train.channels, or diffretouch profile cpu"
    if least > memory:
        return [Finding("fault", "memory", f"{needs}, more than there is ({place})", mend)]
    words = f"{needs}, activations not counted; {place}"
    tight = least > TIGHT * memory
    found_ = [Finding("note", "memory", words, mend) if tight else Finding("good", "memory", words)]
    if uses_gpu and params.runtime.processes > len(cards):
        words = f"runtime.processes is {params.runtime.processes}, and there are {len(cards)} GPUs"
        found_.append(Finding("fault", "GPU", words, f"set it to {len(cards)} in params.yaml"))
    found_ += _missing(params, uses_gpu)
    if not uses_gpu and parameters > 100e6:
        words = f"{parameters / 1e6:.0f} M parameters would train on the CPU: some 10 s a picture and step"
        found_.append(Finding("note", "GPU", words, "diffretouch profile cpu, or a machine with a GPU"))
    return found_


def _missing(params: Params, uses_gpu: bool) -> list[Finding]:
    """What settings of params.yaml need beyond this package's own requirements."""
    found = []
    compilers = (os.environ.get("CC"), "gcc", "clang") if uses_gpu else (os.environ.get("CXX"), "g++", "clang++")
    if params.runtime.compile and not any(name and shutil.which(name) for name in compilers):
        words = f"runtime.compile is on, and there is no compiler here: neither {' nor '.join(compilers[1:])}"
        found.append(Finding("fault", "compiler", words, "install one, or set runtime.compile to false"))
    if params.train.optimiser == "adamw8bit" and find_spec("bitsandbytes") is None:
        words = "train.optimiser is adamw8bit, and bitsandbytes is missing"
        found.append(Finding("fault", "packages", words, f"{INSTALL} -e '.[adamw8bit]', or set it to adamw"))
    return found
