"""Rows of layers in a fused network: the same outputs as layer by layer, whatever becomes of the weights meanwhile."""

import copy
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from chains import Block, chain
from plain_networks import settle
from torch import Tensor, nn

from sepwise.fusion import fuse
from sepwise.fusion.programs import KEPT, Row
from sepwise.fusion.timed import is_faster
from sepwise.ops import native

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")


def network() -> nn.Module:
    """A stem, two inverted residuals and a classifier."""
    stem = [nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6()]
    return settle(nn.Sequential(*stem, Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7)))


def picture(batch: int = 1, size: int = 17, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def calls(run, *arguments) -> int:
    """How many calls of programs there are in one call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run(*arguments)
    return sum(event.count for event in profile.key_averages() if event.key == "sepwise::run_program")


def same(fused, x: Tensor) -> bool:
    """Whether the network answers as its layers do one at a time."""
    return torch.allclose(fused(x), fused.network(x.contiguous(memory_format=torch.channels_last)), 1e-6, 1e-6)


def test_a_mobile_network_is_one_call():
    model, x = network(), picture()
    fused = fuse(model, x)
    assert calls(fused, x) == 1
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("switch", ["tf32", "bf16"])
def test_a_switch_for_all_back_ends_leaves_float32_as_it_is(switch):
    """PyTorch then refuses to say what the older setting is, which stands for "highest"."""
    model, x = network(), picture()
    wanted = fuse(model, x)(x)
    try:
        torch.backends.fp32_precision = switch  # type: ignore[attr-defined]
        fused = fuse(model, x)
        assert calls(fused, x) == 1
        assert torch.equal(fused(x), wanted)
    finally:
        torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]


def test_what_follows_a_row_finds_channels_last():
    """One picture reshaped to the shape it has would no longer count as such, and be copied by a pool after the row."""
    model, x = nn.Sequential(*[*network().children()][:5]).eval(), picture()
    (row,) = fuse(model, x)._rows
    assert isinstance(row, Row)
    y = row(x.contiguous(memory_format=torch.channels_last))
    assert y.stride() == torch.empty_like(y, memory_format=torch.channels_last).stride()
    assert nn.MaxPool2d(2)(y).is_contiguous(memory_format=torch.channels_last)


class Stemmed(nn.Module):
    """A stem and a pair that may add what it reads."""

    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish())
        self.pair = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.pair(x) + x if self.adds else self.pair(x)


@pytest.mark.parametrize(("adds", "size", "steps"), [(False, 200, 1), (False, 50, 2), (True, 200, 2)])
def test_a_large_stem_joins_the_pair_that_alone_reads_it(adds, size, steps, programs_made):
    model, x = settle(Stemmed(adds)), picture(2, size)
    torch.testing.assert_close(fuse(model, x)(x), model(x), rtol=1e-5, atol=1e-5)
    assert len(programs_made[-1]) == steps


def test_other_sizes_and_batches():
    model = network()
    fused = fuse(model, picture())
    for n in range(2 * KEPT + 1):
        x = picture(1 + n % 3, 12 + n, n)
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)
        assert calls(fused, x) == 1
    (rows,) = fused._rows
    assert rows is not None
    assert all(len(row._programs) <= KEPT for row in rows.modules() if isinstance(row, Row))


def test_what_stands_between_layers_divides_them():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Upsample(scale_factor=2), Block(), Block()))
    x = picture()
    fused = fuse(model, x)
    assert calls(fused, x) == 2
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)


class Pooled(nn.Module):
    """A stem, a pool as a module or as a function, and a pair that reads what is added to later on activated."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.stem, self.pool = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()), pool
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = x + self.first(torch.relu(x))
        return self.second(torch.relu(x)) + x


POOLS = {
    "module": nn.MaxPool2d(3, 2, 1),
    "ceil": nn.MaxPool2d(2, ceil_mode=True),
    "ceil, padded": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "dilation": nn.MaxPool2d((3, 2), (1, 2), (1, 0), (2, 1)),
    "function": lambda x: F.max_pool2d(x, 2),
    "settings by name": lambda x: F.max_pool2d(x, kernel_size=(3, 2), stride=2, padding=1, ceil_mode=True),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("size", [17, 40, 210])
def test_pools_and_lone_activations_are_in_the_row(pool, size, no_clock):
    model, x = settle(Pooled(POOLS[pool])), picture(2, size)
    fused = fuse(model, x)
    assert calls(fused, x) == 1
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)
    assert same(fused, picture(1, size + 3))


def test_places_of_the_largest_are_left_to_pytorch():
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.pool, self.last = Block(), nn.MaxPool2d(2, return_indices=True), Block()

        def forward(self, x: Tensor) -> Tensor:
            y, places = self.pool(self.block(x))
            return self.last(y) + places

    model, x = settle(Places()), torch.randn(1, 4, 9, 9)
    torch.testing.assert_close(fuse(model, x)(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["read after the norm", "squeezed and excited", "depthwise called twice"])
def test_values_that_others_read(how):
    model, x = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), Block(how), Block())), picture()
    torch.testing.assert_close(fuse(model, x)(x), model(x), rtol=1e-5, atol=1e-6)


