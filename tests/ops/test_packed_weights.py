"""Weights are packed once for as long as they stay what they are; every way to change them is noticed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from sepwise.ops import native, separable_conv2d

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))

SMALL, LARGE = 16, 96  # channels; weights of 1 KB, which are compared whole, and of 36 KB, which have versions
by_size = pytest.mark.parametrize("channels", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture(autouse=True)
def nothing_packed():
    native.forget_packed_weights()


def weights(channels: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(channels, 1, 3, 3), torch.randn(channels, channels, 1, 1), torch.randn(channels)


def picture(channels: int) -> Tensor:
    return torch.randn(1, channels, 5, 5)


def fused(x: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None = None) -> Tensor:
    return separable_conv2d(x, depthwise, pointwise, bias, impl="cpu")


def assert_current(x: Tensor, *parts: Tensor) -> None:
    """The kernels used the weights as they are now."""
    torch.testing.assert_close(fused(x, *parts), separable_conv2d(x, *parts, impl="reference"), rtol=1e-4, atol=1e-3)


def packings(call: Callable[[], object]) -> int:
    before = native.packed_weights().packed
    call()
    return native.packed_weights().packed - before


@by_size
def test_weights_are_packed_until_they_come_again_and_then_no_more(channels):
    x, parts = picture(channels), weights(channels)
    assert [packings(lambda: fused(x, *parts)) for _ in range(5)] == [1, 1, 0, 0, 0]
    now = native.packed_weights()
    assert now.kept == 1
    assert now.bytes >= 2 * sum(part.nbytes for part in parts)


def in_place(part: Tensor) -> None:
    part.add_(1)


def by_copy(part: Tensor) -> None:
    part.copy_(torch.randn_like(part))


def past_the_version(part: Tensor) -> None:
    version = part._version
    part.data.mul_(1.5)
    assert part._version == version


def new_data(part: Tensor) -> None:
    part.data = torch.randn_like(part)


def new_storage(part: Tensor) -> None:
    part.set_(torch.randn_like(part))  # type: ignore[call-overload]


@by_size
@pytest.mark.parametrize("change", [in_place, by_copy, past_the_version, new_data, new_storage])
@pytest.mark.parametrize("part", [0, 1, 2], ids=["depthwise", "pointwise", "bias"])
def test_a_change_is_noticed(channels, change, part):
    x, parts = picture(channels), weights(channels)
    for _ in range(3):
        before = fused(x, *parts)
    change(parts[part])
    assert not torch.allclose(before, separable_conv2d(x, *parts, impl="reference"), rtol=1e-3, atol=1e-2)
    for _ in range(4):  # seen anew, seen again, kept, reused
        assert_current(x, *parts)


def test_one_number_of_small_weights_is_noticed_however_it_changes():
    x, parts = picture(SMALL), weights(SMALL)
    for _ in range(3):
        fused(x, *parts)
    for part in parts:
        part.numpy().ravel()[-1] += 100  # no version tells
        assert packings(lambda: assert_current(x, *parts)) == 1


def test_one_number_of_large_weights_is_noticed_by_its_version():
    x, parts = picture(LARGE), weights(LARGE)
    for _ in range(3):
        fused(x, *parts)
    parts[1][17, 40] += 100
    assert packings(lambda: assert_current(x, *parts)) == 1


@by_size
def test_load_state_dict_is_noticed(channels):
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise, self.pointwise, self.bias = map(nn.Parameter, weights(channels))

    layer, other, x = Layer(), Layer(), picture(channels)
    with torch.no_grad():
        for _ in range(3):
            fused(x, *layer.parameters())
        layer.load_state_dict(other.state_dict())
        for _ in range(3):
            assert torch.equal(fused(x, *layer.parameters()), fused(x, *other.parameters()))


def test_an_address_that_is_used_again_means_nothing():
    """Weights die and others come at the same address: nothing was kept of those, or their memory cannot be taken."""
    x, depthwise, base = picture(LARGE), *weights(LARGE)[:2]
    seen = []
    for step in range(8):
        pointwise = base.clone()
        pointwise[step, 40] = 100  # one number: the samples of large weights may well be the same
        seen.append(pointwise.data_ptr())
        assert_current(x, depthwise, pointwise)
        del pointwise
    assert len(set(seen)) < len(seen)  # otherwise nothing was tested

    pointwise = base.clone()
    for _ in range(3):
        fused(x, depthwise, pointwise)
    kept = pointwise.data_ptr()
    del pointwise
    others = [base.clone() for _ in range(20)]
    assert kept not in [other.data_ptr() for other in others]


def test_training_keeps_nothing_and_stays_current():
    x, parts = picture(LARGE), weights(LARGE)
    for _ in range(6):
        parts[1].mul_(1.01)
        assert_current(x, *parts)
    assert native.packed_weights().kept == 0


def test_weights_computed_for_each_call_fill_no_memory():
    x, (depthwise, pointwise, _) = picture(LARGE), weights(LARGE)
    for _ in range(200):
        fused(x, depthwise, pointwise * 2)  # equal numbers, so that they are seen again at some address
    most = 64 * 2**20 / pointwise.nbytes
    assert native.packed_weights().kept < min(most, 100)
    assert_current(x, depthwise, pointwise * 2)


def test_what_was_never_used_again_is_limited():
    x, depthwise = picture(1024), torch.randn(1024, 1, 3, 3)
    several = [torch.randn(1024, 1024, 1, 1) for _ in range(12)]  # 8 MB each with the packed weights
    for pointwise in several:
        for _ in range(2):
            fused(x, depthwise, pointwise)
    assert 0 < native.packed_weights().bytes <= 64 * 2**20
    on_trial = native.packed_weights().kept
    for _ in range(3):  # used, they make room for others
        for pointwise in several:
            fused(x, depthwise, pointwise)
    assert on_trial < native.packed_weights().kept == len(several)


def test_what_is_used_often_takes_the_place_of_what_was_tried_and_left():
    x, depthwise = picture(1024), torch.randn(1024, 1, 3, 3)
    for _ in range(12):  # 8 MB each with the packed weights
        left = torch.randn(1024, 1024, 1, 1)
        for _ in range(2):
            fused(x, depthwise, left)
    often = torch.randn(1024, 1024, 1, 1)
    assert packings(lambda: [fused(x, depthwise, often) for _ in range(20)]) == 2


def test_a_network_beyond_the_limit_is_packed_within_a_few_rounds():
    x, depthwise = picture(1024), torch.randn(1024, 1, 3, 3)
    several = [torch.randn(1024, 1024, 1, 1) for _ in range(20)]
    for _ in range(6):
        for pointwise in several:
            fused(x, depthwise, pointwise)
    assert packings(lambda: [fused(x, depthwise, pointwise) for pointwise in several]) == 0


def test_every_layer_of_a_deep_network_is_packed_and_none_keeps_another_out():
    x, layers = picture(SMALL), [weights(SMALL) for _ in range(400)]
    for _ in range(2):
        for parts in layers:
            fused(x, *parts)
    assert packings(lambda: [fused(x, *parts) for parts in layers]) == 0


def test_what_is_not_used_is_let_go():
    x = picture(SMALL)
    old, new = weights(SMALL), weights(SMALL)
    for parts in (old, new):
        for _ in range(3):
            fused(x, *parts)
    time.sleep(2.1)
    fused(x, *new)
    native.forget_packed_weights(idle_seconds=2)
    assert native.packed_weights().kept == 1
    assert packings(lambda: fused(x, *new)) == 0
    assert packings(lambda: fused(x, *old)) == 1


def test_forgetting_frees_the_weights():
    x, parts = picture(LARGE), list(weights(LARGE))
    for _ in range(3):
        fused(x, *parts)
    memory = StorageWeakRef(parts[1].untyped_storage())
    parts.clear()
    assert not memory.expired()
    native.forget_packed_weights()
    assert memory.expired()


def test_weights_made_in_inference_mode_are_packed_for_each_call():
    with torch.inference_mode():
        x, parts = picture(LARGE), weights(LARGE)
        assert [packings(lambda: fused(x, *parts)) for _ in range(4)] == [0, 0, 0, 0]  # not counted: never looked up
        parts[1][17, 40] += 100
        assert_current(x, *parts)
        ordinary = [torch.randn(LARGE, 1, 3, 3), *parts[1:]]
    assert native.packed_weights().kept == 0
    assert_current(x, *ordinary)


def test_ordinary_weights_are_kept_in_inference_mode():
    x, parts = picture(LARGE), weights(LARGE)
    with torch.inference_mode():
        assert [packings(lambda: fused(x, *parts)) for _ in range(4)] == [1, 1, 0, 0]
        parts[1].add_(1)
        assert_current(x, *parts)


@by_size
def test_weights_in_any_order_of_memory(channels):
    x, (depthwise, pointwise, bias) = picture(channels), weights(channels)
    expected = fused(x, depthwise, pointwise, bias)
    turned = pointwise.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    sparse = torch.randn(channels, 2, 3, 6)[:, :1, :, ::2].copy_(depthwise)
    stepped = torch.zeros(2 * channels)[::2].copy_(bias)
    assert not turned.is_contiguous()
    for _ in range(3):
        assert torch.equal(fused(x, sparse, turned, stepped), expected)
    turned[3, 2] = 0
    assert_current(x, sparse, turned, stepped)


def test_the_same_memory_in_another_form_is_something_else():
    x, depthwise = picture(LARGE), weights(LARGE)[0]
    pointwise = torch.randn(LARGE, LARGE, 1, 1)
    for _ in range(3):
        assert_current(x, depthwise, pointwise)
        assert_current(x, depthwise, pointwise.transpose(0, 1))
        assert_current(x, depthwise, pointwise[: LARGE // 2])
        assert_current(x, torch.cat([depthwise] * 2)[:LARGE], pointwise)


def test_threads_share_what_is_packed():
    x = picture(LARGE)
    several = [weights(LARGE) for _ in range(4)]
    expected = [fused(x, *parts) for parts in several]
    changed = [torch.randn(LARGE) for _ in several]

    def work(turn: int) -> bool:
        right = True
        for step in range(60):
            which = (turn + step) % len(several)
            right &= torch.equal(fused(x, *several[which]), expected[which])
            if step % 20 == turn:
                native.forget_packed_weights()
            right &= bool(fused(x, *several[which][:2], changed[turn % 4]).isfinite().all())
        return right

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
