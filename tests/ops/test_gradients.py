"""Gradients through the compiled kernels, against float64 through stock operations; and gradients of gradients."""

from typing import Any

import pytest
import torch
from calls import call, fused, inputs, stock
from torch import Tensor

from sepwise.ops import native
from sepwise.ops.activations import ACTIVATIONS

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))


def gradients(function: Any, tensors: list[Tensor], dtype: torch.dtype, **settings: Any) -> list[Tensor]:
    leaves = [t.to(dtype, copy=True).requires_grad_() for t in tensors]
    y = call(function, leaves, **settings)
    direction = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y).to(dtype)
    return list(torch.autograd.grad(y, leaves, direction))


def deviation(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest error of any gradient, in root mean squares of that gradient."""
    return max(
        ((f.double() - e).abs().max() / e.square().mean().sqrt()).item() for f, e in zip(found, exact, strict=True)
    )


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)], ids=str)
@pytest.mark.parametrize("place", ["between", "activation"])
@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
def test_gradients(name: str | None, place: str, dtype: torch.dtype, most: float) -> None:
    tensors = [t.to(dtype).double() for t in inputs()]
    settings: dict[str, Any] = {place: name, "stride": 2, "padding": ((0, 2), (1, 1)), "dilation": (1, 2)}
    exact = gradients(stock, tensors, torch.float64, **settings)
    assert deviation(gradients(fused, tensors, dtype, **settings), exact) < most
    tensors[2][:, -1] = 0  # the last channel dropped
    assert deviation(gradients(fused, tensors, dtype, **settings), exact) > 5 * most


@pytest.mark.parametrize("padding", [0, 1, "same", ((2, 0), (0, 1))], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_of_any_padding_and_layout(padding: Any, layout: torch.memory_format) -> None:
    x, *weights = [t.double() for t in inputs()]
    tensors = [x.to(memory_format=layout), *weights]
    for stride in (1, 2):
        exact = gradients(stock, tensors, torch.float64, padding=padding, stride=stride)
        found = gradients(fused, tensors, torch.float32, padding=padding, stride=stride)
        assert deviation(found, exact) < 1e-5


def test_only_the_gradients_that_are_asked_for() -> None:
    for chosen in range(5):
        for activation in (None, "relu", "gelu"):
            tensors = inputs()
            tensors[chosen].requires_grad_()
            found = torch.autograd.grad(call(fused, tensors, activation=activation).sum(), tensors[chosen])
            exact = torch.autograd.grad(call(stock, tensors, activation=activation).sum(), tensors[chosen])
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_gradients_of_an_empty_batch() -> None:
    x, *weights = inputs()
    leaves = [t.requires_grad_() for t in weights]
    call(fused, [x[:0], *leaves], padding=1, between="relu").sum().backward()
    assert [leaf.grad.abs().max().item() for leaf in leaves if leaf.grad is not None] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", [None, *(n for n in ACTIVATIONS if n != "hardsigmoid")])  # PyTorch has none of that
def test_second_gradients(name: str | None) -> None:
    def second(function: Any) -> list[Tensor]:
        torch.manual_seed(1)
        leaves = [t.requires_grad_() for t in inputs()]
        y = call(function, leaves, between=name, activation=name, padding=((1, 0), (1, 1)))
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        return list(torch.autograd.grad(torch.cat([g.flatten() for g in first]).square().sum(), leaves))

    for found, exact in zip(second(fused), second(stock), strict=True):
        assert (found - exact).norm() < 1e-4 * exact.norm()


def test_weights_changed_before_backward_are_refused() -> None:
    tensors = inputs()
    tensors[0].requires_grad_()
    y = call(fused, tensors)
    tensors[2].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
