"""Every compiled kernel against the oracle: the same bits on small integers, within budget on random numbers."""

from dataclasses import replace
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import CASES, Case, each
from compiled import KERNELS, RUNNABLE, by_kernel, products_dtype, run, settings_of, small_integers, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from sepwise.ops.activations import ACTIVATIONS
from sepwise.ops.native import Kernel

by_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def test_kernels_are_listed_for_every_machine() -> None:
    assert {kernel.dtype for kernel in RUNNABLE} == {torch.float32, torch.bfloat16}
    assert len({kernel.name for kernel in KERNELS}) == len(KERNELS)


@by_kernel()
@by_case
def test_integers_are_exact(kernel: Kernel, case: Case) -> None:
    inputs = tensors(case, small_integers, kernel.dtype)
    expected = exact(kernel, case, inputs)
    assert case.batch == 0 or np.abs(expected).max() > 0
    y = run(kernel, case, inputs)
    assert y.dtype == kernel.dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(y.double().numpy(), expected)


def exact(kernel: Kernel, case: Case, inputs: dict[str, Any]) -> np.ndarray:
    """What small integers must give: every sum is exact in float32, so rounding happens only where it is said to."""
    largest = 2 * (4 * case.kernel[0] * case.kernel[1] + 2) * case.channels * case.multiplier + 2
    assert largest <= 2**24, f"{case.name}: sums up to {largest} are not exact in float32"
    expected = oracle.separable(**inputs, **settings_of(case), mid_dtype=products_dtype(kernel))
    return torch.from_numpy(expected).to(kernel.dtype).double().numpy()


@by_kernel()
@by_case
def test_randoms_stay_within_budget_and_faults_do_not(kernel: Kernel, case: Case) -> None:
    torch.manual_seed(1)
    check_budget(kernel, case)


@by_kernel()
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_stays_within_budget(kernel: Kernel, name: str) -> None:
    torch.manual_seed(2)
    case = Case("one past two vectors", 35, 37, (5, 11), padding=1, depthwise_bias=True)
    check_budget(kernel, replace(case, between=name))
    check_budget(kernel, replace(case, activation=name))


# Relative precision of the products: of float32, of two parts in bfloat16, of one.
UNIT = {"highest": 2.0**-23, "high": 2.0**-15, "medium": 2.0**-7}


def check_budget(kernel: Kernel, case: Case) -> None:
    inputs = tensors(case, torch.randn, kernel.dtype)
    bf16 = kernel.dtype is torch.bfloat16
    unit = UNIT["medium"] if bf16 else UNIT[kernel.precision]
    # The rounded numbers on the way to the sum: in bfloat16 mid, else mid and the pointwise weights.
    roundings = 1 if bf16 else 2
    expected = oracle.separable(**inputs, **settings_of(case))
    budget = oracle.error_budget(**inputs, **settings_of(case), dtype=kernel.dtype, roundings=roundings, unit=unit)
    assert case.batch == 0 or np.abs(expected).max() > 0

    def excess(inputs: dict[str, Any]) -> float:
        error = np.abs(run(kernel, case, inputs).double().numpy() - expected)
        return float((error / budget).max(initial=0))

    assert excess(inputs) <= 1
    if case.batch == 0:
        return
    channel = inputs["pointwise"].clone()
    channel[:, -1] = 0
    assert excess({**inputs, "pointwise": channel}) > 1, "the last channel can be dropped without notice"
    tap = inputs["depthwise"].clone()
    tap[..., case.kernel[0] // 2, case.kernel[1] // 2] = 0
    assert excess({**inputs, "depthwise": tap}) > 1, "one tap can be dropped without notice"


@by_kernel()
@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_bits_depend_on_neither_threads_nor_batch(kernel: Kernel, side: int) -> None:
    for stride, size in ((1, (13, 11)), (2, (30, 34)), (1, (57, 3))):
        case = Case("bits", 35, 37, size, kernel=(side, side), stride=stride, padding=side // 2, batch=3)
        torch.manual_seed(3)
        inputs = tensors(case, torch.randn, kernel.dtype)
        y = run(kernel, case, inputs)
        single = [run(kernel, case, {**inputs, "x": picture[None]}) for picture in inputs["x"]]
        assert torch.equal(torch.cat(single), y)
        for threads in (2, 3, 5):
            torch.set_num_threads(threads)
            assert torch.equal(run(kernel, case, inputs), y)


@given(st.data(), st.sampled_from(RUNNABLE))
@settings(max_examples=150, deadline=None)
def test_any_geometry_is_exact(data: st.DataObject, kernel: Kernel) -> None:
    def pair(strategy: st.SearchStrategy[int]) -> tuple[int, int]:
        return data.draw(st.tuples(strategy, strategy))

    kernel_size = data.draw(st.sampled_from([(3, 3), (5, 5), (7, 7), pair(st.integers(1, 11))]))
    margins = (pair(st.integers(0, 12)), pair(st.integers(0, 12)))
    padding = data.draw(st.sampled_from(["same", "valid", margins]))
    dilation = data.draw(st.sampled_from([1, 2, (1, 3)]))
    extents = [d * (k - 1) + 1 for k, d in zip(kernel_size, each(dilation, 2), strict=True)]
    # The smallest pictures that give an output; with "same" every picture does.
    added = {"same": extents, "valid": (0, 0), margins: [low + high for low, high in margins]}[padding]
    smallest = [max(e - p, 1) for e, p in zip(extents, added, strict=True)]
    case = Case(
        "drawn",
        channels=data.draw(st.integers(1, 40)),
        out_channels=data.draw(st.integers(1, 40)),
        size=(smallest[0] + data.draw(st.integers(0, 7)), smallest[1] + data.draw(st.integers(0, 20))),
        kernel=kernel_size,
        multiplier=data.draw(st.integers(1, 4)),
        batch=data.draw(st.integers(1, 3)),
        stride=data.draw(st.sampled_from([1, 2, 3, (1, 2), (4, 1)])),
        padding=padding,
        dilation=dilation,
        bias=data.draw(st.booleans()),
        depthwise_bias=data.draw(st.booleans()),
        between=data.draw(st.sampled_from([None, "relu", "relu6"])),
        activation=data.draw(st.sampled_from([None, "relu", "relu6"])),
    )
    torch.manual_seed(data.draw(st.integers(0, 99)))
    inputs = tensors(case, small_integers, kernel.dtype)
    assert np.array_equal(run(kernel, case, inputs).double().numpy(), exact(kernel, case, inputs))
