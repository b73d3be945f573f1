"""The residual networks of He et al. for ImageNet: 18 and 34 layers of basic blocks, 50 to 152 of bottlenecks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ShapeError
from .picture import picture_of
from .unit import draw_weights, scaled

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(nn.Module):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes), 224 x 224 in the paper.

        conv 7x7, stride 2 -> norm -> ReLU -> 3x3 maximum, stride 2
        -> four stages of residual blocks, 64-128-256-512 channels, times four in bottlenecks -> mean -> linear

    depth      18, 34, 50, 101 or 152 layers with weights
    width      every layer has that many times its channels
    picture    the mean and deviation of ImageNet

    He, Zhang, Ren and Sun, Deep Residual Learning, CVPR 2016, table 1, shortcuts of option B. A bottleneck halves the
    size in its 3x3 convolution, not in its first, as in torchvision and timm; their parameters fit by name.
    Raises ShapeError for another depth, and when width is not positive.

    >>> import torch
    >>> ResNet(18, classes=5, width=0.125)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 5])
    """

    def __init__(self, depth: int, classes: int = 1000, width: float = 1.0) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ShapeError(f"ResNet: depth={depth}: expected one of {', '.join(map(str, BLOCKS))}")
        self.picture = picture_of(224)
        block = Basic if depth < 50 else Bottleneck
        channels = scaled(64, width)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        for number, blocks in enumerate(BLOCKS[depth]):
            inner = scaled(64 * 2**number, width)
            stage = nn.Sequential()
            for index in range(blocks):
                stage.append(block(channels, inner, stride=2 if number and index == 0 else 1))
                channels = inner * block.expansion
            stages.append(stage)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(channels, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The input itself, or a 1x1 convolution and a norm where its shape changes: option B of the paper."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def resnet18(classes: int = 1000, width: float = 1.0) -> ResNet:
    """11.7 M parameters, 1.8 G multiplications."""
    return ResNet(18, classes, width)


def resnet34(classes: int = 1000, width: float = 1.0) -> ResNet:
    """21.8 M parameters, 3.7 G multiplications."""
    return ResNet(34, classes, width)


def resnet50(classes: int = 1000, width: float = 1.0) -> ResNet:
    """25.6 M parameters, 4.1 G multiplications."""
    return ResNet(50, classes, width)


def resnet101(classes: int = 1000, width: float = 1.0) -> ResNet:
    """44.5 M parameters, 7.8 G multiplications."""
    return ResNet(101, classes, width)


def resnet152(classes: int = 1000, width: float = 1.0) -> ResNet:
    """60.2 M parameters, 11.5 G multiplications."""
    return ResNet(152, classes, width)
