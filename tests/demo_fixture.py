"""The demo corpora, written once a session, and what the difficulty tests measure on them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, identity, kron, vstack
from scipy.sparse.linalg import cg

from diffretouch.attributes import scores
from diffretouch.condition import expert_range, just_noticeable, photo_range
from diffretouch.config import load
from diffretouch.corpus.demo import CORPORA, Corpus, write_demo
from diffretouch.corpus.demo_tables import look_up, srgb_from_linear
from diffretouch.files.pictures import read_srgb
from diffretouch.files.raw import decode
from tests.fake_chain import ROOT

Array = NDArray[np.float64]
ATTRIBUTES = load(ROOT / "params.yaml").attributes


@dataclass(frozen=True)
class Measured:
    """One photo as the stages see it: decoded input and experts in sRGB, their scores and c."""

    photo_id: str
    group: str
    test: bool
    input: NDArray[np.float32]
    experts: NDArray[np.float32]
    half: Array
    c: Array

    @property
    def mean(self) -> NDArray[np.float32]:
        """The per-photo average of the experts."""
        return self.experts.mean(0)


def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both demo corpora in full, written once a session."""
    root = tmp_path_factory.getbasetemp() / "demo-data"
    if not root.exists():
        write_demo(root)
    return root


@cache
def measured(root: Path, dataset: str) -> tuple[Measured, ...]:
    """Every photo of `root`/`dataset`, decoded as the stages do."""
    corpus = next(corpus for corpus in CORPORA if corpus.name == dataset)
    return tuple(_photo(root / dataset, corpus, index) for index in range(len(corpus.shots)))


def _photo(folder: Path, corpus: Corpus, index: int) -> Measured:
    shot = corpus.shots[index]
    prefix = "tiff16" if corpus.name == "fivek" else "target"
    experts = np.stack([read_srgb(folder / f"{prefix}_{letter}" / f"{shot.photo_id}.tif") for letter in corpus.tastes])
    developed = look_up(srgb_from_linear(), decode(folder / corpus.raw / f"{shot.photo_id}.dng").rgb_linear)
    score = scores(torch.from_numpy(np.ascontiguousarray(experts.transpose(0, 3, 1, 2))), ATTRIBUTES.size).double()
    middle, half = photo_range(score)
    c = expert_range(score, just_noticeable(middle, ATTRIBUTES))
    return Measured(shot.photo_id, shot.group, shot.split == "test", developed, experts, half.numpy(), c.numpy())


def psnr(a: NDArray, b: NDArray) -> float:
    """dB, peak 1."""
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2)))


def in_val(group: str) -> bool:
    """The rule that carves val from train."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32 < 0.15


def curve_basis(values: NDArray, knots: int = 17) -> Array:
    """Piecewise-linear hats (N, knots) of values (N,) in [0, 1]."""
    place = values.astype(np.float64)[:, None] * (knots - 1)
    return np.maximum(0, 1 - np.abs(place - np.arange(knots)))


def lut_basis(pixels: NDArray, side: int = 9) -> csr_matrix:
    """Trilinear weights (N, side^3), sparse, of pixels (N, 3) in [0, 1]."""
    place = pixels.astype(np.float64) * (side - 1)
    cell = np.clip(place.astype(int), 0, side - 2)
    part = place - cell
    rows, columns, weights = [], [], []
    for corner in np.ndindex(2, 2, 2):
        rows.append(np.arange(len(pixels)))
        columns.append(np.ravel_multi_index((cell + corner).T, (side,) * 3))
        weights.append(np.where(corner, part, 1 - part).prod(1))
    data = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    return csr_matrix(data, shape=(len(pixels), side**3))


def fit_lut(basis: csr_matrix, target: NDArray, side: int = 9, smoothness: float = 1e-3) -> Array:
    """Least-squares 3D LUT (side^3, 3) with a smoothness prior about the identity, so that unseen cells stay sane."""
    step = diags([-np.ones(side - 1), np.ones(side - 1)], [0, 1], shape=(side - 1, side))
    one = identity(side)
    slopes = vstack([kron(kron(step, one), one), kron(kron(one, step), one), kron(kron(one, one), step)])
    normal = basis.T @ basis + smoothness * len(target) / side**2 * (slopes.T @ slopes)
    grey = np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    rest = target.astype(np.float64) - basis @ grey
    return np.stack([grey[:, i] + cg(normal, basis.T @ rest[:, i], maxiter=300)[0] for i in range(3)], 1)


def low_resolution(deviation: NDArray) -> Array:
    """8 x 8 blocks x RGB of (K, H, W, 3), flattened: (K, 192)."""
    count, height, width, _ = deviation.shape
    rows, columns = np.linspace(0, height, 9).astype(int), np.linspace(0, width, 9).astype(int)
    sums = np.add.reduceat(np.add.reduceat(deviation.astype(np.float64), rows[:-1], 1), columns[:-1], 2)
    areas = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return (sums / areas[None, :, :, None]).reshape(count, -1)


def explained_share(photos: tuple[Measured, ...]) -> tuple[float, float]:
    """Share of the experts' low-resolution variance about their mean that a map linear in c explains.

    The map (4 -> 192) is fitted by least squares on the photos that are not test: on test photos, and on those others.
    """
    deviation = {p.photo_id: low_resolution(p.experts - p.mean) for p in photos}
    centred = {p.photo_id: p.c - p.c.mean(0) for p in photos}
    train, test = [p.photo_id for p in photos if not p.test], [p.photo_id for p in photos if p.test]
    stack = np.concatenate
    linear = np.linalg.lstsq(stack([centred[i] for i in train]), stack([deviation[i] for i in train]), rcond=None)[0]

    def share(names: list[str]) -> float:
        rest = stack([deviation[i] - centred[i] @ linear for i in names])
        return 1 - float((rest**2).sum() / (stack([deviation[i] for i in names]) ** 2).sum())

    return share(test), share(train)
