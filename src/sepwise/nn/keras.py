"""Exchange of separable layers with Keras 3. What maps to what: docs/keras.md."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..extras import require
from ..geometry import Geometry

# Our name -> Keras's name; Keras 2 and some files use the synonyms.
ACTIVATION_NAMES = {None: "linear", "relu": "relu", "relu6": "relu6", "silu": "silu", "gelu": "gelu", "elu": "elu"}
ACTIVATION_NAMES |= {"sigmoid": "sigmoid", "hardswish": "hard_silu", "hardsigmoid": "hard_sigmoid"}
SYNONYMS = {"swish": "silu", "hard_swish": "hardswish", None: None}
FROM_KERAS = {keras: ours for ours, keras in ACTIVATION_NAMES.items()} | SYNONYMS
del FROM_KERAS["hard_sigmoid"]  # in Keras 2 it is another function


def from_keras(cls: type[Any], layer: Any) -> Any:
    """See `SeparableConv2d.from_keras`."""
    name, config, arrays = type(layer).__name__, layer.get_config(), [np.asarray(w) for w in layer.get_weights()]
    if "depth_multiplier" not in config or "filters" not in config or config.get("groups", 1) != 1:
        raise UnsupportedError(f"{cls.__name__}.from_keras: {name} is no separable layer of Keras")
    if len(arrays) != (3 if config["use_bias"] else 2):
        raise UnsupportedError(f"{cls.__name__}.from_keras: {name} has no weights yet; build it or call it on an input")
    if arrays[0].ndim != cls.ndim + 2:
        raise UnsupportedError(
            f"{cls.__name__}.from_keras: {name} has {arrays[0].ndim - 2} spatial axes, not {cls.ndim}"
        )
    activation = config["activation"]
    if not isinstance(activation, str | None) or activation not in FROM_KERAS:
        known = ", ".join(sorted(filter(None, FROM_KERAS)))
        raise UnsupportedError(
            f"{cls.__name__}.from_keras: activation={activation!r} has no counterpart here; the known ones are {known}"
        )
    weights = [_tensor(array) for array in arrays]
    *kernel, channels, multiplier = weights[0].shape
    made = cls(
        channels,
        config["filters"],
        kernel,
        config["strides"],
        _padding_of(config, kernel),
        config["dilation_rate"],
        bias=config["use_bias"],
        dtype=weights[0].dtype,
        depth_multiplier=multiplier,
        activation=FROM_KERAS[activation],
    )
    with torch.no_grad():
        made.depthwise.copy_(weights[0].movedim((-2, -1), (0, 1)).reshape(made.depthwise.shape))
        made.pointwise.copy_(weights[1].movedim((-1, -2), (0, 1)))
        if made.bias is not None:
            made.bias.copy_(weights[2])
    return made.requires_grad_(config.get("trainable", True))


def to_keras(layer: Any, data_format: str | None) -> Any:
    """See `SeparableConv2d.to_keras`."""
    reason = _why_not(layer)
    if reason:
        raise UnsupportedError(f"{type(layer).__name__}.to_keras: {reason}")
    if "keras" not in sys.modules:  # nobody has chosen a back end yet, unless by the variable or Keras's own file
        os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = require("keras", "to_keras")
    geometry, channels = layer.conv.geometry, layer.conv.in_channels
    made = getattr(keras.layers, f"SeparableConv{layer.ndim}D")(
        layer.conv.out_channels,
        geometry.kernel,
        strides=geometry.stride,
        padding=_keras_padding(geometry),
        data_format=data_format,
        dilation_rate=geometry.dilation,
        depth_multiplier=layer.depth_multiplier,
        activation=ACTIVATION_NAMES[layer.activation],
        use_bias=layer.bias is not None,
        trainable=layer.depthwise.requires_grad,
        dtype=str(layer.depthwise.dtype).removeprefix("torch."),
    )
    size = (None,) * layer.ndim
    made.build((None, *size, channels) if made.data_format == "channels_last" else (None, channels, *size))
    depthwise = layer.depthwise.unflatten(0, (channels, -1)).squeeze(2).movedim((0, 1), (-2, -1))
    pointwise = layer.pointwise.movedim((0, 1), (-1, -2))
    made.set_weights([_array(t) for t in (depthwise, pointwise, layer.bias) if t is not None])
    return made


def _why_not(layer: Any) -> str | None:
    geometry = layer.conv.geometry
    if layer.ndim == 3:
        return "Keras has no SeparableConv3D"
    if layer.conv.groups != 1:
        return f"Keras's separable layers have no groups, this one has {layer.conv.groups}"
    if layer.depthwise_bias is not None:
        return "Keras has no bias after the depthwise step"
    if layer.between is not None or layer.between_norm is not None:
        return "Keras puts neither an activation nor a norm between the two steps"
    if layer.padding_mode != "zeros":
        return f"Keras pads with zeros only, not by padding_mode={layer.padding_mode!r}"
    if max(geometry.stride) > 1 and max(geometry.dilation) > 1:
        return f"Keras cannot combine stride {geometry.stride} with dilation {geometry.dilation}"
    if _keras_padding(geometry) is None:
        return f'Keras knows padding "valid" and "same" only, not {geometry.padding}; put a ZeroPadding layer before'
    return None


def _keras_padding(geometry: Geometry) -> str | None:
    if geometry.padding == "same":
        return "same"
    if all(pair == (0, 0) for pair in geometry.padding):
        return "valid"
    if set(geometry.stride) == {1} and geometry.padding == tuple(((e - 1) // 2, e // 2) for e in geometry.extent):
        return "same"
    return None


def _padding_of(config: dict[str, Any], kernel: list[int]) -> Any:
    if config["padding"] != "causal":  # tf.keras has it in one dimension
        return config["padding"]
    rate = config["dilation_rate"]
    return (((kernel[0] - 1) * (rate if isinstance(rate, int) else rate[0]), 0),)


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.name == "bfloat16":  # a type that NumPy has from ml_dtypes and torch cannot read
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(array.copy())


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor if tensor.dtype != torch.bfloat16 else tensor.float()).numpy()
