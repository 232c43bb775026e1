"""One random generator for each thing that is drawn, named by what it is for: no global random state.

A draw depends on its name alone, so neither the batch, nor the order, nor a restart can move it.
"""

from __future__ import annotations

import hashlib

import torch


def seed_of(*name: str | int) -> int:
    """A 63-bit seed from a name such as (seed, dataset, photo_id, sweep, sample)."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*name: str | int) -> torch.Generator:
    """A CPU generator seeded with `seed_of(*name)`."""
    return torch.Generator().manual_seed(seed_of(*name))
