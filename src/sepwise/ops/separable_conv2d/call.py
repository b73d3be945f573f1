"""One checked call of `separable_conv2d`: everything an implementation may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...geometry import Geometry


@dataclass(frozen=True)
class Call:
    """Arguments that fit each other; see `separable_conv2d` for their meaning. `precision` None is not
    resolved here: torch.compile cannot trace the question, so whoever depends on the answer asks torch."""

    x: Tensor
    depthwise: Tensor
    pointwise: Tensor
    bias: Tensor | None
    depthwise_bias: Tensor | None
    between: str | None
    activation: str | None
    geometry: Geometry
    precision: str | None

    @property
    def channels(self) -> int:
        return self.x.shape[1]

    @property
    def multiplier(self) -> int:
        """Depthwise filters for each input channel."""
        return self.depthwise.shape[0] // self.x.shape[1]
