"""A module as boxes and arrows: what it does in which order, as plain data that something else may draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, fx, nn

from ..errors import ModelError
from ..nn import FactoredConv
from .boxes import Box, boxes_and_arrows
from .trace import evaluating


@dataclass(frozen=True)
class Diagram:
    """title: the class of the module; boxes in the order in which they run; arrows (from, to) between their numbers."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagram(module: nn.Module, example: Tensor) -> Diagram:
    """Follow a module symbolically and on an example, and write down every operation and what it gets.

    example    (N, C, *size); only its shape matters
    A norm or an activation that alone follows a convolution, a sum or a concatenation is written into its box; a layer
    of ours becomes its steps; sums of sums become one sum; what does nothing (identity, dropout) is left out.
    The module is left as it was.
    Raises ModelError when it cannot be followed symbolically or cannot run on the example.

    >>> import torch
    >>> drawn = diagram(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 6, 6))
    >>> [(box.operation, box.then, box.shape) for box in drawn.boxes]
    [('input', (), (3, 6, 6)), ('convolution', ('relu',), (8, 4, 4)), ('output', (), (8, 4, 4))]
    """
    name, root = type(module).__name__, nn.Sequential(module)  # so that a single layer is a part, too
    with evaluating(module):
        try:
            graph = fx.GraphModule(root, _Tracer().trace(root))
            _Shapes(graph).run(example)
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"diagram: {name} cannot be followed on {tuple(example.shape)}: {first_line}") from error
    return Diagram(name, *boxes_and_arrows(graph))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, FactoredConv) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs the graph and notes the shape of every picture, without the batch."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape[1:]) if isinstance(result, Tensor) else ()
        return result
