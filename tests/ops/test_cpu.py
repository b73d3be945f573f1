"""impl="cpu" through the public function: layouts, dtypes, precision, refusals.

That the kernels compute the right numbers is tested in `test_kernels.py`.
"""

from typing import Any

import pytest
import torch
from calls import call, fused, inputs, stock
from torch import Tensor

from sepwise.errors import ShapeError, UnsupportedError
from sepwise.ops import native, separable_conv2d

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))


def test_x_may_lie_in_memory_in_any_way() -> None:
    x, *weights = inputs()
    expected = call(stock, [x, *weights])
    wide = torch.randn(2, 5, 9, 14)
    wide[:, :, 1:8, ::2] = x
    for same in (
        x.to(memory_format=torch.channels_last),
        wide[:, :, 1:8, ::2],
        x.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0),
        x.to(memory_format=torch.channels_last).clone(memory_format=torch.preserve_format)[:, :],
    ):
        torch.testing.assert_close(call(fused, [same, *weights]), expected)
    repeated = x[:1, :1].expand(2, 5, 7, 7)
    torch.testing.assert_close(call(fused, [repeated, *weights]), call(stock, [repeated, *weights]))


def test_one_channel_and_one_pixel() -> None:
    for channels, size in ((1, 6), (3, 1), (1, 1)):
        x, *weights = inputs(channels, 1, 1, size)
        for layout in (torch.contiguous_format, torch.channels_last):
            given = x.to(memory_format=layout)
            y = call(fused, [given, *weights], padding=1)
            torch.testing.assert_close(y, call(stock, [given, *weights], padding=1))
            assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.double(), "the computation is in torch.float64; the compiled kernels know float32 and bfloat16"),
        (lambda t: t.half(), "the computation is in torch.float16; the compiled kernels know float32 and bfloat16"),
        (lambda t: t.to("meta"), "x is on meta; the compiled kernels run on the CPU"),
    ],
)
def test_what_it_cannot_do_it_says_and_auto_takes_the_next(change: Any, sentence: str) -> None:
    tensors = [change(t) for t in inputs()]
    with pytest.raises(UnsupportedError, match=f"impl='cpu' cannot run this call: {sentence}"):
        call(fused, tensors)
    assert call(separable_conv2d, tensors).dtype == tensors[0].dtype


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch.func, when first used
def test_transforms_are_left_to_the_others() -> None:
    x, *weights = inputs()
    batches = torch.stack([x, 2 * x])
    with pytest.raises(UnsupportedError, match="a function transform is at work"):
        torch.func.vmap(lambda x: call(fused, [x, *weights]))(batches)
    mapped = torch.func.vmap(lambda x: call(separable_conv2d, [x, *weights]))(batches)
    torch.testing.assert_close(mapped[1], call(fused, [2 * x, *weights]))
    tangent = torch.func.jvp(lambda x: call(separable_conv2d, [x, *weights]), (x,), (x,))[1]
    linear = call(fused, [x, *weights]) - call(fused, [torch.zeros_like(x), *weights])
    torch.testing.assert_close(tangent, linear, rtol=1e-4, atol=1e-4)


def test_autocast_computes_in_its_dtype_and_gradients_keep_their_own() -> None:
    tensors = inputs(16)
    expected = call(stock, [t.bfloat16() for t in tensors], between="relu")
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            y = call(fused, tensors, between="relu")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=0.02, atol=0.1)

    leaves = [t.clone().requires_grad_() for t in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        call(fused, leaves, between="relu").float().square().sum().backward()
    others = [t.clone().requires_grad_() for t in tensors]
    call(stock, others, between="relu").square().sum().backward()
    for leaf, other in zip(leaves, others, strict=True):
        assert leaf.grad is not None
        assert other.grad is not None
        assert leaf.grad.dtype == torch.float32
        assert (leaf.grad - other.grad).norm() < 0.03 * other.grad.norm()


def test_autocast_reuses_packed_weights() -> None:
    native.forget_packed_weights()
    x, *weights = inputs(96, 1, 96)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            call(fused, [x, *weights])
        packed = native.packed_weights().packed
        call(fused, [x, *weights])
    assert native.packed_weights().packed == packed


def test_autocast_refuses_what_it_refuses() -> None:
    x, depthwise, pointwise, *_ = inputs()
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UnsupportedError, match="weights are torch\\.float64"):
        fused(x, depthwise.double(), pointwise)
    with torch.autocast("cpu", torch.float16), pytest.raises(UnsupportedError, match="is in torch\\.float16"):
        fused(x, depthwise, pointwise)


