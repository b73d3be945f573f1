"""The residual networks for CIFAR of He et al.: 6n + 2 layers, 16-32-64 channels, shortcuts without parameters."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ShapeError
from .picture import picture_of
from .unit import scaled


class CifarResNet(nn.Module):
    """Class scores of a small picture: (N, 3, H, W) -> (N, classes), 32 x 32 in the paper.

        conv 3x3, 16 -> n blocks at 16 channels -> n at 32, half size -> n at 64, half size -> mean -> linear

    depth      6n + 2: two convolutions in each of 3n blocks, the first convolution and the linear layer
    width      every layer has that many times its channels, the first 16 rounded
    picture    the mean and deviation of ImageNet, as in the training of akamaster/pytorch_resnet_cifar10

    He, Zhang, Ren and Sun, Deep Residual Learning, CVPR 2016, section 4.2; shortcuts are their option A.
    Raises ShapeError when depth is not 6n + 2 or width is not positive.

    >>> import torch
    >>> CifarResNet(20)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    picture = picture_of(32)

    def __init__(self, depth: int, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ShapeError(f"CifarResNet: depth={depth} must be 6n + 2 with n >= 1: 8, 14, 20, ...")
        base = scaled(16, width)
        self.conv1 = nn.Conv2d(3, base, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.layer1 = _stage(base, base, blocks)
        self.layer2 = _stage(base, 2 * base, blocks)
        self.layer3 = _stage(2 * base, 4 * base, blocks)
        self.linear = nn.Linear(4 * base, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; with twice the channels at half the size when in and out differ."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.grows = in_channels != channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2 if self.grows else 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.added = (channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Every second pixel, between zero channels on both sides: option A of the paper, no parameters."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added, self.added)) if self.grows else x


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(Block(in_channels, channels), *(Block(channels, channels) for _ in range(blocks - 1)))


def resnet20(classes: int = 10, width: float = 1.0) -> CifarResNet:
    """0.27 M parameters."""
    return CifarResNet(20, classes, width)


def resnet32(classes: int = 10, width: float = 1.0) -> CifarResNet:
    """0.46 M parameters."""
    return CifarResNet(32, classes, width)


def resnet44(classes: int = 10, width: float = 1.0) -> CifarResNet:
    """0.66 M parameters."""
    return CifarResNet(44, classes, width)


def resnet56(classes: int = 10, width: float = 1.0) -> CifarResNet:
    """0.85 M parameters."""
    return CifarResNet(56, classes, width)


def resnet110(classes: int = 10, width: float = 1.0) -> CifarResNet:
    """1.73 M parameters."""
    return CifarResNet(110, classes, width)
