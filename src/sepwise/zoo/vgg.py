"""The VGG networks: for ImageNet, with and without normalization, and as they are used on CIFAR."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ShapeError
from .alexnet import three_linear
from .picture import picture_of
from .unit import draw_weights, scaled

# Output channels of the 3x3 convolutions, a list for each stage; a 2x2 maximum ends each stage.
STAGES = {
    11: ([64], [128], [256, 256], [512, 512], [512, 512]),
    13: ([64, 64], [128, 128], [256, 256], [512, 512], [512, 512]),
    16: ([64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]),
    19: ([64, 64], [128, 128], [256] * 4, [512] * 4, [512] * 4),
}


class VGG(nn.Module):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes), 224 x 224 in the paper.

        five stages of [conv 3x3 -> ReLU], each halved by a maximum -> 7 x 7 positions -> linear 4096 -> 4096 -> linear

    depth      11, 13, 16 or 19 layers with weights
    width      every layer has that many times its channels
    norm       True: batch normalization after each convolution
    picture    the mean and deviation of ImageNet; of pictures of another size the mean over 7 x 7 areas is taken

    Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, table 1, columns A, B, D, E. Parameters are
    named as in torchvision and fit. Raises ShapeError for another depth, and when width is not positive.

    >>> import torch
    >>> VGG(11, classes=5, width=0.0625)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 5])
    """

    def __init__(self, depth: int, classes: int = 1000, width: float = 1.0, *, norm: bool = False) -> None:
        super().__init__()
        self.picture = picture_of(224)
        self.features = features(depth, width, norm=norm, bias=True)
        self.areas = nn.AdaptiveAvgPool2d(7)
        self.classifier = three_linear(scaled(512, width) * 49, scaled(4096, width), classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.areas(self.features(x)).flatten(1))


class CifarVGG(nn.Module):
    """Class scores of a small picture: (N, 3, 32, 32) -> (N, classes).

        five stages of [conv 3x3 -> norm -> ReLU], each halved by a maximum -> linear

    depth      11, 13, 16 or 19: the layers with weights in the paper, two of whose linear layers are left out here
    width      every layer has that many times its channels
    picture    the mean and deviation of ImageNet

    Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, table 1, columns A, B, D, E; for CIFAR as in
    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 4.1.
    Raises ShapeError for another depth, and when width is not positive.

    >>> import torch
    >>> CifarVGG(11)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    picture = picture_of(32)

    def __init__(self, depth: int, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        self.features = features(depth, width, norm=True, bias=False)
        self.linear = nn.Linear(scaled(512, width), classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).flatten(1))


def features(depth: int, width: float, *, norm: bool, bias: bool) -> nn.Sequential:
    """The five stages. Raises ShapeError for a depth that the paper does not have."""
    if depth not in STAGES:
        raise ShapeError(f"VGG: depth={depth}: expected one of {', '.join(map(str, STAGES))}")
    layers: list[nn.Module] = []
    channels = 3
    for stage in STAGES[depth]:
        for wide in stage:
            out_channels = scaled(wide, width)
            layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias))
            if norm:
                layers.append(nn.BatchNorm2d(out_channels))
            layers.append(nn.ReLU(inplace=True))
            channels = out_channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def vgg11(classes: int = 1000, width: float = 1.0) -> VGG:
    """132.9 M parameters, 7.6 G multiplications."""
    return VGG(11, classes, width)


def vgg13(classes: int = 1000, width: float = 1.0) -> VGG:
    """133.0 M parameters, 11.3 G multiplications."""
    return VGG(13, classes, width)


def vgg16(classes: int = 1000, width: float = 1.0) -> VGG:
    """138.4 M parameters, 15.5 G multiplications."""
    return VGG(16, classes, width)


def vgg19(classes: int = 1000, width: float = 1.0) -> VGG:
    """143.7 M parameters, 19.6 G multiplications."""
    return VGG(19, classes, width)


def vgg11_bn(classes: int = 1000, width: float = 1.0) -> VGG:
    """132.9 M parameters, 7.6 G multiplications."""
    return VGG(11, classes, width, norm=True)


def vgg13_bn(classes: int = 1000, width: float = 1.0) -> VGG:
    """133.1 M parameters, 11.3 G multiplications."""
    return VGG(13, classes, width, norm=True)


def vgg16_bn(classes: int = 1000, width: float = 1.0) -> VGG:
    """138.4 M parameters, 15.5 G multiplications."""
    return VGG(16, classes, width, norm=True)


def vgg19_bn(classes: int = 1000, width: float = 1.0) -> VGG:
    """143.7 M parameters, 19.6 G multiplications."""
    return VGG(19, classes, width, norm=True)


def vgg11_cifar(classes: int = 10, width: float = 1.0) -> CifarVGG:
    """9.2 M parameters, 153 M multiplications."""
    return CifarVGG(11, classes, width)


def vgg13_cifar(classes: int = 10, width: float = 1.0) -> CifarVGG:
    """9.4 M parameters, 228 M multiplications."""
    return CifarVGG(13, classes, width)


def vgg16_cifar(classes: int = 10, width: float = 1.0) -> CifarVGG:
    """14.7 M parameters, 313 M multiplications."""
    return CifarVGG(16, classes, width)


def vgg19_cifar(classes: int = 10, width: float = 1.0) -> CifarVGG:
    """20.0 M parameters, 398 M multiplications."""
    return CifarVGG(19, classes, width)
