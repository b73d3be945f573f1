"""The unit that networks are built of: what follows what, widths, first weights."""

from functools import partial

import pytest
import torch
from torch import nn

from sepwise.errors import ShapeError
from sepwise.nn import SeparableConv2d
from sepwise.zoo.unit import draw_weights, scaled, unit


def kinds(layers: nn.Sequential) -> dict[str, str]:
    return {name: type(layer).__name__ for name, layer in layers.named_children()}


def test_what_a_unit_holds():
    assert kinds(unit(3, 8)) == {"conv": "Conv2d", "norm": "BatchNorm2d", "activation": "ReLU"}
    assert kinds(unit(3, 8, separable=True, activation=None)) == {"conv": "SeparableConv2d", "norm": "BatchNorm2d"}
    slopes = unit(3, 8, dropout=0.5, activation=nn.PReLU)
    assert list(kinds(slopes).values()) == ["Conv2d", "Dropout", "BatchNorm2d", "PReLU"]
    assert slopes.get_submodule("activation").num_parameters == 8
    assert all(unit(3, 8, separable=s).get_submodule("conv").bias is None for s in (False, True))


@pytest.mark.parametrize("separable", [False, True])
def test_an_odd_kernel_keeps_the_size(separable):
    x = torch.zeros(1, 4, 7, 9)
    for kernel in (1, 3, 5):
        assert unit(4, 6, kernel, separable=separable)(x).shape == (1, 6, 7, 9)
    assert unit(4, 6, 3, padding=0, separable=separable)(x).shape == (1, 6, 5, 7)


def test_widths():
    assert [scaled(32, width) for width in (1, 0.25, 0.01, 1.3)] == [32, 8, 1, 42]
    for width in (0.0, -0.5):
        with pytest.raises(ShapeError, match=r"expected a positive factor for the number of channels, such as 0\.5"):
            scaled(32, width)


def rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


LAYERS = {
    "dense": nn.Conv2d,
    "separable": SeparableConv2d,
    "active between": partial(SeparableConv2d, between="relu"),
}


@pytest.mark.parametrize("kind", LAYERS)
@torch.no_grad()
def test_twenty_layers_neither_amplify_nor_silence(kind):
    model = nn.Sequential()
    for _ in range(20):
        model.extend([LAYERS[kind](64, 64, 3, padding=1, padding_mode="circular", bias=False), nn.ReLU()])
    x = torch.randn(4, 64, 8, 8)
    before = rms(model(x))
    draw_weights(model)
    assert 0.05 < rms(model(x)) < 20
    assert before < 1e-3, "as drawn by PyTorch the signal fades"


def test_biases_start_at_zero():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), SeparableConv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    draw_weights(model)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))
