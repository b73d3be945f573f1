"""Xception: separable convolutions without an activation between their steps, in residual blocks."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from .picture import picture_of
from .unit import draw_weights, relu, scaled, unit


class Xception(nn.Module):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes), 299 x 299 in the paper.

        entry     conv 3x3, 32, stride 2 -> conv 3x3, 64 -> blocks of 128, 256, 728 channels, each of half the size
        middle    `middle` blocks of three separable convolutions, 728 channels
        exit      block of 728 and 1024 channels, half the size -> separable 1536 -> 2048 -> mean -> dropout -> linear
        block     x + [ReLU -> separable -> norm] two or three times;  x by 1x1 where size or channels change

    width      every layer has that many times its channels
    middle     blocks of the middle flow, 8 in the paper
    dropout    before the linear layer; 0.5 in section 4.3
    small      True: for 32 x 32, the stem and the first block keep the size
    picture    the mean and deviation of ImageNet

    Chollet, Xception, CVPR 2017, arXiv 1610.02357, figure 5; no activation stands between depthwise and pointwise
    (figure 10).
    Raises ShapeError when width is not positive.

    >>> import torch
    >>> Xception(10, width=0.125, middle=1, small=True)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        classes: int = 1000,
        width: float = 1.0,
        *,
        middle: int = 8,
        dropout: float = 0.5,
        small: bool = False,
    ) -> None:
        super().__init__()
        self.picture = picture_of(32 if small else 299)
        wide = [scaled(channels, width) for channels in (32, 64, 128, 256, 728, 1024, 1536, 2048)]
        first, padding = (1, 1) if small else (2, 0)  # the stem of the paper pads nothing
        self.stem = nn.Sequential(
            unit(3, wide[0], stride=first, padding=padding), unit(wide[0], wide[1], padding=padding)
        )
        self.entry = nn.Sequential(
            Block((wide[1], wide[2], wide[2]), stride=first, opens=False),
            Block((wide[2], wide[3], wide[3]), stride=2),
            Block((wide[3], wide[4], wide[4]), stride=2),
        )
        self.middle = nn.Sequential(*(Block((wide[4],) * 4) for _ in range(middle)))
        self.exit = nn.Sequential(
            Block((wide[4], wide[4], wide[5]), stride=2),
            unit(wide[5], wide[6], separable=True),
            unit(wide[6], wide[7], separable=True),
        )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(wide[7], classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.exit(self.middle(self.entry(self.stem(x))))
        return self.linear(self.dropout(x.mean((2, 3))))


class Block(nn.Module):
    """Separable convolutions from `widths[0]` to `widths[-1]` channels, a maximum where the size is halved, a shortcut.

    opens    False: no ReLU before the first convolution, for the block that follows one
    """

    def __init__(self, widths: tuple[int, ...], stride: int = 1, *, opens: bool = True) -> None:
        super().__init__()
        self.stride, self.opens = stride, opens
        pairs = list(pairwise(widths))
        last = len(pairs) - 1
        self.units = nn.Sequential(
            *(unit(a, b, separable=True, activation=relu if i < last else None) for i, (a, b) in enumerate(pairs))
        )
        changes = stride != 1 or widths[0] != widths[-1]
        self.shortcut = unit(widths[0], widths[-1], 1, stride, activation=None) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.units(F.relu(x) if self.opens else x)
        if self.stride > 1:
            y = F.max_pool2d(y, 3, self.stride, padding=1)
        return y + self.shortcut(x)


def xception(classes: int = 1000, width: float = 1.0) -> Xception:
    """22.9 M parameters, 8.36 G multiplications."""
    return Xception(classes, width)


def xception_cifar(classes: int = 10, width: float = 0.25) -> Xception:
    """A quarter of the channels: 1.4 M parameters, 89 M multiplications."""
    return Xception(classes, width, small=True)
