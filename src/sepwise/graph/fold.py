"""Batch normalization folded into the convolution before it: the same function in evaluation, one layer less."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from ..errors import ModelError
from ..nn import FactoredConv
from ..nn.dense import DenseConv
from .network import NORMS, Network, stored
from .rewriting import CONVS, calls_of, hooked
from .same_padding import geometry_of


def fold_norms(network: Network) -> list[str]:
    """Fold every batch normalization that only reads one convolution; returns the names of the convolutions.

        W'[o] = W[o] * gamma[o] / sqrt(var[o] + eps)        b'[o] = beta[o] + (b[o] - mean[o]) * gamma[o] / sqrt(...)

    That is a convolution that could be converted, one that pads by the size of its input, or a separable layer that
    ends with a convolution: then W is the weight of its last step. Uses the running statistics, so the network computes
    what it computed in evaluation mode.
    """
    folded = []
    for name, node in _ends_in_convolution(network):
        users = list(node.users)
        if len(users) != 1:
            continue
        found = _norm_module(network, users[0]) or _norm_call(network, users[0])
        if found is None:
            continue
        (scale, shift), after = found
        layer = cast(DenseConv | FactoredConv, network.graph.get_submodule(name))
        _scale(layer, scale, shift)
        if not all(bool(p.isfinite().all()) for p in layer.parameters()):
            raise ModelError(f"the batch normalization after {name} holds NaN or Inf; repair or reload the weights")
        if users[0].op == "call_module":
            network.replace(str(users[0].target), after)
        else:
            users[0].replace_all_uses_with(node)
            network.graph.graph.erase_node(users[0])
        folded.append(name)
    network.graph.graph.eliminate_dead_code()
    network.graph.recompile()
    return folded


def scale_shift_of(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """What a normalization does to each channel in evaluation, x * scale + shift, float64; None when it is unknown."""
    if not isinstance(norm, NORMS) or norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    return _scale_shift(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


def _ends_in_convolution(network: Network) -> Iterator[tuple[str, fx.Node]]:
    calls = calls_of(network.graph.graph)
    sites = {site.node for site in network.sites}
    for node in list(network.graph.graph.nodes):
        if node in sites:
            yield str(node.target), node
        elif node.op == "call_module" and calls[node.target] == 1:
            layer = network.graph.get_submodule(str(node.target))
            if isinstance(layer, CONVS) and not isinstance(geometry_of(network, str(node.target), layer), str):
                yield str(node.target), node
            if isinstance(layer, FactoredConv) and not hooked(layer) and getattr(layer, "activation", None) is None:
                yield str(node.target), node


def _norm_module(network: Network, node: fx.Node) -> tuple[tuple[Tensor, Tensor], nn.Module] | None:
    """Scale, shift and what stays behind, when `node` calls a batch-normalization module once."""
    if node.op != "call_module" or sum(n.target == node.target for n in network.graph.graph.nodes) > 1:
        return None
    norm = network.graph.get_submodule(str(node.target))
    found, after = scale_shift_of(norm), what_stays(norm)
    return None if found is None or after is None else (found, after)


def what_stays(norm: nn.Module) -> nn.Module | None:
    """What the module does after normalizing; None when that is unknown."""
    if hooked(norm):
        return None
    if type(norm) in NORMS:
        return nn.Identity()
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if isinstance(drop, nn.Module) and isinstance(act, nn.Module):
        return nn.Sequential(drop, act)  # timm: normalization with its activation in one module
    return None


def _norm_call(network: Network, node: fx.Node) -> tuple[tuple[Tensor, Tensor], nn.Module] | None:
    """The same for an exported graph, where the normalization is a function of stored tensors.

    Where the graph is not the model itself, the model's own layer is replaced at once.
    """
    if node.op != "call_function" or node.target is not torch.ops.aten.batch_norm.default:
        return None
    _, weight, bias, mean, var, training, _, eps, _ = cast(tuple[Any, ...], node.args)
    sources = (mean, var, weight, bias)
    if training or not all(n is None or (isinstance(n, fx.Node) and n.op == "get_attr") for n in sources):
        return None
    after: nn.Module | None = nn.Identity()
    if network.model is not network.graph:
        name = str(mean.target).rpartition(".")[0]
        norm = network.model.get_submodule(name)
        after = what_stays(norm) if isinstance(norm, NORMS) and len(mean.users) == 1 else None
        if after is None:
            return None
        for alias in [n for n, m in network.model.named_modules(remove_duplicate=False) if m is norm]:
            network.model.set_submodule(alias, after)
    m, v, w, b = (stored(network.graph, n.target) if isinstance(n, fx.Node) else None for n in sources)
    return _scale_shift(m, v, w, b, float(eps)), after  # type: ignore[arg-type]


def _scale_shift(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    scale = (var.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.detach().double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.detach().double()


def _scale(layer: DenseConv | FactoredConv, scale: Tensor, shift: Tensor) -> None:
    name = layer.steps[-1].name if isinstance(layer, FactoredConv) else "weight"
    weight, bias = getattr(layer, name), layer.bias
    old = weight.detach().double()
    setattr(layer, name, nn.Parameter((old * scale.view(-1, *[1] * (old.dim() - 1))).to(weight.dtype)))
    new = shift if bias is None else shift + bias.detach().double() * scale
    layer.bias = nn.Parameter(new.to(weight.dtype))
