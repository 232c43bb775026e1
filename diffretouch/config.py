"""The one schema of `params.yaml`: frozen, extra keys forbidden, a line for every field with its unit.

`runtime` says how the work is done and no stage tracks it; every other section is tracked by the DVC stage of the same
name, and `corpora.<dataset>` by every stage of that dataset.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diffretouch.errors import ConfigError

PARAMS = Path("params.yaml")
FIRST_TIMESTEP = 999
"""Where sampling starts."""

Attribute = Literal["colorfulness", "brightness", "contrast", "temperature"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Timestep = Annotated[int, Field(ge=0, le=999)]


class Section(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Split(Section):
    """A committed rule on ids, which new photos cannot move, or a list."""

    test_from: Positive
    """A photo is test when the first number in its id (fivek: aNNNN; ppr10k: the group) is at least this."""
    val_share: Share
    """Of the other photos, the share of groups that become val, chosen by a hash of the group's name."""
    list: str | None
    """A CSV inside data/<dataset>/ with the columns photo_id and split, which then replaces the rule: photos that it
    does not name are left out; null for the rule."""


class Corpus(Section):
    """What differs between datasets."""

    experts: tuple[str, ...] = Field(min_length=2)
    """Letters of the experts; fivek reads `tiff16_<letter>/`, ppr10k `target_<letter>/`."""
    split: Split
    short_edge: Positive | None
    """Pictures are reduced so that their short edge has this many pixels; null keeps the decoded size."""
    untagged: Literal["srgb", "prophoto", "adobe_rgb", "display_p3"]
    """Colour space of a picture that carries no ICC profile; how many there were is printed."""
    sampler_variance: Literal["fixed_small", "fixed_large"]
    """Posterior variance of the ancestral sampler (METHOD: fixed_small for FiveK, fixed_large for PPR10K)."""


class PictureFile(Section):
    """How decoded pictures are kept."""

    format: Literal["tif", "png"]
    """tif is deflated with a predictor."""
    bits: Literal[8, 16]
    """Bits a channel; masks always have 8."""


class Decode(Section):
    """RAW, or a rendered input, and the experts' pictures to sRGB of one size."""

    profile: str
    """Name and version of this rendering, carried into every report."""
    input: Literal["raw", "rendered"]
    """raw develops dng/ or raw/; rendered reads exports (a Lightroom's) from rendered/ (fivek) or source/ (ppr10k)."""
    demosaic: Literal["LINEAR", "VNG", "PPG", "AHD", "DCB", "DHT", "AAHD"]
    """LibRaw's demosaicking algorithm."""
    highlights: Literal["Clip", "Ignore"]
    """LibRaw's highlight mode; Ignore scales light down so that nothing clips. Blend is not offered: it shifts
    brightness."""
    half_size: bool
    """Develop at half size (one pixel from each 2x2 cell, no demosaicking) where the target is at most that large."""
    baseline_exposure: bool
    """Honour a DNG's BaselineExposure: light is multiplied by two to its power, and clipped at white."""
    picture: PictureFile
    registration: Annotated[float, Field(gt=0)] | None
    """Largest shift in pixels between a photo and its expert's picture, at decoded size; null leaves it unchecked."""
    cpu_seconds: Positive
    """CPU time a photo may take before it is given up: damaged files can keep LibRaw busy for ever."""
    max_quarantined_share: Share
    """The stage fails when more photos than this share cannot be used."""


class JustNoticeable(Section):
    """Half-ranges under which the experts count as agreeing (c = 0)."""

    colorfulness: float = Field(gt=0)
    """In units of the score."""
    brightness: float = Field(gt=0)
    """In units of the score."""
    contrast: float = Field(gt=0)
    """As a share of the middle of the experts' scores."""
    temperature: float = Field(gt=0)
    """In mired."""


class Attributes(Section):
    """Scores of every ground truth and the condition c made from them."""

    size: Positive
    """Side in pixels of the square every picture is resized to before it is scored; also where training compares."""
    scheme: Literal["expert_range", "ternary", "deviation", "quantile"]
    """How c follows from the scores of one photo's experts."""
    just_noticeable: JustNoticeable


