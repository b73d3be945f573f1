"""`FusedBlock`: weights around `fused_block`, as `fuse` writes them into a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from ..errors import ShapeError
from ..geometry import Geometry
from ..ops.activations import check_activation
from ..ops.fused_block import fused_block, stock_operations

WEIGHTS = ("expand", "expand_bias", "depthwise", "depthwise_bias", "pointwise", "bias")


class FusedBlock(nn.Module):
    """`fused_block` with weights of its own, for inference: they require no gradients.

        y = activation(bias + pointwise @ norm(between(depthwise * widening(expand @ x))) + residual)

    Every step but the pointwise one is left out where it is not given; `sepwise.ops.fused_block` tells the shapes.

    weights     "pointwise", and whichever of "bias", "depthwise", "depthwise_bias", "expand", "expand_bias" there are;
                copied
    geometry    of the depthwise step, or of a dense convolution that stands in its place; None without either
    multiplier  depthwise filters for each channel
    adds        whether it is called with a residual
    stock       an attribute: True where stock operations are to compute it
    Raises ShapeError for weights that are none of these, UnsupportedError for an unknown activation.

    >>> import torch
    >>> FusedBlock({"pointwise": torch.ones(3, 2, 1, 1)}, activation="relu")
    FusedBlock(pointwise 2 to 3, relu)
    """

    expand: Tensor | None
    expand_bias: Tensor | None
    depthwise: Tensor | None
    depthwise_bias: Tensor | None
    pointwise: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weights: Mapping[str, Tensor | None],
        geometry: Geometry | None = None,
        *,
        widening: str | None = None,
        between: str | None = None,
        epsilon: float | None = None,
        activation: str | None = None,
        multiplier: int = 1,
        adds: bool = False,
        precision: str | None = None,
    ) -> None:
        super().__init__()
        if weights.get("pointwise") is None or not set(weights) <= set(WEIGHTS):
            raise ShapeError(
                f"FusedBlock: weights {', '.join(weights)}; expected pointwise, and of {', '.join(WEIGHTS)}"
            )
        for argument, name in (("widening", widening), ("between", between), ("activation", activation)):
            check_activation("FusedBlock", argument, name)
        for name in WEIGHTS:
            value = weights.get(name)
            held = None if value is None else nn.Parameter(value.detach().clone(), requires_grad=False)
            self.register_parameter(name, held)
        self.geometry, self.multiplier, self.adds, self.precision = geometry, multiplier, adds, precision
        self.widening, self.between, self.epsilon, self.activation = widening, between, epsilon, activation
        self.stock = False

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        way = stock_operations if self.stock else partial(fused_block, precision=self.precision)
        return self.by(way, x, residual)

    def by(self, way: Callable[..., Tensor], x: Tensor, residual: Tensor | None = None) -> Tensor:
        """The same, computed by a function with the arguments of `stock_operations`."""
        return way(
            x,
            self.pointwise,
            self.bias,
            depthwise=self.depthwise,
            depthwise_bias=self.depthwise_bias,
            expand=self.expand,
            expand_bias=self.expand_bias,
            residual=residual,
            widening=self.widening,
            between=self.between,
            epsilon=self.epsilon,
            activation=self.activation,
            geometry=self.geometry,
        )

    def extra_repr(self) -> str:
        words: list[str | None] = []
        if self.expand is not None:
            words += [f"expand {self.expand.shape[1]} to {self.expand.shape[0]}", self.widening]
        if self.depthwise is not None and self.geometry is not None:
            words += [described(self.geometry, self.multiplier), self.between]
        words += ["normalize" if self.epsilon is not None else None]
        dense = self.geometry if self.depthwise is None else None
        kind = "pointwise" if dense is None else described(dense, 1, "dense") + ","
        words += [f"{kind} {self.pointwise.shape[1] // self.multiplier} to {self.pointwise.shape[0]}"]
        words += ["add" if self.adds else None, self.activation]
        return ", ".join(word for word in words if word)


def described(geometry: Geometry, multiplier: int, kind: str = "depthwise") -> str:
    """A step in words: "depthwise 3x3 times 2 stride 2x2"; what is 1 is left out."""
    words = [f"{kind} {'x'.join(map(str, geometry.kernel))}"]
    if multiplier > 1:
        words.append(f"times {multiplier}")
    if max(geometry.stride) > 1:
        words.append(f"stride {'x'.join(map(str, geometry.stride))}")
    return " ".join(words)
