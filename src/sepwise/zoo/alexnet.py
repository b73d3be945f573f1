"""AlexNet: the network whose two halves brought grouped convolutions into the world."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ShapeError
from .picture import picture_of
from .unit import draw_weights, scaled


class AlexNet(nn.Module):
    """Class scores of a picture: (N, 3, 227, 227) -> (N, classes), or (N, 3, 32, 32) when small.

        conv 11x11 stride 4, 96 -> norm -> maximum -> conv 5x5, 256, grouped -> norm -> maximum -> conv 3x3, 384
        -> conv 3x3, 384, grouped -> conv 3x3, 256, grouped -> maximum -> linear 4096 -> linear 4096 -> linear

    width      every layer has that many times its channels
    groups     of the second, fourth and fifth convolution: 2 in the paper, one for each of two graphics cards, which
               exchange what they computed only before the third; any divisor of 32
    small      True: the first convolution is 5x5 with stride 1, and the last maximum leaves 3 x 3 positions, not 6 x 6
    picture    the mean and deviation of ImageNet. 227 pixels give the 55 x 55 positions of the paper, its 224 do not

    ReLU follows every layer but the last; the norm is local response normalization over 5 channels, k = 2,
    alpha = 1e-4, beta = 0.75; maxima are 3x3 with stride 2; dropout 0.5 before both linear layers of 4096.
    Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012,
    section 3. Grouped convolutions come from here; Xie et al., arXiv 1611.05431, made them a means of their own.
    Raises ShapeError for other groups, and when width is not positive.

    >>> import torch
    >>> AlexNet(5, width=0.0625)(torch.zeros(2, 3, 227, 227)).shape
    torch.Size([2, 5])
    """

    def __init__(self, classes: int = 1000, width: float = 1.0, *, groups: int = 2, small: bool = False) -> None:
        super().__init__()
        if groups < 1 or 32 % groups:
            raise ShapeError(f"AlexNet: groups={groups}: expected 1, 2, 4, 8, 16 or 32")
        self.picture = picture_of(32 if small else 227)
        a, b, c, d, e = (groups * scaled(wide // groups, width) for wide in (96, 256, 384, 384, 256))
        first, positions = (nn.Conv2d(3, a, 5, padding=2), 9) if small else (nn.Conv2d(3, a, 11, stride=4), 36)
        self.features = nn.Sequential(
            *(first, nn.ReLU(inplace=True), response_norm(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(a, b, 5, padding=2, groups=groups), nn.ReLU(inplace=True), response_norm(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(c, d, 3, padding=1, groups=groups), nn.ReLU(inplace=True)),
            *(nn.Conv2d(d, e, 3, padding=1, groups=groups), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        )
        self.classifier = three_linear(e * positions, scaled(4096, width), classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def response_norm() -> nn.LocalResponseNorm:
    """x / (2 + 1e-4 * sum of squares over 5 neighbouring channels)^0.75; PyTorch divides its alpha by the 5."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def three_linear(channels: int, hidden: int, classes: int) -> nn.Sequential:
    """The three linear layers with dropout 0.5 that AlexNet and VGG end with."""
    return nn.Sequential(
        *(nn.Dropout(0.5), nn.Linear(channels, hidden), nn.ReLU(inplace=True)),
        *(nn.Dropout(0.5), nn.Linear(hidden, hidden), nn.ReLU(inplace=True)),
        nn.Linear(hidden, classes),
    )


def alexnet(classes: int = 1000, width: float = 1.0) -> AlexNet:
    """60.97 M parameters, 724 M multiplications."""
    return AlexNet(classes, width)


def alexnet_cifar(classes: int = 10, width: float = 0.5) -> AlexNet:
    """Half the channels: 7.2 M parameters, 52 M multiplications."""
    return AlexNet(classes, width, small=True)