def test_precision_follows_torch() -> None:
    tensors = inputs(64, 1, 64)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("medium", "high", "highest"):
            torch.set_float32_matmul_precision(precision)
            assert torch.equal(call(fused, tensors), call(fused, tensors, precision=precision))
    finally:
        torch.set_float32_matmul_precision(before)
    if any(kernel.precision == "medium" and kernel.why_not is None for kernel in native.kernels()):
        assert not torch.equal(call(fused, tensors, precision="medium"), call(fused, tensors, precision="highest"))


def test_precision_of_one_back_end_is_not_the_general_one() -> None:
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        tensors = inputs(64, 1, 64)
        assert torch.equal(call(fused, tensors), call(fused, tensors, precision="highest"))
    finally:
        matmul.fp32_precision = before


def test_a_kernel_may_be_named_and_says_why_not() -> None:
    x, depthwise, pointwise, *_ = inputs()

    def named(name: str, x: Tensor, precision: str = "highest") -> Tensor:
        rest = (None, None, [1, 1], [0, 0, 0, 0], [1, 1], precision, name)
        return torch.ops.sepwise.separable_conv2d(x, depthwise, pointwise, None, None, *rest)

    torch.testing.assert_close(named("f32_portable", x), stock(x, depthwise, pointwise))
    with pytest.raises(RuntimeError, match="kernel 'bf16_portable' computes bfloat16, asked for float32"):
        named("bf16_portable", x)
    with pytest.raises(RuntimeError, match=r"there is no kernel 'f33'; there are\n(.*\n)*    f32_portable"):
        named("f33", x)
    with pytest.raises(RuntimeError, match="precision='best' is unknown"):
        named("f32_portable", x, "best")
    if any(k.name == "medium_avx512_bf16" and k.why_not is None for k in native.kernels()):
        with pytest.raises(RuntimeError, match="'medium_avx512_bf16' is of precision 'medium', asked for 'highest'"):
            named("medium_avx512_bf16", x)


def test_what_was_checked_once_is_still_refused_when_it_differs() -> None:
    x, depthwise, pointwise, *_ = inputs()
    for _ in range(2):
        fused(x, depthwise, pointwise, stride=1, padding=(1, 1))
    for stride in (1.0, 0, (1, 1.0), "1"):
        with pytest.raises((ShapeError, TypeError)):
            fused(x, depthwise, pointwise, stride=stride)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="padding='\\(1, 1\\)'"):
        fused(x, depthwise, pointwise, padding="(1, 1)")
    with pytest.raises(ShapeError, match="x is torch\\.float32, pointwise is torch\\.float64"):
        fused(x, depthwise, pointwise.double())
    stride = [1, 1]
    assert fused(x, depthwise, pointwise, stride=stride).shape[2] == 5
    stride[0] = 2
    assert fused(x, depthwise, pointwise, stride=stride).shape[2:] == (3, 5)


def test_auto_leaves_training_to_stock_operations(taken: list[str]) -> None:
    tensors = inputs()
    call(separable_conv2d, tensors)
    tensors[1].requires_grad_()
    call(separable_conv2d, tensors)
    with torch.no_grad():
        call(separable_conv2d, tensors)
    assert taken == ["cpu", "reference", "cpu"]