class Excited(nn.Module):
    """An inverted residual, squeezed and excited: by convolutions of the mean, or by linear layers."""

    def __init__(self, linear: bool = False, gate: type[nn.Module] = nn.Sigmoid, stride: int = 1) -> None:
        super().__init__()
        self.expand, self.norm, self.act = nn.Conv2d(4, 24, 1, bias=False), nn.BatchNorm2d(24), nn.Hardswish()
        self.depthwise = nn.Conv2d(24, 24, 5, stride, 2, groups=24)
        sizes = ((24, 6), (6, 24))
        self.squeeze, self.excite = (nn.Linear(a, b) if linear else nn.Conv2d(a, b, 1) for a, b in sizes)
        self.gate, self.linear, self.project, self.adds = gate(), linear, nn.Conv2d(24, 4, 1), stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.depthwise(self.act(self.norm(self.expand(x)))))
        squeezed = y.mean((2, 3)) if self.linear else y.mean((2, 3), keepdim=True)
        factors = self.gate(self.excite(torch.relu(self.squeeze(squeezed))))
        y = self.project(y * (factors[:, :, None, None] if self.linear else factors))
        return x + y if self.adds else y


@pytest.mark.parametrize("gate", [nn.Sigmoid, nn.Hardsigmoid])
@pytest.mark.parametrize("batch", [1, 3])
def test_squeezed_and_excited_blocks_are_in_one_row(gate, batch, no_clock):
    stem = [nn.Conv2d(3, 4, 3, 2, 1), nn.Hardswish()]
    model = settle(nn.Sequential(*stem, Excited(gate=gate), Excited(gate=gate, stride=2), nn.Conv2d(4, 9, 1)))
    x = picture(batch)
    fused = fuse(model, x)
    assert calls(fused, x) == 1
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)
    assert same(fused, picture(2, 21))


def test_factors_of_linear_layers_are_taken_from_outside():
    model, x = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Excited(linear=True), nn.Conv2d(4, 9, 1))), picture(2)
    torch.testing.assert_close(fuse(model, x)(x), model(x), rtol=1e-5, atol=1e-6)


class Steep(nn.Module):
    """Products that are no gates, activations that cannot be a layer's, a depthwise layer read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4)
        self.c, self.d = nn.Conv2d(4, 4, 3, 1, 1, groups=4, padding_mode="reflect"), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.a(x)
        y = torch.sigmoid(torch.relu(self.b(wide)))
        y = self.d(y * wide) + self.d(wide) * wide.mean(1, keepdim=True)
        return self.c(y) * torch.sigmoid(wide) * y.mean((2, 3), keepdim=True)


def test_what_is_like_a_gate_and_is_none():
    model, x = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Steep(), Steep(), nn.Conv2d(4, 9, 1))), picture(2, 9)
    torch.testing.assert_close(fuse(model, x)(x), model(x), rtol=1e-5, atol=1e-6)


class Later(nn.Module):
    """Two blocks, and then a shortcut from a value that is made elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second, self.mix = nn.Conv2d(3, 4, 1), Block(), Block(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.second(self.first(self.stem(x)))) + x.mean(1, keepdim=True).expand(-1, 4, -1, -1)


def test_a_value_from_elsewhere_is_read_in_the_middle_of_a_row():
    model, x = settle(Later()), picture()
    fused = fuse(model, x)
    assert calls(fused, x) == 1
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)


def test_pixels_are_not_flattened_in_the_wrong_order():
    model, x = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Flatten(), nn.Linear(4 * 5 * 5, 3))), picture(2, 5)
    torch.testing.assert_close(fuse(model, x)(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_flatten_of_single_pixels_meets_larger_pictures():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Block(), nn.Flatten()))
    fused = fuse(model, picture(2, 1))
    for x in (picture(2, 1), picture(2, 9)):
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)


def changed_in_place(fused) -> None:
    with torch.no_grad():
        fused.network.get_submodule("7").weight.mul_(2)


def changed_unseen(fused) -> None:
    fused.network.get_submodule("7").weight.data.mul_(2)


