"""Keras 3 on its torch back end computes what our layers compute, forward and backward; weights go both ways."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepwise.errors import UnsupportedError
from sepwise.nn import SeparableConv1d, SeparableConv2d, SeparableConv3d

os.environ.setdefault("KERAS_BACKEND", "torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's arrays, under NumPy 2

LAYERS: dict[int, Any] = {1: SeparableConv1d, 2: SeparableConv2d}
CASES: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 1},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "same", "strides": 2},
    {"kernel_size": 4, "padding": "same", "strides": 3},
    {"kernel_size": 2, "padding": "same", "strides": 3},
    {"kernel_size": 3, "padding": "valid", "strides": 2},
    {"kernel_size": 3, "padding": "same", "dilation_rate": 2},
    {"kernel_size": 2, "padding": "valid", "dilation_rate": 3},
    {"kernel_size": 3, "depth_multiplier": 3},
    {"kernel_size": 3, "use_bias": False},
    *({"kernel_size": 3, "activation": a} for a in ("relu", "relu6", "silu", "hard_silu", "gelu", "elu", "sigmoid")),
    {"kernel_size": 3, "padding": "same", "strides": 2, "depth_multiplier": 2, "activation": "elu"},
]
ONLY_2D: list[dict[str, Any]] = [
    {"kernel_size": (3, 5), "padding": "same"},
    {"kernel_size": (2, 3), "padding": "same", "strides": 2},
    {"kernel_size": (3, 1), "padding": "valid", "dilation_rate": (2, 1)},
]
RUNS = [(axes, case) for axes in LAYERS for case in CASES] + [(2, case) for case in ONLY_2D]
IDS = [f"{axes}D " + " ".join(f"{name}={value}" for name, value in case.items()) for axes, case in RUNS]


@pytest.fixture(scope="module")
def keras() -> Any:
    module = pytest.importorskip("keras", reason="needs the extra keras")
    if module.backend.backend() != "torch":
        pytest.skip("compares with Keras on its torch back end")
    return module


@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize(("axes", "case"), RUNS, ids=IDS)
def test_forward_and_gradients(keras: Any, axes: int, case: dict[str, Any], size: int) -> None:
    keras.utils.set_random_seed(0)
    make = getattr(keras.layers, f"SeparableConv{axes}D")
    theirs = make(5, **case, data_format="channels_last", dtype="float64", bias_initializer="uniform")
    x = torch.randn(2, 3, *[size] * axes, dtype=torch.float64)
    theirs.build((None, *[size] * axes, 3))
    ours = LAYERS[axes].from_keras(theirs)
    assert ours.depthwise.dtype == torch.float64

    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y_ours = ours(x_ours)
    y_theirs = theirs(x_theirs.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(y_ours, y_theirs, rtol=0, atol=1e-12)
    weight = torch.randn_like(y_ours)
    (y_ours * weight).sum().backward()
    (y_theirs * weight).sum().backward()
    torch.testing.assert_close(x_ours.grad, x_theirs.grad, rtol=0, atol=1e-11)

    gradients = [v.value.grad for v in theirs.trainable_weights]
    depthwise = gradients[0].movedim((-2, -1), (0, 1)).reshape(ours.depthwise.shape)
    torch.testing.assert_close(ours.depthwise.grad, depthwise, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.pointwise.grad, gradients[1].movedim((-1, -2), (0, 1)), rtol=0, atol=1e-10)
    assert (ours.bias is None) == (len(gradients) == 2)
    if ours.bias is not None:
        torch.testing.assert_close(ours.bias.grad, gradients[2], rtol=0, atol=1e-10)


@pytest.mark.parametrize("data_format", [None, "channels_first", "channels_last"])
@pytest.mark.parametrize(("axes", "case"), RUNS[::4], ids=IDS[::4])
def test_there_and_back(keras: Any, axes: int, case: dict[str, Any], data_format: str | None) -> None:
    make = getattr(keras.layers, f"SeparableConv{axes}D")
    original = make(5, **case)
    original.build((None, *[9] * axes, 3))
    ours = LAYERS[axes].from_keras(original)
    again = ours.to_keras(data_format)
    assert again.data_format == (data_format or keras.config.image_data_format())
    names = (
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "dilation_rate",
        "depth_multiplier",
        "activation",
        "use_bias",
    )
    assert {n: again.get_config()[n] for n in names} == {n: original.get_config()[n] for n in names}
    for one, other in zip(original.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)
    x = torch.randn(2, 3, *[9] * axes)
    y = again(x) if again.data_format == "channels_first" else again(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(ours(x), y)


def test_explicit_padding_that_equals_same(keras: Any) -> None:
    assert SeparableConv2d(3, 5, (3, 5), padding=(1, 2)).to_keras().padding == "same"
    assert SeparableConv1d(3, 5, 3, padding=2, dilation=2).to_keras().padding == "same"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtype_and_trainable_are_kept(keras: Any, dtype: torch.dtype) -> None:
    layer = SeparableConv2d(3, 5, 3, dtype=dtype).requires_grad_(False)
    back = SeparableConv2d.from_keras(layer.to_keras())
    assert torch.equal(back.depthwise, layer.depthwise)
    assert back.depthwise.dtype == dtype
    assert not back.depthwise.requires_grad


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (SeparableConv3d(2, 2, 2), "Keras has no SeparableConv3D"),
        (SeparableConv2d(2, 2, 3, groups=2), "Keras's separable layers have no groups, this one has 2"),
        (SeparableConv2d(2, 2, 3, depthwise_bias=True), "Keras has no bias after the depthwise step"),
        (SeparableConv2d(2, 2, 3, between="relu"), "Keras puts neither an activation nor a norm between"),
        (SeparableConv2d(2, 2, 3, between_norm=torch.nn.BatchNorm2d), "neither an activation nor a norm between"),
        (SeparableConv2d(2, 2, 3, padding_mode="reflect"), "zeros only, not by padding_mode='reflect'"),
        (SeparableConv2d(2, 2, 3, stride=2, dilation=2), r"cannot combine stride \(2, 2\) with dilation \(2, 2\)"),
        (SeparableConv2d(2, 2, 3, padding=2), 'knows padding "valid" and "same" only'),
        (SeparableConv2d(2, 2, 3, padding=1, stride=2), 'knows padding "valid" and "same" only'),
        (SeparableConv1d(2, 2, 3, padding=((2, 0),)), "put a ZeroPadding layer before"),
    ],
)
def test_what_keras_cannot_express(layer: Any, sentence: str) -> None:
    with pytest.raises(UnsupportedError, match=sentence):
        layer.to_keras()


class Duck:
    """As much of a Keras layer as `from_keras` reads."""

    def __init__(self, weights: list[np.ndarray], **config: Any) -> None:
        self.weights = weights
        self.config = {
            "filters": 5,
            "depth_multiplier": 2,
            "strides": (1,),
            "padding": "valid",
            "dilation_rate": (1,),
            "activation": "linear",
            "use_bias": False,
            **config,
        }

    def get_config(self) -> dict[str, Any]:
        return self.config

    def get_weights(self) -> list[np.ndarray]:
        return self.weights


KERNELS = [np.ones((3, 4, 2), np.float32), np.ones((1, 8, 5), np.float32)]


def test_causal_padding_looks_back_only() -> None:
    layer = SeparableConv1d.from_keras(Duck(KERNELS, padding="causal", dilation_rate=(2,)))
    x = torch.zeros(1, 4, 10)
    x[:, :, 5] = 1
    assert layer(x)[0, 0].nonzero().flatten().tolist() == [5, 7, 9]


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (SimpleNamespace(get_config=dict, get_weights=list), "SimpleNamespace is no separable layer of Keras"),
        (Duck([]), "Duck has no weights yet; build it or call it on an input"),
        (Duck(KERNELS, use_bias=True), "Duck has no weights yet"),
        (Duck([np.ones((3, 3, 4, 2)), np.ones((1, 1, 8, 5))]), "Duck has 2 spatial axes, not 1"),
        (Duck(KERNELS, activation="tanh"), "activation='tanh' has no counterpart here; the known ones are elu, gelu"),
        (Duck(KERNELS, activation={"class_name": "f"}), "has no counterpart here"),
    ],
)
def test_what_cannot_be_read(layer: Any, sentence: str) -> None:
    with pytest.raises(UnsupportedError, match=sentence):
        SeparableConv1d.from_keras(layer)
