"""Which errors of a layer the network's output feels: the metric in which its chain is fitted.

To first order, an error e at one position of a layer's output changes the network's output z by J e, J the derivative
of z. Averaged over positions and pictures, with v independent standard normal numbers, one for each number of z,

    E |J e|^2  =  e^T H e        H = E [ (J^T v) (J^T v)^T ]

so a few products J^T v, one backward pass each, show which directions of the output matter. Taking the same H for all
positions is the approximation of K-FAC (Martens and Grosse 2015, arXiv 1503.05671, section 3). Measured on HED at an
eighth of the MACs, same plan: F1 0.960 with it, 0.939 where all outputs count alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..graph.network import Network, sentence
from .walk import out_of_place_modules, outputs_of

PIXELS = 800_000  # of pictures that are asked, in the order given
AT_ONCE = 200_000  # pixels of one backward pass: all layers' outputs are in memory
PROJECTIONS = 2  # products J^T v for each picture
FLOOR = 1e-2  # of the mean, added to all directions: few gradients say little about those that they do not show


def output_metrics(
    network: Network,
    batches: Sequence[Tensor],
    progress: Callable[[str, int, int], None] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """H of each convertible convolution in the dense network: (groups, O / group, O / group), mean diagonal 1.

    A layer whose outputs the network's output does not depend on, or not differentiably, or with gradients that are not
    finite, has none: all its outputs count alike. Raises ModelError when the network cannot run on the pictures.
    """
    random = torch.Generator().manual_seed(seed)
    parts = _parts(batches)
    groups = {site.name: network.conv(site).groups for site in network.sites}
    sums: dict[str, Tensor] = {}
    for done, part in enumerate(parts):
        if progress:
            progress("metric", done, len(parts))
        for name, gradients in _gradients(network, part, random):
            rows = gradients.to(torch.promote_types(gradients.dtype, torch.float32))
            rows = rows.transpose(0, 1).flatten(1).unflatten(0, (groups[name], -1))  # (g, O, samples)
            sums[name] = sums.get(name, 0) + (rows @ rows.mT).double()
    if progress:
        progress("metric", len(parts), len(parts))
    metrics = {}
    for name, total in sums.items():
        mean = float(total.diagonal(dim1=1, dim2=2).mean())
        if total.isfinite().all() and mean > 0:
            metrics[name] = total / mean + FLOOR * torch.eye(total.shape[-1], dtype=torch.float64)
    return metrics


def _parts(batches: Sequence[Tensor]) -> list[Tensor]:
    """The first pictures, PIXELS of them in all and at least one, in parts of about AT_ONCE."""
    parts, left = [], PIXELS
    for batch in batches:
        pixels = batch.shape[2:].numel()
        for part in batch.split(max(1, AT_ONCE // pixels)):
            if left > 0 or not parts:
                parts.append(part)
            left -= len(part) * pixels
    return parts


@torch.enable_grad()
def _gradients(network: Network, pictures: Tensor, random: torch.Generator) -> list[tuple[str, Tensor]]:
    """J^T v at every convertible convolution, PROJECTIONS times."""
    answers: dict[str, Tensor] = {}
    hooks = [network.conv(site).register_forward_hook(partial(_keep, answers, site.name)) for site in network.sites]
    try:
        with out_of_place_modules(network.graph):
            answer = network.graph(pictures.clone().requires_grad_())
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the model cannot run on these pictures: {sentence(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [z for z in outputs_of(answer) if z.requires_grad]
    found = []
    reached = {name: answer for name, answer in answers.items() if answer.requires_grad}
    for _ in range(PROJECTIONS if outputs and reached else 0):
        directions = [torch.randn(z.shape, generator=random).to(z) for z in outputs]
        gradients = torch.autograd.grad(
            outputs, list(reached.values()), directions, retain_graph=True, allow_unused=True
        )
        found += [(name, g) for name, g in zip(reached, gradients, strict=True) if g is not None]
    return found


def _keep(answers: dict[str, Tensor], name: str, _module: nn.Module, _inputs: object, answer: Tensor) -> None:
    answers[name] = answer
