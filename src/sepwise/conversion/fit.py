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

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..factor import FORMS, Form, MatrixForm, Rank, check_rank, compose
from ..geometry import ConvShape
from .statistics import Moments

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
        self.conv, self.moments, self.metric = conv, moments, metric
        self.validates = ridge is None and moments.halves is not None
        ridge = RIDGE if ridge is None else ridge
        patch = moments.gram.shape[-1]
        self.dtype = torch.float32 if patch > LARGE else torch.float64
        dense = weight.detach().double().reshape(conv.groups, -1, patch)
        pull = ridge * moments.gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-30).view(-1, 1, 1)
        self.gram = moments.gram + pull * torch.eye(patch, dtype=torch.float64)
        self.cross = moments.cross + pull * dense
        self.dense = dense
        self.root = None if metric is None else torch.linalg.cholesky(metric).mT
        self._whitened: dict[bool, _Whitened] = {}
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
        weights = problem.solve(steps, [w.to(self.dtype) for w in start], iterations)
        lost = problem.loss(compose(weights, [s.groups for s in steps]))
        error = 1 + lost / problem.variance if problem.variance else 0.0
        weights = [w.double() for w in weights]
        weights[0] = problem.inputs.unwhiten(weights[0])
        weights[-1] = self._validated(weights[:-1], steps) if self.validates else problem.turn_back(weights[-1])
        full = compose(weights, [s.groups for s in steps]).reshape_as(self.dense)
        bias = self.moments.output - (full @ self.moments.patch.unsqueeze(-1)).squeeze(-1)
        return Fitted(tuple(weights), bias.flatten(), error)

    def _validated(self, first: Sequence[Tensor], steps: Sequence[ConvShape]) -> Tensor:
        """The last step for given earlier ones, its ridge chosen on one half of the pictures for the other half."""
        assert self.moments.halves is not None
        pull = last_step_equations(self.conv, first, steps, None, self.dense)
        halves = [last_step_equations(self.conv, first, steps, m.gram, m.cross) for m in self.moments.halves]
        scales = [m.gram.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1, 1) for m in self.moments.halves]
        weighs = None if self.metric is None or steps[-1].groups != self.conv.groups else self.metric.unsqueeze(1)

        def missed(ridge: float) -> float:
            total = 0.0
            for fitted, seen in ((0, 1), (1, 0)):
                (normal, wanted), pulled = halves[fitted], ridge * scales[fitted]
                last = solve_last(normal + pulled * pull[0], wanted + pulled * pull[1], JITTER)
                normal, wanted = halves[seen]
                off = last @ normal - 2 * wanted
                total += float(((off if weighs is None else weighs @ off) * last).sum())
            return total

        best = min(RIDGES, key=missed)
        normal, wanted = last_step_equations(self.conv, first, steps, self.moments.gram, self.moments.cross)
        scale = best * self.moments.gram.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1, 1)
        return solve_last(normal + scale * pull[0], wanted + scale * pull[1], JITTER).reshape(steps[-1].weight_shape)

    def _problem(self, by_position: bool, turned: bool) -> _Problem:
        key = by_position, turned
        if key not in self._problems:
            if by_position not in self._whitened:
                self._whitened[by_position] = _Whitened(self, by_position)
            self._problems[key] = _Problem(self, self._whitened[by_position], self.root if turned else None)
        return self._problems[key]

    def _start(self, form: Form, rank: Rank, problem: _Problem) -> Sequence[Tensor]:
        """The nearest chain to the whitened weight: nearest in the norm that the data measure."""
        if not isinstance(form, MatrixForm):
            return form.start(problem.dense, self.conv.groups, rank)
        assert isinstance(rank, int)
        if self._widest.get(form.name, (0,))[0] < rank:  # asked from the largest rank down, this happens once
            self._widest[form.name] = rank, form.factor(problem.dense, self.conv.groups, rank)
        widest, weights = self._widest[form.name]
        wide, narrow = form.steps(self.conv, widest), form.steps(self.conv, rank)
        return [
            _first_components(w, many.weight_shape, few.weight_shape, widest, rank)
            for w, many, few in zip(weights, wide, narrow, strict=True)
        ]


