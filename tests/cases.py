"""The named cases of `separable_conv2d`, each for a reason; tests and checks of every language read the same table."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any


@dataclass(frozen=True)
class Case:
    """One call: (batch, channels, *size) -> out_channels."""

    name: str
    channels: int
    out_channels: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    multiplier: int = 1
    batch: int = 2
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    bias: bool = True
    depthwise_bias: bool = False
    between: str | None = None
    activation: str | None = None


@dataclass(frozen=True)
class Block(Case):
    """One call of `fused_block`: a case with steps around it; a kernel of (0, 0) is no depthwise step.

    expanded    channels of x, which a pointwise step expands to `channels` first; 0: there is none
    dense       the kernel is that of the last step; there is no depthwise one
    bare        there is no last step. Only programs know such calls, and the next three
    pooled      bare, and in the place of the depthwise step the largest number under the kernel
    expand      the kernel that expands x, to `size`; (0, 0): one pixel
    gated       x is multiplied with a number for each channel of each picture; there is no depthwise step
    """

    expanded: int = 0
    widening: str | None = None
    normalized: bool = False
    residual: bool = False
    dense: bool = False
    bare: bool = False
    pooled: bool = False
    gated: bool = False
    expand: tuple[int, int] = (0, 0)
    expand_stride: tuple[int, int] = (1, 1)

    @property
    def x_size(self) -> tuple[int, int]:
        """The size of x: what a kernel expands is padded by (k - 1) // 2 before and k // 2 behind."""
        return (self.size[0] - 1) * self.expand_stride[0] + 1, (self.size[1] - 1) * self.expand_stride[1] + 1


