"""The model; the only place that imports diffusers."""

from diffretouch.torchvision_ops import declare_missing

declare_missing()  # diffusers imports torchvision where it is installed

from diffusers.utils.logging import disable_progress_bar  # noqa: E402

from diffretouch.model.pipeline import RetouchPipeline  # noqa: E402

disable_progress_bar()  # of loading: five parts, in no time

__all__ = ["RetouchPipeline"]
