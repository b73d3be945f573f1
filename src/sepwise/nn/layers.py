"""The layers that are nothing but their chain of steps: spatial in both orders, blueprint, CP and Tucker."""

from __future__ import annotations

from .factored import FactoredConv


class SpatialConv2d(FactoredConv):
    """N x 1, then 1 x N: (N, in, H, W) -> `rank` middle channels for each group -> (N, out, H', W').

        y = horizontal * (vertical * x) + bias

    vertical    (groups * rank, in / groups, KH, 1)
    horizontal  (out, rank, 1, KW)

    With groups = in_channels the kernels of a depthwise convolution are separated, channel by channel (7 x 7 becomes
    7 x 1 and 1 x 7). Arguments as in `torch.nn.Conv2d`; Jaderberg et al. 2014, arXiv 1405.3866, scheme 2.

    >>> import torch
    >>> layer = SpatialConv2d(8, 16, 5, padding=2, rank=4)
    >>> [tuple(weight.shape) for weight in layer.weights], tuple(layer.dense_weight().shape)
    ([(4, 8, 5, 1), (16, 4, 1, 5)], (16, 8, 5, 5))
    >>> tuple(layer(torch.ones(1, 8, 9, 9)).shape)
    (1, 16, 9, 9)
    """

    form, ndim = "spatial", 2


class SpatialConv3d(FactoredConv):
    """D x H x 1, then 1 x 1 x W: see `SpatialConv2d`.

    vertical    (groups * rank, in / groups, KD, KH, 1)
    horizontal  (out, rank, 1, 1, KW)
    """

    form, ndim = "spatial", 3


class SpatialReversedConv2d(FactoredConv):
    """1 x N, then N x 1: (N, in, H, W) -> `rank` middle channels for each group -> (N, out, H', W').

        y = vertical * (horizontal * x) + bias

    horizontal  (groups * rank, in / groups, 1, KW)
    vertical    (out, rank, KH, 1)

    `SpatialConv2d` in the other order: another set of kernels at the same rank. Arguments as in `torch.nn.Conv2d`.

    >>> layer = SpatialReversedConv2d(8, 16, 5, padding=2, rank=4)
    >>> [tuple(weight.shape) for weight in layer.weights], tuple(layer.dense_weight().shape)
    ([(4, 8, 1, 5), (16, 4, 5, 1)], (16, 8, 5, 5))
    """

    form, ndim = "spatial_reversed", 2


class SpatialReversedConv3d(FactoredConv):
    """1 x H x W, then D x 1 x 1: space and then time where D is time, (2+1)D (Tran et al. 2018, arXiv 1711.11248).

    horizontal  (groups * rank, in / groups, 1, KH, KW)
    vertical    (out, rank, KD, 1, 1)
    """

    form, ndim = "spatial_reversed", 3


class BlueprintConv1d(FactoredConv):
    """Pointwise, then depthwise, in one dimension: see `BlueprintConv2d`."""

    form, ndim = "blueprint", 1


class BlueprintConv2d(FactoredConv):
    """Mix channels at each pixel, then filter each of them on its own: (N, in, H, W) -> (N, out, H', W').

        y[n,o] = bias[o] + sum over m < rank of  depthwise[o,m] * (pointwise[o * rank + m] @ x[n])

    pointwise   (out * rank, in / groups, 1, 1)
    depthwise   (out, rank, KH, KW): `rank` filters for each output

    rank=1 is BSConv-U: Haase and Amthor, CVPR 2020, section 3. Arguments as in `torch.nn.Conv2d`.

    >>> layer = BlueprintConv2d(8, 16, 3, rank=1)
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(16, 8, 1, 1), (16, 1, 3, 3)]
    """

    form, ndim = "blueprint", 2


class BlueprintConv3d(FactoredConv):
    """Pointwise, then depthwise, in three dimensions: see `BlueprintConv2d`."""

    form, ndim = "blueprint", 3


class CPConv1d(FactoredConv):
    """Pointwise, depthwise, pointwise, in one dimension: see `CPConv2d`."""

    form, ndim = "cp", 1


class CPConv2d(FactoredConv):
    """Pointwise, depthwise, pointwise: (N, in, H, W) -> `rank` middle channels for each group -> (N, out, H', W').

        y = bias + pointwise_out @ (depthwise * (pointwise_in @ x))

    pointwise_in    (groups * rank, in / groups, 1, 1)
    depthwise       (groups * rank, 1, KH, KW)
    pointwise_out   (out, rank, 1, 1)

    The linear part of an inverted residual block (MobileNetV2). Arguments as in `torch.nn.Conv2d`.

    >>> layer = CPConv2d(8, 16, 3, rank=5)
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(5, 8, 1, 1), (5, 1, 3, 3), (16, 5, 1, 1)]
    """

    form, ndim = "cp", 2


class CPConv3d(FactoredConv):
    """Pointwise, depthwise, pointwise, in three dimensions: see `CPConv2d`."""

    form, ndim = "cp", 3


class TuckerConv1d(FactoredConv):
    """Pointwise, small dense core, pointwise, in one dimension: see `TuckerConv2d`."""

    form, ndim = "tucker", 1


class TuckerConv2d(FactoredConv):
    """Pointwise, a dense core on fewer channels, pointwise: (N, in, H, W) -> (N, out, H', W').

        y = bias + pointwise_out @ (core * (pointwise_in @ x))

    rank            (in, out) channels of the core for each group, or one integer for both
    pointwise_in    (groups * rank_in, in / groups, 1, 1)
    core            (groups * rank_out, rank_in, KH, KW)
    pointwise_out   (out, rank_out, 1, 1)

    The bottleneck block of ResNet without its activations; Kim et al. 2016, arXiv 1511.06530.

    >>> layer = TuckerConv2d(8, 16, 3, rank=(4, 6))
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(4, 8, 1, 1), (6, 4, 3, 3), (16, 6, 1, 1)]
    """

    form, ndim = "tucker", 2


class TuckerConv3d(FactoredConv):
    """Pointwise, small dense core, pointwise, in three dimensions: see `TuckerConv2d`."""

    form, ndim = "tucker", 3
