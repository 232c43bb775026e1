"""Damage that files meet, the same for the same seed: flipped bits, missing ends, zeroed blocks, strange headers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

HEADER = 4096
"""Most of what a RAW file says about itself stands in its first bytes; half of the damage goes there."""
ENTRY = 12
"""Bytes of a TIFF directory's entry: code, type, count, and a value or where it stands (TIFF 6.0, section 2)."""

Mutation = Callable[[bytes, bytes, np.random.Generator], bytes]
"""From the file's content, another file's content and a generator to the damaged content."""


def mutants(paths: Sequence[Path], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files (name, content): each kind of damage by turns, to files of `paths` drawn at random.

    The n-th depends on the files' order, the seed and n alone; its name says n, the damage and the file.
    """
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        kind = list(MUTATIONS)[number % len(MUTATIONS)]
        path, other = (paths[int(rng.integers(len(paths)))] for _ in range(2))
        yield f"{number:03d}-{kind}-{path.name}", MUTATIONS[kind](path.read_bytes(), other.read_bytes(), rng)


def few_bits(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """One to eight flipped bits, in the header or anywhere."""
    return _flipped(content, int(rng.integers(1, 9)), rng)


def many_bits(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """Up to one flipped bit in every hundred bytes, in the header or anywhere."""
    return _flipped(content, int(rng.integers(9, max(10, len(content) // 100))), rng)


def cut(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """The file's beginning: any length from nothing to a byte less."""
    return content[: int(len(content) * rng.random())]


def zeroed(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros, as a disk with unreadable sectors leaves it."""
    start = int(_reach(content, rng) * rng.random())
    size = min(int(rng.integers(16, 65536)), len(content) - start)
    return content[:start] + bytes(size) + content[start + size :]


def other_header(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Another file's first bytes on this one's body."""
    size = int(rng.integers(8, HEADER))
    return other[:size] + content[size:]


def shuffled_values(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """The values of the first TIFF directory's entries dealt out anew; without one, the header's 32-bit words."""
    starts = np.arange(8, min(HEADER, len(content)) - 3, 4)
    if content[:4] in (b"II*\0", b"MM\0*"):
        order = "<" if content[:2] == b"II" else ">"
        (directory,) = struct.unpack_from(f"{order}I", content, 4)
        if directory + 2 <= len(content):
            (entries,) = struct.unpack_from(f"{order}H", content, directory)
            starts = directory + 2 + ENTRY * np.arange(entries) + ENTRY - 4
    starts = starts[starts + 4 <= len(content)]
    damaged = bytearray(content)
    for start, source in zip(starts.tolist(), rng.permutation(starts).tolist(), strict=True):
        damaged[start : start + 4] = content[source : source + 4]
    return bytes(damaged)


def _reach(content: bytes, rng: np.random.Generator) -> int:
    return len(content) if rng.random() < 0.5 else min(HEADER, len(content))


def _flipped(content: bytes, count: int, rng: np.random.Generator) -> bytes:
    damaged = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(8 * _reach(content, rng), size=count)
    np.bitwise_xor.at(damaged, places // 8, (1 << places % 8).astype(np.uint8))
    return damaged.tobytes()


MUTATIONS: dict[str, Mutation] = {
    "few-bits": few_bits,
    "many-bits": many_bits,
    "cut": cut,
    "zeroed": zeroed,
    "other-header": other_header,
    "shuffled-values": shuffled_values,
}
