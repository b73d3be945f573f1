"""`separable_conv2d`: every implementation against the oracle, exact on integers and within budget on randoms."""

from functools import partial
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from cases import CASES, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from sepwise.errors import ShapeError, UnsupportedError
from sepwise.ops import separable_conv2d
from sepwise.ops.activations import ACTIVATIONS
from sepwise.ops.separable_conv2d import cpu
from sepwise.ops.separable_conv2d.api import IMPLEMENTATIONS

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Every implementation that can run the case; that "split" refuses a multiplier of 1 is tested once, by itself, and so
# is what "cpu" refuses.
RUNS = [(c, i) for c in CASES for i in ("auto", *IMPLEMENTATIONS) if i != "split" or c.multiplier > 1]
by_run = pytest.mark.parametrize(("case", "impl"), RUNS, ids=[f"{case.name}-{impl}" for case, impl in RUNS])
DTYPES_OF = dict.fromkeys(("auto", *IMPLEMENTATIONS), DTYPES) | {"cpu": cpu.DTYPES}
NAMES = ("x", "depthwise", "pointwise", "bias", "depthwise_bias")


def tensors(case: Case, make: Any) -> dict[str, Any]:
    mid = case.channels * case.multiplier
    return {
        "x": make(case.batch, case.channels, *case.size),
        "depthwise": make(mid, 1, *case.kernel),
        "pointwise": make(case.out_channels, mid, 1, 1),
        "bias": make(case.out_channels) if case.bias else None,
        "depthwise_bias": make(mid) if case.depthwise_bias else None,
    }


def settings_of(case: Case) -> dict[str, Any]:
    return {name: getattr(case, name) for name in ("stride", "padding", "dilation", "between", "activation")}


def small_integers(*shape: int) -> torch.Tensor:
    return torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64)[torch.randint(4, shape)]


def largest_sum(case: Case) -> int:
    """No sum of products of integers up to 2 is larger, in any order."""
    mid = 2 * 2 * case.kernel[0] * case.kernel[1] + 2
    return 2 * mid * case.channels * case.multiplier + 2


@by_run
def test_integers_are_exact(case: Case, impl: str) -> None:
    inputs = tensors(case, small_integers)
    expected = oracle.separable(**inputs, **settings_of(case))
    assert case.batch == 0 or np.abs(expected).max() > 0
    exact = [
        t for t in DTYPES_OF[impl] if largest_sum(case) <= 2 / torch.finfo(t).eps
    ]  # dtypes without gaps up to there
    assert torch.float32 in exact
    for dtype in exact:
        y = separable_conv2d(**cast(inputs, dtype), **settings_of(case), impl=impl)
        assert y.dtype == dtype
        assert np.array_equal(y.double().numpy(), expected)


def test_integers_reach_every_dtype() -> None:
    assert sum(largest_sum(case) <= 2 / torch.finfo(torch.bfloat16).eps for case in CASES if case.batch) >= 4


RUNS_BY_DTYPE = [(case, impl, dtype) for case, impl in RUNS for dtype in DTYPES_OF[impl]]


