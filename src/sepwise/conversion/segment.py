"""A layer as it runs in a fused network: the convolution, dense or as a candidate, with the activation after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..factor import FORMS, check_rank
from ..fusion.activation import MODULES, activations_of
from ..fusion.fuse import FusedNetwork, fuse
from ..graph.network import NORMS, Network, copy_of
from ..nn import FactoredConv, FusedBlock, SeparableConv1d, SeparableConv2d, layer_for
from ..nn.dense import DenseConv, shape_of_dense
from ..ops import native
from ..ops.separable_conv2d import cpu
from .sizes import input_sizes
from .times import Key

ACTIVATIONS = {name: kind for kind, name in MODULES.items() if kind is not nn.Hardtanh}


@dataclass(frozen=True)
class Segment:
    """One convolution, its input's spatial size, and the activation that a fused operation would take in.

    activation    the module that follows it, alone; None when something else does
    """

    name: str
    conv: DenseConv
    size: tuple[int, ...]
    activation: nn.Module | None

    @property
    def words(self) -> str:
        """All that its time depends on."""
        shape, conv = shape_of_dense(self.conv), self.conv
        parts = (shape, self.size, conv.weight.dtype, conv.padding_mode, self.activation)
        return " | ".join(map(str, parts))

    def example(self) -> Tensor:
        """Noise of the layer's input shape, batch 1."""
        return torch.randn(1, self.conv.in_channels, *self.size, dtype=self.conv.weight.dtype)

    def fused(self, key: Key, x: Tensor) -> tuple[Callable[[Tensor], object], str]:
        """What `fuse` makes of the layer with a candidate, or dense, and in words what computes it."""
        layer: nn.Module = self.conv
        if key is not None:
            form, rank = key
            shape, like = shape_of_dense(self.conv), self.conv.weight
            rank = check_rank(FORMS[form], shape, rank)
            mode = self.conv.padding_mode
            layer = layer_for(form, shape, rank, padding_mode=mode, device=like.device, dtype=like.dtype)
        parts = [layer] if self.activation is None else [layer, self.activation]
        network = fuse(nn.Sequential(*parts).eval(), x)
        return network.network, _kernel(network)


def segments(network: Network, example: Tensor) -> Iterator[Segment]:
    """The convertible convolutions of a network that is still dense, for one picture of the size of `example`."""
    sizes = input_sizes(network, example)
    for site in network.sites:
        yield Segment(site.name, network.conv(site), sizes[site.name], _activation_after(network.graph, site.node))


def _activation_after(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The one activation that `fuse` could take into the operation of this node; normalizations between are folded."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, NORMS):
            continue
        names = activations_of(graph, node)
        if names is None or len(names) > 1:
            return None
        if names:
            kind = ACTIVATIONS[names[0]]
            return copy_of(module) if isinstance(module, kind) else kind()
    return None


def _kernel(network: FusedNetwork) -> str:
    """What computes a fused segment: its steps, in order."""
    words = []
    for module in network.network.modules():
        if isinstance(module, SeparableConv1d | SeparableConv2d | FusedBlock):
            block = isinstance(module, FusedBlock)
            compiled = native.PROBLEM is None and module.pointwise.dtype in cpu.DTYPES
            compiled = compiled and not (block and module.stock)
            what = module.extra_repr() if block else "depthwise and pointwise"
            words.append(f"{what} in " + ("one compiled operation" if compiled else "stock operations"))
        elif isinstance(module, FactoredConv):
            words.append(", ".join(f"{step.name} {'x'.join(map(str, step.geometry.kernel))}" for step in module.steps))
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            words.append("convolution " + "x".join(map(str, module.kernel_size)))
    return ", ".join(words)