def pads(padding: Any, size: Sequence[int], extents: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """Pixels (low, high) added along each axis; "same" puts the odd one at the high end."""
    if padding == "same":
        totals = [max((ceil(n / s) - 1) * s + e - n, 0) for n, e, s in zip(size, extents, stride, strict=True)]
        return [(total // 2, (total + 1) // 2) for total in totals]
    if padding == "valid":
        padding = 0
    return [p if isinstance(p, tuple) else (p, p) for p in each(padding, len(size))]


def each(value: Any, axes: int) -> tuple:
    """One value for each axis."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


CASES = [
    # Counts of channels: vectors have 4, 8 or 16 lanes, blocks two vectors; what is left over is a path of its own.
    Case("one channel", 1, 1, (5, 6), padding=1),
    Case("one past four lanes", 5, 9, (5, 6), padding=1),
    Case("one past a vector", 17, 33, (9, 9), padding=1),
    Case("one past two vectors", 33, 65, (5, 6), padding=1),
    Case("one short of two vectors", 31, 31, (4, 9), padding=1),
    Case("exact tiles", 64, 128, (14, 14), padding=1, batch=1),
    Case("long reduction", 512, 8, (3, 3), padding=1, batch=1),
    # More channels than pass a region together: they pass it in parts, the last of which may be shorter.
    Case("parts of channels", 200, 3, (8, 11), (5, 5), padding=2, stride=2, batch=1),
    Case("parts of channels, equal", 256, 3, (5, 9), (5, 5), padding=2, stride=2, batch=1),
    Case("parts of channels, multiplier 2", 70, 40, (16, 41), multiplier=2, padding=1, stride=5),
    Case("parts of channels, any kernel", 200, 3, (8, 9), (6, 6), padding=3, stride=3, batch=1),
    Case("one output channel", 19, 1, (6, 7), padding=1),
    Case("three output channels", 8, 3, (6, 7), padding=1),
    # Pictures: a block is up to 8 neighbouring outputs of one row, a tile some 50 outputs across rows and pictures.
    Case("one pixel", 3, 2, (1, 1), kernel=(1, 1)),
    Case("one pixel, all else padding", 3, 12, (1, 1), padding=1, batch=7),
    Case("kernel fills the picture", 2, 3, (4, 5), kernel=(4, 5)),
    Case("7 x 7 picture", 40, 24, (7, 7), padding=1, batch=1),
    Case("one row", 6, 5, (1, 23), padding=1),
    Case("one column", 6, 5, (23, 1), padding=1),
    Case("narrower than a block", 9, 7, (11, 2), padding=1),
    Case("a row of one block and one pixel", 16, 16, (3, 9), padding=1),
    Case("three pictures in one tile", 7, 6, (3, 3), padding=1, batch=3),
    Case("empty batch", 4, 6, (6, 5), padding=1, multiplier=2, batch=0),
    # Kernels: 3, 5 and 7 at strides 1 and 2 are unrolled, all others share one path.
    Case("1 x 1", 18, 12, (5, 4), kernel=(1, 1)),
    Case("1 x 7", 4, 6, (6, 11), kernel=(1, 7), padding=(0, 3)),
    Case("10 x 1", 4, 6, (12, 5), kernel=(10, 1), padding=(5, 0)),
    Case("even kernel, same", 4, 6, (7, 8), kernel=(2, 4), padding="same"),
    Case("5 x 5", 10, 6, (9, 12), kernel=(5, 5), padding=2, batch=1),
    Case("6 x 6", 3, 4, (8, 8), kernel=(6, 6), padding=3, batch=1),
    Case("7 x 7", 20, 6, (9, 10), kernel=(7, 7), padding=3, batch=1),
    Case("7 x 7, stride 2", 20, 6, (13, 12), kernel=(7, 7), stride=2, padding=3, batch=1),
    Case("8 x 9", 3, 4, (9, 10), kernel=(8, 9), padding=4, batch=1),
    Case("11 x 11", 3, 4, (9, 10), kernel=(11, 11), padding=5, batch=1),
    # Steps: strides, dilations and paddings, also where whole kernel rows or blocks see nothing but padding.
    Case("stride 2", 17, 6, (9, 21), stride=2, padding=1),
    Case("stride 2, same, even size", 4, 6, (8, 6), stride=2, padding="same"),
    Case("stride 2, same, odd size", 4, 6, (9, 7), stride=2, padding="same"),
    Case("stride past the kernel, same", 2, 3, (11, 10), kernel=(2, 2), stride=3, padding="same"),
    Case("stride past the picture", 5, 3, (4, 5), stride=9, padding=1),
    Case("stride 3", 5, 4, (10, 11), stride=3, padding=1),
    Case("stride 2 x 3, valid", 4, 6, (9, 10), stride=(2, 3), padding="valid"),
    Case("dilation 2 x 1", 4, 6, (9, 8), dilation=(2, 1), padding=(2, 1)),
    Case("dilation, same", 4, 6, (9, 8), dilation=2, padding="same"),
    Case("dilation 3, stride 2", 17, 4, (11, 12), stride=2, dilation=3, padding=2, batch=1),
    Case("uneven padding", 4, 6, (6, 5), padding=((0, 1), (2, 0))),
    Case("padding larger than the picture", 5, 4, (2, 3), padding=((5, 4), (4, 7)), batch=1),
    # Multipliers: filters of one channel lie apart in the tile.
    Case("multiplier 2", 6, 8, (7, 6), multiplier=2, padding=1),
    Case("multiplier 2, one past a vector", 17, 20, (4, 9), multiplier=2, padding=1, batch=1),
    Case("multiplier 3, one past two vectors", 33, 20, (5, 5), multiplier=3, padding=1),
    Case("multiplier 3, one channel", 1, 4, (7, 6), multiplier=3),
    Case("multiplier 5, 5 x 5, stride 2", 3, 4, (9, 9), kernel=(5, 5), multiplier=5, stride=2, padding=2),
    # Biases and activations.
    Case("no bias", 4, 6, (6, 5), bias=False),
    Case("biases and activations", 5, 7, (6, 7), padding=1, depthwise_bias=True, between="relu", activation="relu6"),
    Case("multiplier 4, all at once", 3, 5, (8, 7), (3, 2), 4, 2, (2, 1), "same", 1, True, True, "relu6", "relu"),
]

# Calls of `fused_block`. Expanded rows lie in a band that goes on downwards: pictures, parts of threads, strides and
# paddings are where it begins anew; rows of more than 256 outputs are cut.
BLOCKS = [
    Block("expanded", 40, 24, (9, 11), padding=1, expanded=12, residual=False, between="relu6", widening="relu6"),
    Block("expanded, added", 96, 16, (14, 14), padding=1, expanded=16, residual=True, widening="relu6", batch=1),
    Block("expanded, stride 2", 33, 20, (13, 9), padding=1, stride=2, expanded=7, widening="relu"),
    Block("expanded, 7 x 7", 18, 33, (10, 8), kernel=(7, 7), padding=3, expanded=5, batch=3),
    Block("expanded, 5 x 5, stride 2, same", 64, 8, (12, 12), (5, 5), stride=2, padding="same", expanded=16, batch=9),
    Block("expanded, dilation", 9, 6, (9, 12), padding=2, dilation=2, expanded=4, widening="hardswish"),
    Block("expanded, stride beyond the kernel", 9, 6, (13, 12), (2, 2), stride=3, expanded=4),
    Block("expanded, rows of padding alone", 9, 6, (2, 3), padding=7, expanded=4),
    Block("expanded, wide", 6, 5, (3, 300), padding=1, expanded=3, batch=1, residual=True),
    Block("expanded, multiplier 2", 7, 9, (6, 7), padding=1, multiplier=2, expanded=5, depthwise_bias=True),
    Block("expanded, many pictures", 12, 8, (3, 3), padding=1, batch=14, expanded=6, residual=True),
    Block("pointwise alone", 40, 72, (9, 7), kernel=(0, 0), batch=2, activation="relu"),
    Block("pointwise alone, one channel", 1, 1, (3, 3), kernel=(0, 0)),
    Block("pointwise alone, added", 17, 33, (7, 40), kernel=(0, 0), residual=True, activation="gelu"),
    Block("pointwise alone, long reduction", 400, 5, (3, 3), kernel=(0, 0), residual=True),
    Block("dense, a stem", 3, 32, (17, 18), stride=2, padding=1, dense=True, activation="relu6"),
    Block("dense, same", 3, 20, (12, 11), (5, 5), stride=2, padding="same", dense=True),
    Block("dense, added", 33, 40, (9, 7), padding=1, dense=True, residual=True, activation="relu"),
    Block("dense, pixels", 40, 72, (9, 7), kernel=(1, 1), dense=True, batch=2, activation="relu"),
    Block("dense, pixels, odd channels", 33, 20, (5, 41), kernel=(1, 1), dense=True, residual=True),
    Block("dense, pixels, 4096 bytes apart", 1024, 9, (5, 7), kernel=(1, 1), dense=True, batch=3),
    Block("dense, a pixel", 66, 200, (1, 1), kernel=(1, 1), dense=True, batch=1, residual=True),
    Block("dense, a column, even channels", 34, 20, (9, 30), kernel=(3, 1), padding=1, dense=True),
    Block("dense, one channel", 1, 3, (6, 7), (4, 2), padding=3, dense=True),
    Block("dense, dilation", 5, 17, (9, 12), padding=2, dilation=2, dense=True),
    Block("dense, long reduction", 130, 33, (4, 5), padding=1, dense=True, batch=1),
    Block("dense, stride 2 of one pixel", 18, 9, (6, 7), (1, 1), stride=2, dense=True),
    Block("normalized", 48, 20, (8, 9), (7, 7), padding=3, normalized=True, activation="gelu"),
    Block("normalized, a tail", 37, 20, (8, 9), padding=1, normalized=True, bias=False),
    Block("normalized after a sigmoid, a tail", 37, 20, (8, 9), padding=1, normalized=True, between="sigmoid"),
    Block("everything", 70, 35, (9, 10), padding=1, expanded=30, normalized=True, residual=True, widening="silu"),
    Block("added", 33, 65, (5, 6), padding=1, residual=True, activation="relu"),
    Block("added, three channels", 33, 3, (5, 6), padding=1, residual=True, stride=2),
    Block("empty batch, expanded", 4, 6, (6, 5), padding=1, batch=0, expanded=3),
]

DENSE: dict[str, Any] = {"dense": True, "widening": "relu"}
STRIDED: dict[str, Any] = {"dense": True, "widening": "relu6", "expand_stride": (2, 2), "batch": 3}
CURVED: dict[str, Any] = {"dense": True, "widening": "silu"}
# Layers that only programs know, and how dense convolutions find their patches.
POOLED: dict[str, Any] = {"bare": True, "pooled": True, "bias": False}
STEPS = [
    Block("bare", 40, 40, (9, 11), padding=1, between="relu6", bare=True, depthwise_bias=True, bias=False),
    Block("bare, one channel", 1, 1, (3, 2), padding=1, bare=True, bias=False),
    Block("bare, three channels", 3, 3, (5, 7), (5, 5), padding=2, stride=2, bare=True, bias=False),
    Block("bare, one past two vectors", 65, 65, (6, 40), padding=1, bare=True, bias=False, batch=3),
    Block(
        "bare, expanded",
        72,
        72,
        (9, 11),
        (5, 5),
        padding=2,
        stride=2,
        expanded=24,
        widening="relu",
        bare=True,
        bias=False,
    ),
    # Whole vectors that lie in y as in a tile; and where rows of a region lie apart in y.
    Block("bare, whole vectors", 64, 64, (9, 11), padding=1, between="relu", bare=True, bias=False),
    Block("bare, whole vectors, wide", 64, 64, (5, 75), padding=1, bare=True, bias=False, batch=1),
    Block("bare, whole vectors in parts", 256, 256, (5, 9), (5, 5), padding=2, stride=2, bare=True, bias=False),
    Block("bare, whole vectors, expanded", 96, 96, (9, 10), padding=1, expanded=8, bare=True, bias=False),
    Block("bare, expanded, wide", 18, 18, (3, 300), padding=1, expanded=5, between="silu", bare=True, bias=False),
    Block("pooled", 40, 40, (9, 11), padding=1, stride=2, **POOLED),
    Block("pooled, 2 x 2", 64, 64, (6, 40), (2, 2), stride=2, batch=2, **POOLED),
    Block("pooled, 2 x 2, odd", 33, 33, (7, 5), (2, 2), stride=2, padding=((0, 1), (0, 1)), **POOLED),
    Block("pooled, one channel", 1, 1, (3, 2), padding=1, **POOLED),
    Block("pooled, 4 x 1, dilation", 65, 65, (9, 70), (4, 1), dilation=2, padding=((2, 3), (0, 0)), **POOLED),
    Block("pooled, one pixel, activated", 18, 18, (3, 41), (1, 1), between="hardswish", **POOLED),
    Block("pooled, expanded", 72, 72, (9, 11), padding=1, stride=2, expanded=24, widening="relu", **POOLED),
    Block(
        "a stem, pooled",
        20,
        20,
        (20, 41),
        padding=1,
        stride=2,
        expanded=3,
        expand=(3, 3),
        expand_stride=(2, 2),
        **POOLED,
    ),
    Block("gated", 40, 72, (9, 7), kernel=(0, 0), gated=True, activation="relu"),
    Block("gated, one channel", 1, 1, (3, 3), kernel=(0, 0), gated=True, batch=3),
    Block("gated, added", 17, 33, (7, 40), kernel=(0, 0), gated=True, residual=True, batch=2),
    Block("gated, normalized", 37, 20, (6, 5), kernel=(0, 0), gated=True, normalized=True),
    Block("gated, long reduction", 400, 5, (3, 3), kernel=(0, 0), gated=True),
    Block("1 x 3, then 3 x 1", 64, 16, (9, 40), (3, 1), padding=((1, 1), (0, 0)), expanded=5, expand=(1, 3), **DENSE),
    Block("3 x 1, then 1 x 3", 33, 40, (9, 40), (1, 3), padding=((0, 0), (1, 1)), expanded=70, expand=(3, 1), **DENSE),
    Block("3 x 3, then 3 x 3", 40, 17, (7, 30), padding=1, expanded=18, expand=(3, 3), **CURVED),
    Block("3 x 3, then 3 x 3, stride 2", 20, 17, (9, 12), stride=2, padding=1, expanded=9, expand=(3, 3), **DENSE),
    Block("1 x 1, then 3 x 3", 20, 33, (4, 70), padding=1, expanded=9, residual=True, **DENSE),
    Block("a stem, then depthwise", 32, 16, (20, 21), padding=1, expanded=3, expand=(3, 3), expand_stride=(2, 2)),
    Block("a stem, then 3 x 3", 20, 33, (9, 40), padding=1, stride=2, expanded=3, expand=(3, 3), **STRIDED),
    Block("4 x 2, then depthwise", 20, 33, (8, 9), padding=1, expanded=9, expand=(4, 2), batch=3),
    Block("3 x 1, narrow and long", 200, 70, (9, 5), (3, 1), padding=((1, 1), (0, 0)), dense=True, batch=3),
    Block("3 x 1, wide and long", 200, 70, (6, 40), (3, 1), padding=((1, 1), (0, 0)), dense=True, residual=True),
    Block("1 x 3, wide and long", 130, 40, (3, 60), (1, 3), padding=((0, 0), (1, 1)), dense=True, activation="relu"),
    Block("3 x 3, wide, dilation, stride 2", 70, 20, (9, 70), stride=2, dilation=2, padding=2, dense=True),
    Block("7 x 7, wide", 40, 20, (5, 60), (7, 7), padding=3, dense=True),
    Block("17 x 1", 5, 20, (20, 6), (17, 1), padding=((8, 8), (0, 0)), dense=True),
]
