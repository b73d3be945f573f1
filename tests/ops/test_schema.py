"""What PyTorch knows of the operator: shape and strides without numbers, cost, gradient; and that programs hold it."""

import io
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from cases import CASES, Case, each, pads
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sepwise.ops import native, separable_conv2d
from sepwise.ops.exporting import operators_exported

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))
fused = partial(separable_conv2d, impl="cpu")


def arguments(case: Case, make: Callable[..., Tensor] = torch.randn) -> tuple[Any, ...]:
    """The operator's arguments for a case."""
    mid, (stride, dilation) = case.channels * case.multiplier, (each(case.stride, 2), each(case.dilation, 2))
    extents = [d * (k - 1) + 1 for k, d in zip(case.kernel, dilation, strict=True)]
    (top, bottom), (left, right) = pads(case.padding, case.size, extents, stride)
    return (
        make(case.batch, case.channels, *case.size),
        make(mid, 1, *case.kernel),
        make(case.out_channels, mid, 1, 1),
        make(case.out_channels) if case.bias else None,
        make(mid) if case.depthwise_bias else None,
        *(case.between, case.activation, list(stride), [top, left, bottom, right], list(dilation), "highest"),
    )


CHECKED = [case for case in CASES if case.name in ("multiplier 4, all at once", "empty batch", "one channel")]


@pytest.fixture
def torch_may_warn_of_itself() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.*")
        yield


@pytest.mark.usefixtures("torch_may_warn_of_itself")
@pytest.mark.parametrize("case", CHECKED, ids=lambda case: case.name)
@pytest.mark.parametrize("grad", [False, True], ids=["plain", "grad"])
def test_registration_is_what_pytorch_expects(case: Case, grad: bool) -> None:
    given = arguments(case, partial(torch.randn, requires_grad=grad))
    checks = torch.library.opcheck(torch.ops.sepwise.separable_conv2d.default, given)
    assert set(checks.values()) == {"SUCCESS"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fake_result_has_the_shape_and_strides_of_the_real_one(case: Case) -> None:
    given = arguments(case)
    real = torch.ops.sepwise.separable_conv2d(*given)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in given]
        fake = torch.ops.sepwise.separable_conv2d(*fakes)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.parametrize("case", [c for c in CASES if c.multiplier > 1 or c.stride != 1], ids=lambda case: case.name)
def test_cost_is_that_of_the_stock_operations(case: Case) -> None:
    x, depthwise, pointwise = arguments(case)[:3]
    counts = []
    for impl in ("cpu", "reference"):
        with FlopCounterMode(display=False) as counter:
            separable_conv2d(
                *(x, depthwise, pointwise),
                **{name: getattr(case, name) for name in ("stride", "padding", "dilation")},
                impl=impl,
            )
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]
    assert counts[0] > 0 or case.batch == 0


def model(x: Tensor, depthwise: Tensor, pointwise: Tensor, **settings: Any) -> Tensor:
    return fused(x, depthwise, pointwise, between="relu", activation="silu", stride=2, padding="same", **settings)


def shapes() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 1, 3, 3), torch.randn(4, 6, 1, 1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_compiles_whole_with_one_operator_for_any_size(layout: torch.memory_format) -> None:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if "sepwise" in str(node.target))
        return graph

    weights = shapes()
    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=True)
    for size in ((8, 9), (11, 6), (12, 13)):
        x = torch.randn(2, 3, *size).to(memory_format=layout)
        y = compiled(x, *weights)
        assert torch.equal(y, model(x, *weights))
        assert y.is_contiguous(memory_format=layout)
    assert set(seen) == {"sepwise.separable_conv2d.default"}


@pytest.mark.parametrize("padding", ["same", ((0, 2), (1, 0))], ids=str)
def test_compiles_whole_with_its_gradient(padding: Any) -> None:
    def loss(x: Tensor, depthwise: Tensor, pointwise: Tensor) -> Tensor:
        y = fused(x, depthwise, pointwise, between="relu", activation="silu", stride=2, padding=padding)
        return y.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for size in ((8, 9), (11, 6)):
        results = []
        for function in (compiled, loss):
            torch.manual_seed(1)
            inputs = [torch.randn(2, 3, *size), *shapes()]
            function(*[t.requires_grad_() for t in inputs]).backward()
            results.append([t.grad for t in inputs])
        torch.testing.assert_close(*results)