class Autoencoder(Section):
    """Where the frozen autoencoder comes from, or how a small one is fitted."""

    source: str | None
    """A local folder or hub id of a diffusers AutoencoderKL; null fits a small one in this stage."""
    sha256: str | None
    """Checksum of its safetensors file; required with a source."""
    channels: tuple[Positive, Positive, Positive, Positive]
    """Widths of the fitted one: four levels, hence a factor of 8."""
    steps: Positive
    """Optimiser steps of the fit."""
    batch_size: Positive
    crop: Positive
    """Side in pixels of the random crops it is fitted on."""
    learning_rate: float = Field(gt=0)

    @model_validator(mode="after")
    def _checksum(self) -> Autoencoder:
        if self.source is not None and self.sha256 is None:
            raise ValueError("a source needs the sha256 of its diffusion_pytorch_model.safetensors beside it")
        return self


class Train(Section):
    """The network, its losses and its optimiser (METHOD sections 1 and 3)."""

    seed: int
    steps: Positive
    """Optimiser steps; training ends by steps, never by the clock."""
    batch_size: Positive
    """Ground truths a step."""
    network_size: Positive
    """Side in pixels of the square the network sees; latents are an eighth of it."""
    channels: tuple[Positive, ...]
    """Width of the U-Net at each level."""
    attention: tuple[bool, ...]
    """Whether a level attends (and so sees c), one value a level."""
    layers_per_block: Positive
    head_channels: Positive
    """Channels of an attention head."""
    norm_groups: Positive
    grid_depth: Positive
    """Guide bins of the bilateral grid."""
    condition: Literal["expert", "none"]
    """none trains the same network blind to c (the ablation)."""
    condition_gain: float = Field(gt=0)
    """c is multiplied by this before it enters the network."""
    timesteps: tuple[Timestep, Timestep]
    """Lowest and highest training timestep; the sampler's last call must lie inside."""
    pixel_weight: float = Field(ge=0)
    """beta: weight of the pixel loss (means over elements, pictures in [-1,1])."""
    control_loss: Literal["none", "published", "ours"]
    """L_cl: METHOD section 3."""
    control_weight: float = Field(ge=0)
    """lambda."""
    grid_smoothness: float = Field(ge=0)
    """Weight of the mean squared difference between neighbouring cells of the grid, in the plane."""
    tau: float = Field(gt=0)
    """Temperature of the published L_cl, on scores scaled by the experts' mean half-range."""
    learning_rate: float = Field(gt=0)
    """Of the U-Net."""
    head_learning_rate: float = Field(gt=0)
    """Of the parts that are new beside a pretrained U-Net: grid head and guide."""
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    ema_decay: Share
    flips: bool
    """Mirror photo and expert together, left to right, half the time."""
    views: Positive
    """Views of a training photo: the whole, and views - 1 fixed crops with scores and c of their own."""
    input_exposure: float = Field(ge=0)
    """Largest exposure error put on the photo (not on the experts' results), in stops, in linear light."""
    input_white_balance: float = Field(ge=0, lt=1)
    """Largest error put on the photo's red and blue gains, as a share."""
    log_every: Positive
    """Steps between points of the curves."""
    validate_every: Positive
    """Steps between measurements on the validation photos."""
    validation_steps: Positive
    """U-Net calls a picture in those measurements, and a saved model's default: must equal sample.steps."""
    validation_last_timestep: Timestep
    """Timestep of their last call, and a saved model's default: must equal sample.last_timestep."""
    checkpoint_every: Positive
    """Steps between resumable states in work/.resume."""
    autoencoder: Autoencoder

    @model_validator(mode="after")
    def _shape(self) -> Train:
        if len(self.channels) != len(self.attention):
            raise ValueError(f"channels has {len(self.channels)} levels but attention {len(self.attention)}")
        low, high = self.timesteps
        if low > high:
            raise ValueError(f"timesteps {self.timesteps} must be [lowest, highest]")
        if not low <= self.validation_last_timestep <= high:
            raise ValueError(
                f"validation_last_timestep {self.validation_last_timestep} lies outside timesteps [{low}, {high}]: "
                "the grid of that call would come from a timestep never trained"
            )
        # latents are an eighth, each U-Net level below the first halves them, the grid is a quarter of them
        unit = 8 * max(4, 2 ** (len(self.channels) - 1))
        if self.network_size % unit:
            raise ValueError(f"network_size {self.network_size} must be a multiple of {unit} for these channels")
        if self.autoencoder.crop > self.network_size:
            raise ValueError(
                f"autoencoder.crop {self.autoencoder.crop} is larger than network_size {self.network_size}"
            )
        odd = [c for c in (*self.channels, *self.autoencoder.channels) if c % self.norm_groups]
        if odd:
            raise ValueError(f"widths {odd} are not multiples of norm_groups {self.norm_groups}")
        return self


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


