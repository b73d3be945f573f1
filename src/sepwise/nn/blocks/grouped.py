"""`GroupedBlock` and `SegmentedBlock`: a convolution in groups, as one operation and as one convolution a group."""

from __future__ import annotations

from math import gcd
from typing import Unpack

from torch import Tensor, nn

from .block import Block, Common
from .drawing import Drawing, Seam
from .parallel import Parallel
from .unit import activation_module, conv, norm_module


class GroupedBlock(Block):
    """Channels in groups that do not see each other: (N, in, H, W) -> (N, out, H', W').

        y = a(norm([conv_1(x_1), ..., conv_g(x_g)])),   x_1 ... x_g: the channels of x in g segments

    groups    None: the most that divide both numbers of channels. With one for each input channel this is the depthwise
              convolution (`out_channels` / `in_channels` filters for each)
    conv      an `nn.Conv2d`
    Other arguments as in `Block`. Krizhevsky, Sutskever and Hinton, NIPS 2012, section 3.5 (two groups on two
    processors); Ghosh 2017, arXiv 1701.04489, section 2.
    Raises ShapeError when `groups` does not divide both.

    >>> GroupedBlock(3, 6).conv
    Conv2d(3, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=3, bias=False)
    """

    conv: nn.Module

    def __init__(
        self, in_channels: int, out_channels: int, *, groups: int | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(in_channels, out_channels, groups=groups, **common)
        self.groups = gcd(in_channels, out_channels) if groups is None else groups
        self.check_positive("groups", self.groups)
        divides = in_channels % self.groups == out_channels % self.groups == 0
        self.check(divides, f"groups={self.groups} must divide {in_channels} input and {out_channels} output channels")
        self.build()

    def draw(self) -> None:
        self.conv = self._conv(self.in_channels, self.out_channels, self.groups)
        self.norm = norm_module(self.after["norm"], self.out_channels)
        self.last = activation_module(self.after["activation"])

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.last(self.norm(self.conv(x)))

    def _conv(self, in_channels: int, out_channels: int, groups: int) -> nn.Conv2d:
        return conv(in_channels, out_channels, self.kernel_size, stride=self.stride, groups=groups, after=self.after)


class SegmentedBlock(Drawing, GroupedBlock):
    """`GroupedBlock` drawn as it is meant: a convolution of its own on each segment of channels, concatenated.

    conv    a `Parallel` of `groups` convolutions
    Arguments as in `GroupedBlock`.

    >>> len(SegmentedBlock(8, 8, groups=2).conv), len(SegmentedBlock(8, 8).conv)
    (2, 8)
    """

    whole, seams = GroupedBlock, (Seam("conv", "conv.{}"),)

    def parts(self) -> int:
        return self.groups

    def draw(self) -> None:
        super().draw()
        into, out = self.in_channels // self.groups, self.out_channels // self.groups
        paths = [self._conv(into, out, 1) for _ in range(self.groups)]
        self.conv = Parallel(paths, "concatenate", (into,) * self.groups)
