"""Each block against its own equation in NumPy, read off its parts."""

from typing import Any

import numpy as np
import oracle
import pytest
import torch
from torch import nn

from sepwise.errors import ShapeError, UnsupportedError
from sepwise.nn import blocks

SETTINGS: dict[str, Any] = {"norm": None, "activation": "elu"}
by_stride = pytest.mark.parametrize("stride", [1, 2])
by_kernel = pytest.mark.parametrize("kernel", [1, 3, 5])


def picture(channels: int) -> torch.Tensor:
    return torch.randn(2, channels, 7, 6, dtype=torch.float64)


def step(x: Any, conv: Any, stride: int = 1, activation: str | None = None) -> np.ndarray:
    """One convolution layer and an activation; its groups are not read: the caller hands the channels it may see."""
    assert isinstance(conv, nn.Conv2d)
    y = oracle.convolution(x, conv.weight, conv.bias, stride=stride, padding=conv.kernel_size[0] // 2)
    return oracle.activated(y, activation)


def agrees(block: nn.Module, x: torch.Tensor, expected: np.ndarray) -> None:
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=0, atol=1e-12)


def channel(x: torch.Tensor, c: int) -> torch.Tensor:
    return x[:, c : c + 1]


@by_stride
@by_kernel
def test_depthwise_is_a_grouped_convolution(stride: int, kernel: int) -> None:
    """groups = input channels (Ghosh 2017, section 2): each channel of x meets its own kernels and nothing else."""
    block = blocks.GroupedBlock(3, 6, groups=3, stride=stride, kernel_size=kernel, **SETTINGS).double()
    conv: Any = block.conv
    assert (type(conv), conv.groups, tuple(conv.weight.shape)) == (nn.Conv2d, 3, (6, 1, kernel, kernel))
    x = picture(3)
    settings: Any = {"stride": stride, "padding": kernel // 2}
    alone = [
        oracle.convolution(channel(x, c), conv.weight[i : i + 1], conv.bias[i : i + 1], **settings)
        for c in range(3)
        for i in (2 * c, 2 * c + 1)
    ]
    agrees(block, x, oracle.activated(np.concatenate(alone, 1), "elu"))


@by_stride
def test_segmented(stride: int) -> None:
    block = blocks.SegmentedBlock(4, 6, groups=2, stride=stride, **SETTINGS).double()
    convs, x = list(block.conv.children()), picture(4)
    parts = [step(x[:, :2], convs[0], stride), step(x[:, 2:], convs[1], stride)]
    agrees(block, x, oracle.activated(np.concatenate(parts, 1), "elu"))


@by_stride
@pytest.mark.parametrize("between", [None, "relu"])
@pytest.mark.parametrize("identity", [False, True])
def test_separable(stride: int, between: str | None, identity: bool) -> None:
    block = blocks.SeparableBlock(
        4, 4, stride=stride, between=between, identity=identity, depth_multiplier=2, **SETTINGS
    ).double()
    conv, x = block.conv, picture(4)
    assert (conv.depthwise_bias is None) == (between is None)
    if conv.depthwise_bias is not None:
        nn.init.normal_(conv.depthwise_bias)
    settings = {"depthwise_bias": conv.depthwise_bias, "between": between, "stride": stride, "padding": 1}
    y = oracle.separable(x, conv.depthwise, conv.pointwise, conv.bias, **settings)
    if identity:
        shortcut = block.shortcut
        y = y + (x.numpy() if isinstance(shortcut, nn.Identity) else step(x, shortcut.conv, stride))  # type: ignore[union-attr]
    agrees(block, x, oracle.activated(y, "elu"))


@pytest.mark.parametrize(
    ("drawing", "identity"),
    [(blocks.SplitSum, False), (blocks.HybridReformulated, False), (blocks.HybridReformulated, True)],
)
def test_split_filter_spread_add(drawing: Any, identity: bool) -> None:
    own = {} if drawing is blocks.SplitSum else {"identity": identity}
    block: Any = drawing(5, 5, depth_multiplier=2, between="gelu", **own, **SETTINGS).double()
    paths, x = block.paths, picture(5)
    nn.init.normal_(paths.bias)
    spread = [step(step(channel(x, c), p.depthwise.conv, 1, "gelu"), p.pointwise) for c, p in enumerate(paths)]
    y = sum(spread) + paths.bias.detach().numpy().reshape(-1, 1, 1)
    agrees(block, x, oracle.activated(y + x.numpy() if identity else y, "elu"))


@by_stride
@by_kernel
def test_hybrid(stride: int, kernel: int) -> None:
    block = blocks.Hybrid(3, 5, stride=stride, kernel_size=kernel, **SETTINGS).double()
    paths: Any = block.paths
    x = picture(3)
    alone = np.concatenate([step(channel(x, c), path.conv, stride) for c, path in enumerate(paths)], 1)
    shortcut: Any = block.shortcut
    agrees(block, x, oracle.activated(step(alone, block.pointwise) + step(x, shortcut.conv, stride), "elu"))


@by_stride
def test_simplified_inception(stride: int) -> None:
    block = blocks.SimplifiedInception(4, 6, segments=3, stride=stride, **SETTINGS).double()
    towers: Any = block.towers
    x = picture(4)
    parts = [step(step(x, t.mix.conv, 1, "elu"), t.spatial.conv, stride, "elu") for t in towers]
    agrees(block, x, np.concatenate(parts, 1))


@by_stride
@pytest.mark.parametrize("between", [None, "relu", "same"])
def test_reformulated_inception(stride: int, between: str | None) -> None:
    block = blocks.ReformulatedInception(
        4, 6, segments=3, mid_channels=9, between=between, stride=stride, **SETTINGS
    ).double()
    x = picture(4)
    assert isinstance(block.mix.conv, nn.Conv2d)
    assert (block.mix.conv.bias is None) == (between is None)  # nothing at all between the steps of a linear chain
    mixed = step(x, block.mix.conv, 1, "elu" if between == "same" else between)
    parts = [step(mixed[:, 3 * s : 3 * s + 3], conv, stride) for s, conv in enumerate(block.spatial.children())]
    agrees(block, x, oracle.activated(np.concatenate(parts, 1), "elu"))


def test_extreme_inception() -> None:
    block = blocks.ExtremeInception(4, 6, **SETTINGS).double()
    x = picture(4)
    mixed = step(x, block.mix.conv, 1, "elu")
    parts = [step(mixed[:, c : c + 1], conv) for c, conv in enumerate(block.spatial.children())]
    assert len(parts) == 6
    agrees(block, x, oracle.activated(np.concatenate(parts, 1), "elu"))


def test_where_the_norms_stand() -> None:
    """After each step, before its activation, as the equations have it."""

    def normed(y: np.ndarray, norm: Any) -> np.ndarray:
        shape = (-1, 1, 1)
        mean, variance = (t.numpy().reshape(shape) for t in (norm.running_mean, norm.running_var))
        scale, shift = (t.detach().numpy().reshape(shape) for t in (norm.weight, norm.bias))
        return (y - mean) / np.sqrt(variance + norm.eps) * scale + shift

    block = blocks.SeparableBlock(3, 5, between="same", between_norm="same", identity=True).double().eval()
    conv, shortcut = block.conv, block.shortcut
    assert isinstance(conv.between_norm, nn.Module)
    assert isinstance(shortcut, nn.Sequential)
    for name, tensor in block.state_dict().items():
        if "norm" in name and tensor.dim():
            tensor.uniform_(0.5, 2)
    x = picture(3)
    mid = normed(oracle.convolution(x, conv.depthwise, groups=3, padding=1), conv.between_norm)
    y = normed(oracle.convolution(oracle.activated(mid, "relu"), conv.pointwise), block.norm)
    agrees(block, x, oracle.activated(y + normed(step(x, shortcut.conv), shortcut.norm), "relu"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: blocks.GroupedBlock(4, 6, groups=4),
            "GroupedBlock: groups=4 must divide 4 input and 6 output",
        ),
        (lambda: blocks.SegmentedBlock(4, 6, groups=0), "SegmentedBlock: groups=0: expected an integer >= 1"),
        (lambda: blocks.SplitSum(4, 6, depth_multiplier=0), "SplitSum: depth_multiplier=0: expected an integer >= 1"),
        (
            lambda: blocks.SimplifiedInception(4, 6),
            "SimplifiedInception: segments=4 must divide 6 channels between and 6 output channels",
        ),
        (
            lambda: blocks.ReformulatedInception(4, 6, segments=3, mid_channels=4),
            "ReformulatedInception: segments=3 must divide 4 channels between and 6 output channels",
        ),
    ],
)
def test_refusals(make: Any, sentence: str) -> None:
    with pytest.raises(ShapeError, match=f"^{sentence}"):
        make()


def test_an_unknown_activation_between() -> None:
    with pytest.raises(UnsupportedError, match=r"^Hybrid: between='tanh' is unknown; give None, 'relu'"):
        blocks.Hybrid(4, 4, between="tanh")