class _Whitened:
    """Coordinates in which the first step meets uncorrelated inputs.

    A first step that mixes channels meets channels whitened alike at all positions; a first step that filters each
    channel on its own meets that channel's positions whitened.
    """

    def __init__(self, layer: LayerFit, by_position: bool) -> None:
        self.conv, self.by_position = layer.conv, by_position
        channels = self.conv.in_channels // self.conv.groups
        gram = layer.gram.unflatten(1, (channels, -1)).unflatten(3, (channels, -1))  # (g, I, K, I, K)
        if by_position:
            blocks = gram.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)  # (g, I, K, K)
            self.root = torch.linalg.cholesky(blocks)
        else:
            self.root = torch.linalg.cholesky(gram.diagonal(dim1=2, dim2=4).mean(-1))  # (g, I, I)
        half = self.over(layer.gram)
        self.gram = self.over(half.mT.contiguous()).to(layer.dtype)

    def dense(self, full: Tensor) -> Tensor:
        """A dense weight (g, O, I * K) in these coordinates, with its own axes."""
        cube = full.unflatten(2, (self.conv.in_channels // self.conv.groups, -1))
        turned = (
            torch.einsum("goiu,giuv->goiv", cube, self.root)
            if self.by_position
            else torch.einsum("goju,gji->goiu", cube, self.root)
        )
        return turned.reshape(self.conv.weight_shape)

    def over(self, rows: Tensor) -> Tensor:
        """rows · root^-T for rows (g, R, I * K)."""
        g, channels = self.conv.groups, self.conv.in_channels // self.conv.groups
        cube = rows.unflatten(2, (channels, -1))  # (g, R, I, K)
        if self.by_position:
            cube = torch.linalg.solve_triangular(self.root, cube.permute(0, 2, 3, 1), upper=False).permute(0, 3, 1, 2)
        else:
            flat = cube.permute(0, 2, 1, 3).flatten(2)  # (g, I, R * K)
            flat = torch.linalg.solve_triangular(self.root, flat, upper=False)
            cube = flat.unflatten(2, (rows.shape[1], -1)).permute(0, 2, 1, 3)
        return cube.reshape(g, rows.shape[1], -1)

    def unwhiten(self, first: Tensor) -> Tensor:
        """The first step in the original coordinates: first · root^-1 over its channels or positions."""
        g, channels = self.conv.groups, self.conv.in_channels // self.conv.groups
        if self.by_position:
            rows = first.reshape(g, channels, -1, first[0, 0].numel())  # (g, I, m, K)
            return torch.linalg.solve_triangular(self.root.mT, rows.mT, upper=True).mT.reshape_as(first)
        rows = first.unflatten(0, (g, -1)).flatten(3)  # (g, M, I, k)
        flat = rows.permute(0, 2, 1, 3).flatten(2)
        flat = torch.linalg.solve_triangular(self.root.mT, flat, upper=True)
        return flat.unflatten(2, (rows.shape[1], -1)).permute(0, 2, 1, 3).reshape_as(first)


class _Problem:
    """The quadratic in whitened coordinates, outputs turned by `turn`, the root R of their metric: all count alike."""

    def __init__(self, layer: LayerFit, inputs: _Whitened, turn: Tensor | None) -> None:
        self.conv, self.dtype, self.inputs, self.turn = layer.conv, layer.dtype, inputs, turn
        cross, full = (layer.cross, layer.dense) if turn is None else (turn @ layer.cross, turn @ layer.dense)
        self.variance = float((full @ layer.gram * full).sum())
        self.gram, self.cross = inputs.gram, inputs.over(cross).to(self.dtype)
        self.dense = inputs.dense(full)

    def loss(self, dense: Tensor) -> float:
        """tr(W G W^T) - 2 tr(W B^T) for a dense weight in these coordinates."""
        full = dense.reshape_as(self.cross)
        return float(((full @ self.gram - 2 * self.cross) * full).sum(dtype=torch.float64))

    def turn_back(self, last: Tensor) -> Tensor:
        """The last step for the outputs as they are: R^-1 · last."""
        if self.turn is None:
            return last
        rows = last.flatten(1).unflatten(0, (self.conv.groups, -1))
        return torch.linalg.solve_triangular(self.turn, rows, upper=True).reshape_as(last)

    def solve(self, steps: Sequence[ConvShape], start: list[Tensor], iterations: int) -> list[Tensor]:
        first, groups = [w.clone(memory_format=torch.contiguous_format) for w in start[:-1]], [s.groups for s in steps]
        if not iterations:
            return [*first, self._last(first, steps)]
        for w in first:
            w.requires_grad_()
        search = torch.optim.LBFGS(first, max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            search.zero_grad()
            with torch.no_grad():
                last = self._last(first, steps)
            full = compose([*first, last], groups).reshape_as(self.cross)
            with torch.no_grad():
                slope = full @ self.gram - self.cross
            value = ((slope - self.cross) * full).detach().sum()
            full.backward(2 * slope)
            return value

        search.step(loss)
        done = [w.detach() for w in first]
        return [*done, self._last(done, steps)]

    def _last(self, first: Sequence[Tensor], steps: Sequence[ConvShape]) -> Tensor:
        """The best last step for given earlier ones."""
        normal, wanted = last_step_equations(self.conv, first, steps, self.gram, self.cross)
        jitter = JITTER if self.dtype is torch.float64 else 1e-6
        return solve_last(normal, wanted, jitter).reshape(steps[-1].weight_shape).to(self.dtype)


def last_step_equations(
    conv: ConvShape, first: Sequence[Tensor], steps: Sequence[ConvShape], gram: Tensor | None, cross: Tensor
) -> tuple[Tensor, Tensor]:
    """Normal matrix (g, blocks, mid, mid) and right side (g, blocks, outputs, mid) of the last step, float64.

    One block for each of its groups. gram (g, P, P), None for the identity, and cross (g, O, P) are of the coordinates
    in which `first` reads x.
    """
    last, g = steps[-1], conv.groups
    if last.groups == conv.out_channels > g and len(first) == 1:
        if gram is None:
            gram = torch.eye(cross.shape[-1], dtype=cross.dtype).expand(g, -1, -1)
        return _filter_equations(conv, first[0], last, gram, cross)
    mid = last.parameters // last.out_channels
    one = torch.eye(mid, dtype=first[0].dtype).reshape(mid, *last.weight_shape[1:])
    unit = one.repeat(last.groups, *[1] * (one.dim() - 1))  # passes every middle value on, untouched
    reach = compose([*first, unit], [*(s.groups for s in steps[:-1]), last.groups])
    reach = reach.reshape(g, last.groups // g, mid, -1)  # what each middle value sees: (g, b, mid, P)
    seen = reach if gram is None else reach @ gram.unsqueeze(1)
    wanted = cross.reshape(g, last.groups // g, -1, cross.shape[-1]) @ reach.mT
    return (seen @ reach.mT).double(), wanted.double()


def _filter_equations(
    conv: ConvShape, mix: Tensor, last: ConvShape, gram: Tensor, cross: Tensor
) -> tuple[Tensor, Tensor]:
    """The same when the last step filters each output's own channels of a pointwise `mix`: a ninth of the work."""
    g, channels = conv.groups, conv.in_channels // conv.groups
    rank = last.in_channels // last.out_channels
    mix = mix.reshape(g, -1, rank, channels)  # (g, out, r, I)
    gram = gram.unflatten(1, (channels, -1)).unflatten(3, (channels, -1)).permute(0, 3, 1, 2, 4)
    k = gram.shape[-1]
    gram = gram.flatten(2)  # (g, I', I * K * K)
    normal = []
    for part in mix.split(max(1, 256 // rank), dim=1):
        seen = (part.flatten(1, 2) @ gram).reshape(g, -1, rank, channels, k, k)
        normal.append(torch.einsum("gori,gosiuv->goruvs", part, seen).permute(0, 1, 2, 3, 5, 4))
    blocks = torch.cat(normal, dim=1).reshape(g, -1, rank * k, rank * k)
    wanted = torch.einsum("goik,gori->gork", cross.unflatten(2, (channels, -1)), mix)
    return blocks.double(), wanted.flatten(2).unsqueeze(2).double()


def solve_last(normal: Tensor, wanted: Tensor, jitter: float) -> Tensor:
    """wanted · normal^-1 of each block, float64; `jitter`, in units of the mean diagonal, keeps it solvable."""
    mid = normal.shape[-1]
    scale = normal.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True).clamp_min(1e-30).unsqueeze(-1)
    root = torch.linalg.cholesky(normal + jitter * scale * torch.eye(mid, dtype=torch.float64))
    return torch.cholesky_solve(wanted.mT, root).mT


def _first_components(weight: Tensor, wide: Sequence[int], narrow: Sequence[int], widest: int, rank: int) -> Tensor:
    """Cut a step from `widest` components to the first `rank`; along an axis the component is the fastest index."""
    for axis, (many, few) in enumerate(zip(wide, narrow, strict=True)):
        if many != few:
            weight = weight.unflatten(axis, (many // widest, widest)).narrow(axis + 1, 0, rank).flatten(axis, axis + 1)
    return weight
