"""Factored layers written as the convolutions that they are chains of: same outputs, same names, in rows."""

from typing import Any

import pytest
import torch
from plain_networks import settle
from torch import Tensor, nn

from sepwise.fusion import FusedNetwork, fuse
from sepwise.fusion.programs import Row
from sepwise.nn import BlueprintConv2d, FusedBlock, SpatialConv2d, SpatialConv3d, SpatialReversedConv2d, TuckerConv2d
from sepwise.ops import native

LAYERS = {
    "spatial": lambda **options: SpatialConv2d(6, 12, 3, rank=4, **options),
    "spatial_reversed": lambda **options: SpatialReversedConv2d(6, 12, (5, 3), rank=4, **options),
    "tucker": lambda **options: TuckerConv2d(6, 12, 3, rank=(3, 5), **options),
    "blueprint": lambda **options: BlueprintConv2d(6, 12, 3, rank=1, **options),
}


def picture(size: int = 13, channels: int = 6) -> Tensor:
    return torch.randn(2, channels, size, size + 1, generator=torch.Generator().manual_seed(0))


def fused_like(model: nn.Module, x: Tensor) -> FusedNetwork:
    fused = fuse(model, x)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)
    return fused


@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2, "padding": (2, 1)}, {"dilation": 2}], ids=str)
@pytest.mark.parametrize("form", LAYERS)
def test_every_form(form, options):
    layer = LAYERS[form](**options)
    model = settle(nn.Sequential(layer, nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 3, 1)))
    fused = fused_like(model, picture())
    if form == "blueprint":  # its depthwise step takes in what stands around it
        assert "expand 6 to 12" in fused.report.fused["0.depthwise"]
    else:
        names = [f"0.{step.name}" for step in layer.steps]
        assert {*fused.report.alone, *fused.report.slower} >= {*names}


@pytest.mark.parametrize(
    "layer",
    [
        SpatialConv2d(6, 12, 3, rank=4, padding="same", stride=2),
        SpatialConv2d(6, 12, 3, rank=4, padding=((0, 1), (1, 0))),
        SpatialConv2d(6, 12, 3, rank=4, groups=2),
        SpatialConv3d(6, 12, 3, rank=4),
    ],
    ids=["same", "uneven", "groups", "three dimensions"],
)
def test_what_stays_as_it_is(layer):
    x = picture() if layer.ndim == 2 else torch.randn(1, 6, 5, 5, 5)
    assert list(fused_like(nn.Sequential(layer, nn.ReLU()).eval(), x).report.left) == ["0"]


class Own(SpatialConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SpatialConv2d(6, 12, 3, rank=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x=x).relu()


def test_forwards_of_their_own_computed_weights_and_calls_by_name():
    assert list(fused_like(nn.Sequential(Own(6, 12, 3, rank=4), nn.ReLU()).eval(), picture()).report.left) == ["0"]
    layer = nn.utils.parametrizations.weight_norm(SpatialConv2d(6, 12, 3, rank=4), "vertical")
    assert list(fused_like(nn.Sequential(layer, nn.ReLU()).eval(), picture()).report.left) == ["0"]
    assert not fused_like(Named().eval(), picture()).report.left


def test_layers_with_hooks_and_shared_ones_stay():
    layer = SpatialConv2d(6, 6, 3, rank=4, padding=1)
    shared = fused_like(nn.Sequential(layer, nn.Tanh(), layer).eval(), picture())
    assert list(shared.report.left) == ["0"]

    def negate(module: nn.Module, given: Any, y: Tensor) -> Tensor:
        return -y

    hooked = SpatialConv2d(6, 6, 3, rank=4)
    hooked.register_forward_hook(negate)
    assert list(fused_like(nn.Sequential(hooked).eval(), picture()).report.left) == ["0"]


def test_other_paddings_than_zeros():
    model = nn.Sequential(SpatialConv2d(6, 12, 3, rank=4, padding=1, padding_mode="reflect")).eval()
    assert not any(isinstance(m, FusedBlock) for m in fused_like(model, picture()).modules())


@pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")
def test_wide_values_between_layers_are_never_whole(programs_made):
    """1 x 3 and the 3 x 1 after it are one step where the value between is the larger one: see `_joined`."""
    layers = [SpatialConv2d(6, 32, 3, rank=4, padding=1), SpatialConv2d(32, 32, 3, rank=8, padding=1)]
    fused = fused_like(nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU()).eval(), picture(64))
    assert isinstance(fused._rows[0], Row)
    weights: list[Any] = [step.layer.weights for step in programs_made[-1] if step.layer]
    assert [[tuple(w[n].shape) for n in ("expand", "pointwise") if w[n] is not None] for w in weights] == [
        [(4, 6, 3, 1)],
        [(32, 4, 1, 3), (8, 32, 3, 1)],
        [(32, 8, 1, 3)],
    ]
