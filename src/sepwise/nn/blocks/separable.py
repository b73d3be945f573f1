"""`SeparableBlock`: a separable convolution, with what its users put between its steps, after it and around it."""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor

from ..separable import SeparableConv2d
from .block import Common, ResidualBlock
from .unit import After, Norm, has_bias, norm_module
from .unit import between as after_first


class SeparableBlock(ResidualBlock):
    """Depthwise, then pointwise: (N, in, H, W) -> (N, out, H', W').

        y = a(norm(pointwise @ b(depthwise * x)))                     b = what stands between
        y = a(shortcut(x) + norm(pointwise @ b(depthwise * x)))       with identity=True

    depth_multiplier    filters for each input channel
    between             activation between the steps: None, a name as for `activation`, or "same" as after the block
    between_norm        norm between the steps: None, called with the number of channels between, or "same"
    identity            True: with the shortcut, as in Xception
    conv                the `SeparableConv2d` of both steps
    Other arguments as in `Block`. Chollet 2017, arXiv 1610.02357, section 4.7 on what stands between (nothing is best
    there); MobileNet, arXiv 1704.04861, has "same" between.
    Raises ShapeError and UnsupportedError as `Block`.

    >>> import torch
    >>> block = SeparableBlock(8, 16, stride=2)
    >>> tuple(block.conv.depthwise.shape), tuple(block.conv.pointwise.shape)
    ((8, 1, 3, 3), (16, 8, 1, 1))
    >>> tuple(block(torch.ones(2, 8, 7, 7)).shape)
    (2, 16, 4, 4)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        depth_multiplier: int = 1,
        between: str | None = None,
        between_norm: Norm | Literal["same"] | None = None,
        identity: bool = False,
        **common: Unpack[Common],
    ) -> None:
        own = {"depth_multiplier": depth_multiplier, "between": between, "between_norm": between_norm}
        super().__init__(in_channels, out_channels, identity=identity, **own, **common)
        self.check_positive("depth_multiplier", depth_multiplier)
        self.depth_multiplier = depth_multiplier
        self.first: After = after_first(type(self).__name__, self.after, between_norm, between)
        self.build()

    def draw(self) -> None:
        super().draw()
        self.conv = SeparableConv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            padding=self.kernel_size // 2,
            bias=has_bias(self.after),
            depth_multiplier=self.depth_multiplier,
            depthwise_bias=bool(self.first["bias"]),
            between=self.first["activation"],
            between_norm=self.first["norm"],
        )
        self.norm = norm_module(self.after["norm"], self.out_channels)

    def branch(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))
