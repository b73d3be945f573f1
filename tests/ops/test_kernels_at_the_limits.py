"""Compiled kernels where floating point ends: NaN, infinities, subnormal numbers; see docs/numerics.md."""

from time import perf_counter
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from cases import Case
from compiled import by_kernel, products_dtype, run, settings_of, tensors

from sepwise.ops.activations import ACTIVATIONS
from sepwise.ops.native import Kernel

INF, NAN = torch.inf, torch.nan

# What is planted where. Two pixels: at a corner, where windows meet the padding, and amid the picture.
PLANTED: dict[str, list[tuple[str, tuple[int, ...], float]]] = {
    "NaN in x": [("x", (0, 0, 0, 0), NAN), ("x", (0, -1, 3, 4), NAN)],
    "+inf in x": [("x", (0, 0, 0, 0), INF), ("x", (0, -1, 3, 4), INF)],
    "-inf in x": [("x", (0, 0, 0, 0), -INF), ("x", (0, -1, 3, 4), -INF)],
    "both infinities in one window": [("x", (0, 0, 0, 0), INF), ("x", (0, 0, 0, 1), -INF), ("x", (0, -1, 3, 4), INF)],
    "NaN in depthwise": [("depthwise", (-1, 0, 2, 2), NAN)],
    "+inf in depthwise": [("depthwise", (0, 0, 0, 0), INF)],
    "NaN in pointwise": [("pointwise", (-1, 0, 0, 0), NAN)],
    "-inf in pointwise": [("pointwise", (3, -1, 0, 0), -INF)],
    "NaN in biases": [("bias", (1,), NAN), ("depthwise_bias", (-1,), NAN)],
    "+inf in the first bias": [("depthwise_bias", (0,), INF)],
    "-inf in the last bias": [("bias", (-1,), -INF)],
}


@by_kernel()
@pytest.mark.parametrize("planted", PLANTED)
def test_nan_and_infinities_go_where_stock_pytorch_sends_them(kernel: Kernel, planted: str) -> None:
    for channels in (1, 5, 17, 33):
        if channels == 1 and "depthwise" in planted:
            continue  # stock PyTorch multiplies the padding for one channel: 0 * inf; otherwise it is left out
        for place in ("between", "activation"):
            for name in (None, *ACTIVATIONS):
                chosen: dict[str, Any] = {place: name}
                case = Case(planted, channels, 20, (7, 9), padding=1, batch=1, depthwise_bias=True, **chosen)
                check_specials(kernel, case, PLANTED[planted])


def check_specials(kernel: Kernel, case: Case, planted: list[tuple[str, tuple[int, ...], float]]) -> None:
    inputs = tensors(case, torch.randn, kernel.dtype)
    for argument, index, value in planted:
        inputs[argument][index] = value
    # Float32 for bfloat16, too: there stock PyTorch spreads NaN to pixels whose window does not meet it.
    expected = stock(case, {name: None if t is None else t.float() for name, t in inputs.items()})
    if case.between is None and case.activation is None:
        assert not expected.isfinite().all()
    y = run(kernel, case, inputs).float()
    what = f"{case.channels} channels, between {case.between}, activation {case.activation}"
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(kind(y), kind(expected)), f"{kind.__name__}: {what}"
    tolerance = 1e-5 if products_dtype(kernel) is torch.float32 and kernel.precision == "highest" else 0.1
    finite = expected.isfinite()
    torch.testing.assert_close(y[finite], expected[finite], atol=tolerance * 10, rtol=tolerance)


def stock(case: Case, inputs: dict[str, Any]) -> torch.Tensor:
    mid = F.conv2d(
        inputs["x"], inputs["depthwise"], inputs["depthwise_bias"], case.stride, case.padding, groups=case.channels
    )
    return activated(F.conv2d(activated(mid, case.between), inputs["pointwise"], inputs["bias"]), case.activation)


def activated(x: torch.Tensor, name: str | None) -> torch.Tensor:
    if name is None:
        return x
    if name != "gelu":
        return ACTIVATIONS[name](x)
    # Stock gelu is -0 below -5.5, so that an infinite weight makes NaN of it; of +inf it makes +inf in its scalar loop
    # and NaN in its vector loop. +inf is the limit.
    return (0.5 * x.double() * torch.erfc(x.double() * -(0.5**0.5))).float()


