"""AlexNet: the sizes of the paper, what its groups save, its norm."""

from functools import partial
from math import prod

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from twins import counted

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.zoo.alexnet import response_norm


def test_sizes_of_the_paper():
    found = counted(zoo.alexnet)
    assert found.parameters == 60_965_224  # "60 million"; Caffe's copy has this number
    assert round(found.macs / 1e6) == 724
    shapes = [found.modules[f"features.{n}"].output_shape or () for n in (0, 4, 8, 10, 12)]
    # Neurons of section 3.5; for the first it prints 253,440, which 96 does not go into a square times.
    assert [prod(shape) for shape in shapes] == [96 * 55 * 55, 186_624, 64_896, 64_896, 43_264]


def test_two_groups_halve_three_convolutions():
    grouped, dense = (convolutions(zoo.AlexNet(width=0.125, groups=groups)) for groups in (2, 1))
    ratios = [d.weight.numel() / g.weight.numel() for g, d in zip(grouped, dense, strict=True)]
    assert ratios == [1, 2, 1, 2, 2]
    assert counted(partial(zoo.AlexNet, groups=1)).parameters == 62_378_344


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


def test_the_norm_is_that_of_the_paper():
    x = torch.randn(1, 7, 2, 2).double()
    padded = nn.functional.pad(x.square(), (0, 0, 0, 0, 2, 2))
    sums = torch.stack([padded[:, c : c + 5].sum(1) for c in range(7)], dim=1)
    assert_close(response_norm()(100 * x), 100 * x / (2 + 1e-4 * 100**2 * sums) ** 0.75)


def test_small_pictures():
    found = counted(zoo.alexnet_cifar)
    assert (round(found.parameters / 1e6, 1), round(found.macs / 1e6)) == (7.2, 52)
    assert found.modules["features"].output_shape == (1, 128, 3, 3)


@pytest.mark.parametrize("groups", [0, 3, 64])
def test_groups_that_do_not_divide_are_refused(groups):
    with pytest.raises(ShapeError, match=rf"groups={groups}: expected 1, 2, 4, 8, 16 or 32"):
        zoo.AlexNet(groups=groups)
