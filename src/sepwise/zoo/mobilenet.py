"""MobileNet v1: a chain of separable convolutions, norm and ReLU after both steps; and its dense twin."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .picture import picture_of
from .unit import draw_weights, scaled, unit

STEM = 32
STAGES = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))  # output channels of the separable convolutions


class MobileNet(nn.Module):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes), 224 x 224 in the paper.

        conv 3x3, stride 2 -> 13 x [depthwise 3x3 -> norm -> ReLU -> pointwise -> norm -> ReLU] -> mean -> linear

    width        the paper's multiplier alpha: every layer has that many times its channels
    separable    False: the dense twin of the paper's table 4, each pair replaced by [conv 3x3 -> norm -> ReLU]
    small        True: for 32 x 32, halved by the last three stages only, as Haase and Amthor, CVPR 2020, do in their
                 code; others leave the stride of the second stage, at a quarter of the multiplications
    picture      the mean and deviation of ImageNet

    Howard et al., MobileNets, arXiv 1704.04861, 2017, table 1. Their resolution multiplier is the size of the picture.
    The ReLU is that of the paper; the code of TensorFlow has ReLU6. Raises ShapeError when width is not positive.

    >>> import torch
    >>> MobileNet(10, width=0.25, small=True)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 1000, width: float = 1.0, *, separable: bool = True, small: bool = False) -> None:
        super().__init__()
        self.picture = picture_of(32 if small else 224)
        channels = scaled(STEM, width)
        between: dict[str, Any] = {"between_norm": nn.BatchNorm2d, "between": "relu"} if separable else {}
        self.stem = unit(3, channels, stride=1 if small else 2)
        self.stages = nn.Sequential()
        for halves, stage in zip((False, not small, True, True, True), STAGES, strict=True):
            blocks = nn.Sequential()
            for index, wide in enumerate(stage):
                stride, out_channels = 2 if halves and index == 0 else 1, scaled(wide, width)
                blocks.append(unit(channels, out_channels, stride=stride, separable=separable, **between))
                channels = out_channels
            self.stages.append(blocks)
        self.linear = nn.Linear(channels, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.stages(self.stem(x)).mean((2, 3)))


def mobilenet_v1(classes: int = 1000, width: float = 1.0) -> MobileNet:
    """4.2 M parameters, 569 M multiplications."""
    return MobileNet(classes, width)


def mobilenet_v1_dense(classes: int = 1000, width: float = 1.0) -> MobileNet:
    """29.3 M parameters, 4866 M multiplications."""
    return MobileNet(classes, width, separable=False)


def mobilenet_v1_cifar(classes: int = 10, width: float = 1.0) -> MobileNet:
    """3.2 M parameters, 176 M multiplications."""
    return MobileNet(classes, width, small=True)


def mobilenet_v1_cifar_dense(classes: int = 10, width: float = 1.0) -> MobileNet:
    """28.3 M parameters, 1530 M multiplications."""
    return MobileNet(classes, width, separable=False, small=True)
