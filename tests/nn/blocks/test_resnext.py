"""The ResNeXt module against NumPy, and the sizes of the paper's own."""

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from torch import nn

from sepwise.errors import ShapeError
from sepwise.nn.blocks import ResNeXtModule


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize(("out_channels", "stride"), [(6, 1), (6, 2), (8, 1)])
def test_against_numpy(identity: bool, out_channels: int, stride: int) -> None:
    sizes: dict[str, Any] = {"cardinality": 3, "width_per_group": 2, "stride": stride}
    module = ResNeXtModule(6, out_channels, **sizes, identity=identity, norm=None).double()
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64)

    def step(x: Any, name: str, activation: str | None, **settings: Any) -> np.ndarray:
        conv = module.get_submodule(f"{name}.conv")
        assert isinstance(conv, nn.Conv2d)
        return oracle.activated(oracle.convolution(x, conv.weight, conv.bias, **settings), activation)

    y = step(step(x, "reduce", "relu"), "spatial", "relu", groups=3, stride=stride, padding=1)
    y = step(y, "expand", None)
    if identity:
        y = y + (x.numpy() if (out_channels, stride) == (6, 1) else step(x, "shortcut", None, stride=stride))
    np.testing.assert_allclose(module(x).detach().numpy(), np.maximum(y, 0), rtol=0, atol=1e-12)


def test_parameters_of_the_paper() -> None:
    """Section 3.2: about 70 k parameters at 32x4d with 256 channels: C * (256 d + 9 d d + d 256)."""
    module = ResNeXtModule(256, 256, norm=None, bias=False)
    assert sum(p.numel() for p in module.parameters()) == 32 * (256 * 4 + 3 * 3 * 4 * 4 + 4 * 256)


def test_norms_stand_after_each_convolution() -> None:
    module = ResNeXtModule(8, 16, cardinality=4)
    norms = [name for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == ["shortcut.norm", "reduce.norm", "spatial.norm", "expand.norm"]


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="ResNeXtModule: cardinality=0: expected an integer >= 1"):
        ResNeXtModule(8, 8, cardinality=0)
    with pytest.raises(ShapeError, match="ResNeXtModule: width_per_group=0: expected an integer >= 1"):
        ResNeXtModule(8, 8, width_per_group=0)
