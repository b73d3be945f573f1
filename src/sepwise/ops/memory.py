"""Memory formats: which one a tensor is laid out in, so that an output can keep it."""

from __future__ import annotations

import torch
from torch import Tensor


def memory_format_of(x: Tensor) -> torch.memory_format:
    """channels_last or contiguous (row-major), as the strides of `x` (N, C, H, W) spell it.

    A tensor of one channel, or of one pixel, is contiguous in both senses; its strides still tell how it was made.
    Where not even they differ (one channel and one pixel), and for any other layout: contiguous.

    >>> memory_format_of(torch.empty(2, 1, 4, 5).to(memory_format=torch.channels_last))
    torch.channels_last
    >>> memory_format_of(torch.empty(2, 1, 4, 5))
    torch.contiguous_format
    """
    _, channels, height, width = x.shape
    last = (1, width * channels, channels)
    row_major = (height * width, width, 1)
    if tuple(x.stride()[1:]) == last and last != row_major and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
