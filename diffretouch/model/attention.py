"""Cross-attention to one token, without the attention."""

from __future__ import annotations

from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn


class SingleToken:
    """diffusers' attention processor for a context of one token.

    A softmax over one key is 1, so every position receives the same W_out W_v c + b: queries, keys, the softmax and
    the norm of the queries take no part in the result, and W_out is applied once a photo, not once a position.
    """

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_unused: Any
    ) -> Tensor:
        """(N,L,width), (N,1,4) -> (N,L,width); a mask cannot change a softmax over one key."""
        if encoder_hidden_states is None or encoder_hidden_states.shape[1] != 1:
            came = None if encoder_hidden_states is None else tuple(encoder_hidden_states.shape)
            raise ValueError(f"a context of one token was expected, (N, 1, 4), got {came}")
        project, dropout = attn.to_out
        return dropout(project(attn.to_v(encoder_hidden_states)).expand(-1, hidden_states.shape[1], -1))


class SkippedNorm(nn.LayerNorm):
    """A norm whose result nobody reads: it hands its input on, and keeps the names of its weights."""

    def forward(self, hidden: Tensor) -> Tensor:
        """The input itself."""
        return hidden


def use_single_token(unet: UNet2DConditionModel) -> None:
    """Let every cross-attention of `unet` take the shortcut, and freeze what gets no gradient: W_q, W_k and their norm.

    The weights keep their names and values; doing it twice changes nothing.
    """
    for block in unet.modules():
        if not isinstance(block, BasicTransformerBlock):
            continue
        block.attn2.set_processor(SingleToken())
        if not isinstance(block.norm2, SkippedNorm):
            skipped = SkippedNorm(block.norm2.normalized_shape, block.norm2.eps)
            skipped.weight, skipped.bias = block.norm2.weight, block.norm2.bias
            block.norm2 = skipped
        for unread in (block.attn2.to_q, block.attn2.to_k, block.norm2):
            unread.requires_grad_(False)
