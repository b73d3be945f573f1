"""Can one separable layer learn several kinds of spatial features?

Claim U1. A separable layer with C input channels and depth multiplier m stands for the dense kernels

    W[o, c] = sum over j < m of  pointwise[o, c m + j] * depthwise[c m + j]          K×K each

so what all outputs o apply to one channel c spans at most m filters, however many outputs there are; what they apply to
channels that carry the same content, the sum of W[o, c] over c, spans at most C m. Wanted are n outputs, each with
another edge filter, that read every channel alike, a channel of their own, or all by weights of their own. Missed
is, as a mean over the outputs, E |y - wanted|² / E |wanted|². With the rows of W scaled to outputs of energy 1, tail_r
the sum of squared singular values after the first r, and S the second moments of patches, no layer misses less than

    white noise    sum over c of tail_m(W[:, c]) / n        exact: channels are independent, each is an Eckart-Young
    gray noise     tail_Cm(sum over c of W[:, c]) / n       exact: the channels are one
    pictures       tail_Cm(W S^½) / n                       not reached: it forgets that each filter sees one channel;
                                                            with that, no closed form is known

A squared error sees nothing of its inputs but S: a network without activation that is trained on the rows of S^½ is
trained on all patches. It is tested on pictures that it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...factor import compose
from ...factor.lowrank import singular_energies
from ...measure.separability import energy_curve
from ...nn import SeparableConv2d
from ..data import Labelled, ready
from ..recipe import Arm, At, Finding, Numbers, Result
from .orthogonal_judged import BEFORE, DENSE, EXPRESSIBLE, ONE, RELU, TWO, judged

SEEDS = {"smoke": 1, "small": 3, "paper": 10}
CHANNELS, SIZE = 3, 3
FILTERS = torch.tensor(
    [
        [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]],  # vertical, horizontal, diagonal: as the question draws them
        [[-1, -1, -1], [0, 0, 0], [1, 1, 1]],
        [[-1, -1, 0], [-1, 0, 1], [0, 1, 1]],
        [[0, 1, 1], [-1, 0, 1], [-1, -1, 0]],  # the other diagonal
        [[0, 1, 0], [1, -4, 1], [0, 1, 0]],  # Laplacian
        [[-1, 2, -1], [-1, 2, -1], [-1, 2, -1]],  # vertical line, horizontal line, saddle
        [[-1, -1, -1], [2, 2, 2], [-1, -1, -1]],
        [[1, 0, -1], [0, 0, 0], [-1, 0, 1]],
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]],  # brightness: the nine span all 3×3 kernels
    ],
    dtype=torch.float64,
)
CASES = (  # channels, multiplier (None: a dense layer), size of the kernel
    *((1, 1, 3), (3, 1, 3), (3, 2, 3), (3, 3, 3), (3, 9, 3), (3, 12, 3), (3, None, 3)),
    *((8, 1, 3), (12, 1, 3), (3, 1, 5), (3, 4, 5), (3, None, 5)),
)
OUTPUTS = 16  # of the layers in CASES
STEPS = {"smoke": 20, "small": 300, "paper": 300}  # of L-BFGS
PICTURES = 2000  # that second moments are taken of
DRAWN = (1024, 8192)  # patches to learn from and to test on, where an activation sees more than second moments


def arms(scale: str) -> list[Arm]:
    every, few = (list(range(1, 10)), [1, 2, 3, 5, 7, 9]) if scale != "smoke" else ([1, 3, 5, 9], [1, 3, 5, 9])
    fits = [(ONE, m, "every", "white", every) for m in (1, 2, 3, 9)]
    fits += [(ONE, m, reads, "white", every) for reads in ("own", "weighted") for m in (1, 2, 3)]
    fits += [(ONE, m, "every", "gray", every) for m in (1, 2, 3)]
    fits += [(ONE, m, "every", "pictures", few) for m in (1, 2, 3, 9)]
    for inputs in ("white", "pictures"):
        fits += [(name, width, "every", inputs, [9]) for name in (BEFORE, TWO) for width in (3, 6, 9)]
        fits += [(DENSE, 1, "every", inputs, [9])]
    fits += [(RELU, width, "every", "white", [9]) for width in (3, 6, 9, 18)]
    keys = ("network", "width", "reads", "inputs", "filters")
    found = [Arm(EXPRESSIBLE, {"cases": CASES, "outputs": OUTPUTS})]
    for fit in fits:
        settings = dict(zip(keys, fit, strict=True)) | {"steps": STEPS[scale]}
        found.append(Arm(f"{fit[0]} {fit[1]}, {fit[2]}, {fit[3]}", settings))
    return found


def trial(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    torch.manual_seed(seed)
    return _expressible(settings) if "cases" in settings else _learned(settings, seed, at)


def findings(results: Sequence[Result]) -> list[Finding]:
    return [judged(results, {arm.name: arm.settings for arm in arms("small")})]


def _expressible(settings: Mapping[str, Any]) -> Numbers:
    """Ranks of random layers, and the bound on white noise by multiplier (rows) and number of filters, in percent."""
    bounds = [[_bound(_wanted("every", n), "white", m) for n in range(1, 10)] for m in range(1, 10)]
    return {"layers": [_ranks(case, settings["outputs"]) for case in settings["cases"]], "bounds": bounds}


def _ranks(case: tuple[int, int | None, int], outputs: int) -> dict[str, Any]:
    """How many filters one layer with random weights applies, and the dimension of what such layers can be, there."""
    channels, multiplier, size = case
    if multiplier is None:
        parts, groups = (torch.randn(outputs, channels, size, size, dtype=torch.float64),), [1]
    else:
        layer = SeparableConv2d(channels, outputs, size, depth_multiplier=multiplier, bias=False, dtype=torch.float64)
        parts, groups = tuple(w.detach() for w in layer.weights), [step.groups for step in layer.steps]
    weight = compose(parts, groups)
    slopes = torch.func.jacrev(lambda *each: compose(each, groups).flatten(), argnums=tuple(range(len(parts))))(*parts)
    return {
        "channels": channels,
        "multiplier": multiplier,
        "size": size,
        "outputs": outputs,
        "one channel": int(torch.linalg.matrix_rank(weight.transpose(0, 1).flatten(2)).max()),
        "alike channels": int(torch.linalg.matrix_rank(weight.sum(1).flatten(1))),
        "dimensions": int(torch.linalg.matrix_rank(torch.cat([s.flatten(1) for s in slopes], dim=1))),
    }


def _learned(settings: Mapping[str, Any], seed: int, at: At) -> Numbers:
    """What a trained network misses, and what it must, for each number of filters; in percent of the energy wanted."""
    name, width, inputs = settings["network"], settings["width"], settings["inputs"]
    learn, test = _patches(inputs, SIZE if name in (ONE, BEFORE, DENSE) else 2 * SIZE - 1, name == RELU, seed, at)
    found: Numbers = {"filters": settings["filters"], "missed": [], "bound": [], "multiplications": []}
    for done, count in enumerate(settings["filters"]):
        at.progress(done / len(settings["filters"]))
        wanted = _wanted(settings["reads"], count, torch.Generator().manual_seed(seed))
        network = _network(name, width, count).double()
        _fit(network, learn, _outputs(learn, wanted), settings["steps"])
        with torch.no_grad():
            found["missed"].append(100 * _missed(network(test), _outputs(test, wanted)).item())
        found["multiplications"].append(sum(p.numel() for p in network.parameters() if p.dim() > 1))
        if isinstance(network, SeparableConv2d):
            found["bound"].append(_bound(wanted, inputs, width, test))
        if isinstance(network, SeparableConv2d) and width == 1 and count == 3:
            found["kernels"] = network.dense_weight().tolist()
    if inputs == "pictures":
        found["alike"] = _alike(test)
    return found


def _wanted(reads: str, count: int, random: torch.Generator | None = None) -> Tensor:
    """(count, 3, 3, 3): filter o times the weight with which output o reads each channel."""
    weights = {
        "every": lambda: torch.ones(len(FILTERS), CHANNELS),
        "own": lambda: torch.eye(CHANNELS).repeat(len(FILTERS) // CHANNELS, 1),
        "weighted": lambda: torch.randn(len(FILTERS), CHANNELS, generator=random),
    }[reads]()
    return (weights.double()[:, :, None, None] * FILTERS[:, None])[:count]


def _patches(inputs: str, size: int, drawn: bool, seed: int, at: At) -> tuple[Tensor, Tensor]:
    """To learn from and to test on: (N, 3, size, size), float64; not `drawn`: as many as stand for all."""
    if drawn:
        random = torch.Generator().manual_seed(seed)
        learn, test = (torch.randn(n, CHANNELS, size, size, generator=random).double() for n in DRAWN)
        return learn, test
    if inputs == "pictures":
        learn, test = (_standing_for(pictures.some(PICTURES, seed), size) for pictures in at.pictures())
        return learn, test
    if inputs == "gray":
        basis = torch.eye(size**2).view(-1, 1, size, size).expand(-1, CHANNELS, -1, -1).double()
    else:
        basis = torch.eye(CHANNELS * size**2).view(-1, CHANNELS, size, size).double()
    return basis, basis


def _standing_for(pictures: Labelled, size: int) -> Tensor:
    """As many patches as a patch has numbers, with the second moments of all patches side by side."""
    tiles = ready(pictures.images).double().unfold(2, size, size).unfold(3, size, size)
    rows = tiles.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    return torch.linalg.qr(rows, mode="r").R.view(-1, CHANNELS, size, size)


def _alike(patches: Tensor) -> float:
    """Mean correlation of two channels at one pixel."""
    pixel = F.normalize(patches[:, :, 0, 0], dim=0)
    between = torch.triu(pixel.mT @ pixel, diagonal=1)
    return float(between.sum() / (CHANNELS * (CHANNELS - 1) / 2))


def _network(name: str, width: int, outputs: int) -> nn.Module:
    """`width`: filters for each channel of one layer, otherwise channels between the two."""
    if name == ONE:
        return SeparableConv2d(CHANNELS, outputs, SIZE, depth_multiplier=width, bias=False)
    if name == DENSE:
        return nn.Conv2d(CHANNELS, outputs, SIZE, bias=False)
    relu = name == RELU
    first = (
        nn.Conv2d(CHANNELS, width, 1, bias=False)
        if name == BEFORE
        else SeparableConv2d(CHANNELS, width, SIZE, bias=relu)
    )
    return nn.Sequential(first, *[nn.ReLU()] * relu, SeparableConv2d(width, outputs, SIZE, bias=relu))


def _outputs(patches: Tensor, wanted: Tensor) -> Tensor:
    """(N, outputs, 1, 1): the filters at the middle of each patch."""
    edge = (patches.shape[-1] - SIZE) // 2
    return F.conv2d(F.pad(patches, [-edge] * 4), wanted)


def _missed(found: Tensor, wanted: Tensor) -> Tensor:
    return ((found - wanted).square().sum((0, 2, 3)) / wanted.square().sum((0, 2, 3))).mean()


def _fit(network: nn.Module, patches: Tensor, wanted: Tensor, steps: int) -> None:
    search = torch.optim.LBFGS(
        network.parameters(),
        max_iter=steps,
        history_size=100,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        search.zero_grad()
        found = _missed(network(patches), wanted)
        found.backward()
        return found

    search.step(loss)  # type: ignore[arg-type]


def _bound(wanted: Tensor, inputs: str, multiplier: int, patches: Tensor | None = None) -> float:
    """What every layer with this multiplier misses at least, in percent; see the top of this file."""
    if inputs == "white":
        scaled = wanted / wanted.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        [kept] = energy_curve(scaled, "depthwise", ranks=[min(multiplier, len(wanted), SIZE**2)])
        return 100 * max(0.0, 1 - kept)
    assert patches is not None
    outputs = F.normalize(_outputs(patches, wanted).flatten(1), dim=0)
    return 100 * float(singular_energies(outputs)[CHANNELS * multiplier :].sum() / len(wanted))