@pytest.mark.parametrize(
    ("case", "impl", "dtype"), RUNS_BY_DTYPE, ids=[f"{c.name}-{impl}-{dtype}" for c, impl, dtype in RUNS_BY_DTYPE]
)
def test_randoms_stay_within_budget_and_a_fault_does_not(case: Case, impl: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    inputs = cast(tensors(case, torch.randn), dtype)
    kept = 2 if impl == "reference" else case.multiplier + 1  # mid, and each partial sum of "split"
    budget = oracle.error_budget(**inputs, dtype=dtype, roundings=kept, **settings_of(case))
    expected = oracle.separable(**inputs, **settings_of(case))
    y = separable_conv2d(**inputs, **settings_of(case), impl=impl)
    assert (np.abs(y.double().numpy() - expected) <= budget).all()
    faulty = inputs["pointwise"].clone()
    faulty[:, -1] = 0  # the last channel dropped
    wrong = separable_conv2d(**{**inputs, "pointwise": faulty}, **settings_of(case), impl=impl)
    assert case.batch == 0 or (np.abs(wrong.double().numpy() - expected) > budget).any()


def cast(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {name: None if tensor is None else tensor.to(dtype) for name, tensor in inputs.items()}


def test_one_pair_cannot_be_split() -> None:
    sentence = "impl='split' cannot run this call: the depth multiplier is 1, so there is nothing to split"
    with pytest.raises(UnsupportedError, match=sentence):
        separable_conv2d(torch.ones(1, 2, 4, 4), torch.ones(2, 1, 3, 3), torch.ones(5, 2, 1, 1), impl="split")


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("place", ["between", "activation"])
def test_every_activation(name: str, place: str) -> None:
    torch.manual_seed(2)
    inputs = (3 * torch.randn(1, 3, 6, 6).double(), torch.randn(6, 1, 3, 3).double(), torch.randn(4, 6, 1, 1).double())
    chosen: dict[str, Any] = {place: name}
    for impl in IMPLEMENTATIONS:
        dtype = DTYPES_OF[impl][0]
        x, d, p = (t.to(dtype) for t in inputs)
        y = separable_conv2d(x, d, p, impl=impl, **chosen)
        atol, rtol = (1e-12, 1e-7) if dtype is torch.float64 else (2e-5, 2e-6)
        np.testing.assert_allclose(y.double().numpy(), oracle.separable(x, d, p, **chosen), atol=atol, rtol=rtol)


@given(
    st.data(),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["reference", "split", "auto"]),
)
@settings(max_examples=60, deadline=None)
def test_any_geometry(data: Any, channels: int, multiplier: int, out_channels: int, impl: str) -> None:
    pair = partial(st.tuples)
    kernel = data.draw(pair(st.integers(1, 4), st.integers(1, 4)))
    stride = data.draw(pair(st.integers(1, 4), st.integers(1, 3)))
    dilation = data.draw(pair(st.integers(1, 3), st.integers(1, 2)))
    extra = st.integers(0, 3)
    padding = data.draw(
        st.one_of(st.just("same"), st.just("valid"), extra, pair(pair(extra, extra), pair(extra, extra)))
    )
    size = [d * (k - 1) + 1 + data.draw(st.integers(0, 5)) for k, d in zip(kernel, dilation, strict=True)]
    if padding == "same":  # pictures smaller than the kernel are fine
        size = [data.draw(st.integers(1, n)) for n in size]
    torch.manual_seed(data.draw(st.integers(0, 99)))
    dtype = DTYPES_OF[impl][0]
    x = torch.randn(2, channels, *size, dtype=dtype)
    d = torch.randn(channels * multiplier, 1, *kernel, dtype=dtype)
    p = torch.randn(out_channels, channels * multiplier, 1, 1, dtype=dtype)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    if multiplier == 1 and impl == "split":
        impl = "reference"
    y = separable_conv2d(x, d, p, **geometry, impl=impl)
    atol, rtol = (1e-12, 1e-7) if dtype is torch.float64 else (2e-5, 2e-6)
    np.testing.assert_allclose(y.numpy(), oracle.separable(x, d, p, **geometry), atol=atol, rtol=rtol)


@pytest.mark.parametrize("impl", [impl for impl in IMPLEMENTATIONS if torch.float64 in DTYPES_OF[impl]])
@pytest.mark.parametrize("between", [None, "silu"])
def test_gradients(impl: str, between: str | None) -> None:
    torch.manual_seed(3)
    case = Case("gradients", 2, 3, (5, 4), multiplier=2, batch=1, depthwise_bias=True)
    inputs = tensors(case, partial(torch.randn, dtype=torch.float64, requires_grad=True))

    def call(x: Any, depthwise: Any, pointwise: Any, bias: Any, depthwise_bias: Any) -> torch.Tensor:
        extra = {"depthwise_bias": depthwise_bias, "between": between, "activation": "elu"}
        return separable_conv2d(x, depthwise, pointwise, bias, **extra, stride=2, padding="same", impl=impl)

    assert torch.autograd.gradcheck(call, tuple(inputs[name] for name in NAMES))


def test_empty_batch_has_gradients() -> None:
    d, p = torch.randn(4, 1, 3, 3, requires_grad=True), torch.randn(3, 4, 1, 1, requires_grad=True)
    separable_conv2d(torch.empty(0, 2, 5, 5), d, p).sum().backward()
    assert d.grad is not None
    assert d.grad.abs().max() == 0


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [1, "same", ((0, 1), (1, 0))], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_memory_format_is_kept(impl: str, channels: int, padding: Any, layout: torch.memory_format) -> None:
    x = torch.randn(2, channels, 6, 5).to(memory_format=layout)
    d, p = torch.randn(2 * channels, 1, 3, 3), torch.randn(4, 2 * channels, 1, 1)
    for weights in (torch.contiguous_format, torch.channels_last):
        y = separable_conv2d(x, d.to(memory_format=weights), p.to(memory_format=weights), padding=padding, impl=impl)
        assert y.is_contiguous(memory_format=layout)
        torch.testing.assert_close(y, separable_conv2d(x.contiguous(), d, p, padding=padding, impl="reference"))


def test_fresh_memory_is_never_read() -> None:
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    try:
        for case in CASES:
            y = separable_conv2d(**tensors(case, torch.randn), **settings_of(case))
            assert y.isfinite().all(), case.name
    finally:
        torch.use_deterministic_algorithms(False)


def test_multiplications_are_counted() -> None:
    x, d, p = torch.ones(2, 3, 12, 12), torch.ones(3, 1, 5, 5), torch.ones(256, 3, 1, 1)
    with FlopCounterMode(display=False) as counter:
        separable_conv2d(x, d, p)
    assert counter.get_total_flops() == 2 * 2 * 53_952  # two pictures, two operations for each multiplication


def test_autocast() -> None:
    x, d, p = torch.randn(2, 3, 6, 6).bfloat16(), torch.randn(6, 1, 3, 3), torch.randn(4, 6, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert separable_conv2d(x, d, p).dtype == torch.bfloat16


def test_compiles_whole() -> None:
    torch.manual_seed(4)
    d, p = torch.randn(6, 1, 3, 3), torch.randn(4, 6, 1, 1)
    function = partial(separable_conv2d, between="relu", stride=2, padding="same")
    compiled = torch.compile(lambda x: function(x, d, p), fullgraph=True, backend="aot_eager")
    for size in ((8, 9), (11, 6)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(compiled(x), function(x, d, p))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("padding", [1, "same"])
def test_exports_with_any_batch_and_size(strict: bool, padding: Any) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = torch.nn.Parameter(torch.randn(6, 1, 3, 3))
            self.pointwise = torch.nn.Parameter(torch.randn(4, 6, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return separable_conv2d(x, self.depthwise, self.pointwise, stride=2, padding=padding)

    net, dim = Net(), torch.export.Dim
    shapes = {"x": {0: dim("batch"), 2: dim("height", min=4), 3: dim("width", min=4)}}
    program = torch.export.export(net, (torch.randn(2, 3, 8, 9),), dynamic_shapes=shapes, strict=strict)
    for size in ((1, 3, 8, 8), (5, 3, 13, 4)):
        x = torch.randn(*size)
        torch.testing.assert_close(program.module()(x), net(x))


X, D, P = torch.ones(8, 32, 6, 6), torch.ones(96, 1, 3, 3), torch.ones(128, 96, 1, 1)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"pointwise": torch.ones(128, 64, 1, 1)}, ShapeError, "pointwise mixes 64 channels, depthwise produces 96"),
        ({"depthwise": torch.ones(95, 1, 3, 3)}, ShapeError, "depthwise has 95 filters for the 32 channels"),
        ({"depthwise": torch.ones(96, 2, 3, 3)}, ShapeError, "depthwise reads 2 channels at a time, expected 1"),
        (
            {"pointwise": torch.ones(128, 96, 3, 3)},
            ShapeError,
            r"pointwise has a kernel of \(3, 3\), expected \(1, 1\)",
        ),
        ({"x": torch.ones(32, 6, 6)}, ShapeError, "all three need four axes"),
        ({"x": torch.ones(8, 0, 6, 6)}, ShapeError, "96 filters for the 0 channels"),
        ({"bias": torch.ones(96)}, ShapeError, r"bias has shape \(96,\), expected \(128,\)"),
        ({"depthwise_bias": torch.ones(128)}, ShapeError, r"depthwise_bias has shape \(128,\), expected \(96,\)"),
        ({"x": torch.ones(8, 32, 6, 6).int()}, ShapeError, r"x holds torch.int32; expected floating-point"),
        ({"pointwise": P.double()}, ShapeError, "x is torch.float32, pointwise is torch.float64; convert them to one"),
        ({"bias": torch.ones(128, device="meta")}, ShapeError, "x is on cpu, bias on meta; move them to one device"),
        ({"padding": -1}, ShapeError, 'padding=-1: give "same", "valid"'),
        ({"stride": 0}, ShapeError, "stride=0: expected one integer >= 1"),
        ({"dilation": 3}, ShapeError, r"the output would be empty: input \(6, 6\)"),
        ({"between": "tanh"}, UnsupportedError, "between='tanh' is unknown; give None, 'relu'"),
        ({"activation": "Relu"}, UnsupportedError, "activation='Relu' is unknown; give None, 'relu'"),
        ({"precision": "best"}, UnsupportedError, "precision='best' is unknown; give None, 'highest', 'high'"),
        ({"impl": "triton"}, UnsupportedError, "there is no impl='triton'; give \"auto\" or 'reference', 'split'"),
    ],
)
def test_refusals(change: dict[str, Any], error: type[Exception], sentence: str) -> None:
    arguments = {"x": X, "depthwise": D, "pointwise": P, **change}
    with pytest.raises(error, match=sentence):
        separable_conv2d(**arguments)


def test_an_error_names_both_facts_and_the_rule() -> None:
    with pytest.raises(ShapeError) as refused:
        separable_conv2d(X, D, torch.ones(128, 64, 1, 1))
    assert str(refused.value) == (
        "separable_conv2d: pointwise mixes 64 channels, depthwise produces 96\n"
        "    input (8, 32, 6, 6) · depthwise (96, 1, 3, 3) = 32 channels x 3 · pointwise (128, 64, 1, 1)\n"
        "    pointwise.shape[1] must equal depthwise.shape[0]"
    )


@pytest.mark.parametrize("precision", [None, "highest", "high", "medium"])
@pytest.mark.parametrize("impl", ["reference", "split"])
def test_precision_may_be_exceeded(impl: str, precision: str | None) -> None:
    computed = separable_conv2d(X, D, P, precision=precision, impl=impl)
    assert torch.equal(computed, separable_conv2d(X, D, P, impl=impl))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, ["split", "reference", "reference", "reference", "reference"]),
        (torch.float32, ["cpu", "cpu", "cpu", "cpu", "cpu"]),
    ],
    ids=str,
)
def test_auto_takes_what_was_measured_to_pay(taken: list[str], dtype: torch.dtype, expected: list[str]) -> None:
    for channels, size, multiplier in ((64, 80, 2), (64, 80, 1), (64, 80, 6), (16, 8, 2), (1, 640, 4)):
        x = torch.empty(1, channels, size, size, dtype=dtype)
        d = torch.empty(channels * multiplier, 1, 3, 3, dtype=dtype)
        separable_conv2d(x, d, torch.empty(16, channels * multiplier, 1, 1, dtype=dtype))
    assert taken == expected
