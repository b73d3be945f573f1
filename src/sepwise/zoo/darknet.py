"""The Darknet networks of Redmon's configuration files, and their separable twins."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import ShapeError
from .picture import picture_of
from .unit import Activation, draw_weights, scaled, unit

REFERENCE = ((16,), (32,), (64,), (128,), (256,), (512,), (1024,))  # cfg/darknet.cfg
CIFAR = ((128,) * 3, (256,) * 3, (512,) * 3)  # cfg/cifar.cfg


def leaky(channels: int) -> nn.LeakyReLU:
    return nn.LeakyReLU(0.1, inplace=True)


class Darknet(nn.Module):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes).

        stages of [conv 3x3 -> norm -> leaky ReLU], a 2x2 maximum between them, dropout after each
        -> conv 1x1 to the classes -> leaky ReLU -> mean

    stages        output channels of the 3x3 convolutions, a list for each stage; any number of any length
    width         every layer has that many times its channels
    separable     True: depthwise 3x3 then 1x1, nothing in between, for each 3x3 convolution but the first, whose
                  three channels leave little to save
    activation    called with the number of channels; slope 0.1 below zero as in the files
    size          of the pictures, pixels; any other works, the maximum rounds up
    picture       the mean and deviation of ImageNet

    The activation after the scores is that of both files: it is unusual, and it is kept.
    Redmon, github.com/pjreddie/darknet, cfg/darknet.cfg and cfg/cifar.cfg; the separable twin: Ghosh 2017, arXiv
    1701.04489, who replaces "DarkNet's layers" and says no more.
    Raises ShapeError for no stages and when width is not positive.

    >>> import torch
    >>> Darknet([[8], [16, 16]], classes=5, size=32)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]] = REFERENCE,
        classes: int = 1000,
        width: float = 1.0,
        *,
        separable: bool = False,
        activation: Activation = leaky,
        dropout: float = 0.0,
        size: int = 224,
    ) -> None:
        super().__init__()
        if not stages or not all(stages):
            raise ShapeError(f"{type(self).__name__}: stages={stages}: expected channels for one stage or more")
        self.picture = picture_of(size)
        self.stages = nn.Sequential()
        channels = 3
        for number, stage in enumerate(stages, start=1):
            layers = nn.Sequential()
            for index, wide in enumerate(stage):
                out_channels, stem = scaled(wide, width), number == 1 and index == 0
                layers.append(unit(channels, out_channels, separable=separable and not stem, activation=activation))
                channels = out_channels
            if number < len(stages):
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            if dropout:
                layers.append(nn.Dropout(dropout))
            self.stages.append(layers)
        self.scores = nn.Sequential(nn.Conv2d(channels, classes, 1), activation(classes))
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.stages(x)).mean((2, 3))


def darknet(classes: int = 1000, width: float = 1.0) -> Darknet:
    """The reference network: 7.3 M parameters, 403 M multiplications."""
    return Darknet(REFERENCE, classes, width)


def darknet_separable(classes: int = 1000, width: float = 1.0) -> Darknet:
    """1.7 M parameters, 82 M multiplications."""
    return Darknet(REFERENCE, classes, width, separable=True)


def darknet_cifar(classes: int = 10, width: float = 1.0) -> Darknet:
    """7.7 M parameters, 1061 M multiplications; 812 M at the 28 x 28 it is trained on."""
    return Darknet(CIFAR, classes, width, dropout=0.5, size=32)


def darknet_cifar_separable(classes: int = 10, width: float = 1.0) -> Darknet:
    """0.89 M parameters, 126 M multiplications."""
    return Darknet(CIFAR, classes, width, separable=True, dropout=0.5, size=32)
