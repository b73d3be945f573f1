"""GoogLeNet: each row of the paper's table, the parameters of Caffe's copy, the network for small pictures."""

import pytest
from twins import counted

from sepwise import zoo

# Millions of operations, table 1. For the first convolution it prints 34, and for 5a 54, where its own sizes give 118
# and 51.
ROWS = {
    "stages.0.0": 128,
    "stages.0.1": 304,
    "stages.1.1": 73,
    "stages.1.2": 88,
    "stages.1.3": 100,
    "stages.1.4": 119,
    "stages.1.5": 170,
    "stages.2.2": 71,
}


def test_rows_of_the_paper():
    modules = counted(zoo.googlenet).modules
    assert {name: modules[name].macs / 1e6 for name in ROWS} == pytest.approx(ROWS, abs=1)
    assert (modules["stem.2"].macs + modules["stem.3"].macs) / 1e6 == pytest.approx(360, abs=1)
    assert [modules[f"stages.{n}"].output_shape for n in range(3)] == [
        *[(1, 480, 28, 28), (1, 832, 14, 14), (1, 1024, 7, 7)]
    ]


def test_parameters_of_caffe():
    """bvlc_googlenet has a bias where the norm here has a weight and a bias."""
    weights = [p for name, p in zoo.googlenet().named_parameters() if name.endswith("norm.weight")]
    assert counted(zoo.googlenet).parameters - sum(p.numel() for p in weights) == 6_998_552


def test_small_pictures_are_halved_twice():
    found = counted(zoo.googlenet_cifar)
    assert (round(found.parameters / 1e6, 1), round(found.macs / 1e6)) == (5.9, 1447)
    assert found.modules["stages"].output_shape == (1, 1024, 8, 8)
