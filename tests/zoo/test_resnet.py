"""The residual networks for ImageNet: timm's sizes and timm's weights, shortcuts, depths that do not exist."""

import pytest
import torch
from torch import nn
from twins import counted, difference, drawn, needs_timm, sizes, sizes_of_timm

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.sources import load_model

DEPTHS = (18, 34, 50, 101, 152)


@pytest.mark.parametrize(("depth", "billions"), list(zip(DEPTHS, (1.8, 3.7, 4.1, 7.8, 11.5), strict=True)))
def test_sizes(depth, billions):
    found = counted(zoo.NETWORKS[f"resnet{depth}"])
    assert round(found.macs / 1e9, 1) == billions
    with torch.device("meta"):
        convs = [m for m in zoo.ResNet(depth).modules() if isinstance(m, nn.Conv2d)]
    shortcuts = 3 if depth < 50 else 4
    assert len(convs) + 1 - shortcuts == depth


@needs_timm
@pytest.mark.parametrize("depth", DEPTHS)
def test_sizes_of_timm(depth):
    assert sizes_of_timm(f"resnet{depth}", 224) == sizes(counted(zoo.NETWORKS[f"resnet{depth}"]))


@needs_timm
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_weights_of_timm_fit_and_give_the_same_scores(name):
    ours, theirs = zoo.NETWORKS[name](), drawn(load_model(f"timm:{name}").model)
    ours.double().load_state_dict(theirs.state_dict())
    assert difference(ours, theirs, torch.randn(1, 3, 64, 64)) < 1e-10


def test_other_depths_are_refused():
    with pytest.raises(ShapeError, match="ResNet: depth=19: expected one of 18, 34, 50, 101, 152"):
        zoo.ResNet(19)