def test_pytorch_disagrees_with_itself_about_gelu_of_infinity() -> None:
    assert F.gelu(torch.tensor([INF])).item() == INF
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert F.gelu(torch.full((64,), INF)).isnan().all()  # once this fails, `activated` needs no exception


@by_kernel()
def test_overflow_gives_infinity(kernel: Kernel) -> None:
    case = Case("overflow", 17, 20, (5, 6), padding=1, batch=1)
    huge = torch.finfo(torch.bfloat16).max  # finite in both dtypes
    inputs = tensors(case, lambda *shape: torch.full(shape, 2.0), kernel.dtype)
    inputs["x"].fill_(huge)
    assert torch.equal(run(kernel, case, inputs), torch.full((1, 20, 5, 6), INF, dtype=kernel.dtype))
    inputs["pointwise"].neg_()
    assert torch.equal(run(kernel, case, inputs), torch.full((1, 20, 5, 6), -INF, dtype=kernel.dtype))


@by_kernel()
def test_small_normal_numbers_are_kept(kernel: Kernel) -> None:
    torch.manual_seed(1)
    case = Case("small", 33, 20, (6, 7), padding=1, bias=False)
    inputs = tensors(case, torch.randn, kernel.dtype)
    y = run(kernel, case, inputs)
    assert torch.equal(run(kernel, case, {**inputs, "x": inputs["x"] * 2.0**-60}), y * 2.0**-60)


@by_kernel()
def test_subnormal_numbers_err_by_no_more_than_being_zero(kernel: Kernel) -> None:
    torch.manual_seed(2)
    case = Case("subnormal", 33, 20, (6, 7), padding=1, bias=False)
    inputs = tensors(case, torch.randn, kernel.dtype)
    inputs["x"] = inputs["x"] * 1e-39
    assert 0 < inputs["x"].abs().max() < 2.0**-126
    expected = oracle.separable(**inputs, **settings_of(case))
    # Each number of x, each number between the steps and y itself may be off by the smallest normal number.
    sizes = {name: inputs[name].double().abs() for name in ("depthwise", "pointwise")}
    allowed = 2.0**-126 * oracle.separable(
        torch.ones(inputs["x"].shape), **sizes, depthwise_bias=torch.ones(33), padding=1
    )
    error = np.abs(run(kernel, case, inputs).double().numpy() - expected)
    assert (error <= allowed + 2.0**-126).all()


@by_kernel()
@pytest.mark.parametrize(("x", "weight"), [(1e-30, 1e-10), (1e-39, 1e5)], ids=["product", "input"])
def test_subnormal_numbers_count_as_zero_while_a_kernel_runs(kernel: Kernel, x: float, weight: float) -> None:
    # What keeps them from being slow on a processor that is; this processor may be none.
    case = Case("flushed", 20, 20, (4, 4), kernel=(1, 1), batch=1, bias=False)
    inputs = tensors(case, torch.ones, kernel.dtype)
    y = run(kernel, case, {**inputs, "x": inputs["x"] * x, "depthwise": inputs["depthwise"] * weight})
    assert (y == 0).all()


@by_kernel()
def test_subnormal_numbers_are_not_slow(kernel: Kernel) -> None:
    torch.manual_seed(3)
    case = Case("slow", 64, 64, (28, 28), padding=1, batch=1, bias=False)
    normal = tensors(case, torch.randn, kernel.dtype)
    subnormal = {**normal, "x": normal["x"] * 1e-39}

    def seconds(inputs: dict[str, Any]) -> float:
        start = perf_counter()
        run(kernel, case, inputs)
        return perf_counter() - start

    times = [(seconds(normal), seconds(subnormal)) for _ in range(8)]  # interleaved: others may use the machine, too
    fast, slow = map(min, zip(*times, strict=True))
    assert slow < 10 * fast, f"{slow / fast:.0f} times slower"


@by_kernel()
@pytest.mark.parametrize("flush", [False, True])
def test_the_caller_keeps_its_own_rule_for_subnormal_numbers(kernel: Kernel, flush: bool) -> None:
    case = Case("state", 16, 16, (14, 14), padding=1, batch=2)
    inputs = tensors(case, torch.randn, kernel.dtype)
    supported = torch.set_flush_denormal(flush)
    try:
        run(kernel, case, inputs)
        tiny = torch.tensor([1e-40]) * 1.0
        assert (tiny.item() == 0) == (flush and supported)
    finally:
        torch.set_flush_denormal(False)
