"""The VGG networks as they are used on CIFAR: batch normalization, one linear layer in place of three."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ShapeError
from .resnet import CifarResNet

# Output channels of the 3x3 convolutions, a list for each stage; a 2x2 maximum ends each stage.
STAGES = {
    11: ([64], [128], [256, 256], [512, 512], [512, 512]),
    13: ([64, 64], [128, 128], [256, 256], [512, 512], [512, 512]),
    16: ([64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]),
    19: ([64, 64], [128, 128], [256] * 4, [512] * 4, [512] * 4),
}


class CifarVGG(nn.Module):
    """Class scores of a small picture: (N, 3, 32, 32) -> (N, classes).

        five stages of [conv 3x3 -> norm -> ReLU], each halved by a maximum -> linear

    depth      11, 13, 16 or 19: the layers with weights in the paper, two of whose linear layers are left out here
    picture    the mean and deviation of ImageNet

    Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, table 1, columns A, B, D, E; for CIFAR as in
    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 4.1.
    Raises ShapeError for another depth.

    >>> import torch
    >>> CifarVGG(11)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    picture = CifarResNet.picture

    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        if depth not in STAGES:
            raise ShapeError(f"CifarVGG: depth={depth}: expected one of {', '.join(map(str, STAGES))}")
        layers: list[nn.Module] = []
        channels = 3
        for stage in STAGES[depth]:
            for out_channels in stage:
                conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
                channels = out_channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).flatten(1))


def vgg11_cifar() -> CifarVGG:
    """9.2 M parameters, 153 M multiplications."""
    return CifarVGG(11)


def vgg13_cifar() -> CifarVGG:
    """9.4 M parameters, 228 M multiplications."""
    return CifarVGG(13)


def vgg16_cifar() -> CifarVGG:
    """14.7 M parameters, 313 M multiplications."""
    return CifarVGG(16)


def vgg19_cifar() -> CifarVGG:
    """20.0 M parameters, 398 M multiplications."""
    return CifarVGG(19)
