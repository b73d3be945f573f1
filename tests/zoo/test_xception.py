"""Xception: the sizes of the paper, timm's network, nothing between the steps."""

import torch
from torch import nn
from twins import copy_in_order, counted, difference, drawn, needs_timm, sizes, sizes_of_timm

from sepwise import zoo
from sepwise.nn import SeparableConv2d
from sepwise.sources import load_model


def test_sizes_of_the_paper():
    found = counted(zoo.xception)
    assert found.parameters == 22_855_952  # table 3
    assert [found.modules[part].output_shape for part in ("entry", "middle", "exit")] == [
        *[(1, 728, 19, 19)] * 2,  # figure 5
        (1, 2048, 10, 10),
    ]


@needs_timm
def test_timm_has_the_same_network():
    assert sizes_of_timm("legacy_xception", 299) == sizes(counted(zoo.xception))
    ours, theirs, x = zoo.xception(), drawn(load_model("timm:legacy_xception").model), torch.randn(1, 3, 71, 71)
    copy_in_order(theirs, ours, x)
    assert difference(ours, theirs, x) < 1e-10


def test_nothing_stands_between_the_steps():
    pairs = [m for m in zoo.xception_cifar().modules() if isinstance(m, SeparableConv2d)]
    assert len(pairs) == 34
    assert all(pair.between is None and pair.between_norm is None for pair in pairs)
    for pair in pairs:
        pair.dense_weight()


def test_the_input_of_a_block_is_left_as_it_was():
    from sepwise.zoo.xception import Block

    x = torch.randn(2, 8, 6, 6)
    kept = x.clone()
    y = Block((8, 8, 8))(x)
    assert torch.equal(x, kept)
    assert (y < 0).any(), "no activation follows the sum"


def test_small_pictures_are_halved_three_times():
    found = counted(zoo.xception_cifar)
    assert (round(found.parameters / 1e6, 1), round(found.macs / 1e6)) == (1.4, 89)
    assert found.modules["exit"].output_shape == (1, 512, 4, 4)
    assert sum(isinstance(m, nn.Conv2d) for m in zoo.Xception(10, 0.25, middle=0, small=True).modules()) == 6
