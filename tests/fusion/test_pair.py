"""Layers of ours as one pair with what surrounds them: as they are, exported, or made by `convert`."""

import pytest
import torch
from chains import assert_same, layers_of, pictures
from plain_networks import Residual, settle
from torch import nn

from sepwise.conversion import Choice, Plan, convert
from sepwise.fusion import fuse
from sepwise.nn import CPConv2d, SeparableConv2d, SeparableConv3d, SpatialConv2d
from sepwise.zoo import resnet20

LAYERS = {
    "plain": (lambda: SeparableConv2d(6, 8, 3), "depthwise 3x3, pointwise 6 to 8, relu"),
    "all of it": (
        lambda: SeparableConv2d(6, 8, 3, 2, "same", 2, depth_multiplier=2, depthwise_bias=True, between="silu"),
        "depthwise 3x3 times 2 stride 2x2, silu, pointwise 6 to 8, relu",
    ),
    "a norm between": (
        lambda: SeparableConv2d(6, 8, 3, depthwise_bias=True, between_norm=nn.BatchNorm2d, between="relu"),
        "depthwise 3x3, relu, pointwise 6 to 8, relu",
    ),
    "an activation of its own": (
        lambda: SeparableConv2d(6, 8, 3, bias=False, activation="gelu"),
        "depthwise 3x3, pointwise 6 to 8, gelu",
    ),
    "CP": (lambda: CPConv2d(6, 8, 3, padding=1, rank=5), "expand 6 to 5, depthwise 3x3, pointwise 5 to 8, relu"),
    "grouped": (
        lambda: SeparableConv2d(6, 8, 3, groups=2),
        "its pointwise step has 2 groups; one operation mixes all channels",
    ),
    "group norm between": (
        lambda: SeparableConv2d(6, 8, 3, between_norm=lambda channels: nn.GroupNorm(2, channels)),
        "the GroupNorm between its steps cannot be folded into a weight",
    ),
    "spatial, grouped": (
        lambda: SpatialConv2d(6, 8, 3, groups=2),
        "a SpatialConv2d is no depthwise step followed by a pointwise one in one or two dimensions",
    ),
}


@pytest.mark.parametrize(("make", "says"), LAYERS.values(), ids=LAYERS)
def test_separable_layers_take_in_what_surrounds_them(make, says):
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), make(), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Tanh())
    for name, parameter in model.named_parameters():
        if name.endswith("depthwise_bias"):
            nn.init.normal_(parameter)
    settle(model).double()
    fused = fuse(model, pictures())
    assert [*fused.report.fused.values(), *fused.report.left.values()] == [says]
    assert fused.report.norms == (0 if "gelu" in says else 1)
    assert_same(fused, model, pictures())
    assert_same(fuse(fused, pictures()), model, pictures())


@pytest.mark.parametrize("kind", ["plain", "all of it", "a norm between", "an activation of its own", "CP"])
def test_programs_exported_from_layers_of_ours_are_fused(kind):
    make, says = LAYERS[kind]
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), make(), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Tanh())
    settle(model).double()
    fused = fuse(torch.export.export(model, (pictures(),), strict=False).module(), pictures())
    assert fused.report.fused == {"2.depthwise_step": says}
    assert fused.report.left == {}
    assert fused.report.norms == (0 if "gelu" in says else 2 if "norm" in kind else 1)
    assert_same(fused, model, pictures())


def test_three_dimensional_and_shared_layers_stay():
    model = nn.Sequential(SeparableConv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 1)).double().eval()
    assert "SeparableConv3d" in fuse(model, pictures(size=(7, 6, 5))).report.left["0"]
    layer = SeparableConv2d(3, 3, 3, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU()).double().eval()
    fused = fuse(model, pictures())
    assert fused.report.left == {"0": "it is called 2 times, each time on other inputs"}
    assert_same(fused, model, pictures())


@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
@pytest.mark.parametrize("form", ["depthwise", "cp"])
def test_what_convert_made_is_fused(form, batch_norm):
    model = settle(resnet20()).double()
    x = pictures(n=2, size=(32, 32))
    dense = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    plan = Plan({name: Choice(form, 3, "", 1, 1, 1, 1) for name in dense}, batch_norm)
    converted = convert(model, plan)
    fused = fuse(converted, x)
    assert len(fused.report.fused) == 19
    assert fused.report.left == {}
    assert not layers_of(fused, nn.BatchNorm2d)
    assert_same(fused, converted, x)
    assert all(what.endswith("relu") for what in fused.report.fused.values())
    assert sum("add" in what for what in fused.report.fused.values()) == 9  # one shortcut each


def test_a_plan_of_many_forms():
    model = settle(Residual()).double()
    plan = Plan({"stem": Choice("depthwise", 2, "", 1, 1, 1, 1), "body": Choice("spatial", 4, "", 1, 1, 1, 1)})
    converted = convert(model, plan)
    fused = fuse(converted, pictures())
    assert list(fused.report.fused) == ["stem"]
    assert not fused.report.left
    assert {*fused.report.alone, *fused.report.slower} >= {"body.vertical", "body.horizontal"}
    assert_same(fused, converted, pictures())