def replaced(fused) -> None:
    layer = fused.network.get_submodule("7")
    layer.weight = nn.Parameter(2 * layer.weight.detach(), requires_grad=False)


def loaded(fused) -> None:
    fused.load_state_dict({name: 1.5 * value for name, value in fused.state_dict().items()})


def assigned(fused) -> None:
    fused.load_state_dict({name: 1.5 * value for name, value in fused.state_dict().items()}, assign=True)


@pytest.mark.parametrize("change", [changed_in_place, changed_unseen, replaced, loaded, assigned])
def test_changed_weights_are_followed(change):
    fused, x = fuse(network(), picture()), picture()
    before = fused(x).clone()
    change(fused)
    assert same(fused, x)
    assert not torch.allclose(fused(x), before, rtol=1e-2)
    assert calls(fused, x) == 1


def test_dtype_hooks_and_gradients():
    fused, x = fuse(network(), picture()), picture()
    fused(x)
    low = copy.deepcopy(fused).bfloat16()
    assert same(low, x.bfloat16())
    assert calls(low, x.bfloat16()) == 1
    assert same(fused.double(), x.double())
    assert calls(fused, x.double()) == 0
    fused.float()
    seen: list[Any] = []
    hook = fused.network.get_submodule("7").register_forward_hook(lambda module, inputs, y: seen.append(y))
    assert calls(fused, x) == 0
    assert len(seen) == 1
    hook.remove()
    assert calls(fused, x) == 1
    leaf = x.clone().requires_grad_()
    fused(leaf).sum().backward()
    assert leaf.grad is not None
    with torch.no_grad():
        assert calls(fused, leaf) == 1
    fused.network.get_submodule("7").weight.requires_grad_()
    fused(x).sum().backward()
    assert fused.network.get_submodule("7").weight.grad is not None


def test_copies_have_programs_of_their_own():
    fused, x = fuse(network(), picture()), picture()
    fused(x)
    twin = copy.deepcopy(fused)
    changed_in_place(twin)
    assert same(twin, x)
    assert same(fused, x)
    assert not torch.allclose(twin(x), fused(x), rtol=1e-2)
    assert not any("row" in name for name in fused.state_dict())


def test_many_threads_at_once():
    model = network()
    fused = fuse(model, picture())
    pictures = [picture(1 + n % 2, 12 + n % 3, n) for n in range(40)]
    wanted = [model(x) for x in pictures]
    with ThreadPoolExecutor(4) as pool:
        for y, truth in zip(pool.map(fused, pictures), wanted, strict=True):
            torch.testing.assert_close(y, truth, rtol=1e-5, atol=1e-6)


def test_a_separable_layer_stands_in_a_row_with_others():
    model, x = settle(chain()), picture()
    fused = fuse(model, x)
    assert calls(fused, x) == 1
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)


def test_in_inference_mode_from_the_start():
    with torch.inference_mode():
        model, x = network(), picture()
        fused = fuse(model, x)
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)
        assert calls(fused, x) == 1


@pytest.mark.parametrize("faster", [True, False])
def test_a_convolution_that_is_slower_alone_is_tried_in_a_row(monkeypatch, faster: bool):
    monkeypatch.setattr("sepwise.fusion.timed._ratio", lambda layer, inputs: 1.5)
    monkeypatch.setattr(sys.modules[fuse.__module__], "is_faster", lambda network, than, x: faster)
    model, x = network(), picture()
    fused = fuse(model, x)
    assert fused.report.slower == ({} if faster else {"0": 1.5})
    assert ("0" in fused.report.alone) is faster
    assert bool(fused.network.get_submodule("0").stock) is not faster
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("slow", ["this", "that"])
def test_the_clock_tells_which_network_is_slower(slow: str):
    class Waits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.005)
            return x

    one, other = Waits(), nn.Identity()
    assert is_faster(*((one, other) if slow == "that" else (other, one)), picture()) is (slow == "this")


class Cast(nn.Linear):
    """A linear layer of a class of its own, as timm has one."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class Doubled(nn.Linear):
    """One that does something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("kind", [Cast, Doubled])
def test_linear_layers_of_other_classes_are_known_by_what_they_do(kind):
    model, x = nn.Sequential(network()[:-1], kind(4, 7)).eval(), picture()  # type: ignore[index]
    fused = fuse(model, x)
    (rows,) = fused._rows
    assert rows is not None
    within = [row.graph for row in rows.modules() if isinstance(row, Row)]
    assert len(within) == 1
    inside = [within[0].get_submodule(str(node.target)) for node in within[0].graph.nodes if node.op == "call_module"]
    assert any(isinstance(module, kind) for module in inside) == (kind is Cast)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)
