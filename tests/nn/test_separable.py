"""What only the separable layers have: what stands between the steps, activations, initializers."""

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from torch import nn

from sepwise.errors import UnsupportedError
from sepwise.nn import SeparableConv1d, SeparableConv2d, SeparableConv3d

LAYERS: dict[int, Any] = {1: SeparableConv1d, 2: SeparableConv2d, 3: SeparableConv3d}
by_axes = pytest.mark.parametrize("axes", LAYERS)


@by_axes
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_everything_between(axes: int, groups: int, padding_mode: str) -> None:
    settings: dict[str, Any] = {"stride": 2, "padding": "same", "padding_mode": padding_mode}
    names: dict[str, Any] = {"between": "silu", "activation": "gelu"}
    options: dict[str, Any] = {**settings, **names, "groups": groups, "depth_multiplier": 3, "dtype": torch.float64}
    layer = LAYERS[axes](4, 6, 3, depthwise_bias=True, **options)
    nn.init.normal_(layer.depthwise_bias)
    x = torch.randn(2, 4, *[7] * axes, dtype=torch.float64)
    mid = oracle.convolution(x, layer.depthwise, layer.depthwise_bias, groups=4, **settings)
    mixed = oracle.convolution(oracle.activated(mid, "silu"), layer.pointwise, layer.bias, groups=groups)
    np.testing.assert_allclose(layer(x).detach().numpy(), oracle.activated(mixed, "gelu"), rtol=0, atol=1e-10)


@by_axes
def test_a_norm_between(axes: int) -> None:
    norm: Any = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes]
    layer = LAYERS[axes](3, 5, 3, depth_multiplier=2, between_norm=norm, between="relu", dtype=torch.float64)
    assert layer.between_norm.num_features == 6
    assert layer.between_norm.weight.dtype == torch.float64
    layer.between_norm.running_mean.normal_()
    layer.between_norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, *[5] * axes, dtype=torch.float64)
    scale = 1 / np.sqrt(layer.between_norm.running_var.numpy() + 1e-5)
    shape = (-1, *[1] * axes)
    mid = oracle.convolution(x, layer.depthwise, groups=3) - layer.between_norm.running_mean.numpy().reshape(shape)
    expected = oracle.convolution(np.maximum(mid * scale.reshape(shape), 0), layer.pointwise, layer.bias)
    np.testing.assert_allclose(layer.eval()(x).detach().numpy(), expected, rtol=0, atol=1e-10)
    assert "between_norm.running_mean" in layer.state_dict()


@by_axes
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_bias_holds_the_bias_between(axes: int, groups: int, bias: bool) -> None:
    options: dict[str, Any] = {"groups": groups, "padding": 1, "depth_multiplier": 2, "dtype": torch.float64}
    layer = LAYERS[axes](4, 6, 3, bias=bias, depthwise_bias=True, **options)
    nn.init.normal_(layer.depthwise_bias)
    x = torch.randn(2, 4, *[5] * axes, dtype=torch.float64)
    expected = oracle.convolution(x, layer.dense_weight(), layer.dense_bias(), padding=1, groups=groups)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-10)


def test_no_dense_weight_across_what_is_not_linear() -> None:
    for layer, sentence in (
        (SeparableConv2d(2, 2, 3, between="relu"), "between='relu' is not linear, so no dense kernel equals both"),
        (SeparableConv1d(2, 2, 3, between_norm=nn.BatchNorm1d), "a BatchNorm1d stands between the steps"),
    ):
        with pytest.raises(UnsupportedError, match=sentence):
            layer.dense_weight()
        with pytest.raises(UnsupportedError, match=sentence):
            layer.dense_bias()


def test_initializers_fill_their_part() -> None:
    ones, twos = nn.init.ones_, lambda tensor: nn.init.constant_(tensor, 2)
    layer = SeparableConv2d(2, 3, 3, depthwise_initializer=ones, pointwise_initializer=twos, bias_initializer=ones)
    for _ in range(2):
        assert layer.depthwise.eq(1).all()
        assert layer.pointwise.eq(2).all()
        assert layer.bias is not None
        assert layer.bias.eq(1).all()
        nn.init.zeros_(layer.depthwise)
        nn.init.zeros_(layer.bias)
        layer.reset_parameters()
    assert SeparableConv2d(2, 3, 3, bias=False, bias_initializer=ones).bias is None


def test_the_bias_between_starts_at_zero() -> None:
    layer = SeparableConv2d(2, 3, 3, depthwise_bias=True)
    assert layer.depthwise_bias is not None
    assert layer.depthwise_bias.eq(0).all()
    nn.init.ones_(layer.depthwise_bias)
    layer.reset_parameters()
    assert layer.depthwise_bias.eq(0).all()


def test_more_filters_than_the_full_rank() -> None:
    layer = SeparableConv2d(2, 3, 1, depth_multiplier=4)
    assert layer.depth_multiplier == 4
    assert layer(torch.ones(1, 2, 5, 5)).shape == (1, 3, 5, 5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [1, 4])
def test_memory_format_is_kept(layout: torch.memory_format, channels: int) -> None:
    layer: Any = SeparableConv2d(channels, 6, 3, padding="same", stride=2)
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(2, channels, 6, 6).to(memory_format=layout)
    assert layer(x).is_contiguous(memory_format=layout)


def test_unknown_activations_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="SeparableConv1d: between='tanh' is unknown; give None, 'relu'"):
        SeparableConv1d(2, 2, 3, between="tanh")
    with pytest.raises(UnsupportedError, match="SeparableConv3d: activation='swish' is unknown"):
        SeparableConv3d(2, 2, 3, activation="swish")


def test_repr() -> None:
    layer = SeparableConv2d(2, 3, 3, padding=1, depthwise_bias=True, between="relu", activation="elu")
    assert repr(layer) == (
        "SeparableConv2d(2, 3, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), depth_multiplier=1, "
        "depthwise_bias=True, between='relu', activation='elu')"
    )
