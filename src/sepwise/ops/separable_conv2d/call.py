"""One checked call of `separable_conv2d`: everything an implementation may ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...geometry import Geometry, Pads

# What `prepare` makes: a function of x, depthwise, pointwise, bias and depthwise_bias.
Run = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(slots=True)
class Call:
    """Arguments that fit each other; see `separable_conv2d` for their meaning.

    precision      None is not resolved here: whoever depends on the answer asks torch
    pads           pixels added around x: those of `geometry` for its size
    needs_grad     whether a gradient of the result may be asked for
    autocast       the dtype that autocast computes in, None outside of it
    """

    x: Tensor
    depthwise: Tensor
    pointwise: Tensor
    bias: Tensor | None
    depthwise_bias: Tensor | None
    between: str | None
    activation: str | None
    precision: str | None
    geometry: Geometry
    pads: Pads
    needs_grad: bool = False
    autocast: torch.dtype | None = None

    @property
    def channels(self) -> int:
        return self.x.shape[1]

    @property
    def multiplier(self) -> int:
        """Depthwise filters for each input channel."""
        return self.depthwise.shape[0] // self.x.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: the dtype of x; where autocast applies, its dtype."""
        return self.x.dtype if self.autocast is None or self.x.dtype is torch.float64 else self.autocast
