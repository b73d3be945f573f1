"""The activations that may follow a step of a separable convolution, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnsupportedError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
}


def activate(x: Tensor, name: str | None) -> Tensor:
    """`x` after the activation of this name; `x` itself for None."""
    return x if name is None else ACTIVATIONS[name](x)


def check_activation(who: str, argument: str, name: str | None) -> None:
    """Refuse an unknown name: UnsupportedError, listing the known ones."""
    if name is not None and name not in ACTIVATIONS:
        raise UnsupportedError(f"{who}: {argument}={name!r} is unknown; give None, {', '.join(map(repr, ACTIVATIONS))}")
