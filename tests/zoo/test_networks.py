"""Every network: it can be named, answers and learns at the size of its pictures, starts from finite weights."""

import pytest
import torch
from torch import nn

from sepwise import zoo
from sepwise.sources import load_model
from sepwise.zoo.fractalnet import FractalBlock

CLASSIFIERS = [name for name in zoo.NETWORKS if name != "hed"]
LARGE = ("vgg", "resnet101", "resnet152", "resnext")


def small(name: str) -> nn.Module:
    """With few channels: 7 classes, some width."""
    return zoo.NETWORKS[name](classes=7, width=0.03 if name.startswith(LARGE) else 0.125)


def batch(model: nn.Module, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *model.picture["size"])  # type: ignore[index]


def test_every_name_is_listed():
    assert set(zoo.__all__) == {"NETWORKS", *zoo.NETWORKS, *(n for n in zoo.__all__ if n[0].isupper())}
    assert all(getattr(zoo, name) is factory for name, factory in zoo.NETWORKS.items())
    assert all((factory.__doc__ or "").strip() for factory in zoo.NETWORKS.values())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_answers_and_learns(name):
    model = small(name)
    if isinstance(model, zoo.FractalNet):
        model.alone = 0.0
        for module in model.modules():
            if isinstance(module, FractalBlock):
                module.drop_path = 0.0
    scores = model(batch(model))
    assert scores.shape == (2, 7)
    assert scores.isfinite().all()
    assert scores.abs().max() < 100
    nn.functional.cross_entropy(scores, torch.tensor([0, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def test_a_network_is_loaded_by_name():
    loaded = load_model("zoo:xception_cifar")
    assert (loaded.size, loaded.model.training) == ((32, 32), False)


@pytest.mark.parametrize("name", ["mobilenet_v1_cifar", "fractalnet_cifar_separable", "quicknet_cifar"])
@torch.no_grad()
def test_exported_programs_compute_the_same(name):
    model = zoo.NETWORKS[name](width=0.0625).eval()
    x = batch(model)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    more = batch(model, 3)
    torch.testing.assert_close(program.module()(more), model(more))
