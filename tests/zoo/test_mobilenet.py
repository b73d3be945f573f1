"""MobileNet: the sizes of the paper at every width and resolution, the dense twin, timm's network."""

from functools import partial

import pytest
import torch
from torch import nn
from twins import copy_in_order, counted, difference, drawn, needs_timm, sizes, sizes_of_timm

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.nn import SeparableConv2d
from sepwise.sources import load_model


@pytest.mark.parametrize(
    ("width", "size", "millions_of_macs", "millions"),
    [
        *[(1.0, 224, 569, 4.2), (0.75, 224, 325, 2.6), (0.5, 224, 149, 1.3), (0.25, 224, 41, 0.5)],  # table 6
        *[(1.0, 192, 418, 4.2), (1.0, 160, 290, 4.2), (1.0, 128, 186, 4.2)],  # table 7
    ],
)
def test_sizes_of_the_paper(width, size, millions_of_macs, millions):
    parameters, macs = sizes(counted(partial(zoo.mobilenet_v1, width=width), size))
    assert macs / 1e6 == pytest.approx(millions_of_macs, abs=1)
    assert round(parameters / 1e6, 1) == millions


def test_dense_twin_of_the_paper():
    parameters, macs = sizes(counted(zoo.mobilenet_v1_dense))
    assert round(parameters / 1e6, 1) == 29.3
    assert macs / 1e6 == pytest.approx(4866, abs=2)  # table 4; 4866.3 without the linear layer


@needs_timm
def test_timm_has_the_same_network():
    assert sizes_of_timm("mobilenetv1_100", 224) == sizes(counted(zoo.mobilenet_v1))
    ours, theirs, x = zoo.mobilenet_v1(), drawn(load_model("timm:mobilenetv1_100").model), torch.randn(1, 3, 64, 64)
    copy_in_order(theirs, ours, x)
    assert difference(ours, theirs, x) > 1e-3, "timm has ReLU6, as TensorFlow's code"
    for module in ours.modules():
        if isinstance(module, SeparableConv2d):
            module.between = "relu6"
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.ReLU6())
    assert difference(ours, theirs, x) < 1e-10


def test_norm_and_activation_between_the_steps():
    pairs = [m for m in zoo.mobilenet_v1(width=0.125).modules() if isinstance(m, SeparableConv2d)]
    assert len(pairs) == 13
    assert all(isinstance(p.between_norm, nn.BatchNorm2d) and p.between == "relu" for p in pairs)
    assert not any(isinstance(m, SeparableConv2d) for m in zoo.mobilenet_v1_dense(width=0.125).modules())


def test_small_pictures_are_halved_three_times():
    found = counted(zoo.mobilenet_v1_cifar)
    assert found.modules["stages"].output_shape == (1, 1024, 4, 4)
    separable, dense = found.macs, counted(zoo.mobilenet_v1_cifar_dense).macs
    assert (round(separable / 1e6), round(dense / 1e6)) == (176, 1530)


@pytest.mark.parametrize("width", [0, -1.0])
def test_a_width_that_leaves_nothing_is_refused(width):
    with pytest.raises(ShapeError, match=rf"width={width}: expected a positive factor"):
        zoo.mobilenet_v1(width=width)
