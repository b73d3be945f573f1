"""QuickNet: Darknet with separable convolutions and a learned slope below zero."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .darknet import CIFAR, REFERENCE, Darknet


class QuickNet(Darknet):
    """Class scores of a picture: (N, 3, H, W) -> (N, classes).

        Darknet, with depthwise 3x3 -> pointwise -> norm -> PReLU in place of conv 3x3 -> norm -> leaky ReLU

    stages, classes, width, dropout, size    as in `Darknet`

    Ghosh, QuickNet, arXiv 1701.02291, 2017. Public is the abstract, which names these two changes to "the reference
    Darknet model" and no table of layers. Chosen here: the stages of Redmon's files (for CIFAR those of cfg/cifar.cfg,
    since the reference network halves 32 pixels to one), the first convolution dense, nothing between the two steps as
    Chollet found best, one slope for each channel at first 0.25 (He et al., ICCV 2015), also after the scores, where
    Darknet has its leaky ReLU. No residual connections: Ghosh 2017, arXiv 1701.04489, says so. The abstract claims
    95.7 % on CIFAR-10 with fewer parameters than networks before it, and names SqueezeNet (1.2 M).

    >>> import torch
    >>> QuickNet([[8], [16, 16]], classes=5, size=32)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]] = REFERENCE,
        classes: int = 1000,
        width: float = 1.0,
        *,
        dropout: float = 0.0,
        size: int = 224,
    ) -> None:
        super().__init__(stages, classes, width, separable=True, activation=nn.PReLU, dropout=dropout, size=size)


def quicknet(classes: int = 1000, width: float = 1.0) -> QuickNet:
    """1.7 M parameters, 82 M multiplications."""
    return QuickNet(REFERENCE, classes, width)


def quicknet_cifar(classes: int = 10, width: float = 1.0) -> QuickNet:
    """0.89 M parameters, 126 M multiplications."""
    return QuickNet(CIFAR, classes, width, dropout=0.5, size=32)
