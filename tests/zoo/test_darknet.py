"""Darknet and QuickNet: the configuration files layer by layer, their published sizes, what the twins change."""

from functools import partial

import pytest
import torch
from torch import nn
from twins import counted

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.nn import SeparableConv2d


@pytest.mark.parametrize(
    ("name", "size", "millions", "millions_of_macs"),
    [
        (
            "darknet",
            224,
            7.32,
            403,
        ),  # pjreddie.com/darknet/tiny-darknet: 28 MB, 0.81 Bn operations, two a multiplication
        ("darknet_cifar", 28, 7.68, 812),
        ("darknet_cifar", 32, 7.68, 1061),
        ("darknet_cifar_separable", 28, 0.89, 96),
        ("darknet_cifar_separable", 32, 0.89, 126),
        ("quicknet_cifar", 32, 0.89, 126),
    ],
)
def test_sizes(name, size, millions, millions_of_macs):
    found = counted(zoo.NETWORKS[name], size)
    assert (round(found.parameters / 1e6, 2), round(found.macs / 1e6)) == (millions, millions_of_macs)


def test_layers_of_the_file_for_cifar():
    """cfg/cifar.cfg, read from top to bottom."""
    stage = ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 3
    expected = [*stage, "MaxPool2d", "Dropout"] * 2 + [*stage, "Dropout", "Conv2d", "LeakyReLU"]
    model = zoo.darknet_cifar()
    assert [type(m).__name__ for m in model.modules() if not list(m.children())] == expected
    assert all(m.negative_slope == 0.1 for m in model.modules() if isinstance(m, nn.LeakyReLU))
    assert all(m.p == 0.5 for m in model.modules() if isinstance(m, nn.Dropout))


def test_odd_sizes_are_rounded_up():
    assert counted(zoo.darknet).modules["stages"].output_shape == (1, 1024, 4, 4)  # 7 becomes 4


@pytest.mark.parametrize("name", ["darknet_separable", "darknet_cifar_separable", "quicknet", "quicknet_cifar"])
def test_only_the_first_convolution_stays_dense(name):
    model = zoo.NETWORKS[name](width=0.125)
    dense = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.kernel_size) for m in dense] == [(3, (3, 3)), (dense[1].in_channels, (1, 1))]
    pairs = [m for m in model.modules() if isinstance(m, SeparableConv2d)]
    assert len(pairs) == (8 if name.endswith(("cifar", "cifar_separable")) else 6)
    assert all(pair.between is None and pair.between_norm is None for pair in pairs)


def test_a_width_that_leaves_three_channels_makes_no_second_stem():
    model = zoo.Darknet([[3, 3]], 2, separable=True, size=8)
    assert sum(isinstance(m, SeparableConv2d) for m in model.modules()) == 1


def test_quicknet_learns_a_slope_for_each_channel():
    model = zoo.quicknet_cifar()
    slopes = [m for m in model.modules() if isinstance(m, nn.PReLU)]
    assert [m.num_parameters for m in slopes] == [128] * 3 + [256] * 3 + [512] * 3 + [10]
    assert not any(isinstance(m, nn.LeakyReLU) for m in model.modules())
    scores = model(torch.randn(2, 3, 32, 32))
    scores.sum().backward()
    assert all(m.weight.grad is not None for m in slopes)


@pytest.mark.parametrize("stages", [(), ((8,), ())])
def test_empty_stages_are_refused(stages):
    for network in (zoo.Darknet, partial(zoo.QuickNet)):
        with pytest.raises(ShapeError, match="expected channels for one stage or more"):
            network(stages)
