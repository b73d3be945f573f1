"""What a model costs on one example: parameters, multiply-accumulates and bytes moved, and what was not counted."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from .trace import Call, Example, Run, run

CONVENTION = (
    "1 MAC = one multiply-add of a convolution or matrix product; bias, normalization, activation and pooling are not "
    "counted. Bytes moved: each counted operation reads its inputs and weights once and writes its output once."
)

# Words in the names of operations that multiply nothing worth counting, although PyTorch tags them neither
# pointwise nor reduction nor view: pooling, normalization, resampling by fixed weights, data movement, creation.
# fmt: off
_FREE_WORDS = frozenset((
    "alias", "arange", "argmax", "argmin", "assert", "cat", "clone", "col2im", "constrain", "contiguous", "copy",
    "cumsum", "detach", "dropout", "embedding", "empty", "equal", "expand", "eye", "fill", "flip", "full",
    "gather", "glu", "im2col", "index", "item", "lift", "linspace", "max", "mean", "min", "nonzero", "norm",
    "ones", "pad", "pool", "prelu", "prod", "rand", "repeat", "reshape", "resize", "resolve", "roll", "scalar",
    "scatter", "select", "shuffle", "slice", "softmax", "sort", "split", "stack", "std", "sum", "sym", "topk",
    "tril", "triu", "unbind", "unfold", "upsample", "var", "view", "where", "zeros",
))
# fmt: on


@dataclass(frozen=True)
class ModuleCost:
    """The share of one module, its children included.

    parameters             numbers it holds, shared ones once
    macs, bytes_moved      of the counted operations that ran inside it, all calls together
    output_shape           at its last call; None when it returns no tensor
    """

    parameters: int
    macs: int
    bytes_moved: int
    output_shape: tuple[int, ...] | None

    @property
    def arithmetic_intensity(self) -> float:
        """MACs per byte moved; 0.0 when nothing was counted."""
        return self.macs / self.bytes_moved if self.bytes_moved else 0.0


@dataclass(frozen=True)
class Cost:
    """What a model costs on one example, batch included.

    modules        by name, in order of definition; only modules that ran; "" is the whole model
    free           operations taken as no multiplication (elementwise, pooling, normalization, data movement): calls
    unsupported    operations without a formula, which the totals lack: calls
    """

    modules: dict[str, ModuleCost]
    free: dict[str, int]
    unsupported: dict[str, int]

    @property
    def total(self) -> ModuleCost:
        return self.modules[""]

    @property
    def parameters(self) -> int:
        return self.total.parameters

    @property
    def macs(self) -> int:
        return self.total.macs

    @property
    def bytes_moved(self) -> int:
        return self.total.bytes_moved

    @property
    def arithmetic_intensity(self) -> float:
        return self.total.arithmetic_intensity

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as JSON holds them."""
        return {
            "convention": CONVENTION,
            "total": _plain(self.total),
            "modules": {name: _plain(module) for name, module in self.modules.items() if name},
            "free": self.free,
            "unsupported": self.unsupported,
        }

    def __str__(self) -> str:
        width = max(len("(all)"), *(len(name) for name in self.modules))
        lines = [
            f"{'module':<{width}}  {'parameters':>12}  {'MACs':>15}  {'bytes moved':>14}  {'MACs/byte':>9}  output"
        ]
        for name, module in self.modules.items():
            shape = "×".join(str(n) for n in module.output_shape or ())
            lines.append(
                f"{name or '(all)':<{width}}  {module.parameters:>12,}  {module.macs:>15,}  {module.bytes_moved:>14,}  "
                f"{module.arithmetic_intensity:>9.1f}  {shape}"
            )
        return "\n".join([*lines, CONVENTION, self.not_counted()])

    def not_counted(self) -> str:
        """One sentence on what the totals lack."""
        if not self.unsupported:
            return "Nothing that multiplies was left out."
        listed = ", ".join(f"{name} ×{n}" for name, n in self.unsupported.items())
        return f"NOT counted, because there is no formula for them: {listed}."


def cost(model: nn.Module, example: Example) -> Cost:
    """Count parameters, multiply-accumulates and bytes of one run of `model`.

        convolution    macs = N * out * in / groups * kernel positions * output positions
        (m, k) @ (k, n)    macs = m * k * n

    Operations are counted where they happen, so functional calls, layers of ours and exported graphs count as well.
    model      any module; it runs once in evaluation mode and is left as it was
    example    a tensor, or the tuple of positional arguments; the batch is part of the count
    returns    Cost: total, by module, and what could not be counted
    Raises ModelError when the model cannot run on the example.

    >>> import torch
    >>> counted = cost(nn.Conv2d(3, 256, 5), torch.zeros(1, 3, 12, 12))
    >>> counted.macs, counted.parameters, counted.total.output_shape
    (1228800, 19456, (1, 256, 8, 8))
    """
    return tally(model, run(model, example))


def tally(model: nn.Module, seen: Run) -> Cost:
    """The Cost of a run already made."""
    free, unsupported = Counter[str](), Counter[str]()
    macs, moved = Counter[str](), Counter[str]()
    for call in seen.calls:
        if call.macs is None:
            (free if is_free(call) else unsupported)[str(call.op)] += 1
            continue
        for name in set(call.within):
            macs[name] += call.macs
            moved[name] += call.bytes_moved
    modules = {
        name: ModuleCost(sum(p.numel() for p in module.parameters()), macs[name], moved[name], seen.output_shapes[name])
        for name, module in model.named_modules()
        if name in seen.output_shapes
    }
    return Cost(modules, dict(free), dict(unsupported))


def is_free(call: Call) -> bool:
    """True for an ATen operation that moves, compares or averages numbers, or works on each by itself."""
    library, _, name = str(call.op).partition(".")
    if library not in ("aten", "prim", "prims"):
        return False
    if call.tags & {"pointwise", "reduction", "view", "view_copy"}:
        return True
    return not _FREE_WORDS.isdisjoint(re.sub(r"\dd(?=_|$)", "", name).split("_"))


def _plain(module: ModuleCost) -> dict[str, Any]:
    shape = list(module.output_shape) if module.output_shape is not None else None
    return {**asdict(module), "output_shape": shape, "arithmetic_intensity": module.arithmetic_intensity}