class Runtime(Section):
    """How the work is done, not what: no stage tracks it. Threads and device may move the last digits of a result."""

    device: Literal["auto", "cpu", "cuda"]
    threads: Positive
    """CPU threads of torch in one process."""
    workers: Positive
    """Processes that decode or measure at the same time."""
    memory_gib: float = Field(gt=0)
    """Photos are decoded at the same time only while their memory together stays below this (process executor)."""
    executor: Literal["process", "dask"]
    """Where decode's photos are worked on: processes of this machine, or the workers of a dask scheduler."""
    scheduler: str | None
    """Address of the dask scheduler, tcp://host:8786; its workers see this folder under the same path."""

    @model_validator(mode="after")
    def _scheduler(self) -> Runtime:
        if self.executor == "dask" and self.scheduler is None:
            raise ValueError(
                "executor dask needs a scheduler address: start `dask scheduler` and, on every machine, "
                "`dask worker ADDRESS --nthreads 1`, then set scheduler: tcp://host:8786"
            )
        return self


class Params(Section):
    """All of `params.yaml`."""

    datasets: tuple[str, ...]
    """The matrix of `dvc.yaml`."""
    corpora: dict[str, Corpus]
    decode: Decode
    attributes: Attributes
    train: Train
    sample: Sample
    evaluate: Evaluate
    embed: Embed
    study: Study
    report: Report
    runtime: Runtime

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        missing = [name for name in self.datasets if name not in self.corpora]
        if missing:
            raise ValueError(f"datasets names {missing}, but corpora has only {sorted(self.corpora)}")
        validated = self.train.validation_steps, self.train.validation_last_timestep
        sampled = self.sample.steps, self.sample.last_timestep
        if validated != sampled:
            raise ValueError(
                f"train.validation_steps and .validation_last_timestep {validated} differ from sample.steps and "
                f".last_timestep {sampled}: validation would judge another sampler than the one in use"
            )
        return self

    def corpus(self, dataset: str) -> Corpus:
        """The corpus section of `dataset`; ConfigError names the known ones."""
        if dataset not in self.datasets:
            raise ConfigError(f"unknown dataset {dataset!r}: {PARAMS} has {', '.join(self.datasets)}")
        return self.corpora[dataset]


def load(path: Path = PARAMS) -> Params:
    """Read and check a params file; raises ConfigError with every fault, its place and what is allowed there."""
    if not path.exists():
        raise ConfigError(f"{path} not found in {Path.cwd()}: run this from the root of the repository")
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [f"{path} does not fit the schema:"]
        lines += [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {_explain(dict(e))}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _explain(error: dict) -> str:
    """One pydantic error in plain words; a mistyped key is answered with the nearest real one."""
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key; {hint}"
    if error["type"] == "missing":
        return "this key is missing"
    return f"{error['msg']} (got {error['input']!r})" if error["type"] != "value_error" else error["msg"]


def _keys_at(loc: tuple) -> list[str]:
    model: type[BaseModel] = Params
    for part in loc:
        if model is Params and part == "corpora":
            model = Corpus
        elif part in model.model_fields and isinstance(model.model_fields[part].annotation, type):
            model = model.model_fields[part].annotation  # type: ignore[assignment]
    return sorted(model.model_fields)
