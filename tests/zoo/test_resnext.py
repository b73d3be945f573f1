"""ResNeXt: the sizes of the paper, timm's networks, stages that hold nothing."""

import pytest
import torch
from torch import nn
from twins import copy_in_order, counted, difference, drawn, needs_timm, sizes, sizes_of_timm

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.sources import load_model


def test_sizes_of_the_paper():
    found = counted(zoo.resnext50_32x4d)
    assert round(found.parameters / 1e6, 1) == 25.0  # table 1, with 4.2e9 operations
    assert round(found.macs / 1e9, 1) == 4.2
    assert round(counted(zoo.resnext29_8x64d_cifar).parameters / 1e6, 1) == 34.4  # table 7


def test_paths_are_as_wide_as_the_name_says():
    with torch.device("meta"):
        grouped = [m for m in zoo.resnext29_8x64d_cifar().modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [(m.groups, m.in_channels // m.groups, m.stride[0]) for m in grouped] == [
        *[(8, 64, 1)] * 3,
        *[(8, 128, 2), (8, 128, 1), (8, 128, 1)],
        *[(8, 256, 2), (8, 256, 1), (8, 256, 1)],
    ]


@needs_timm
@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext101_32x8d"])
def test_sizes_of_timm(name):
    assert sizes_of_timm(name, 224) == sizes(counted(zoo.NETWORKS[name]))


@needs_timm
def test_timm_has_the_same_network():
    ours, theirs, x = zoo.resnext50_32x4d(), drawn(load_model("timm:resnext50_32x4d").model), torch.randn(1, 3, 64, 64)
    copy_in_order(theirs, ours, x)
    assert difference(ours, theirs, x) < 1e-10


@pytest.mark.parametrize("blocks", [(), (3, 0)])
def test_empty_stages_are_refused(blocks):
    with pytest.raises(ShapeError, match="expected one block or more in each stage"):
        zoo.ResNeXt(blocks)
