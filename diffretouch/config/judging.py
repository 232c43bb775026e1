"""Sections about what a trained model does: `sample`, `evaluate`, `embed`, `study`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from diffretouch.config.base import FIRST_TIMESTEP, Positive, Section, Timestep


class Sample(Section):
    """The sweeps."""

    seed: int
    scheduler: Literal["ddpm"]
    steps: Positive
    """U-Net calls a picture."""
    last_timestep: Timestep
    """Timestep of the last call, whose grid is the result; the first of several is at 999."""
    random_draws: Positive
    """Random c a photo for each of the ranges [0,1], (1,2], (2,3]."""
    axis_points: int = Field(ge=3)
    """Points from -1 to 1 along each attribute, other c = 0, the same noise."""
    batch_size: Positive
    precision: Literal["fp32", "bf16", "fp16"]
    """Of the U-Net's arithmetic, as in the paper fp16 on a GPU; weights, noise, grid and pictures stay in fp32."""
    splits: tuple[Literal["val", "test"], ...]
    """Splits that are sampled; test is what the report shows, so it must be one of them."""

    @model_validator(mode="after")
    def _steps(self) -> Sample:
        if FIRST_TIMESTEP - self.last_timestep < self.steps - 1:
            raise ValueError(f"{self.steps} steps do not fit between {FIRST_TIMESTEP} and {self.last_timestep}")
        if "test" not in self.splits:
            raise ValueError(f"splits {list(self.splits)} must hold test: reports are about the test photos")
        return self


class Lpips(Section):
    """LPIPS needs its backbone's weights; without them the metric is absent."""

    net: Literal["alex", "vgg"]
    backbone: Path | None
    """File with torchvision's weights of that backbone; null leaves LPIPS out."""
    sha256: str | None


class Evaluate(Section):
    """Metrics and their intervals."""

    bootstrap: Positive
    """Resamples of the groups."""
    confidence: float = Field(gt=0, lt=1)
    seed: int
    lpips: Lpips


class Embed(Section):
    """Style features and t-SNE."""

    seed: int
    perplexity: float = Field(gt=0)
    iterations: int = Field(ge=250)


class Study(Section):
    """Blinded pairs."""

    seed: int
    pairs_a_photo: Positive
    repeats: int = Field(ge=0)
    """Pairs shown a second time, sides swapped, to measure a rater's consistency."""
    long_edge: Positive
    """Pictures are reduced to this many pixels on the long edge."""


class Report(Section):
    """The page."""

    title: str
    photos: Positive
    """Test photos shown in full for each dataset."""
    long_edge: Positive
    """Pixels on the long edge of a picture on the page."""
    jpeg_quality: int = Field(ge=30, le=100)
