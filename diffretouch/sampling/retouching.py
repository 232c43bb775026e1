"""A model made ready for sampling, and a photo through it, many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from diffretouch.config import Sample
from diffretouch.errors import UserError
from diffretouch.files.pictures import Picture
from diffretouch.model import RetouchPipeline
from diffretouch.model.pipeline import AUTOCAST
from diffretouch.sampling.sweeps import Request
from diffretouch.seeds import generator


def open_model(folder: Path, settings: Sample, device: torch.device) -> RetouchPipeline:
    """The model of a folder on `device`, its U-Net computing in `settings.precision`."""
    pipe = RetouchPipeline.from_pretrained(folder, local_files_only=True).to(device)
    pipe.autocast_dtype = AUTOCAST[settings.precision]
    pipe.set_progress_bar_config(disable=True)
    return pipe


def retouched(
    pipe: RetouchPipeline, photo: Picture, asked: Sequence[Request], settings: Sample
) -> Iterator[tuple[Request, Picture]]:
    """Each request with its picture, (H,W,3) sRGB in [0,1]; `batch_size` at a time.

    Raises UserError where one is not finite: 16-bit arithmetic that overflowed would end as black pixels.
    """
    planes = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)
    for start in range(0, len(asked), settings.batch_size):
        batch = asked[start : start + settings.batch_size]
        made = pipe(
            [planes] * len(batch),
            torch.tensor([request.condition for request in batch], dtype=torch.float32),
            num_inference_steps=settings.steps,
            last_timestep=settings.last_timestep,
            generator=[generator(*request.noise) for request in batch],
        )
        whole = made.grids.isfinite().flatten(1).all(1).tolist()  # a picture is clamped, and would hide an infinity
        for request, image, finite in zip(batch, made.images, whole, strict=True):
            picture = image.permute(1, 2, 0).cpu().numpy()
            if not (finite and np.isfinite(picture).all()):
                raise UserError(
                    f"{request.photo_id}: with c = {request.condition} the model makes a picture that is not finite in "
                    f"sample.precision {settings.precision}: set it to fp32, or to bf16, whose numbers reach further "
                    "than fp16's"
                )
            yield request, picture
