"""The simplified Inception module, its reformulation and its extreme: 1x1 first, then kernels that see few channels."""

from __future__ import annotations

from typing import Any, Literal, Unpack

from torch import Tensor, nn

from ...errors import UnsupportedError
from .block import Block, Common
from .drawing import Drawing, Seam
from .parallel import Parallel
from .unit import After, Norm, activation_module, conv, norm_module, unit
from .unit import between as after_first


class GroupedInception(Block):
    """1x1, then a kernel in groups: (N, in, H, W) -> (N, out, H', W').

        y = a(norm([conv_1(m_1), ..., conv_S(m_S)])),   m = b(1x1 x) in S segments of channels, b = what stands between

    segments        towers; divides `out_channels` and `mid_channels`
    mid_channels    channels of the 1x1; None: `out_channels`
    between         activation between: None, a name as for `activation`, or "same" as after the block
    between_norm    norm between: None, called with a number of channels, or "same"
    Other arguments as in `Block`. What `SimplifiedInception` and `ReformulatedInception` compute, in two operations.
    Raises ShapeError when the segments do not divide the channels.

    >>> GroupedInception(16, 32, segments=4).spatial
    Conv2d(32, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=4, bias=False)
    """

    spatial: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        segments: int = 4,
        mid_channels: int | None = None,
        between: str | None = "same",
        between_norm: Norm | Literal["same"] | None = "same",
        **common: Unpack[Common],
    ) -> None:
        own = {"mid_channels": mid_channels, "between": between, "between_norm": between_norm}
        super().__init__(in_channels, out_channels, segments=segments, **own, **common)
        self.check_positive("segments", segments)
        self.segments, self.mid_channels = segments, out_channels if mid_channels is None else mid_channels
        self.check_positive("mid_channels", self.mid_channels)
        divides = self.mid_channels % segments == out_channels % segments == 0
        sizes = f"{self.mid_channels} channels between and {out_channels} output channels"
        self.check(divides, f"segments={segments} must divide {sizes}")
        self.first: After = after_first(type(self).__name__, self.after, between_norm, between)
        self.build()

    def draw(self) -> None:
        self.mix = unit(self.in_channels, self.mid_channels, after=self.first)
        self.spatial = self._spatial(self.mid_channels, self.out_channels, self.segments)
        self.norm = norm_module(self.after["norm"], self.out_channels)
        self.last = activation_module(self.after["activation"])

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.last(self.norm(self.spatial(self.mix(x))))

    def _spatial(self, in_channels: int, out_channels: int, groups: int = 1) -> nn.Conv2d:
        return conv(in_channels, out_channels, self.kernel_size, stride=self.stride, groups=groups, after=self.after)


class SimplifiedInception(Drawing, GroupedInception):
    """Towers of 1x1 -> kernel, all of one size, concatenated: (N, in, H, W) -> (N, out, H', W').

        y = [tower_1(x), ..., tower_S(x)],   tower(x) = a(norm(kernel b(1x1 x)))

    Arguments as in `GroupedInception`; `segments` is the number of towers, 3 in the paper's drawing.
    Chollet 2017, arXiv 1610.02357, figure 2.

    >>> SimplifiedInception(16, 12, segments=3).towers[0].spatial.conv
    Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """

    whole = GroupedInception
    seams = (
        Seam("mix", "towers.{}.mix"),
        Seam("spatial", "towers.{}.spatial.conv"),
        Seam("norm", "towers.{}.spatial.norm"),
    )

    def parts(self) -> int:
        return self.segments

    def draw(self) -> None:
        self.towers = Parallel([self._tower() for _ in range(self.segments)], "concatenate")

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.towers(x)

    def _tower(self) -> nn.Sequential:
        mid, out = self.mid_channels // self.segments, self.out_channels // self.segments
        parts = nn.Sequential()
        parts.add_module("mix", unit(self.in_channels, mid, after=self.first))
        parts.add_module("spatial", unit(mid, out, self.kernel_size, stride=self.stride, after=self.after))
        return parts


class ReformulatedInception(Drawing, GroupedInception):
    """One 1x1, then a kernel on each segment of its channels, concatenated: (N, in, H, W) -> (N, out, H', W').

        y = a(norm([kernel_1 m_1, ..., kernel_S m_S])),   m = b(1x1 x) in S segments of channels

    Arguments as in `GroupedInception`. Chollet 2017, figure 3: "strictly equivalent" to figure 2.

    >>> ReformulatedInception(16, 12, segments=3).spatial[0]
    Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """

    whole, seams = GroupedInception, (Seam("spatial", "spatial.{}"),)

    def parts(self) -> int:
        return self.segments

    def draw(self) -> None:
        super().draw()
        mid, out = self.mid_channels // self.segments, self.out_channels // self.segments
        kernels = [self._spatial(mid, out) for _ in range(self.segments)]
        self.spatial = Parallel(kernels, "concatenate", (mid,) * self.segments)


class ExtremeInception(ReformulatedInception):
    """One 1x1, then a kernel for each of its channels alone: (N, in, H, W) -> (N, out, H', W').

        y[o] = a(norm(kernel_o * m[o])),   m = b(1x1 x)

    `ReformulatedInception` with as many segments as channels: pointwise, then depthwise; `BlueprintConv2d` when nothing
    stands between (`as_blueprint`). Chollet 2017, figure 4; a separable convolution has the other order and nothing
    between (section 1.2).

    >>> len(ExtremeInception(16, 12).spatial)
    12
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        between: str | None = "same",
        between_norm: Norm | Literal["same"] | None = "same",
        **common: Unpack[Common],
    ) -> None:
        own: Any = {"segments": out_channels, "between": between, "between_norm": between_norm}
        super().__init__(in_channels, out_channels, **own, **common)

    @classmethod
    def arguments_from(cls, block: Block) -> dict[str, Any]:
        arguments = block.arguments
        segments, mid = arguments.pop("segments"), arguments.pop("mid_channels")
        if segments != block.out_channels or mid not in (None, segments):
            raise UnsupportedError(
                f"ExtremeInception has a segment for each channel; this {type(block).__name__} has {segments} segments "
                f"of {mid or block.out_channels} channels for {block.out_channels} outputs"
            )
        return arguments
