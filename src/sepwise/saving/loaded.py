"""`LoadedNetwork`: a network out of a file, which answers only what it was saved for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShapeError, UnsupportedError
from .about import About, described


class LoadedNetwork(nn.Module):
    """What `load_fused` and `load_compiled` return: called with pictures, for inference.

    network    computes; it is called without gradients and outside of autocast
    about      what the file says of itself: the shape and dtype of its pictures, the versions that wrote it
    Raises ShapeError for pictures of another shape or dtype than those it was saved for, UnsupportedError for pictures
    that are not on the CPU or require a gradient.
    """

    def __init__(self, network: Callable[[Tensor], Any], about: About) -> None:
        super().__init__()
        self.network, self.about = network, about

    def forward(self, x: Tensor) -> Any:
        told = self.about
        dtype = str(x.dtype).removeprefix("torch.")
        if tuple(x.shape[1:]) != told.shape or x.dim() == 0 or dtype != told.dtype:
            raise ShapeError(
                f"the network was saved for pictures {described(told.shape, told.dtype)}; given {tuple(x.shape)} in "
                f"{dtype}: save it anew with an example like those"
            )
        if not x.is_cpu:
            raise UnsupportedError(f"the network was saved for the CPU; the pictures are on {x.device}: call x.cpu()")
        if x.requires_grad and torch.is_grad_enabled():
            raise UnsupportedError("a loaded network has no gradients; call it under torch.no_grad(), or detach x")
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self.network(x)

    def __repr__(self) -> str:
        return f"LoadedNetwork({self.about.kind}, {described(self.about.shape, self.about.dtype)})"
