"""A network of ours beside another library's: what both cost, and whether the same weights make them one function."""

from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from sepwise.measure import Cost, cost
from sepwise.sources import load_model

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")


def counted(make: Callable[[], nn.Module], size: int | None = None) -> Cost:
    """What a network costs on a picture of its size, or of this one; nothing is computed."""
    with torch.device("meta"):
        model = make()
        found = cost(model, torch.zeros(1, 3, *((size, size) if size else model.picture["size"])))  # type: ignore[index]
    assert found.unsupported == {}
    return found


def sizes(found: Cost) -> tuple[int, int]:
    return found.parameters, found.macs


def sizes_of_timm(name: str, size: int) -> tuple[int, int]:
    return sizes(counted(lambda: load_model(f"timm:{name}").model, size))


@torch.no_grad()
def drawn(model: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, vectors (biases, what norms hold) drawn: some start at 0 and hide a branch."""
    for number in (*model.parameters(), *model.buffers()):
        if number.dim() == 1:
            number.uniform_(0.5, 1.5)
    return model.double().eval()


@torch.no_grad()
def difference(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """The largest difference between the outputs in float64, relative to the largest output."""
    found, expected = ours.double().eval()(x.double()), theirs.double().eval()(x.double())
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def copy_in_order(theirs: nn.Module, ours: nn.Module, x: Tensor) -> None:
    """Weights and vectors go from layer to layer in the order in which the layers end, whatever their names."""
    given, taken = numbers_in_order(theirs.double(), x.double()), numbers_in_order(ours.double().eval(), x.double())
    assert {kind: len(found) for kind, found in given.items()} == {kind: len(found) for kind, found in taken.items()}
    for kind, found in given.items():
        for number, place in zip(found, taken[kind], strict=True):
            assert number.shape == place.shape
            place.copy_(number)


def numbers_in_order(model: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = defaultdict(list)

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for number in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if number.dim():
                found["weights" if number.dim() > 1 else "vectors"].append(number)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    model(x)
    for handle in handles:
        handle.remove()
    return found
