"""The section `compare`: ablations and deterministic peers, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from diffretouch.config.base import Positive, Section

ArmName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
"""Of a folder and of a row: small letters, digits, underscores."""


class Arm(Section):
    """One way to retouch, trained and measured like the others; it ends by its steps, whatever they cost."""

    words: str
    """What it is, for the page."""
    network: Literal["diffretouch", "hdrnet", "lut3d", "csrnet"]
    """Ours, or a deterministic peer: Gharbi 2017, Zeng 2020, He 2020."""
    experts: Literal["all", "one"]
    """Whose results it learns: all, pooled; or those of `compare.expert` alone, which only a peer can."""
    train: dict[str, Any]
    """What is different from the section `train`."""
    sample: dict[str, Any]
    """What is different from the section `sample`."""

    @model_validator(mode="after")
    def _one(self) -> Arm:
        if self.network == "diffretouch" and self.experts == "one":
            raise ValueError("experts: one is for peers; diffretouch learns from all of them")
        return self


class Compare(Section):
    """Ablations and peers, each trained with every seed on the same prepared photos."""

    seeds: tuple[int, ...] = Field(min_length=1)
    """Of training (they replace train.seed); numbers are means over them."""
    judged: str
    """The arm that the page's verdict is about."""
    expert: str
    """Letter of the expert that arms with `experts: one` learn, and that pictures show."""
    best_of: Positive
    """N of best of N: of so many random c, and random adjustments of a peer's result, the best counts."""
    draws: Positive
    """Random c that are tried, `best_of` at least: best of N is its mean over every choice of N of them, which depends
    less on luck the more are tried; photos times `draws` pictures are made."""
    slider: Literal["colorfulness", "brightness", "contrast", "temperature"]
    """The slider that the pictures move."""
    photos: Positive
    """Test photos that the page shows."""
    arms: dict[ArmName, Arm]

    @model_validator(mode="after")
    def _enough(self) -> Compare:
        if self.draws < self.best_of:
            raise ValueError(f"draws {self.draws} is less than best_of {self.best_of}: best of N needs N at least")
        return self

    @model_validator(mode="after")
    def _judged(self) -> Compare:
        if self.arms and self.judged not in self.arms:
            raise ValueError(f"judged names the arm {self.judged!r}, but arms has {', '.join(self.arms)}")
        if self.arms and self.arms[self.judged].network != "diffretouch":
            raise ValueError(f"judged names {self.judged!r}, a peer: sliders can only be judged where there are some")
        return self

    def other_control(self, default: str) -> list[str]:
        """Arms of ours whose control loss is not the judged one's; `default` is that of an arm that names none."""
        losses = {n: a.train.get("control_loss", default) for n, a in self.arms.items() if a.network == "diffretouch"}
        return [name for name, loss in losses.items() if loss != losses[self.judged]]
