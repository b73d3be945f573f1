"""A three-way tensor as a sum of outer products (canonical polyadic decomposition), by alternating least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from .lowrank import best_low_rank

Triple = tuple[Tensor, Tensor, Tensor]

RIDGE = 1e-4  # weight of |A|^2 + |B|^2 + |C|^2 beside the energy lost, for a tensor of norm 1 of which all is lost
SWEEPS = 200
GAIN = 1e-5  # of the objective; a sweep that gains less for every tensor is the last one
TRIAL = 5  # sweeps after which the starts are compared
FEW, MANY = 4, 100  # sweeps where a fit to data goes on: as many as WORK multiplications allow between these
WORK = 5e9
LARGE = 2e6  # numbers of a tensor; above, single precision is twice as fast
EXACT = 1e-20  # a start that loses less of the energy is the answer


def canonical(tensor: Tensor, rank: int) -> Triple:
    """Factors whose outer products add up to something near `tensor`, for each g on its own; deterministic.

        T[g, a, b, c]  ~  sum over r < rank of  A[g, a, r] * B[g, b, r] * C[g, c, r]

    tensor     (g, a, b, c), float64
    rank       1 to a * b * c / max(a, b, c), where the answer is exact (to rounding)
    returns    A (g, a, rank), B (g, b, rank), C (g, c, rank)

    Five starts come from singular value decompositions, a sixth is arbitrary; each is refined a little, the best one
    to the end, and the result never keeps less energy than the best of the five. A best approximation need not exist
    (terms can grow and cancel for ever: de Silva and Lim 2008), so a small ridge holds the factors; it shrinks
    with the loss.
    """
    size = tensor.flatten(1).norm(dim=1)[:, None, None, None]
    unit = tensor / torch.where(size > 0, size, 1.0)
    starts = [_Slices(unit, axis, turned=False).start(rank) for axis in (2, 1)]
    exact = [start for start in starts if bool((_lost(unit, start) <= EXACT).all())]
    if exact:
        best = exact[0]
    else:
        starts += [_Slices(unit, axis, turned=True).start(rank) for axis in (2, 1, 3)]
        trials = [alternate(unit, start, TRIAL)[0] for start in [*starts, _arbitrary(unit, rank)]]
        refined = alternate(unit, _best(unit, trials), SWEEPS)[0]
        best = _best(unit, [*starts, refined])
    return _scaled(best, size)


class NearlyCanonical:
    """As `canonical`, from two starts and with bounded work: for large tensors a tenth of it, at some energy.

    Made for one tensor, called with one rank after another. Where both starts cannot be followed to the end within
    WORK, they are compared after a few sweeps and the better one goes on: about half the time, for a loss that is 2 to
    25 % larger (layers of HED from 256 channels on, an eighth to two thirds of the MACs; the smaller the loss, the
    larger the share).
    """

    def __init__(self, tensor: Tensor) -> None:
        self.size = tensor.flatten(1).norm(dim=1)[:, None, None, None]
        self.unit = tensor / torch.where(self.size > 0, self.size, 1.0)
        if tensor.numel() > LARGE:
            self.unit = self.unit.float()  # the ridge hides the rounding
        self.turned = [_Slices(self.unit, axis, turned=True) for axis in (2, 1)]
        self.straight = [_Slices(self.unit, axis, turned=False) for axis in (2, 1)]

    def __call__(self, rank: int) -> Triple:
        unit = self.unit
        affordable = WORK / (unit.numel() * rank)  # sweeps
        sweeps = int(max(FEW, min(MANY, affordable)))
        trial = MANY if affordable >= 3 * MANY else max(1, min(TRIAL, sweeps // FEW))
        starts = [alternate(unit, slices.start(rank), trial)[0] for slices in self.turned]
        starts += [slices.start(rank) for slices in self.straight]
        best = _best(unit, starts)
        if bool((_lost(unit, best) <= EXACT).all()):
            return _scaled((best[0].double(), best[1].double(), best[2].double()), self.size)
        a, b, c = _best(unit, [best, alternate(unit, best, sweeps)[0]])
        return _scaled((a.double(), b.double(), c.double()), self.size)


def _scaled(factors: Triple, size: Tensor) -> Triple:
    """The factors of a unit tensor, for a tensor of norm `size` (g, 1, 1, 1)."""
    root = size.squeeze(3) ** (1 / 3)
    return factors[0] * root, factors[1] * root, factors[2] * root


def alternate(tensor: Tensor, start: Triple, sweeps: int) -> tuple[Triple, list[Tensor]]:
    """Alternating least squares from `start`: the factors, and after each sweep the objective of each tensor.

        objective = |T - [A, B, C]|^2 + ridge * (|A|^2 + |B|^2 + |C|^2),   ridge = RIDGE * (energy lost so far)

    Each sweep starts from a point beyond the last one, in the direction of the last step (extrapolation, as in Ang et
    al. 2020); a sweep that would raise the objective is taken back and the next goes without. So it never rises.
    """
    whole = tensor.square().flatten(1).sum(1)
    current, previous = _balanced(start), _balanced(start)
    lost = _lost(tensor, current)
    ridge = RIDGE * lost
    objective = lost + ridge * _squares(current)
    step = torch.full_like(whole, 0.5)
    history = []
    for _ in range(sweeps):
        ahead = [now + step[:, None, None] * (now - then) for now, then in zip(current, previous, strict=True)]
        found, lost = _sweep(tensor, whole, ahead[1], ahead[2], ridge)
        reached = lost + ridge * _squares(found)
        better = reached <= objective
        gains = torch.where(better, objective - reached, torch.inf)
        previous, current = current, _where(better, found, current)
        previous = _where(better, previous, current)
        step = torch.where(better, (step * 1.1).clamp(max=1.0), step / 2)
        settled = bool((gains <= GAIN * objective).all())
        objective = torch.where(better, reached, objective)
        lower = better & (RIDGE * lost < ridge / 10)
        objective = torch.where(lower, lost + RIDGE * lost * _squares(current), objective)
        ridge = torch.where(lower, RIDGE * lost, ridge)
        history.append(objective)
        if settled:
            break
    return current, history


def _sweep(tensor: Tensor, whole: Tensor, b: Tensor, c: Tensor, ridge: Tensor) -> tuple[Triple, Tensor]:
    """The best A for B and C, then the best B, then the best C; and the energy that is lost with them."""
    flat = tensor.flatten(2)
    a = _solve(flat @ (b.unsqueeze(2) * c.unsqueeze(1)).flatten(1, 2), _gram(b) * _gram(c), ridge)
    seen = (flat.mT @ a).unflatten(1, tensor.shape[2:])  # (g, b, c, r)
    b = _solve((seen * c.unsqueeze(1)).sum(2), _gram(a) * _gram(c), ridge)
    aims, overlaps = (seen * b.unsqueeze(2)).sum(1), _gram(a) * _gram(b)
    c = _solve(aims, overlaps, ridge)
    lost = whole - 2 * (aims * c).sum((1, 2)) + (overlaps * _gram(c)).sum((1, 2))
    return _balanced((a, b, c)), lost.clamp(min=0.0)


def _solve(aims: Tensor, overlaps: Tensor, ridge: Tensor) -> Tensor:
    """X with X (overlaps + ridge) = aims; the floor, at the size of rounding, keeps Cholesky from failing."""
    floor = 1e-14 * overlaps.diagonal(dim1=1, dim2=2).amax(1) + 1e-300
    diagonal = (ridge + floor)[:, None, None] * torch.eye(overlaps.shape[-1], dtype=aims.dtype, device=aims.device)
    return torch.cholesky_solve(aims.mT, torch.linalg.cholesky(overlaps + diagonal)).mT


class _Slices:
    """Slices of a tensor along one axis, each cut into singular pairs: orthogonal terms to start from.

    turned    slices along the principal directions of the axis, not along its entries. Straight slices of the input
              (output) axis are the depthwise (blueprint) form and exact when its full rank times the channels is asked
    """

    def __init__(self, tensor: Tensor, axis: int, *, turned: bool) -> None:
        self.axis, self.others = axis, [other for other in (1, 2, 3) if other != axis]
        slices = tensor.permute(0, axis, *self.others)  # (g, n, p, q)
        count = slices.shape[1]
        self.directions = torch.eye(count, dtype=tensor.dtype, device=tensor.device).expand(len(tensor), count, count)
        if turned:
            left, right = best_low_rank(slices.flatten(2), min(count, slices[0, 0].numel()))
            norms = left.norm(dim=1)
            self.directions = left / torch.where(norms > 0, norms, 1.0).unsqueeze(1)
            slices = (norms.unsqueeze(2) * right).unflatten(2, slices.shape[2:])
        self.left, self.right = best_low_rank(slices, min(slices.shape[2:]))  # (g, n, p, s), (g, n, s, q)
        self.energies = self.right.square().sum(3).flatten(1)

    def start(self, rank: int) -> Triple:
        """Of all pairs of all slices the `rank` largest."""
        chosen = self.energies.topk(rank, dim=1).indices
        g = torch.arange(len(chosen), device=chosen.device).unsqueeze(1)
        n, s = chosen // self.right.shape[2], chosen % self.right.shape[2]
        first, second = self.left.transpose(2, 3)[g, n, s].mT, self.right[g, n, s].mT
        parts = {self.axis: self.directions.mT[g, n].mT, self.others[0]: first, self.others[1]: second}
        return parts[1], parts[2], parts[3]


def _arbitrary(tensor: Tensor, rank: int) -> Triple:
    """A start without any symmetry, the same every time: the others can be saddle points, and stay there."""
    fixed = torch.Generator().manual_seed(0)
    sides = [torch.randn(n, rank, generator=fixed, dtype=tensor.dtype) / (n * rank) ** 0.5 for n in tensor.shape[1:]]
    a, b, c = (side.to(tensor.device).expand(len(tensor), -1, -1) for side in sides)
    return a, b, c


def _lost(tensor: Tensor, factors: Triple) -> Tensor:
    a, b, c = factors
    found = a @ (b.unsqueeze(2) * c.unsqueeze(1)).flatten(1, 2).mT  # (g, a, b * c); one product of matrices
    return (tensor.flatten(2) - found).square().flatten(1).sum(1)


def _best(tensor: Tensor, candidates: list[Triple]) -> Triple:
    """For each tensor the candidate that loses least."""
    best = torch.stack([_lost(tensor, c) for c in candidates]).argmin(0)
    rows = torch.arange(len(tensor), device=tensor.device)
    a, b, c = (torch.stack(same)[best, rows] for same in zip(*candidates, strict=True))
    return a, b, c


def _balanced(factors: Triple) -> Triple:
    """The same outer products, each with three factors of one norm: the smallest sum of squares."""
    norms = [f.norm(dim=1, keepdim=True) for f in factors]
    common = (norms[0] * norms[1] * norms[2]) ** (1 / 3)
    a, b, c = (
        f * torch.where(n > 0, common / torch.where(n > 0, n, 1.0), 0.0) for f, n in zip(factors, norms, strict=True)
    )
    return a, b, c


def _where(condition: Tensor, yes: Triple, no: Triple) -> Triple:
    a, b, c = (torch.where(condition[:, None, None], y, n) for y, n in zip(yes, no, strict=True))
    return a, b, c


def _gram(factor: Tensor) -> Tensor:
    return factor.mT @ factor


def _squares(factors: Triple) -> Tensor:
    a, b, c = (f.square().sum((1, 2)) for f in factors)
    return a + b + c
