"""The weights of a chain of convolutions, fitted by least squares to what the dense layer answers.

With y the wanted output and x the input patch, both centred, any chain is one dense kernel W(theta), and

    E |y - W(theta) x|^2  =  tr(W G W^T) - 2 tr(W B^T) + const        G = cov(x), B = cov(y, x)

needs no data once G and B are known. The last step enters linearly and is solved exactly; the steps before it are
found by L-BFGS on what is left (variable projection: Golub and Pereyra 1973).

Errors are measured by H = R^T R (metric.py): |y|^2 stands for |R y|^2. A last step that mixes all outputs takes R in,
so the chain is fitted to R y and its last step multiplied by R^-1. Where the last step makes each output by itself,
the outputs do not compete, and H changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..factor import FORMS, Form, MatrixForm, Rank, check_rank, compose
from ..geometry import ConvShape
from .last_step import LastStep, last_step
from .statistics import Moments
from .whitened import Whitened

RIDGE = 1e-2  # pull toward the dense weight, in units of the mean input variance, while all steps are sought
RIDGES = tuple(10 ** (power / 2) for power in range(-10, 3))  # of which the last step takes the best on other pictures
JITTER = 1e-10
LARGE = 2048  # patches longer than this are handled in float32: twice as fast, and the ridge hides the rounding


@dataclass
class Fitted:
    """Weights of the steps, the bias of the last one, and the share of the wanted variance, in H, that they miss."""

    weights: tuple[Tensor, ...]
    bias: Tensor
    error: float


class LayerFit:
    """All fits of one layer: the moments are prepared once, every form and rank then costs only algebra."""

    def __init__(
        self,
        conv: ConvShape,
        weight: Tensor,
        moments: Moments,
        metric: Tensor | None = None,
        ridge: float | None = None,
    ) -> None:
        """metric    H (groups, O / group, O / group), positive definite; None: all outputs count alike
        ridge     pull toward the dense weight; None: RIDGE, and one of RIDGES for the last step
        """
        self.conv, self.metric = conv, metric
        self.halves = moments.halves if ridge is None else None
        self.patch, self.output = moments.patch, moments.output
        ridge = RIDGE if ridge is None else ridge
        patch = moments.gram.shape[-1]
        self.dtype = torch.float32 if patch > LARGE else torch.float64
        self.dense = weight.detach().double().reshape(conv.groups, -1, patch)
        pull = ridge * _scale(moments.gram).clamp_min(1e-30)
        self.gram = moments.gram.clone()
        self.gram.diagonal(dim1=1, dim2=2).add_(pull.view(-1, 1))
        self.cross = moments.cross + pull.view(-1, 1, 1) * self.dense
        self.root = None if metric is None else torch.linalg.cholesky(metric).mT
        self._whitened: dict[bool, Whitened] = {}
        self._problems: dict[tuple[bool, bool], _Problem] = {}
        self._widest: dict[str, tuple[int, tuple[Tensor, ...]]] = {}

    def fit(self, form_name: str, rank: Rank, iterations: int = 0) -> Fitted:
        """The chain of `form` at `rank`; `iterations` of L-BFGS improve the steps before the last one."""
        form = FORMS[form_name]
        rank = check_rank(form, self.conv, rank)
        steps = form.steps(self.conv, rank)
        filters_first = (
            steps[0].groups == self.conv.in_channels and steps[0].geometry.kernel == self.conv.geometry.kernel
        )
        mixes_last = self.root is not None and steps[-1].groups == self.conv.groups
        problem = self._problem(filters_first, mixes_last)
        start = self._start(form, rank, problem)
        if prod(self.conv.geometry.kernel) == 1:
            iterations = 0  # the start is the answer
        first, last, lost = problem.solve(steps, [w.to(self.dtype) for w in start], iterations)
        error = 1 + lost / problem.variance if problem.variance else 0.0
        first = [problem.inputs.unwhiten(first[0].double()), *(w.double() for w in first[1:])]
        last = problem.turn_back(last) if self.halves is None else self._validated(self.halves, first, steps)
        full = compose([*first, last], [s.groups for s in steps]).reshape_as(self.dense)
        bias = self.output - (full @ self.patch.unsqueeze(-1)).squeeze(-1)
        return Fitted((*first, last), bias.flatten(), error)

    def _validated(
        self, halves: tuple[Moments, Moments], first: Sequence[Tensor], steps: Sequence[ConvShape]
    ) -> Tensor:
        """The last step for given earlier ones, its ridge chosen on one half of the pictures for the other half."""
        pull = last_step(self.conv, first, steps, None, self.dense)
        met = [last_step(self.conv, first, steps, half.gram, half.cross) for half in halves]
        scales = [_scale(half.gram) for half in halves]
        weighs = None if self.metric is None or steps[-1].groups != self.conv.groups else self.metric.unsqueeze(1)

        def solved(these: LastStep, scale: Tensor, ridge: float) -> Tensor:
            by = ridge * scale.view(-1, 1, 1, 1)
            return LastStep(these.normal + by * pull.normal, these.wanted + by * pull.wanted).solve(JITTER)

        def missed(ridge: float) -> float:
            total = 0.0
            for fitted, seen in ((0, 1), (1, 0)):
                last = solved(met[fitted], scales[fitted], ridge)
                off = last @ met[seen].normal - 2 * met[seen].wanted
                total += float(((off if weighs is None else weighs @ off) * last).sum())
            return total

        (a, b), (one, other) = (half.share for half in halves), met
        both = LastStep(a * one.normal + b * other.normal, a * one.wanted + b * other.wanted)
        return solved(both, a * scales[0] + b * scales[1], min(RIDGES, key=missed)).reshape(steps[-1].weight_shape)

    def _problem(self, by_position: bool, turned: bool) -> _Problem:
        key = by_position, turned
        if key not in self._problems:
            if by_position not in self._whitened:
                self._whitened[by_position] = Whitened(self.conv, self.gram, by_position, self.dtype)
            self._problems[key] = _Problem(self, self._whitened[by_position], self.root if turned else None)
        return self._problems[key]

    def _start(self, form: Form, rank: Rank, problem: _Problem) -> Sequence[Tensor]:
        """The nearest chain to the whitened weight: nearest in the norm that the data measure. Of a pointwise layer
        the whitened inputs are uncorrelated, and the nearest chain to the best weight of all is the best chain.
        """
        if not isinstance(form, MatrixForm):
            if form.name not in problem.starts:
                pointwise = prod(self.conv.geometry.kernel) == 1
                full = problem.cross.reshape(self.conv.weight_shape) if pointwise else problem.dense
                problem.starts[form.name] = form.starts(full, self.conv.groups)
            return problem.starts[form.name](rank)
        assert isinstance(rank, int)
        if self._widest.get(form.name, (0,))[0] < rank:  # asked from the largest rank down, this happens once
            self._widest[form.name] = rank, form.factor(problem.dense, self.conv.groups, rank)
        widest, weights = self._widest[form.name]
        wide, narrow = form.steps(self.conv, widest), form.steps(self.conv, rank)
        return [
            _first_components(w, many.weight_shape, few.weight_shape, widest, rank)
            for w, many, few in zip(weights, wide, narrow, strict=True)
        ]


class _Problem:
    """The quadratic in whitened coordinates, outputs turned by `turn`, the root R of their metric: all count alike."""

    def __init__(self, layer: LayerFit, inputs: Whitened, turn: Tensor | None) -> None:
        self.conv, self.inputs, self.turn = layer.conv, inputs, turn
        cross, full = (layer.cross, layer.dense) if turn is None else (turn @ layer.cross, turn @ layer.dense)
        self.gram, self.dtype, self.cross = inputs.gram, inputs.gram.dtype, inputs.over(cross).to(inputs.gram.dtype)
        self.dense = inputs.dense(full)
        rows = self.dense.reshape_as(self.cross).to(self.dtype)
        self.starts: dict[str, Callable[[Rank], Sequence[Tensor]]] = {}
        self.variance = float((rows @ self.gram * rows).sum(dtype=torch.float64))

    def turn_back(self, last: Tensor) -> Tensor:
        """The last step for the outputs as they are: R^-1 · last."""
        if self.turn is None:
            return last
        rows = last.flatten(1).unflatten(0, (self.conv.groups, -1))
        return torch.linalg.solve_triangular(self.turn, rows, upper=True).reshape_as(last)

    def solve(
        self, steps: Sequence[ConvShape], start: Sequence[Tensor], iterations: int
    ) -> tuple[list[Tensor], Tensor, float]:
        """The steps before the last, the last one, and tr(W G W^T) - 2 tr(W B^T) of them all."""
        first = [w.clone(memory_format=torch.contiguous_format) for w in start[:-1]]
        if iterations:
            self._search(steps, first, iterations)
        met, last = self._last(first, steps)
        return first, last.reshape(steps[-1].weight_shape), float(met.loss(last).sum())

    def _search(self, steps: Sequence[ConvShape], first: list[Tensor], iterations: int) -> None:
        """Improve `first` in place; the last step follows."""
        groups = [s.groups for s in steps]
        for w in first:
            w.requires_grad_()
        search = torch.optim.LBFGS(first, max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            search.zero_grad()
            with torch.no_grad():
                met, blocks = self._last(first, steps)
                last = blocks.to(self.dtype)
            full = compose([*first, last.reshape(steps[-1].weight_shape)], groups).reshape_as(self.cross)
            with torch.no_grad():
                seen = full @ self.gram if met.seen is None else (last @ met.seen).reshape_as(full)  # W G
                slope = seen - self.cross
                value = ((slope - self.cross) * full).sum()
            full.backward(2 * slope)
            return value

        search.step(loss)
        for w in first:
            w.requires_grad_(False)

    def _last(self, first: Sequence[Tensor], steps: Sequence[ConvShape]) -> tuple[LastStep, Tensor]:
        """What the best last step meets after given earlier ones, and its blocks (g, b, outputs, mid), float64."""
        met = last_step(self.conv, first, steps, self.gram, self.cross)
        return met, met.solve(JITTER if self.dtype is torch.float64 else 1e-6)


def _first_components(weight: Tensor, wide: Sequence[int], narrow: Sequence[int], widest: int, rank: int) -> Tensor:
    """Cut a step from `widest` components to the first `rank`; along an axis the component is the fastest index."""
    for axis, (many, few) in enumerate(zip(wide, narrow, strict=True)):
        if many != few:
            weight = weight.unflatten(axis, (many // widest, widest)).narrow(axis + 1, 0, rank).flatten(axis, axis + 1)
    return weight


def _scale(gram: Tensor) -> Tensor:
    """The mean input variance of each group: (g,)."""
    return gram.diagonal(dim1=1, dim2=2).mean(dim=1)
