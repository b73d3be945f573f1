"""`Stacked`: blocks of one kind, one after the other: the plainest network to compare blocks in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..errors import ShapeError
from .picture import picture_of
from .unit import unit

MakeBlock = Callable[[int, int, int], nn.Module]  # (in_channels, out_channels, stride) -> block


class Stacked(nn.Module):
    """Class scores of a small picture: (N, 3, H, W) -> (N, classes).

        conv 3x3 -> blocks at widths[0] -> blocks at widths[1], half size -> ... -> mean -> linear

    block       called as block(in_channels, out_channels, stride): any of `sepwise.nn.blocks`
    widths      output channels of the blocks of each stage; from the second on, a stage starts with stride 2
    depth       blocks in each stage
    residual    each block is y = block(x) + shortcut(x): x itself, or a 1x1 convolution with norm where sizes change
    Raises ShapeError for no stage or no block.

    >>> import torch
    >>> from sepwise.nn.blocks import InceptionModule
    >>> network = Stacked(lambda i, o, s: InceptionModule(i, o, stride=s), widths=(8, 16), depth=2)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    picture = picture_of(32)

    def __init__(
        self,
        block: MakeBlock,
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 2,
        *,
        residual: bool = False,
        classes: int = 10,
    ) -> None:
        super().__init__()
        if not widths or depth < 1:
            raise ShapeError(f"Stacked: widths={tuple(widths)}, depth={depth}: expected a stage and a block at least")
        self.stem = unit(3, widths[0])
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                made = block(channels, width, stride)
                blocks.append(_Residual(made, channels, width, stride) if residual else made)
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.blocks(self.stem(x)).mean((2, 3)))


class _Residual(nn.Module):
    def __init__(self, block: nn.Module, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.block = block
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = unit(in_channels, out_channels, 1, stride, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.shortcut(x)
