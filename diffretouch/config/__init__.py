"""The one schema of `params.yaml`: frozen, extra keys forbidden, a line for every field with its unit.

`runtime` says how the work is done, `gate` what a model must show to be put in use: no stage tracks them. Every other
section is tracked by the DVC stage of the same name, and `corpora.<dataset>` by every stage of that dataset.
"""

from diffretouch.config.base import FIRST_TIMESTEP
from diffretouch.config.comparing import Arm, Compare
from diffretouch.config.gating import Gate
from diffretouch.config.judging import Embed, Evaluate, Lpips, Report, Sample, Study
from diffretouch.config.params import PARAMS, Params, load
from diffretouch.config.pictures import Attributes, Corpus, Decode, Split
from diffretouch.config.runtime import Runtime
from diffretouch.config.training import Autoencoder, Train

__all__ = [
    "FIRST_TIMESTEP",
    "PARAMS",
    "Arm",
    "Attributes",
    "Autoencoder",
    "Compare",
    "Corpus",
    "Decode",
    "Embed",
    "Evaluate",
    "Gate",
    "Lpips",
    "Params",
    "Report",
    "Runtime",
    "Sample",
    "Split",
    "Study",
    "Train",
    "load",
]
