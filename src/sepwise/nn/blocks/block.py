"""`Block` and `ResidualBlock`: what all blocks share, so that any of them can be stacked in the place of another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypedDict

from torch import Tensor, nn

from ...errors import ShapeError
from ...ops.activations import check_activation

Norm = Callable[[int], nn.Module]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
    "elu": nn.ELU,
}


class Common(TypedDict, total=False):
    """The arguments that every block takes, by name; see `Block`."""

    stride: int
    kernel_size: int
    bias: bool | None
    norm: Norm | None
    activation: str | None


class After(TypedDict):
    """What goes with a convolution: whether it has a bias, and what follows it; see `unit`."""

    bias: bool | None
    norm: Norm | None
    activation: str | None


class Block(nn.Module):
    """A part of a network: (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).

    in_channels, out_channels    at least 1
    stride        of the spatial convolution, pixels
    kernel_size   of the spatial convolution: odd, so that half of it fits on either side as padding
    bias          of the convolutions; None: where no norm follows directly
    norm          called with a number of channels, gives the module after a convolution; None: none
    activation    None, "relu", "relu6", "silu", "hardswish", "gelu" or "elu"
    own           the arguments that only this kind of block has
    Raises ShapeError for sizes that do not fit each other or the input, UnsupportedError for an unknown activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        kernel_size: int = 3,
        bias: bool | None = None,
        norm: Norm | None = nn.BatchNorm2d,
        activation: str | None = "relu",
        **own: Any,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "stride": stride, "kernel_size": kernel_size}
        for name, value in sizes.items():
            self.check(type(value) is int and value >= 1, f"{name}={value!r}: expected an integer >= 1")
        self.check(kernel_size % 2 == 1, f"kernel_size={kernel_size}: expected an odd one, half of it is the padding")
        check_activation(type(self).__name__, "activation", activation)
        self.in_channels, self.out_channels, self.stride, self.kernel_size = sizes.values()
        self.after: After = {"bias": bias, "norm": norm, "activation": activation}
        self.own = own

    def check(self, fits: bool, otherwise: str) -> None:
        """Raise ShapeError with this sentence, after the name of the block, unless it fits."""
        if not fits:
            raise ShapeError(f"{type(self).__name__}: {otherwise}")

    def check_input(self, x: Tensor) -> None:
        """Raise ShapeError for an input of another shape. A symbolic value (torch.fx) has none and passes."""
        if isinstance(x, Tensor):
            fits = x.dim() == 4 and x.shape[1] == self.in_channels
            self.check(fits, f"expected an input (N, {self.in_channels}, H, W), got {tuple(x.shape)}")

    def extra_repr(self) -> str:
        own = "".join(f", {name}={value!r}" for name, value in self.own.items())
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}, kernel_size={self.kernel_size}{own}"


class ResidualBlock(Block):
    """y = activation(branch(x) + shortcut(x)), or activation(branch(x)) with `identity=False`.

    shortcut    x itself; where sizes change, a 1x1 convolution with the stride, and the norm (option B of He et al.,
                CVPR 2016)
    """

    def __init__(self, in_channels: int, out_channels: int, *, identity: bool, **rest: Any) -> None:
        super().__init__(in_channels, out_channels, identity=identity, **rest)
        self.shortcut: nn.Module | None = None
        if identity:
            same = in_channels == out_channels and self.stride == 1
            linear: After = {**self.after, "activation": None}
            self.shortcut = nn.Identity() if same else unit(in_channels, out_channels, stride=self.stride, **linear)
        self.last = activation_module(self.after["activation"])

    def branch(self, x: Tensor) -> Tensor:
        """What the shortcut leads around."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        y = self.branch(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.last(y)


def unit(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool | None,
    norm: Norm | None,
    activation: str | None,
) -> nn.Sequential:
    """Convolution `conv`, then `norm` and `activation` where there are any, under these names."""
    has_bias = norm is None if bias is None else bias
    half = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, half, groups=groups, bias=has_bias)
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm is not None:
        parts["norm"] = norm(out_channels)
    if activation is not None:
        parts["activation"] = activation_module(activation)
    return nn.Sequential(parts)


def activation_module(name: str | None) -> nn.Module:
    """The activation of this name as a module; `nn.Identity` for None."""
    return nn.Identity() if name is None else ACTIVATIONS[name]()
