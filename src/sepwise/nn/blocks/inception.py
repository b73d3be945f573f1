"""`InceptionModule`: kernels of several sizes look at the same picture, side by side."""

from __future__ import annotations

from typing import NamedTuple, Unpack

from torch import Tensor, nn

from .block import Block, Common
from .parallel import Parallel
from .unit import unit


class InceptionWidths(NamedTuple):
    """Channels of the convolutions of an Inception module, in the order of GoogLeNet's table.

    `reduce` is the 1x1 before a spatial convolution, `pool` the 1x1 after the maximum.

    >>> InceptionWidths(64, 96, 128, 16, 32, 32).out_channels  # module 3a of GoogLeNet
    256
    """

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int

    @property
    def out_channels(self) -> int:
        """Of the concatenation."""
        return self.one + self.three + self.five + self.pool

    @classmethod
    def even(cls, out_channels: int) -> InceptionWidths:
        """Four towers of the same width, the first ones a channel wider where it does not divide.

        >>> InceptionWidths.even(10)
        InceptionWidths(one=3, three_reduce=3, three=3, five_reduce=2, five=2, pool=2)
        """
        one, three, five, pool = ((out_channels + 3 - i) // 4 for i in range(4))
        return cls(one, three, three, five, five, pool)


class InceptionModule(Block):
    """Four towers, concatenated: (N, in, H, W) -> (N, out, H', W').

        y = [a(1x1 x),  a(3x3 a(1x1 x)),  a(5x5 a(1x1 x)),  a(1x1 maximum(x))],   a = activation after norm

    widths    InceptionWidths or six integers, as in a row of GoogLeNet's table; None: four towers of the same width
    The towers' kernels are 1, `kernel_size` and `kernel_size + 2`; the maximum is over `kernel_size` and the last
    spatial step of each tower has the stride. Other arguments as in `Block`.

    Szegedy et al., Going Deeper with Convolutions, CVPR 2015, figure 2b and table 1, with the norm of their next paper
    (Ioffe and Szegedy, ICML 2015).
    Raises ShapeError when the widths do not add up to `out_channels` or are not all positive.

    >>> import torch
    >>> module = InceptionModule(192, 256, widths=(64, 96, 128, 16, 32, 32))
    >>> [tuple(conv.weight.shape) for conv in module.modules() if isinstance(conv, nn.Conv2d)]
    [(64, 192, 1, 1), (96, 192, 1, 1), (128, 96, 3, 3), (16, 192, 1, 1), (32, 16, 5, 5), (32, 192, 1, 1)]
    >>> tuple(module(torch.ones(2, 192, 5, 5)).shape)
    (2, 256, 5, 5)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: InceptionWidths | tuple[int, int, int, int, int, int] | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_channels, out_channels, widths=widths, **common)
        w = self.widths = InceptionWidths.even(out_channels) if widths is None else InceptionWidths(*widths)
        self.check(min(w) >= 1, f"{w}: each tower needs a channel; give out_channels >= 4 or other widths")
        adds_up = f"{w} give {w.out_channels} channels; expected out_channels={out_channels}"
        self.check(w.out_channels == out_channels, adds_up)
        self.build()

    def draw(self) -> None:
        into, kernel, stride, w, after = self.in_channels, self.kernel_size, self.stride, self.widths, self.after

        def tower(reduce: int, width: int, kernel: int) -> nn.Sequential:
            spatial = unit(reduce, width, kernel, stride=stride, after=after)
            return nn.Sequential(unit(into, reduce, after=after), spatial)

        towers = [
            unit(into, w.one, stride=stride, after=after),
            tower(w.three_reduce, w.three, kernel),
            tower(w.five_reduce, w.five, kernel + 2),
            nn.Sequential(nn.MaxPool2d(kernel, stride, kernel // 2), unit(into, w.pool, after=after)),
        ]
        self.towers = Parallel(towers, "concatenate")

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.towers(x)
