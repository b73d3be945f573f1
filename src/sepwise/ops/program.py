"""`Program`: layers that follow each other, run in one call of the compiled core.

    value k                     tensor k that is given
    value given + s             result of step s: a `fused_block` of earlier values, a mean over height and width, or a
                                product with one number for each channel

Between steps nothing returns to Python; values lie in one piece of memory, where each takes the place of one that is
read no more; while a layer ends, the weights of the next one come (csrc/program.h).
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ShapeError
from ..geometry import Geometry
from . import native
from .activations import ACTIVATIONS
from .separable_conv2d.cpu import precision_asked
from .separable_conv2d.schema import operators

WORDS: tuple[str | None, ...] = (None, *ACTIVATIONS)  # as csrc/separable_conv2d/kernel.h counts them
PRECISIONS = ("highest", "high", "medium")
WEIGHTS = ("pointwise", "depthwise", "bias", "depthwise_bias", "expand", "expand_bias")


@dataclass(frozen=True)
class Layer:
    """A `fused_block` without what it reads; arguments as there. Without "pointwise" the depthwise step is the last.

    pooled             in the place of the depthwise step, the last one: the largest of each channel under the kernel of
                       `geometry`; padding counts as -inf
    expand_geometry    of "expand" where that is a dense convolution (E, C, KH, KW) without dilation; another dense
                       convolution may follow it, too
    """

    weights: Mapping[str, Tensor | None]
    geometry: Geometry | None = None
    widening: str | None = None
    between: str | None = None
    epsilon: float | None = None
    activation: str | None = None
    precision: str | None = None
    expand_geometry: Geometry | None = None
    pooled: bool = False

    def result(self, channels: int, size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Channels and spatial size of what it makes of these."""
        makes = ("expand",) if self.pooled else ("pointwise", "depthwise")
        last = next((w for w in map(self.weights.get, makes) if w is not None), None)
        size = self.wide_size(size)
        height, width = size if self.geometry is None else self.geometry.output_size(size)
        return channels if last is None else last.shape[0], (height, width)

    def wide_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Spatial size of what is expanded of x, which has `size`."""
        height, width = size if self.expand_geometry is None else self.expand_geometry.output_size(size)
        return height, width


@dataclass(frozen=True)
class Step:
    """One step; reads the values `source` and, unless they are -1, `residual` and `gate`.

    layer    what is computed, of source * gate, (N, C, H, W) * (N, C, 1, 1), where there is a gate: only of layers that
             read single pixels. None: that product, or without a gate the mean over height and width
    """

    source: int
    residual: int = -1
    layer: Layer | None = None
    gate: int = -1


@dataclass
class _Told:
    """Steps as the operator takes them."""

    steps: list[int] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    epsilons: list[float] = field(default_factory=list)

    def tell(self, step: Step, size: tuple[int, int]) -> None:
        self.steps += [step.source, step.residual, step.gate, int(step.layer is not None)]
        if step.layer is None:
            return
        layer, stride, dilation = step.layer, (1, 1), (1, 1)
        for name in WEIGHTS:
            self.steps.append(self._weight(layer.weights.get(name)))
        self.steps += [WORDS.index(word) for word in (layer.widening, layer.between, layer.activation)]
        self.steps.append(-1 if layer.epsilon is None else len(self.epsilons))
        if layer.epsilon is not None:
            self.epsilons.append(layer.epsilon)
        if layer.geometry is not None:
            stride, dilation = layer.geometry.stride, layer.geometry.dilation
        expand, wide = layer.weights.get("expand"), layer.expand_geometry
        kernel = (1, 1) if wide is None else wide.kernel
        if expand is not None and tuple(expand.shape[2:]) != kernel:
            raise ShapeError(f"Program: expand is {tuple(expand.shape)}; its geometry has a kernel of {kernel}")
        self.steps += [*stride, *_pads(layer.geometry, layer.wide_size(size)), *dilation]
        self.steps += [*((1, 1) if wide is None else wide.stride), *_pads(wide, size)]
        self.steps += layer.geometry.kernel if layer.geometry is not None and layer.pooled else (0, 0)
        self.steps.append(PRECISIONS.index(layer.precision or precision_asked(compiling=False)))

    def _weight(self, weight: Tensor | None) -> int:
        if weight is None:
            return -1
        self.weights.append(weight)
        return len(self.weights) - 1


def _pads(geometry: Geometry | None, size: tuple[int, int]) -> tuple[int, ...]:
    """Pixels around a picture of this size: top, left, bottom, right."""
    (top, bottom), (left, right) = ((0, 0), (0, 0)) if geometry is None else geometry.pads(size)
    return top, left, bottom, right


class Program:
    """Steps, made ready for tensors of one size and dtype.

    given       tensors (N, C, H, W) of that size and dtype, float32 or bfloat16, on the CPU
    steps       in the order in which they run
    returned    the values that a call returns, steps' results
    watched     tensors whose memory must stay where it is: once one is given other memory, calls return nothing
    objects     (address, bytes) of memory that is looked at before a call: the one before it fetches that. Nothing is
                read or written there

    Its weights are packed once, here. Calls compute without gradients. Raises ShapeError for an "expand" that is not of
    its geometry.

    >>> from sepwise.ops import native
    >>> if native.PROBLEM is None:
    ...     x = torch.ones(1, 2, 4, 4)
    ...     double = Layer({"pointwise": 2 * torch.eye(2).reshape(2, 2, 1, 1)})
    ...     steps = [Step(0, layer=double), Step(1, layer=double, residual=0), Step(2)]
    ...     print(Program([x], steps, [3])([x])[0].flatten().tolist())
    ... else:
    ...     print([5.0, 5.0])
    [5.0, 5.0]
    """

    def __init__(
        self,
        given: Sequence[Tensor],
        steps: Sequence[Step],
        returned: Sequence[int],
        watched: Sequence[Tensor] = (),
        objects: Sequence[tuple[int, int]] = (),
    ) -> None:
        told, sizes = _Told(), [(x.shape[1], (x.shape[2], x.shape[3])) for x in given]
        for step in steps:
            channels, size = sizes[step.source]
            told.tell(step, size)
            simple = channels, ((1, 1) if step.gate < 0 else size)
            sizes.append(simple if step.layer is None else step.layer.result(channels, size))
        looked_at = [number for pair in objects for number in pair]
        told_of = told.weights, list(watched), told.steps, told.epsilons, list(returned), looked_at
        number = operators.make_program.default(list(given), *told_of)
        self._number, self._run = number, operators.run_program.default
        self._end = weakref.finalize(self, native.drop_program, number)

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The values returned, in channels_last; none of them where weights are seen to be no longer what they were."""
        with torch._C._AutoDispatchBelowAutograd():
            return self._run(list(given), self._number)
