"""`Block` and `ResidualBlock`: what all blocks share, so that any of them can be stacked in the place of another."""

from __future__ import annotations

from typing import Any, TypedDict

from torch import Tensor, nn

from ...errors import ShapeError
from ...ops.activations import check_activation
from .unit import After, Norm, activation_module, unit


class Common(TypedDict, total=False):
    """The arguments that every block takes, by name; see `Block`."""

    stride: int
    kernel_size: int
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
    activation    None, "relu", "relu6", "silu", "hardswish", "gelu", "elu", "sigmoid" or "hardsigmoid"
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
        for name, size in sizes.items():
            self.check_positive(name, size)
        self.check(kernel_size % 2 == 1, f"kernel_size={kernel_size}: expected an odd one, half of it is the padding")
        check_activation(type(self).__name__, "activation", activation)
        self.in_channels, self.out_channels, self.stride, self.kernel_size = sizes.values()
        self.after: After = {"bias": bias, "norm": norm, "activation": activation}
        self.own = own

    def build(self) -> None:
        """Make the modules; a subclass calls it once, at the end of `__init__`."""
        self.draw()

    def draw(self) -> None:
        """What `build` makes, for a subclass to say."""
        raise NotImplementedError

    @property
    def arguments(self) -> dict[str, Any]:
        """The sizes and settings that this block was made with, in full."""
        sizes = {name: getattr(self, name) for name in ("in_channels", "out_channels", "stride", "kernel_size")}
        return {**sizes, **self.after, **self.own}

    @classmethod
    def arguments_from(cls, block: Block) -> dict[str, Any]:
        """What to call this class with for a block like `block`. Raises UnsupportedError when there can be none."""
        return block.arguments

    def check(self, fits: bool, otherwise: str) -> None:
        """Raise ShapeError with this sentence, after the name of the block, unless it fits."""
        if not fits:
            raise ShapeError(f"{type(self).__name__}: {otherwise}")

    def check_positive(self, name: str, value: Any) -> None:
        """Raise ShapeError unless an argument is an integer of at least 1."""
        self.check(type(value) is int and value >= 1, f"{name}={value!r}: expected an integer >= 1")

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
                CVPR 2016); None without
    """

    shortcut: nn.Module | None
    last: nn.Module

    def draw(self) -> None:
        """The shortcut and the activation; a subclass adds its branch."""
        same = self.in_channels == self.out_channels and self.stride == 1
        self.last = activation_module(self.after["activation"])
        self.shortcut = nn.Identity() if self.own["identity"] and same else None
        if self.own["identity"] and not same:
            self.shortcut = unit(self.in_channels, self.out_channels, stride=self.stride, after=self.linear)

    @property
    def linear(self) -> After:
        """What goes with a convolution whose sum with others comes before the activation."""
        return {**self.after, "activation": None}

    def branch(self, x: Tensor) -> Tensor:
        """What the shortcut leads around."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        y = self.branch(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.last(y)
