"""The ResNeXt module, many narrow paths with one topology, in the three drawings that its authors show to be one."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from .block import Common, ResidualBlock
from .drawing import Drawing, Seam
from .parallel import Parallel
from .unit import has_bias, norm_module, unit


class ResNeXtModule(ResidualBlock):
    """1x1 -> grouped kernel -> 1x1, and the input added: (N, in, H, W) -> (N, out, H', W').

        y = a(shortcut(x) + norm(1x1 a(grouped a(1x1 x)))),   a = activation after norm
          = a(shortcut(x) + norm(sum over p < cardinality of path_p(x)))

    cardinality       number of paths, the groups of the middle convolution
    width_per_group   channels of a path (the bottleneck's d); None: `out_channels` / (2 * cardinality), rounded down,
                      at least 1: the 4 of 32x4d where ResNeXt-50 has 256 channels
    identity          False: without the shortcut
    Other arguments as in `Block`. The stride is that of the grouped convolution.

    Xie et al., Aggregated Residual Transformations, CVPR 2017 (arXiv 1611.05431), figure 3c and section 3.

    >>> import torch
    >>> module = ResNeXtModule(64, 256)
    >>> [tuple(module.get_submodule(name).conv.weight.shape) for name in ("reduce", "spatial", "expand", "shortcut")]
    [(128, 64, 1, 1), (128, 4, 3, 3), (256, 128, 1, 1), (256, 64, 1, 1)]
    >>> tuple(ResNeXtModule(64, 64, cardinality=8, stride=2)(torch.ones(2, 64, 7, 7)).shape)
    (2, 64, 4, 4)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        cardinality: int = 32,
        width_per_group: int | None = None,
        identity: bool = True,
        **common: Unpack[Common],
    ) -> None:
        own = {"cardinality": cardinality, "width_per_group": width_per_group, "identity": identity}
        super().__init__(in_channels, out_channels, **own, **common)
        self.check_positive("cardinality", cardinality)
        self.cardinality = cardinality
        self.width = max(1, out_channels // (2 * cardinality)) if width_per_group is None else width_per_group
        self.check_positive("width_per_group", self.width)
        self.build()

    def draw(self) -> None:
        super().draw()
        mid = self.cardinality * self.width
        self.reduce = unit(self.in_channels, mid, after=self.after)
        self.spatial = self._spatial(mid, self.cardinality)
        self.expand = unit(mid, self.out_channels, after=self.linear)

    def branch(self, x: Tensor) -> Tensor:
        return self.expand(self.spatial(self.reduce(x)))

    def _spatial(self, width: int, groups: int = 1) -> nn.Sequential:
        return unit(width, width, self.kernel_size, stride=self.stride, groups=groups, after=self.after)


class ResNeXtConcatenated(Drawing, ResNeXtModule):
    """`ResNeXtModule` as paths of 1x1 -> kernel, concatenated early, and one 1x1 over all.

        y = a(shortcut(x) + norm(1x1 [path_1(x), ..., path_p(x)])),   path(x) = a(kernel a(1x1 x))

    Xie et al., figure 3b. Arguments as in `ResNeXtModule`.

    >>> module = ResNeXtConcatenated(16, 16, cardinality=4)
    >>> len(module.paths), module.paths[0].spatial.conv.weight.shape
    (4, torch.Size([2, 2, 3, 3]))
    """

    whole = ResNeXtModule
    seams = (Seam("reduce", "paths.{}.reduce"), Seam("spatial", "paths.{}.spatial"))

    def parts(self) -> int:
        return self.cardinality

    def draw(self) -> None:
        ResidualBlock.draw(self)
        self.paths = Parallel([self._path() for _ in range(self.cardinality)], "concatenate")
        self.expand = unit(self.cardinality * self.width, self.out_channels, after=self.linear)

    def branch(self, x: Tensor) -> Tensor:
        return self.expand(self.paths(x))

    def _path(self) -> nn.Sequential:
        parts = nn.Sequential()
        parts.add_module("reduce", unit(self.in_channels, self.width, after=self.after))
        parts.add_module("spatial", self._spatial(self.width))
        return parts


class ResNeXtPaths(ResNeXtConcatenated):
    """`ResNeXtModule` as whole paths of 1x1 -> kernel -> 1x1, added up.

        y = a(shortcut(x) + norm(sum over p of path_p(x))),   path(x) = 1x1 a(kernel a(1x1 x))

    The norm stands after the sum; a norm in each path would be another function. Xie et al., figure 3a and section 4
    on where it stands. Arguments as in `ResNeXtModule`.

    >>> ResNeXtPaths(16, 16, cardinality=4).paths.join
    'sum'
    """

    seams = (*ResNeXtConcatenated.seams, Seam("expand.conv.weight", "paths.{}.expand.weight", dim=1),
             Seam("expand.conv.bias", "paths.bias"), Seam("expand.norm", "norm"))  # fmt: skip

    def draw(self) -> None:
        ResidualBlock.draw(self)
        paths = [self._path() for _ in range(self.cardinality)]
        self.paths = Parallel(paths, "sum", bias=self.out_channels if has_bias(self.after) else None)
        self.norm = norm_module(self.after["norm"], self.out_channels)

    def branch(self, x: Tensor) -> Tensor:
        return self.norm(self.paths(x))

    def _path(self) -> nn.Sequential:
        parts = super()._path()
        parts.add_module("expand", nn.Conv2d(self.width, self.out_channels, 1, bias=False))
        return parts
