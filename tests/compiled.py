"""The compiled kernels as tests see them: each by name, called through its operator, skipped with its own sentence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import Case, each, pads

from sepwise.ops import native
from sepwise.ops.native import Kernel

KERNELS = native.kernels()
RUNNABLE = [kernel for kernel in KERNELS if kernel.why_not is None]


def by_kernel(chosen: Callable[[Kernel], bool] = lambda kernel: True) -> Any:
    """Run a test for each listed kernel that is `chosen`."""
    marked = []
    for kernel in filter(chosen, KERNELS):
        absent = pytest.mark.skipif(kernel.why_not is not None, reason=f"{kernel.name} {kernel.why_not}")
        marked.append(pytest.param(kernel, id=kernel.name, marks=absent))
    return pytest.mark.parametrize("kernel", marked)


def precise(kernel: Kernel) -> bool:
    """Whether float32 goes in and float32 products are computed."""
    return kernel.dtype is torch.float32 and kernel.precision == "highest"


def products_dtype(kernel: Kernel) -> torch.dtype:
    """The dtype to which the numbers of the pointwise step are rounded."""
    return torch.bfloat16 if kernel.precision == "medium" else kernel.dtype


def tensors(case: Case, make: Callable[..., torch.Tensor], dtype: torch.dtype) -> dict[str, Any]:
    """The tensors of a case, by the names of the operator's arguments."""
    mid = case.channels * case.multiplier
    shapes = {
        "x": (case.batch, case.channels, *case.size),
        "depthwise": (mid, 1, *case.kernel),
        "pointwise": (case.out_channels, mid, 1, 1),
        "bias": (case.out_channels,) if case.bias else None,
        "depthwise_bias": (mid,) if case.depthwise_bias else None,
    }
    return {name: None if shape is None else make(*shape).to(dtype) for name, shape in shapes.items()}


def settings_of(case: Case) -> dict[str, Any]:
    """What the oracle wants besides tensors."""
    return {name: getattr(case, name) for name in ("stride", "padding", "dilation", "between", "activation")}


def run(kernel: Kernel, case: Case, inputs: dict[str, Any]) -> torch.Tensor:
    """The result of this kernel and no other."""
    stride, dilation = each(case.stride, 2), each(case.dilation, 2)
    extents = [d * (k - 1) + 1 for k, d in zip(case.kernel, dilation, strict=True)]
    (top, bottom), (left, right) = pads(case.padding, inputs["x"].shape[2:], extents, stride)
    names = ("x", "depthwise", "pointwise", "bias", "depthwise_bias")
    return torch.ops.sepwise.separable_conv2d(
        *(inputs[name] for name in names), case.between, case.activation,
        stride, (top, left, bottom, right), dilation, kernel.precision, kernel.name,
    )  # fmt: skip


def small_integers(*shape: int) -> torch.Tensor:
    """Numbers whose products and sums are exact, so that every order of summation gives the same bits."""
    return torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64)[torch.randint(4, shape)]
