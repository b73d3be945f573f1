"""Changes of weights are noticed, however they come about, and one number tells of those in place."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from plain_networks import settle
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import increment_version

from sepwise.fusion import fuse
from sepwise.fusion.changes import Changes, Parameters, count_together
from sepwise.fusion.programs import Row, Rowed, rows_of
from sepwise.ops import native
from sepwise.saving import load_fused, save_fused

needs_kernels = pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")


def network() -> nn.Module:
    layers = [
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16),
        nn.Conv2d(16, 40, 1),
        nn.ReLU(),
    ]
    pooled = [nn.Conv2d(40, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 50)]
    return settle(nn.Sequential(*layers, *pooled))


PICTURE = torch.randn(1, 3, 17, 17, generator=torch.Generator().manual_seed(0))


def told_by_one(fused: Rowed) -> bool:
    fused(PICTURE)
    return all(row.changes.last.told_by is not None for row in rows_of(*fused._rows))


def same(fused: Rowed, x: Tensor = PICTURE) -> bool:
    return torch.allclose(fused(x), fused.network(x.contiguous(memory_format=torch.channels_last)), 1e-6, 1e-6)


def weight_of(fused: Rowed) -> tuple[nn.Module, Tensor]:
    """A layer with a weight of 40 x 16 numbers, so that most are neither in its first nor in its last 64 bytes."""
    (found,) = {
        (m, w) for m in fused.network.modules() for w in m._parameters.values() if w is not None and w.numel() == 640
    }
    return found


def in_place(fused: Rowed) -> None:
    with torch.no_grad():
        weight_of(fused)[1][20, 5] += 3


def of_a_view(fused: Rowed) -> None:
    weight_of(fused)[1].detach()[20, 5] += 3


def other_memory(fused: Rowed) -> None:
    weight = weight_of(fused)[1]
    value = weight.detach().clone()
    value[20, 5] += 3
    weight.data = value


def other_memory_of_a_linear_layer(fused: Rowed) -> None:
    (layer,) = (m for m in fused.network.modules() if isinstance(m, nn.Linear))
    value = layer.weight.detach().clone()
    value[20, 5] += 3
    layer.weight.data = value


def replaced(fused: Rowed) -> None:
    layer, weight = weight_of(fused)
    value = weight.detach().clone()
    value[20, 5] += 3
    (name,) = (name for name, held in layer._parameters.items() if held is weight)
    setattr(layer, name, nn.Parameter(value, requires_grad=False))


def loaded(fused: Rowed, assign: bool = False) -> None:
    state = copy.deepcopy(fused.state_dict())
    (name,) = (name for name, value in state.items() if value.numel() == 640)
    state[name][20, 5] += 3
    fused.load_state_dict(state, assign=assign)


def assigned(fused: Rowed) -> None:
    loaded(fused, assign=True)


@contextmanager
def conversion(setting: str) -> Iterator[None]:
    """Parameters are swapped, or overwritten, where PyTorch would give them other memory."""
    before = getattr(torch.__future__, f"get_{setting}_module_params_on_conversion")()
    change = getattr(torch.__future__, f"set_{setting}_module_params_on_conversion")
    try:
        change(True)
        yield
    finally:
        change(before)


def loaded_and_swapped(fused: Rowed) -> None:
    with conversion("swap"):
        loaded(fused)


def fresh(fused: Rowed) -> Rowed:
    return fused


def copied_flat(fused: Rowed) -> Rowed:
    """A copy that shares all modules; changes of either are changes of both."""
    copy.copy(fused)
    return fused


def there_and_back(fused: Rowed) -> Rowed:
    return fused.double().float()


def swapped(fused: Rowed) -> Rowed:
    with conversion("swap"):
        return there_and_back(fused)


def overwritten(fused: Rowed) -> Rowed:
    with conversion("overwrite"):
        return there_and_back(fused)


@needs_kernels
@pytest.mark.parametrize(
    "change",
    [in_place, of_a_view, other_memory, other_memory_of_a_linear_layer, replaced, loaded, assigned, loaded_and_swapped],
)
@pytest.mark.parametrize("way", [fresh, copy.deepcopy, copied_flat, there_and_back, swapped, overwritten])
@pytest.mark.parametrize("gradients", [False, True])
def test_one_number_in_the_middle_of_a_weight(change, way: Callable[[Rowed], Rowed], gradients):
    """Without gradients the short way is there to be taken."""
    fused = fuse(network(), PICTURE)
    with torch.set_grad_enabled(gradients):
        before = fused(PICTURE).clone()
        fused = way(fused)
        assert torch.allclose(fused(PICTURE), before, 1e-6, 1e-6)
        for _ in range(2):
            before = fused(PICTURE).clone()
            change(fused)
            assert same(fused)
            assert not torch.allclose(fused(PICTURE), before, rtol=1e-3)


@needs_kernels
def test_the_short_way_is_taken_and_left(monkeypatch):
    fused = fuse(network(), PICTURE)
    long: list[int] = []
    forward = Row._forward
    monkeypatch.setattr(Row, "_forward", lambda row, given: long.append(1) or forward(row, given))

    def ways(run: Callable[[], object]) -> int:
        long.clear()
        run()
        return len(long)

    def hooked() -> None:
        handle = weight_of(fused)[0].register_forward_hook(lambda *_: None)
        assert ways(lambda: fused(PICTURE)) == ways(lambda: fused(PICTURE)) == 1
        handle.remove()

    with torch.no_grad():
        fused(PICTURE)
        calls = {
            "as before": lambda: fused(PICTURE),
            "autocast": lambda: torch.autocast("cpu")(fused)(PICTURE),
            "a transform": lambda: torch.func.functionalize(fused)(PICTURE),
            "other size": lambda: fused(PICTURE[..., 1:]),
            "gradients": lambda: torch.enable_grad()(fused)(PICTURE),
        }
        assert {name: ways(call) for name, call in calls.items()} == {**dict.fromkeys(calls, 1), "as before": 0}
        with forward_ad.dual_level():
            assert ways(lambda: fused(PICTURE)) == 1
        for name, call in calls.items():
            assert name in ("autocast", "a transform", "gradients") or ways(call) == 0
        hooked()
        assert ways(lambda: fused(PICTURE)) == 1
        assert ways(lambda: fused(PICTURE)) == 0


@needs_kernels
@pytest.mark.parametrize("way", [fresh, copy.deepcopy, there_and_back])
def test_one_number_tells_of_all_weights(way):
    fused = way(fuse(network(), PICTURE))
    assert told_by_one(fused)
    in_place(fused)
    assert told_by_one(fused)


@needs_kernels
def test_one_number_tells_of_a_loaded_network(tmp_path):
    save_fused(fuse(network(), PICTURE), PICTURE, tmp_path / "fused.pt2")
    found = load_fused(tmp_path / "fused.pt2")
    (rowed,) = (module for module in found.modules() if isinstance(module, Rowed))
    assert told_by_one(rowed)


@needs_kernels
@pytest.mark.parametrize("way", [swapped, overwritten, assigned])
def test_weights_that_are_no_longer_counted_together_are_looked_at_one_by_one(way):
    fused = fuse(network(), PICTURE)
    way(fused)
    fused(PICTURE)
    assert all(row.changes.last.told_by is None for row in rows_of(*fused._rows))


@needs_kernels
def test_weights_for_one_call():
    fused = fuse(network(), PICTURE)
    before = fused(PICTURE).clone()
    others = {name: value * 1.5 for name, value in fused.state_dict().items()}
    found = torch.func.functional_call(fused, others, (PICTURE,))
    assert not torch.allclose(found, before, rtol=1e-2)
    assert torch.equal(fused(PICTURE), before)


@needs_kernels
def test_of_networks_made_in_inference_mode_every_change_that_can_be_seen_is():
    with torch.inference_mode():
        fused = fuse(network(), PICTURE)
        before = fused(PICTURE).clone()
        weight_of(fused)[1].mul_(2)
        assert same(fused)
        assert not torch.allclose(fused(PICTURE), before, rtol=1e-2)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "set": lambda d: d.__setitem__("a", 2),
    "new": lambda d: d.__setitem__("b", 2),
    "deleted": lambda d: d.__delitem__("a"),
    "joined": lambda d: d.__ior__({"b": 1}),
    "cleared": lambda d: d.clear(),
    "taken": lambda d: d.pop("a"),
    "last taken": lambda d: d.popitem(),
    "default": lambda d: d.setdefault("b", 3),
    "updated": lambda d: d.update(b=3),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_a_dictionary_is_noted(change):
    plain, noted = {"a": 1}, Parameters({"a": 1})
    before = Parameters.last_change
    assert noted == plain
    assert "a" in noted
    assert [*noted.items()] == [*plain.items()]
    assert Parameters.last_change is before
    change(plain)
    change(noted)
    assert noted == plain
    assert Parameters.last_change is not before


def test_changes_of_others_are_none_of_these():
    layer, other = nn.Conv2d(2, 3, 1).requires_grad_(False), nn.Linear(2, 2)
    changes, theirs = Changes([layer], count_together(layer)), Changes([other])
    mark = changes.mark()
    assert changes.last.told_by is not None
    before = theirs.mark()
    assert theirs.last.told_by is None
    other.weight = nn.Parameter(torch.zeros(2, 2))
    assert theirs.mark() is not before
    assert changes.mark() is mark
    layer.requires_grad_(True)
    assert changes.mark() is not mark
    with torch.no_grad():
        mark = changes.mark()
        assert layer.bias is not None
        layer.bias[1] = 7
        assert changes.mark() is not mark


def test_equal_counts_are_not_taken_for_a_shared_one():
    layer = nn.Conv2d(2, 3, 1).requires_grad_(False)
    changes = Changes([layer], torch.empty(0))
    changes.mark()
    assert changes.last.told_by is None


def test_counted_together_they_are_what_they_were():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    first.weight = second.weight
    network = nn.Sequential(first, second, nn.BatchNorm1d(3), nn.Linear(3, 3, device="meta")).requires_grad_(False)
    first.bias.mark = "kept"  # type: ignore[union-attr]
    second.bias.requires_grad_(True)
    parameters, state = [*network.parameters()], {}
    for name, value in network[:3].state_dict().items():
        state[name] = (value.data_ptr(), value.clone())
    one = count_together(network)
    assert one is not None
    assert all(old is new for old, new in zip(parameters, network.parameters(), strict=True))
    for name, value in network[:3].state_dict().items():
        assert value.data_ptr() == state[name][0]
        assert torch.equal(value, state[name][1])
    assert first.weight is second.weight
    assert first.bias.mark == "kept"  # type: ignore[union-attr]
    before = [w._version for w in network.parameters()]
    increment_version(one)
    counted = [w._version - n for w, n in zip(network.parameters(), before, strict=True)]
    assert counted == [1, 1, 0, 1, 1, 0, 0]
    network[:3](torch.randn(4, 3)).square().sum().backward()
    assert second.bias.grad is not None
