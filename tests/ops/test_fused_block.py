"""`fused_block` by the compiled kernels against its meaning in float64, and where stock operations take over."""

import pytest
import torch
from cases import BLOCKS, Block, each, pads
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sepwise.geometry import Geometry
from sepwise.ops import fused_block, native
from sepwise.ops.fused_block import api
from sepwise.ops.memory import memory_format_of

needs_kernels = pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")
BOUND = {torch.float32: 2e-6, torch.bfloat16: 1.5e-2}


def arguments(case: Block, dtype: torch.dtype = torch.float32) -> tuple[tuple[Tensor, Tensor, Tensor | None], dict]:
    """x, pointwise and bias, and the named arguments."""
    random = torch.Generator().manual_seed(1)

    def draw(*size: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(size, generator=random) * scale).to(dtype)

    geometry = None
    if case.kernel != (0, 0):
        extents = [d * (k - 1) + 1 for k, d in zip(case.kernel, each(case.dilation, 2), strict=True)]
        around = pads(case.padding, case.size, extents, each(case.stride, 2))
        geometry = Geometry.of(case.kernel, case.stride, around, case.dilation)
    out = geometry.output_size(case.size) if geometry else case.size
    mid, c, o = case.channels * case.multiplier, case.expanded or case.channels, case.out_channels
    given = {
        "depthwise": draw(mid, 1, *case.kernel, scale=0.3) if geometry and not case.dense else None,
        "depthwise_bias": draw(mid) if case.depthwise_bias else None,
        "expand": draw(case.channels, c, 1, 1, scale=c**-0.5) if case.expanded else None,
        "expand_bias": draw(case.channels) if case.expanded and case.bias else None,
        "residual": draw(case.batch, o, *out) if case.residual else None,
        "widening": case.widening,
        "between": case.between,
        "epsilon": 1e-2 if case.normalized else None,
        "activation": case.activation,
        "geometry": geometry,
    }
    x = draw(case.batch, c, *case.size).contiguous(memory_format=torch.channels_last)
    kernel = case.kernel if case.dense else (1, 1)
    pointwise = draw(o, mid, *kernel, scale=(mid * kernel[0] * kernel[1]) ** -0.5)
    return (x, pointwise, draw(o) if case.bias else None), given


def in_float64(positional: tuple, given: dict) -> Tensor:
    def wide(value: object) -> object:
        return value.double() if isinstance(value, Tensor) else value

    return fused_block(*map(wide, positional), **{name: wide(value) for name, value in given.items()})  # type: ignore


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm().clamp(min=1e-30)) if wanted.numel() else 0.0


@needs_kernels
@pytest.mark.parametrize("dtype", BOUND, ids=str)
@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case.name)
def test_every_block_is_what_stock_operations_make_of_it(case: Block, dtype: torch.dtype, monkeypatch):
    positional, given = arguments(case, dtype)
    wanted = in_float64(positional, given)
    monkeypatch.setattr(api, "stock_operations", None)  # a silent way out would end in an error
    for layout in (torch.channels_last, torch.contiguous_format):
        x = positional[0].contiguous(memory_format=layout)
        found = fused_block(x, *positional[1:], **given)
        assert found.shape == wanted.shape
        assert found.dtype is dtype
        assert found.is_contiguous(memory_format=memory_format_of(x))
        assert off(found, wanted) <= BOUND[dtype]


@needs_kernels
@pytest.mark.parametrize("name", ["expand", "expand_bias", "depthwise", "pointwise", "residual", "epsilon"])
def test_the_bound_sees_a_fault_in_every_argument(name: str):
    case = next(case for case in BLOCKS if case.name == "everything")
    (x, pointwise, bias), given = arguments(case)
    wanted = in_float64((x, pointwise, bias), given)
    if name == "epsilon":
        given[name] *= 2
    else:
        faulty = pointwise if name == "pointwise" else given[name]
        faulty.view(-1)[faulty.numel() // 2] += 0.5
    assert off(fused_block(x, pointwise, bias, **given), wanted) > BOUND[torch.float32]


@needs_kernels
def test_threads_share_a_picture_and_pictures_and_the_answer_is_the_same():
    for case in BLOCKS:
        positional, given = arguments(case)
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(fused_block(*positional, **given))
        assert torch.equal(*found), case.name


@needs_kernels
def test_stock_operations_where_a_gradient_or_autocast_is_at_work(monkeypatch):
    case = next(case for case in BLOCKS if case.name == "everything")
    (x, pointwise, bias), given = arguments(case)
    x.requires_grad_()
    fused_block(x, pointwise, bias, **given).sum().backward()
    assert x.grad is not None
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert fused_block(x, pointwise, **{**given, "residual": None}).dtype is torch.bfloat16
    with torch.no_grad():
        monkeypatch.setattr(api, "stock_operations", None)
        fused_block(x, pointwise, bias, **given)


@needs_kernels
def test_what_pytorch_asks_of_an_operator():
    case = next(case for case in BLOCKS if case.name == "everything")
    (x, pointwise, bias), given = arguments(case)
    geometry = given["geometry"]
    (top, bottom), (left, right) = geometry.pads(x.shape[2:])
    tensors = (x, given["depthwise"], pointwise, bias, given["depthwise_bias"], given["expand"], given["expand_bias"])
    names = (given["residual"], given["widening"], given["between"], given["epsilon"], given["activation"])
    numbers = (geometry.stride, (top, left, bottom, right), geometry.dilation, "highest")
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.sepwise.fused_block.default, (*tensors, *names, *numbers), test_utils=checks)
    compiled = torch.compile(lambda x: fused_block(x, pointwise, bias, **given), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(x), fused_block(x, pointwise, bias, **given))
        with FlopCounterMode(display=False) as counter:
            fused_block(x, pointwise, bias, **given)
        pixels, out = x[:, 0].numel(), given["residual"][:, 0].numel()
        macs = pixels * case.expanded * case.channels + out * case.channels * (9 + case.out_channels)
        assert counter.get_total_flops() == 2 * macs


@needs_kernels
def test_the_operator_refuses_what_does_not_fit():
    (x, pointwise, bias), given = arguments(next(case for case in BLOCKS if case.name == "everything"))
    with pytest.raises(RuntimeError, match="the residual must have the size"):
        fused_block(x, pointwise, bias, **{**given, "residual": given["residual"][:, :, 1:]})
    with pytest.raises(RuntimeError, match=r"expand must be \(E, C, 1, 1\)"):
        fused_block(x[:, 1:], pointwise, bias, **given)
    with pytest.raises(RuntimeError, match=r"expand must be \(E, C, 1, 1\)"):
        fused_block(x, pointwise, bias, **{**given, "expand": given["expand"].expand(-1, -1, 3, 3)})
    with pytest.raises(RuntimeError, match="a depthwise step must follow"):
        fused_block(x, pointwise, bias, **{**given, "depthwise": None, "geometry": None})
