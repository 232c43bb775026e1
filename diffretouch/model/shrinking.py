"""Weights with which an untrained autoencoder already shrinks pictures by eight and enlarges them again.

A short fit from random weights learns brightness long before colour, and a norm over the whole picture loses contrast;
these weights pass both on.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from diffretouch.model.weights import LATENT_CHANNELS

CHANNELS = 8
"""In which a picture runs through."""
PEDESTAL = 4.0
HALVE = ((0.25, 0.25, 0.0), (0.25, 0.25, 0.0), (0.0, 0.0, 0.0))
LOG_VARIANCE = -6.0
"""Of the latents, which lie in [-1,1]."""


@torch.no_grad()
def make_shrinking(vae: AutoencoderKL) -> None:
    """Make `vae` shrink pictures by eight, by averaging, into its first three latents, and enlarge them again.

    Red, green, blue x run through it as x, -x and the constants P, -P in eight channels. That holds the mean of the
    last norms and nearly their deviation, so that they copy with a gain of .91 to 1; and SiLU(x) - SiLU(-x) = x.
    All other paths start at zero, and a short fit adds little to them: the fourth latent stays all but unused.
    """
    for part in (vae.encoder, vae.decoder):
        for module in part.modules():
            if isinstance(module, ResnetBlock2D):
                _zero(module.conv2)
                if module.conv_shortcut is not None:
                    _copy(module.conv_shortcut, CHANNELS)
            elif isinstance(module, Attention):
                _zero(module.to_out[0])
            elif isinstance(module, Upsample2D | Downsample2D):
                _copy(module.conv, CHANNELS)
                if isinstance(module, Downsample2D):
                    module.conv.weight[range(CHANNELS), range(CHANNELS)] = torch.tensor(HALVE)
        first, norm, last = part.conv_in, part.conv_norm_out, part.conv_out
        _copy(first, 3)
        first.weight[3:6] = -first.weight[:3]
        first.bias[6:8] = torch.tensor([PEDESTAL, -PEDESTAL])
        norm.weight.fill_(PEDESTAL * (2 / norm.num_channels) ** 0.5)
        norm.bias[6:8] = -first.bias[6:8]
        _copy(last, 3)
        last.weight[:3, 3:6] = -last.weight[:3, :3]
    vae.encoder.conv_out.bias[LATENT_CHANNELS:] = LOG_VARIANCE
    _copy(vae.quant_conv, 2 * LATENT_CHANNELS)
    _copy(vae.post_quant_conv, LATENT_CHANNELS)


def _copy(conv: nn.Conv2d, channels: int) -> None:
    """Its first outputs become its first inputs, the others zero."""
    _zero(conv)
    high, wide = conv.kernel_size
    conv.weight[range(channels), range(channels), high // 2, wide // 2] = 1


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
