"""One node of a graph, read: an activation that the separable layers know, nothing at all, or something else."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..graph.rewriting import hooked
from ..ops.activations import ACTIVATIONS

aten: Any = torch.ops.aten

MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardtanh: "hardtanh",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.GELU: "gelu",
    nn.ELU: "elu",
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
}
FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    aten.relu.default: "relu",
    F.relu6: "relu6",
    aten.relu6.default: "relu6",
    F.hardtanh: "hardtanh",
    aten.hardtanh.default: "hardtanh",
    F.silu: "silu",
    aten.silu.default: "silu",
    F.hardswish: "hardswish",
    aten.hardswish.default: "hardswish",
    F.gelu: "gelu",
    aten.gelu.default: "gelu",
    F.elu: "elu",
    aten.elu.default: "elu",
    F.sigmoid: "sigmoid",
    torch.sigmoid: "sigmoid",
    aten.sigmoid.default: "sigmoid",
    F.hardsigmoid: "hardsigmoid",
    aten.hardsigmoid.default: "hardsigmoid",
}
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def activations_of(graph: fx.GraphModule, node: fx.Node) -> list[str] | None:
    """Names of the activations that this node computes in evaluation, in order; None when it does anything else.

    Identities and dropout count as none: []. Variants that are not the activation of the layers (the tanh form of
    GELU, ELU with another slope) are something else; hardtanh from 0 to 6 is relu6.
    """
    if node.op == "call_module":
        return _of_module(graph.get_submodule(str(node.target)))
    if node.op == "call_method" and node.target in ("relu", "sigmoid"):
        return [str(node.target)]
    if node.op != "call_function":
        return None
    given = [v for k, v in (*enumerate(node.args[1:]), *node.kwargs.items()) if k != "inplace"]
    if node.target in (F.dropout, aten.dropout.default):
        training = node.kwargs.get("training", given[-1] if len(given) > 1 else True)
        return [] if training is False else None
    return _checked(FUNCTIONS.get(node.target), given)


def _of_module(module: nn.Module) -> list[str] | None:
    if hooked(module):
        return None
    if type(module) is nn.Sequential:
        parts = [_of_module(part) for part in module]
        return None if None in parts else [name for part in parts for name in part or ()]
    if type(module) is nn.Identity or (type(module) in DROPOUTS and not module.training):
        return []
    given: list[Any] = []
    if isinstance(module, nn.Hardtanh):
        given = [] if isinstance(module, nn.ReLU6) else [module.min_val, module.max_val]
    elif isinstance(module, nn.ELU):
        given = [module.alpha]
    elif isinstance(module, nn.GELU):
        given = [module.approximate]
    if type(module) not in MODULES:
        return _by_behaviour(module)
    return _checked(MODULES[type(module)], given)


@torch.no_grad()
def _by_behaviour(module: nn.Module) -> list[str] | None:
    """The activation that a module of another class, without weights or parts, is seen to compute."""
    if module.training or any(True for _ in (*module.parameters(), *module.buffers(), *module.children())):
        return None
    x = torch.linspace(-9, 9, 2 * 3 * 7 * 5, dtype=torch.float64).view(2, 3, 7, 5)
    try:
        found = module(x.clone())
    except Exception:  # whatever it is, it is no activation
        return None
    if not isinstance(found, Tensor) or found.shape != x.shape:
        return None
    return next(([name] for name, act in ACTIVATIONS.items() if torch.allclose(found, act(x), 1e-12, 1e-12)), None)


def _checked(name: str | None, given: list[Any]) -> list[str] | None:
    """`name` when the arguments after the input are those of the layers' activation."""
    if name == "hardtanh":
        return ["relu6"] if given == [0, 6] else None
    plain = {"elu": 1, "gelu": "none"}.get(name or "", False)  # the others take nothing but inplace
    return [name] if name and all(value == plain for value in given) else None
