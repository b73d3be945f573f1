"""One node of a graph, read: what it pools of a picture, the mean or the largest number, or something else."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..geometry import Geometry
from ..graph.rewriting import hooked

aten: Any = torch.ops.aten
MEANS = (torch.mean, aten.mean.dim)
AVERAGES = (F.adaptive_avg_pool2d, aten.adaptive_avg_pool2d.default)
LARGEST = (F.max_pool2d, torch.max_pool2d, aten.max_pool2d.default)
SETTINGS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


def mean_of(graph: fx.GraphModule, node: fx.Node) -> bool | None:
    """Whether a node that takes the mean over height and width leaves those axes out; None: it does something else."""
    arguments = (*node.args[1:], *node.kwargs.values())
    if node.op == "call_module":
        return _averages(graph.get_submodule(str(node.target)))
    if node.target in AVERAGES:
        return False if arguments in ((1,), ((1, 1),), ([1, 1],)) else None
    if node.target in MEANS or (node.op == "call_method" and node.target == "mean"):
        axes, keeps = (*arguments, False)[:2] if arguments else ((), False)
        axes = axes if isinstance(axes, (tuple, list)) else ()
        if list(axes) in ([2, 3], [-2, -1]) and len(arguments) < 3:
            return not keeps
    return None


def largest_of(graph: fx.GraphModule, node: fx.Node, size: tuple[int, int]) -> Geometry | None:
    """The windows in which a node finds the largest numbers of pictures of this size; None: it does something else."""
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        if type(module) is not nn.MaxPool2d or hooked(module):
            return None
        settings = {name: getattr(module, name) for name in SETTINGS}
    elif node.op == "call_function" and node.target in LARGEST:
        settings = dict(zip(SETTINGS, node.args[1:], strict=False)) | node.kwargs
    else:
        return None
    if settings.get("return_indices"):
        return None
    kernel, stride = _pair(settings["kernel_size"]), settings.get("stride") or settings["kernel_size"]
    stride, padding, dilation = (_pair(n) for n in (stride, settings.get("padding", 0), settings.get("dilation", 1)))
    pads = tuple((low, low) for low in padding)
    geometry = Geometry.of(kernel, stride, pads, dilation)
    if not settings.get("ceil_mode"):
        return geometry
    with torch.device("meta"):
        _, _, *out = F.max_pool2d(torch.empty(1, 1, *size), kernel, stride, padding, dilation, ceil_mode=True).shape
    reached = [(n - 1) * s + e for n, s, e in zip(out, stride, geometry.extent, strict=True)]
    pads = tuple((low, max(end - n - low, 0)) for end, n, (low, _) in zip(reached, size, pads, strict=True))
    return Geometry.of(kernel, stride, pads, dilation)


@torch.no_grad()
def _averages(module: nn.Module) -> bool | None:
    """As `mean_of`, for a module of any class: known by what it does."""
    if [*module.parameters()] or hooked(module):
        return None
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    try:
        found = module(x)
    except (RuntimeError, TypeError, ValueError):
        return None
    wanted = x.mean((2, 3))
    if not isinstance(found, Tensor) or found.shape not in ((2, 3), (2, 3, 1, 1)):
        return None
    return found.dim() == 2 if torch.allclose(found.reshape(2, 3), wanted, atol=1e-6) else None


def _pair(value: Any) -> tuple[int, ...]:
    """Two numbers of one, of a list of one, or of two."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * (2 // len(values))
