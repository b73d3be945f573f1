"""GoogLeNet, the first Inception network, with batch normalization."""

from __future__ import annotations

from torch import Tensor, nn

from ..nn.blocks import InceptionModule, InceptionWidths
from .picture import picture_of
from .unit import draw_weights, scaled, unit

# Rows of table 1; a maximum of stride 2 stands between the stages.
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class GoogLeNet(nn.Module):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes), 224 x 224 in the paper.

        conv 7x7, stride 2 -> maximum -> conv 1x1 -> conv 3x3, 192 -> maximum
        -> 2 + 5 + 2 `InceptionModule`s, a maximum between the three stages -> mean -> dropout -> linear

    width      every layer has that many times its channels
    dropout    before the linear layer
    small      True: for 32 x 32, all before the first module becomes one conv 3x3 to 192 channels, as in
               github.com/kuangliu/pytorch-cifar
    picture    the mean and deviation of ImageNet

    Each convolution is followed by norm and ReLU, in place of the paper's two response normalizations (Ioffe and
    Szegedy, ICML 2015). The two classifiers that help to train the paper's network from inside are left out: the norm
    made them superfluous. Maxima are 3x3, stride 2, and round up.
    Szegedy et al., Going Deeper with Convolutions, CVPR 2015, table 1. Raises ShapeError when width is not positive.

    >>> import torch
    >>> GoogLeNet(5, width=0.125)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 5])
    """

    def __init__(self, classes: int = 1000, width: float = 1.0, *, dropout: float = 0.4, small: bool = False) -> None:
        super().__init__()
        self.picture = picture_of(32 if small else 224)
        first, channels = scaled(64, width), scaled(192, width)
        if small:
            self.stem = unit(3, channels)
        else:
            self.stem = nn.Sequential(
                *(unit(3, first, 7, stride=2), halved()),
                *(unit(first, first, 1), unit(first, channels), halved()),
            )
        self.stages = nn.Sequential()
        for number, rows in enumerate(STAGES):
            stage = nn.Sequential(*([halved()] if number else []))
            for row in rows:
                widths = InceptionWidths(*(scaled(wide, width) for wide in row))
                stage.append(InceptionModule(channels, widths.out_channels, widths=widths))
                channels = widths.out_channels
            self.stages.append(stage)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(self.stages(self.stem(x)).mean((2, 3))))


def halved() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def googlenet(classes: int = 1000, width: float = 1.0) -> GoogLeNet:
    """7.0 M parameters, 1.58 G multiplications."""
    return GoogLeNet(classes, width)


def googlenet_cifar(classes: int = 10, width: float = 1.0) -> GoogLeNet:
    """5.9 M parameters, 1.45 G multiplications."""
    return GoogLeNet(classes, width, small=True)