@pytest.mark.slow
@pytest.mark.usefixtures("torch_may_warn_of_itself")
def test_inductor_compiles_it() -> None:
    weights, x = shapes(), torch.randn(2, 3, 8, 9)
    compiled = torch.compile(lambda x, d, p: 2 * model(x + 1, d, p), fullgraph=True)
    torch.testing.assert_close(compiled(x, *weights), 2 * model(x + 1, *weights))
    weights[1].add_(1)
    torch.testing.assert_close(compiled(x, *weights), 2 * model(x + 1, *weights))


class Net(torch.nn.Module):
    def __init__(self, impl: str) -> None:
        super().__init__()
        self.depthwise, self.pointwise = map(torch.nn.Parameter, shapes())
        self.impl = impl

    def forward(self, x: Tensor) -> Tensor:
        return model(x, self.depthwise, self.pointwise) if self.impl == "cpu" else self.auto(x)

    def auto(self, x: Tensor) -> Tensor:
        return separable_conv2d(x, self.depthwise, self.pointwise, padding=1)


def exported(net: Net, strict: bool) -> torch.export.ExportedProgram:
    dim = torch.export.Dim
    sizes = {"x": {0: dim("batch"), 2: dim("height", min=4), 3: dim("width", min=4)}}
    program = torch.export.export(net, (torch.randn(2, 3, 8, 9),), dynamic_shapes=sizes, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def operators(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if "sepwise" in str(node.target)]


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_holds_it_when_it_is_named(strict: bool) -> None:
    net = Net("cpu")
    program = exported(net, strict)
    assert operators(program) == ["sepwise.separable_conv2d.default"]
    module = program.module()
    for size in ((1, 3, 8, 8), (5, 3, 13, 4)):
        x = torch.randn(*size)
        assert torch.equal(module(x), net(x))
    module(x).sum().backward()
    net(x).sum().backward()
    torch.testing.assert_close(
        dict(module.named_parameters())["depthwise"].grad, net.depthwise.grad, rtol=1e-5, atol=1e-5
    )


def test_an_exported_program_is_stock_otherwise() -> None:
    assert operators(exported(Net("auto"), strict=False)) == []


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_holds_it_while_that_is_asked_for(strict: bool) -> None:
    with operators_exported():
        program = exported(Net("auto"), strict)
    assert operators(program) == ["sepwise.separable_conv2d.default"]
    assert operators(exported(Net("auto"), strict)) == []


def precisions_compiled(given: list[str]) -> list[str]:
    """The precision that the operator is called with in a program that is called under each of torch's settings."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        calls = [node for node in graph.graph.nodes if "sepwise" in str(node.target)]

        def run(*inputs: Any) -> Any:
            seen.extend(node.args[10] for node in calls)
            return graph(*inputs)

        return run

    compiled = torch.compile(lambda x, d, p: fused(x, d, p), fullgraph=True, backend=backend)
    for precision in given:
        torch.set_float32_matmul_precision(precision)
        compiled(torch.randn(1, 3, 4, 4), *shapes())
    return seen


def test_a_compiled_program_is_never_less_precise_than_torch_asks() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        given = ["highest", "medium", "high", "highest", "medium"]
        assert precisions_compiled(given) == ["highest", "high", "high", "highest", "high"]
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_kernel_is_told_in_advance() -> None:
    given = arguments(CASES[0])
    name = torch.ops.sepwise.kernel_for(*given)
    assert torch.equal(
        torch.ops.sepwise.separable_conv2d(*given), torch.ops.sepwise.separable_conv2d(*given, kernel_name=name)
    )
    assert name in [kernel.name for kernel in native.kernels() if kernel.why_not is None]
