"""`diffretouch convert`: a released ldm checkpoint becomes a RetouchPipeline that computes what the original computes.

What nobody could verify without the original's code at hand: that the 96 channels of the grid head are 12 x 8 with the
guide's bins innermost, as its published shape says, and that no ReLU stands before its last convolution.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from torch import Tensor

from diffretouch.errors import UserError
from diffretouch.files.atomic import write_json
from diffretouch.files.workspace import new_dir
from diffretouch.model.build import new_scheduler
from diffretouch.model.ldm_file import read_checkpoint
from diffretouch.model.ldm_keys import PREFIXES, few
from diffretouch.model.ldm_plan import Options, Part, account, fill, parts
from diffretouch.model.pipeline import RetouchPipeline
from diffretouch.model.weights import WEIGHTS_FILE

RECORD = "conversion.json"
CALLS, LAST_TIMESTEP = 20, 200
"""Of the released sampler (Duan 2025)."""
SIGNS = [1.0, 1.0, 1.0, -1.0]
"""The released temperature is cool-positive."""


@dataclass(frozen=True)
class Conversion:
    """What was made of a checkpoint."""

    out: Path
    variance: str
    """Of the sampler."""
    networks: dict[str, Part]
    unused: dict[str, list[str]]
    """Names of tensors, by the reason."""
    beside: list[str]
    """Entries of the checkpoint beside `state_dict`."""


def convert(checkpoint: Path, out: Path, options: Options) -> Conversion:
    """Write the pipeline of `checkpoint` into the folder `out`, which appears whole or not at all.

    Beside the pipeline lies conversion.json: where every tensor of the checkpoint went.

    Raises:
        UserError: `out` holds something, or the checkpoint is not one of DiffRetouch; the message names what is wrong.
    """
    _refuse_full(out)
    state, beside = read_checkpoint(checkpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    networks = parts(shapes, options)
    unused = account(shapes, networks, options.unused)
    scheduler = new_scheduler(options.variance)
    _refuse_other_schedule(state, scheduler.betas)
    for part in networks.values():
        fill(part, state)
    if "scale_factor" in state:
        networks["vae"].network.register_to_config(scaling_factor=state["scale_factor"].item())
    digest = _sha256(checkpoint)
    pipe = RetouchPipeline(
        **{name: part.network for name, part in networks.items()},
        scheduler=scheduler,
        num_inference_steps=CALLS,
        last_timestep=LAST_TIMESTEP,
        condition_signs=SIGNS,
        photo_range="symmetric",
        network_resize="nearest",
        origin={
            "provenance": "converted",
            "licence": options.licence,
            "notes": f"Converted by `diffretouch convert` from {checkpoint.name}, sha256 {digest}.",
        },
    )
    mapped = {name: f"{folder}/{key}" for folder, part in networks.items() for key, name in part.names.items()}
    with _whole_folder(out) as part_folder:
        pipe.save_pretrained(part_folder)
        write_json(
            part_folder / RECORD,
            {"checkpoint": checkpoint.name, "sha256": digest, "mapped": mapped, "unused": unused, "beside": beside},
        )
    return Conversion(out, options.variance, networks, unused, beside)


def print_conversion(made: Conversion, console: Console | None = None) -> None:
    """A table of what went where, what was not used, and what to do with the result."""
    console = console or Console(soft_wrap=True)
    table = Table("from", "to", title="tensors of state_dict", title_justify="left", title_style="bold")
    table.add_column("tensors", justify="right")
    table.add_column("parameters", justify="right")
    for folder, part in made.networks.items():
        table.add_row(f"{PREFIXES[folder]}*", folder, str(len(part.names)), f"{part.parameters:,}")
    tensors = sum(len(part.names) for part in made.networks.values())
    table.add_row("mapped", "", str(tensors), f"{sum(part.parameters for part in made.networks.values()):,}")
    console.print(table)
    lines = [f"not used: {len(names)} {reason}: {few(names)}" for reason, names in made.unused.items()]
    if made.beside:
        lines.append(f"not used: {len(made.beside)} entries beside state_dict: {few(made.beside)}")
    unet, vae = (_sha256(made.out / folder / WEIGHTS_FILE) for folder in ("unet", "vae"))
    lines += [
        f"sampler: {CALLS} calls from timestep 999 to {LAST_TIMESTEP}, variance {made.variance}",
        f"{made.out} is written; {made.out / RECORD} says where every tensor went",
        "next: train on from it, in params.yaml's train section:",
        f"  start: {{source: {made.out}, sha256: {unet}}}",
        f"  autoencoder.sha256: {vae}",
        f"or use it in Python: diffretouch.model.RetouchPipeline.from_pretrained({str(made.out)!r})",
    ]
    console.print("\n".join(lines), markup=False, highlight=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_full(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and not empty: name a new folder, or move that one away")


def _refuse_other_schedule(state: Mapping[str, Tensor], betas: Tensor) -> None:
    """The sampler's noise schedule is the checkpoint's own where it carries one."""
    if "betas" not in state:
        return
    found = state["betas"].float()
    if found.shape != betas.shape or not torch.allclose(found, betas, rtol=1e-4, atol=0):
        raise UserError(
            f"the checkpoint's noise schedule ({len(found)} betas from {found[0]:.6f} to {found[-1]:.6f}) is not the "
            f"sampler's, Stable Diffusion's ({len(betas)} from {betas[0]:.6f} to {betas[-1]:.6f})"
        )


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends without error; a killed run's is replaced."""
    out = out.resolve()
    part = new_dir(out.with_name(f".{out.name}.part"))
    try:
        yield part
        for path in (*part.rglob("*"), part):
            opened = os.open(path, os.O_RDONLY)
            os.fsync(opened)
            os.close(opened)
        part.replace(out)  # also where an empty folder is
    except SafetensorError as error:
        raise UserError(f"{out} cannot be written ({error}); run the same command again once mended") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
