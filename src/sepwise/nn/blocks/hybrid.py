"""The hybrid reading of a separable convolution, its reformulation, and the strict one without the shortcut."""

from __future__ import annotations

from typing import Any, Literal, Unpack

from torch import Tensor, nn

from ...errors import UnsupportedError
from .block import Block, Common, ResidualBlock
from .drawing import Drawing, Seam
from .parallel import Parallel
from .separable import SeparableBlock
from .unit import Norm, has_bias, norm_module, unit


class Hybrid(Drawing, SeparableBlock):
    """ResNeXt with a path for each channel, then Inception's 1x1 over all: (N, in, H, W) -> (N, out, H', W').

        y = a(shortcut(x) + norm(1x1 [b(kernel_1 * x_1), ..., b(kernel_C * x_C)]))        b = what stands between

    paths       one convolution for each input channel, nothing before it; `depth_multiplier` filters each
    pointwise   the 1x1 across channels
    identity    False: without the shortcut, which is a separable convolution
    Other arguments as in `SeparableBlock`.

    Ghosh 2017, arXiv 1701.04489, section 3 and figure 2, left. The figure is reconstructed from the text: "ResNeXt
    with a cardinality equivalent to the number of channels", "Inception with 1x1 convolutions which analyze
    cross-channel correlations", and a residual connection around both.

    >>> block = Hybrid(8, 8)
    >>> len(block.paths), block.pointwise
    (8, Conv2d(8, 8, kernel_size=(1, 1), stride=(1, 1), bias=False))
    """

    whole: Any = SeparableBlock
    seams = (
        Seam("conv.depthwise", "paths.{}.conv.weight"),
        Seam("conv.depthwise_bias", "paths.{}.conv.bias"),
        Seam("conv.between_norm", "paths.{}.norm"),
        Seam("conv.pointwise", "pointwise.weight"),
        Seam("conv.bias", "pointwise.bias"),
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        depth_multiplier: int = 1,
        between: str | None = None,
        between_norm: Norm | Literal["same"] | None = None,
        identity: bool = True,
        **common: Unpack[Common],
    ) -> None:
        own: Any = {"depth_multiplier": depth_multiplier, "between": between, "between_norm": between_norm}
        super().__init__(in_channels, out_channels, identity=identity, **own, **common)

    def parts(self) -> int:
        return self.in_channels

    def draw(self) -> None:
        ResidualBlock.draw(self)
        self.paths = Parallel([self._filter() for _ in range(self.in_channels)], "concatenate", self._alone())
        mid = self.in_channels * self.depth_multiplier
        self.pointwise = nn.Conv2d(mid, self.out_channels, 1, bias=has_bias(self.after))
        self.norm = norm_module(self.after["norm"], self.out_channels)

    def branch(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.paths(x)))

    def _alone(self) -> tuple[int, ...]:
        return (1,) * self.in_channels

    def _filter(self) -> nn.Sequential:
        return unit(1, self.depth_multiplier, self.kernel_size, stride=self.stride, after=self.first)


class HybridReformulated(Hybrid):
    """`Hybrid` with the 1x1 cut too: each channel is filtered and spread over all outputs alone, then all are added.

        y = a(shortcut(x) + norm(sum over c of pointwise_c @ b(kernel_c * x_c)))

    Ghosh 2017, figure 2, right (reconstructed): figure 3a of ResNeXt without the 1x1 at the beginning of each path.
    Arguments as in `Hybrid`.

    >>> HybridReformulated(8, 16).paths[0].pointwise
    Conv2d(1, 16, kernel_size=(1, 1), stride=(1, 1), bias=False)
    """

    seams = (
        Seam("conv.depthwise", "paths.{}.depthwise.conv.weight"),
        Seam("conv.depthwise_bias", "paths.{}.depthwise.conv.bias"),
        Seam("conv.between_norm", "paths.{}.depthwise.norm"),
        Seam("conv.pointwise", "paths.{}.pointwise.weight", dim=1),
        Seam("conv.bias", "paths.bias"),
    )

    def draw(self) -> None:
        ResidualBlock.draw(self)
        bias = self.out_channels if has_bias(self.after) else None
        self.paths = Parallel([self._path() for _ in range(self.in_channels)], "sum", self._alone(), bias)
        self.norm = norm_module(self.after["norm"], self.out_channels)

    def branch(self, x: Tensor) -> Tensor:
        return self.norm(self.paths(x))

    def _path(self) -> nn.Sequential:
        parts = nn.Sequential()
        parts.add_module("depthwise", self._filter())
        parts.add_module("pointwise", nn.Conv2d(self.depth_multiplier, self.out_channels, 1, bias=False))
        return parts


class SplitSum(HybridReformulated):
    """A separable convolution as one would draw it: split, filter, spread, add: (N, in, H, W) -> (N, out, H', W').

        y = a(norm(sum over c of pointwise_c @ b(kernel_c * x_c)))

    Arguments as in `SeparableBlock`, without `identity`. Ghosh 2017, figure 1, centre (reconstructed; "strict
    equivalence" in figure 4).

    >>> len(SplitSum(3, 8).paths)
    3
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        depth_multiplier: int = 1,
        between: str | None = None,
        between_norm: Norm | Literal["same"] | None = None,
        **common: Unpack[Common],
    ) -> None:
        own: Any = {"depth_multiplier": depth_multiplier, "between": between, "between_norm": between_norm}
        super().__init__(in_channels, out_channels, identity=False, **own, **common)

    @classmethod
    def arguments_from(cls, block: Block) -> dict[str, Any]:
        arguments = block.arguments
        if arguments.pop("identity"):
            raise UnsupportedError(
                f"SplitSum has no shortcut, which this {type(block).__name__} has (identity=True); HybridReformulated "
                "draws it with one"
            )
        return arguments
