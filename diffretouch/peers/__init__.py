"""Deterministic retouchers that DiffRetouch is compared with, as networks and how they learn."""

from __future__ import annotations

import torch

from diffretouch.peers.csrnet import CSRNet
from diffretouch.peers.hdrnet import HDRNet
from diffretouch.peers.lut3d import AdaptiveLut
from diffretouch.peers.peer import Peer
from diffretouch.seeds import seed_of

PEERS: dict[str, type[Peer]] = {"hdrnet": HDRNet, "lut3d": AdaptiveLut, "csrnet": CSRNet}


def new_peer(name: str, seed: int) -> Peer:
    """An untrained peer of the published size; its weights depend on its name and `seed` alone."""
    if name not in PEERS:
        raise ValueError(f"unknown peer {name!r}: there are {', '.join(PEERS)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, "peer", name))
        return PEERS[name]()
