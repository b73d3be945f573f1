"""ResNeXt: residual networks of grouped bottlenecks, for ImageNet and for CIFAR."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import ShapeError
from ..nn.blocks import ResNeXtModule
from .picture import picture_of
from .unit import draw_weights, scaled, unit


class ResNeXt(nn.Module):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes), 224 x 224 or 32 x 32 in the paper.

        conv 7x7, stride 2 -> 3x3 maximum, stride 2 -> stages of `ResNeXtModule`, 256 channels, twice as many at half
        the size in each further stage -> mean -> linear

    blocks             modules of each stage, three layers in each
    cardinality        paths of a module
    width_per_group    channels of a path in the first stage; they double as the others do
    width              every layer has that many times its channels; the paths stay as many
    small              True: for 32 x 32, the network begins with a conv 3x3, stride 1, and no maximum
    picture            the mean and deviation of ImageNet

    Xie, Girshick, Dollar, Tu and He, Aggregated Residual Transformations, CVPR 2017, arXiv 1611.05431, table 1 and
    section 4. Raises ShapeError for no stages or no blocks in one, and when width is not positive.

    >>> import torch
    >>> ResNeXt((1, 1), cardinality=4, width_per_group=2, classes=5, width=0.25)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6, 3),
        cardinality: int = 32,
        width_per_group: int = 4,
        classes: int = 1000,
        width: float = 1.0,
        *,
        small: bool = False,
    ) -> None:
        super().__init__()
        if not blocks or min(blocks) < 1:
            raise ShapeError(
                f"ResNeXt: blocks={blocks}: expected one block or more in each stage, such as (3, 4, 6, 3)"
            )
        self.picture = picture_of(32 if small else 224)
        channels = scaled(64, width)
        self.stem = unit(3, channels) if small else unit(3, channels, 7, stride=2)
        self.maximum = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.Sequential()
        for number, count in enumerate(blocks):
            out_channels, group = (scaled(wide * 2**number, width) for wide in (256, width_per_group))
            stage = nn.Sequential()
            for index in range(count):
                stride = 2 if number and index == 0 else 1
                module = ResNeXtModule(
                    channels, out_channels, stride=stride, cardinality=cardinality, width_per_group=group
                )
                stage.append(module)
                channels = out_channels
            self.stages.append(stage)
        self.linear = nn.Linear(channels, classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.stages(self.maximum(self.stem(x))).mean((2, 3)))


def resnext50_32x4d(classes: int = 1000, width: float = 1.0) -> ResNeXt:
    """25.0 M parameters, 4.2 G multiplications."""
    return ResNeXt((3, 4, 6, 3), 32, 4, classes, width)


def resnext101_32x8d(classes: int = 1000, width: float = 1.0) -> ResNeXt:
    """88.8 M parameters, 16.4 G multiplications."""
    return ResNeXt((3, 4, 23, 3), 32, 8, classes, width)


def resnext29_8x64d_cifar(classes: int = 10, width: float = 1.0) -> ResNeXt:
    """34.4 M parameters, 5.4 G multiplications."""
    return ResNeXt((3, 3, 3), 8, 64, classes, width, small=True)
