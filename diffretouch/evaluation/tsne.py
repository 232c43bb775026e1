"""Figure 1 of the paper: where results with ever larger c land among ground truths and inputs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from diffretouch.files.figures import INK, style

KINDS = {
    "input": ("inputs", "#d3694f", "X", 42),
    "ground_truth": ("experts' results", INK, "o", 26),
    "random_0_1": ("ours, |c| in [0,1]", "#e8a53c", "o", 16),
    "random_1_2": ("ours, |c| in (1,2]", "#6fa8c9", "o", 16),
    "random_2_3": ("ours, |c| in (2,3]", "#5f6fb5", "o", 16),
}
"""Kind of picture -> its words in the legend, colour, mark and size."""


def project(features: NDArray[np.float64], *, perplexity: float, iterations: int, seed: int) -> NDArray[np.float64]:
    """(N,F) -> (N,2) by t-SNE started from the principal components; perplexity is lowered where N is small."""
    model = TSNE(
        init="pca",
        learning_rate="auto",
        perplexity=min(perplexity, (len(features) - 1) / 3),
        max_iter=iterations,
        random_state=seed,
        n_jobs=1,
    )
    # threads add up in any order, and t-SNE makes much of the last bit
    with threadpool_limits(1):
        return model.fit_transform(features).astype(np.float64)


def figure(table: pd.DataFrame, *, title: str) -> Figure:
    """Scatter of tsne.csv's x and y by kind, with the share of each range whose nearest neighbour is a ground truth."""
    with style():
        drawn, axes = plt.subplots(figsize=(6.6, 5.2))
        for kind, (words, colour, mark, size) in KINDS.items():
            own = table[table["kind"] == kind]
            share = (own["nearest"] == "ground_truth").mean() if len(own) else 0.0
            label = f"{words} ({share:.0%} next to an expert's)" if kind.startswith("random") else words
            axes.scatter(own["x"], own["y"], c=colour, marker=mark, s=size, alpha=0.85, linewidths=0, label=label)
        axes.set(title=title, xticks=[], yticks=[])
        axes.grid(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, handletextpad=0.2, columnspacing=1.2)
        drawn.tight_layout()
    return drawn
