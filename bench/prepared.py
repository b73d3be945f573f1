"""A network made ready for every runtime: weights, pictures and the answer in float64, as files of one folder.

`python -m bench.prepared NETWORK DTYPE FOLDER BATCH ...` writes them; a program of its own, so that whoever times
things need not load PyTorch.

    model.safetensors    float32; for bfloat16 already rounded to numbers that bfloat16 holds
    x.npy                pictures (N, 3, H, W) for the largest batch, rounded in the same way
    answer.npy           float64 (N, H', W', O), by the stock network
    BATCH.onnx           the stock network for inputs "x" of that batch, output "y"
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.candidates import ANSWER, PICTURES, WEIGHTS, as_pixels, onnx_name
from bench.networks import NETWORKS, Network
from sepwise.conversion import Plan, convert, rebuild
from sepwise.graph import export
from sepwise.nn import FactoredConv
from sepwise.sources.models import load_model
from sepwise.sources.weights import read_weights, save_weights

SETTLED = 8  # pictures whose statistics the normalizations take
# What the norms add. Where half of all activations are cut off, deep random networks amplify every rounding: with
# shifts around 0, MobileNetV1 in bfloat16 is 9 % off, with these 0.3 %.
SHIFTS = (1.0, 2.0)


def pictures(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Normal noise (N, 3, H, W), each picture around a colour of its own; the first ones do not depend on `count`."""
    random = np.random.default_rng(seed)
    drawn = [
        random.standard_normal((3, *size), dtype=np.float32) + random.standard_normal((3, 1, 1), dtype=np.float32)
        for _ in range(count)
    ]
    return torch.from_numpy(np.stack(drawn))


def built(network: Network) -> nn.Module:
    """The network in float32, with weights from which activations neither vanish nor explode."""
    model = load_model(network.model, network.trained).model
    if network.trained is None:
        model = settled(model, [pictures(SETTLED, network.size, seed=1)])
    return convert(model, Plan.load(network.plan)) if network.converted else model


def loaded(network: Network, folder: Path) -> nn.Module:
    """The network with the weights of the folder, in float32; a converted one with layers of ours."""
    model, state = load_model(network.model).model, read_weights(folder / WEIGHTS)
    if network.converted:
        return rebuild(model, Plan.load(network.plan), state)
    model.load_state_dict(state)
    return model


def stock(model: nn.Module, x: Tensor) -> nn.Module:
    """The network in operations of PyTorch: layers of ours, where it has any, are exported."""
    if not any(isinstance(module, FactoredConv) for module in model.modules()):
        return model
    with _quietly():
        program = export(model, x).module(check_guards=False)
    for module in program.modules():  # .eval() is refused by what was exported, from a network in evaluation mode
        module.training = False
    return program


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's remarks on its own code, which its exporters make."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@torch.no_grad()
def settled(model: nn.Module, batches: Sequence[Tensor], shifts: tuple[float, float] = SHIFTS) -> nn.Module:
    """Normalizations as after training: statistics of these pictures, and no branch silenced by a scale of nearly 0.

    shifts    the range of what batch normalizations add
    """
    random = torch.Generator().manual_seed(0)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    pooled: set[Any] = set()

    def note(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if inputs[0][0, 0].numel() == 1:
            pooled.add(norm)

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean
        norm.reset_running_stats()
        norm.weight.uniform_(0.5, 1.5, generator=random)
        norm.bias.uniform_(*shifts, generator=random)
        norm.train()
    for name, scale in model.named_parameters():
        if name.rpartition(".")[2] == "gamma":  # of a layer scale, which starts at 1e-6
            scale.uniform_(0.5, 1.5, generator=random)
    try:
        for batch in batches if norms else ():
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm in pooled:  # means of random pictures hardly differ: scaling that up would scale up all rounding, too
        norm.running_var += norm.running_mean.square()
    return model.eval()


@torch.no_grad()
def prepare(network: Network, dtype: str, folder: Path, batches: Sequence[int]) -> None:
    """Write the files of a folder."""
    kind, model = getattr(torch, dtype), built(network)
    model = model.to(kind).float()
    x = (pictures(max(batches), network.size, seed=0) * network.deviation).to(kind).float()
    save_weights(model, folder / WEIGHTS)
    np.save(folder / PICTURES, x.numpy())
    written = stock(model, x[:1])
    for batch in batches:
        with _quietly():
            torch.onnx.export(
                written,
                (x[:batch],),
                folder / onnx_name(batch),
                input_names=["x"],
                output_names=["y"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    exact = stock(model.double(), x[:1].double())
    answers = [as_pixels(exact(picture[None].double()).numpy()) for picture in x]  # float64 of a whole batch is large
    np.save(folder / ANSWER, np.concatenate(answers))


if __name__ == "__main__":
    prepare(NETWORKS[sys.argv[1]], sys.argv[2], Path(sys.argv[3]), [int(batch) for batch in sys.argv[4:]])
