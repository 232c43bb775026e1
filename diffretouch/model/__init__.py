"""The model; the only place that imports diffusers."""

from diffretouch.torchvision_ops import declare_missing

declare_missing()  # diffusers imports torchvision where it is installed

from diffretouch.model.pipeline import RetouchPipeline  # noqa: E402

__all__ = ["RetouchPipeline"]
