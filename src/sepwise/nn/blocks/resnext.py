"""`ResNeXtModule`: many narrow paths with one topology, added up; here as one grouped convolution."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from .block import After, Common, ResidualBlock, unit


class ResNeXtModule(ResidualBlock):
    """1x1 -> grouped kernel -> 1x1, and the input added: (N, in, H, W) -> (N, out, H', W').

        y = a(shortcut(x) + norm(1x1 a(grouped a(1x1 x)))),   a = activation after norm
          = a(shortcut(x) + norm(sum over p < cardinality of path_p(x)))

    cardinality       number of paths, the groups of the middle convolution
    width_per_group   channels of a path (the bottleneck's d); None: `out_channels` / (2 * cardinality), rounded down,
                      at least 1, as 32x4d stands for in the first stage of ResNeXt-50
    identity          False: without the shortcut
    Other arguments as in `Block`. The stride is that of the grouped convolution. The same function drawn as paths:
    docs/blocks.md.

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
        own = {"cardinality": cardinality, "width_per_group": width_per_group}
        super().__init__(in_channels, out_channels, identity=identity, **own, **common)
        self.check(cardinality >= 1, f"cardinality={cardinality}: expected an integer >= 1")
        width = max(1, out_channels // (2 * cardinality)) if width_per_group is None else width_per_group
        self.check(width >= 1, f"width_per_group={width}: expected an integer >= 1")
        mid, linear = cardinality * width, After(**{**self.after, "activation": None})
        spatial = {"kernel_size": self.kernel_size, "stride": self.stride, "groups": cardinality}
        self.reduce = unit(in_channels, mid, **self.after)
        self.spatial = unit(mid, mid, **spatial, **self.after)
        self.expand = unit(mid, out_channels, **linear)

    def branch(self, x: Tensor) -> Tensor:
        return self.expand(self.spatial(self.reduce(x)))
