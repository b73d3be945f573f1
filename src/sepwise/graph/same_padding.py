"""Where the kernel of a convolution is laid, also of those that pad by the size of their input, as Keras does."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..geometry import Geometry
from ..nn.dense import DenseConv, shape_of_dense
from ..ops.conv import convolve
from .network import Network
from .rewriting import CONVS, hooked

SIZES = (11, 12, 14)  # that tell "same" padding at strides of 1 to 4 from any other


def geometry_of(network: Network, name: str, conv: DenseConv) -> Geometry | str:
    """The geometry of a convolution of the graph; or the sentence that says why it cannot be replaced.

    A class of its own that is seen to pad as Keras does ("same" at any stride: timm's `Conv2dSame`) counts as such.
    """
    reason = network.left_out.get(name)
    if reason is None:
        return shape_of_dense(conv).geometry
    nodes = network.graph.graph.nodes
    calls = sum(node.op == "call_module" and node.target == name for node in nodes)
    read = any(node.op == "get_attr" and str(node.target).startswith(f"{name}.") for node in nodes)
    return _same(conv) or reason if calls == 1 and not read else reason


@torch.no_grad()
def _same(conv: DenseConv) -> Geometry | None:
    """The geometry with "same" padding, when that is what a module of a class of its own computes."""
    if type(conv) in CONVS or hooked(conv) or conv.padding_mode != "zeros":
        return None
    axes = conv.weight.dim() - 2
    geometry = replace(Geometry.of(conv.kernel_size, conv.stride, 0, conv.dilation), padding="same")
    random = torch.Generator(conv.weight.device).manual_seed(0)
    for size in SIZES:
        x = torch.randn(1, conv.in_channels, *(size,) * axes, generator=random, device=conv.weight.device)
        x = x.to(conv.weight.dtype)
        try:
            found = conv(x)
        except (RuntimeError, TypeError, ValueError):
            return None
        wanted = convolve(x, conv.weight, conv.bias, geometry, conv.groups)
        if found.shape != wanted.shape or not torch.allclose(found, wanted, 1e-4, 1e-5):
            return None
    return geometry
