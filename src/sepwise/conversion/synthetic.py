"""Pictures for those who have none: noise, changed until the normalizations of a network see what they saw in training.

Each batch normalization remembers the mean and variance of what it read while the network was trained. Pictures on
which it reads the same stand in for the ones it was trained on, and a network can be converted on them: the fit then
sees inputs and errors of the right size and the right correlations at every layer. Cai et al. 2020 (ZeroQ, arXiv
2001.00281, section 3.1) quantize networks on such pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelError
from ..graph.network import NORMS, copy_of, sentence
from .survey import Progress

STEPS = 100
RATE = 0.1  # of Adam, falling to zero along a cosine
BATCH, BATCH_PIXELS = 64, 800_000  # pictures at once: the fewer of both, and 8 at least
SMOOTH = 5  # pixels; noise that differs from pixel to pixel is further from pictures


def synthetic_batches(
    model: nn.Module,
    size: Sequence[int],
    count: int = 128,
    *,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Tensor]:
    """Batches of pictures on which the batch normalizations of `model` read what they remember, for `convert`.

        mismatch = mean over normalizations and channels of  ((m - mean)^2 + (s - deviation)^2) / deviation^2

    with m, s the mean and standard deviation of one batch, is lowered by `steps` of Adam, from smooth noise.

    model      left unchanged; needs batch normalizations with running statistics, each a module
    size       (C, *size) of one picture
    count      pictures in all, in batches of up to 64
    progress   called as progress("synthesize", done, total)
    returns    batches (up to 64, C, *size), in the dtype of the model's parameters
    Raises ModelError for a model without such normalizations or one that cannot run on this size.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    >>> [tuple(batch.shape) for batch in synthetic_batches(model, (3, 12, 12), 80, steps=2)]
    [(64, 3, 12, 12), (16, 3, 12, 12)]
    """
    if count < 2 or steps < 1:
        raise ModelError(f"count={count}, steps={steps}: expected at least two pictures and one step")
    network = copy_of(model).eval().requires_grad_(False)
    norms = [m for m in network.modules() if isinstance(m, NORMS) and m.running_var is not None]
    if not norms:
        raise ModelError(
            f"{type(model).__name__} has no batch normalization with running statistics, so nothing is known of the "
            "pictures it was trained on; give pictures"
        )
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    random = torch.Generator().manual_seed(seed)
    like = next(network.parameters())
    most = max(8, min(BATCH, BATCH_PIXELS // math.prod(size[1:])))
    noise = [_smooth_noise((n, *size), random).to(like) for n in _batch_sizes(count, most)]
    found: list[Tensor] = []
    for x in noise:
        if progress:
            progress("synthesize", len(found), len(noise))
        found.append(_matched(network, norms, x, steps))
    if progress:
        progress("synthesize", len(found), len(noise))
    return found


def _batch_sizes(count: int, most: int) -> list[int]:
    """`most` each and the rest, which is never one picture alone: one picture has no spread."""
    sizes = [most] * (count // most) + [count % most] * (count % most > 0)
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [most - 1, 2]
    return sizes


def _smooth_noise(shape: Sequence[int], random: torch.Generator) -> Tensor:
    noise = torch.randn(*shape, generator=random)
    axes = len(shape) - 2
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[axes]
    return pool(noise, SMOOTH, 1, SMOOTH // 2, count_include_pad=False) * SMOOTH ** (axes / 2)


@torch.enable_grad()
def _matched(network: nn.Module, norms: Sequence[nn.Module], start: Tensor, steps: int) -> Tensor:
    pictures = start.clone().requires_grad_()
    losses: list[Tensor] = []
    hooks = [norm.register_forward_hook(lambda m, read, _: losses.append(_mismatch(m, read[0]))) for norm in norms]
    search = torch.optim.Adam([pictures], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(search, steps)
    try:
        for _ in range(steps):
            losses.clear()
            search.zero_grad()
            network(pictures)
            if not losses:
                raise ModelError(f"no batch normalization of {type(network).__name__} is reached when it runs")
            torch.stack(losses).mean().backward()
            search.step()
            schedule.step()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model cannot run on pictures of size {tuple(start.shape[1:])}: {sentence(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not bool(pictures.isfinite().all()):
        raise ModelError("the search for pictures ended in NaN or Inf; look at the statistics of the normalizations")
    return pictures.detach()


def _mismatch(norm: nn.Module, read: Tensor) -> Tensor:
    """How far a batch is from what `norm` remembers, in units of the remembered variance, over channels."""
    assert isinstance(norm, NORMS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance, mean = torch.var_mean(read, dim=[0, *range(2, read.dim())], correction=0)
    remembered = norm.running_var + norm.eps
    off = (mean - norm.running_mean).square() + ((variance + norm.eps).sqrt() - remembered.sqrt()).square()
    return (off / remembered).mean()
