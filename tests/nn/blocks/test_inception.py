"""The Inception module against NumPy, tower by tower, and GoogLeNet's own widths."""

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from torch import nn

from sepwise.errors import ShapeError
from sepwise.nn.blocks import InceptionModule, InceptionWidths


def maximum(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    half = kernel // 2
    padded = np.pad(x, [(0, 0), (0, 0), (half, half), (half, half)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))
    return windows.max((4, 5))[:, :, ::stride, ::stride]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_four_towers(stride: int, kernel: int) -> None:
    module = InceptionModule(5, 10, stride=stride, kernel_size=kernel, norm=None, activation="elu").double()
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    convs: Any = [m for m in module.modules() if isinstance(m, nn.Conv2d)]

    def step(x: Any, conv: nn.Conv2d, stride: int = 1) -> np.ndarray:
        return oracle.activated(
            oracle.convolution(x, conv.weight, conv.bias, stride=stride, padding=conv.kernel_size[0] // 2), "elu"
        )

    one, three_reduce, three, five_reduce, five, pool = convs
    assert [conv.kernel_size[0] for conv in convs] == [1, 1, kernel, 1, kernel + 2, 1]
    expected = [
        step(x, one, stride),
        step(step(x, three_reduce), three, stride),
        step(step(x, five_reduce), five, stride),
        step(maximum(x.numpy(), kernel, stride), pool),
    ]
    np.testing.assert_allclose(module(x).detach().numpy(), np.concatenate(expected, 1), rtol=0, atol=1e-12)


def test_parameters_of_googlenet() -> None:
    """Modules 3a and 3b: 159 K and 380 K parameters in table 1 of the paper (K = 1024; its rounding varies)."""
    rows = {(192, 256): ((64, 96, 128, 16, 32, 32), 159), (256, 480): ((128, 128, 192, 32, 96, 64), 380)}
    for (into, out), (widths, thousands) in rows.items():
        module = InceptionModule(into, out, widths=widths, norm=None, bias=False)
        assert abs(sum(p.numel() for p in module.parameters()) / 1024 - thousands) <= 1


def test_widths() -> None:
    assert InceptionWidths.even(7).out_channels == 7
    with pytest.raises(ShapeError, match="pool=1\\) give 9 channels; expected out_channels=8"):
        InceptionModule(4, 8, widths=(2, 2, 4, 2, 2, 1))
    with pytest.raises(ShapeError, match="pool=0\\): each tower needs a channel; give out_channels >= 4"):
        InceptionModule(4, 3)
