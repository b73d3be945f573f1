"""Plans carried out: exact at full rank on every geometry, close to the dense network below it, replayed bit by bit."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_networks import Joined, Residual, settle
from torch import Tensor, nn

from sepwise.conversion import Choice, Plan, at_budgets, convert, plan, rebuild, survey, totals_of
from sepwise.conversion.walk import outputs_of
from sepwise.factor import FORMS
from sepwise.graph.network import trace
from sepwise.nn import FactoredConv
from sepwise.nn.dense import shape_of_dense
from sepwise.sources.batches import batches
from sepwise.sources.models import load_model

STOCK_REMARK = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def around(conv: nn.Module, axes: int = 2) -> nn.Sequential:
    """A convolution between two others, with normalization and activations."""
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes]
    point = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    middle, out = conv.in_channels, conv.out_channels
    return nn.Sequential(point(3, middle, 1), nn.Tanh(), conv, norm(out), nn.Tanh(), point(out, 2, 3, padding=1))


NETWORKS = {
    "plain": lambda: around(nn.Conv2d(4, 6, 3, padding=1)),
    "no bias": lambda: around(nn.Conv2d(4, 6, 3, bias=False)),
    "grouped": lambda: around(nn.Conv2d(4, 6, 3, padding=1, groups=2)),
    "depthwise": lambda: around(nn.Conv2d(4, 8, 5, padding=2, groups=4)),
    "strided": lambda: around(nn.Conv2d(4, 6, 3, stride=(2, 3), padding=1)),
    "dilated": lambda: around(nn.Conv2d(4, 6, (3, 2), padding=(2, 1), dilation=(2, 1))),
    "strided and dilated": lambda: around(nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2)),
    "same": lambda: around(nn.Conv2d(4, 6, 5, padding="same")),
    "even kernel, same: uneven padding": lambda: around(nn.Conv2d(4, 6, (4, 2), padding="same")),
    "valid": lambda: around(nn.Conv2d(4, 6, (5, 3), padding="valid")),
    "circular": lambda: around(nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular")),
    "reflect": lambda: around(nn.Conv2d(4, 6, (3, 5), padding=(1, 2), padding_mode="reflect")),
    "replicate, strided": lambda: around(nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="replicate")),
    "one axis": lambda: around(nn.Conv1d(4, 6, 5, stride=2, padding=2), 1),
    "three axes": lambda: around(nn.Conv3d(4, 6, (3, 2, 3), padding=1, groups=2), 3),
    "residual": lambda: Residual(),
    "joined": lambda: Joined(),
}


def at_rank(model: nn.Module, form: str, share: float = 1.0, batch_norm="fold") -> Plan:
    """Every layer that can take the form, at a share of the full rank."""
    network, layers = trace(model), {}
    for site in network.sites:
        conv = shape_of_dense(network.conv(site))
        if FORMS[form].why_not(conv) is None:
            full = FORMS[form].full_rank(conv)
            rank = tuple(max(1, int(f * share)) for f in full) if isinstance(full, tuple) else max(1, int(full * share))
            layers[site.name] = Choice(form, rank, "by rank", 1, 1, 1, 1)
    return Plan(layers, batch_norm)


def pictures(model: nn.Module, n: int = 6, size: int = 9) -> Tensor:
    axes = max(p.dim() for p in model.parameters()) - 2
    return torch.randn(n, 3, *[size if axes < 3 else 6] * axes, dtype=torch.float64)


@torch.no_grad()
def assert_same_answer(found: nn.Module, wanted: nn.Module, x: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(outputs_of(found(x)), outputs_of(wanted(x)), rtol=tolerance, atol=tolerance)


@torch.no_grad()
def missed(found: nn.Module, wanted: nn.Module, x: Tensor) -> float:
    a, b = found(x), wanted(x)
    return float((a - b).square().sum() / (b - b.mean(0)).square().sum())


@STOCK_REMARK
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_full_rank_reproduces_the_network(make, form):
    model = settle(make()).double()
    x, chosen = pictures(model), at_rank(model, form)
    if not chosen.layers:
        pytest.skip(f"{form} exists for none of its layers")
    converted = convert(model, chosen)
    assert {n for n, m in converted.named_modules() if isinstance(m, FactoredConv)} == set(chosen.layers)
    assert_same_answer(converted, model, x, 1e-10)
    assert_same_answer(convert(model, at_rank(model, form, batch_norm="keep")), model, x, 1e-10)
    assert_same_answer(convert(model, chosen, [x[:4], x[4:]]), model, x, 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_tolerance_sees_planted_faults(form):
    model = settle(NETWORKS["plain"]()).double()
    x, chosen = pictures(model), at_rank(model, form)
    for tolerance, data in ((1e-10, None), (1e-5, [x])):
        for fault in (lambda layer: layer.bias[1].add_(1e-4), lambda layer: layer.weights[-1][-1].zero_()):
            converted = convert(model, chosen, data)
            assert_same_answer(converted, model, x, tolerance)
            with torch.no_grad():
                fault(converted[2])
            with pytest.raises(AssertionError):
                assert_same_answer(converted, model, x, tolerance)


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_axis = st.integers(1, 3)
    mode = draw(st.sampled_from(["zeros", "zeros", "circular", "reflect", "replicate"]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride = (draw(per_axis), draw(per_axis))
    same = max(stride) == 1 and draw(st.booleans())
    return nn.Conv2d(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        kernel,
        stride=stride,
        padding="same" if same else (draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        dilation=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )


@STOCK_REMARK
@settings(max_examples=25, deadline=None)
@given(convolutions(), st.sampled_from(sorted(FORMS)))
def test_full_rank_reproduces_any_geometry(conv, form):
    torch.manual_seed(0)  # for every example alike
    model = settle(nn.Sequential(nn.Conv2d(3, conv.in_channels, 1), conv, nn.BatchNorm2d(conv.out_channels))).double()
    chosen = at_rank(model, form)
    x = pictures(model, size=11)
    assert_same_answer(convert(model, chosen), model, x, 1e-10)
    assert_same_answer(convert(model, chosen, [x]), model, x, 1e-5)


def correlated(n: int, size: int = 12, seed: int = 0) -> Tensor:
    """Pictures whose neighbours and channels agree, as in photographs."""
    fixed = torch.Generator().manual_seed(seed)
    fine = torch.randn(n, 3, size + 8, size + 8, generator=fixed, dtype=torch.float64)
    smooth = F.avg_pool2d(fine, 9, stride=1) * 9
    mix = torch.tensor([[1, 0.1, 0], [0.9, 0.2, 0.1], [0.8, 0, 0.3]], dtype=torch.float64)
    return torch.einsum("ij,njhw->nihw", mix, smooth)


def deep() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 12, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(12, 4, 3)).double().eval()


@pytest.mark.parametrize("form", ["depthwise", "blueprint", "spatial", "cp", "tucker"])
def test_pictures_make_the_fit_better(form):
    model, seen, unseen = deep(), correlated(48), correlated(24, seed=1)
    chosen = at_rank(model, form, {"depthwise": 0.12, "blueprint": 0.12, "tucker": 0.5}.get(form, 0.25))
    blind, fitted = convert(model, chosen), convert(model, chosen, [seen[:32], seen[32:]])
    assert missed(fitted, model, unseen) < 0.4 * missed(blind, model, unseen)


def test_layers_are_fitted_to_what_the_converted_layers_before_give_them():
    model, seen, unseen = deep(), correlated(48), correlated(24, seed=1)
    chosen = at_rank(model, "depthwise", 0.12)
    together = convert(model, chosen, [seen], iterations=0)
    apart = convert(model, Plan({}), [seen])
    for name, choice in chosen.layers.items():  # each fitted as if all others were dense
        alone = convert(model, Plan({name: choice}), [seen], iterations=0)
        apart.set_submodule(name, alone.get_submodule(name))
    assert missed(together, model, unseen) < 0.9 * missed(apart, model, unseen)
    searched = convert(model, chosen, [seen])
    assert missed(searched, model, unseen) < missed(together, model, unseen)


@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
@pytest.mark.parametrize("make", [Residual, Joined])
def test_rebuilding_gives_identical_answers(make, batch_norm):
    model = settle(make())
    x = pictures(model).float()
    chosen = plan(model, x, budget={"macs": 0.5}, batch_norm=batch_norm, forms=("cp", "depthwise"))
    converted = convert(model, chosen, [x])
    again = rebuild(make(), chosen, converted.state_dict())
    assert not again.training
    assert_same_answer(again, converted, x, 0)
    moved = dict(converted.state_dict())
    moved.popitem()
    with pytest.raises(ValueError, match="the weights do not fit"):
        rebuild(make(), chosen, moved)


def test_the_same_call_gives_the_same_weights():
    model, x = settle(Residual()), pictures(Residual()).float()
    first, second = (convert(model, at_rank(model, "cp", 0.3), [x]).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_dtype_of_the_network_is_kept(dtype):
    model = settle(Residual()).to(dtype)
    x = pictures(model).to(dtype)
    converted = convert(model, at_rank(model, "spatial"), [x])
    assert {p.dtype for p in converted.parameters()} == {dtype}
    tolerance = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    assert_same_answer(converted, model, x, tolerance)


def test_progress_counts_the_layers():
    model, x = settle(Residual()), pictures(Residual()).float()
    seen = []
    convert(model, at_rank(model, "cp", 0.5), [x], progress=lambda *at: seen.append(at))
    assert seen == [("metric", 0, 1), ("metric", 1, 1), ("fit", 0, 2), ("fit", 1, 2), ("fit", 2, 2)]


@pytest.mark.slow
def test_resnet20_at_two_fifths_of_its_multiplications(shared):
    loaded = load_model("zoo:resnet20", shared / "weights" / "resnet20-cifar10.safetensors")
    size, mean, std = loaded.size, loaded.mean, loaded.std
    prepared = torch.cat(list(batches(shared / "data" / "cifar10" / "test.parquet", 328, size, mean, std, 64)))
    seen, unseen = list(prepared[:128].split(32)), prepared[128:]
    surveyed = survey(loaded.model, seen, forms=("cp", "depthwise"))
    chosen, _, blind = next(at_budgets(surveyed, totals_of(surveyed, unseen), (0.4,)))
    assert chosen.macs[1] <= 0.4 * chosen.macs[0]
    converted = convert(loaded.model, chosen, seen)
    with torch.no_grad():
        wanted = loaded.model(unseen).argmax(1)
        agreed = float((converted(unseen).argmax(1) == wanted).float().mean())
        agreed_blind = float((blind(unseen).argmax(1) == wanted).float().mean())
    assert agreed >= 0.85
    assert 1 - agreed < 0.5 * (1 - agreed_blind)
