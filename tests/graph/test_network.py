"""Models followed as graphs: what is found, what is left out and why, and that the user's model stays as it was."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from plain_networks import IN_PLACE, Branching, InPlace, Joined, Optional, Residual, Twice, settle
from torch import Tensor, fx, nn
from torch.nn.utils.parametrizations import weight_norm

from sepwise.conversion import Choice, Plan, convert, plan, rebuild
from sepwise.errors import ModelError
from sepwise.factor import FORMS
from sepwise.graph import export, save_program
from sepwise.graph.network import trace
from sepwise.nn import FactoredConv, SeparableConv2d, SpatialConv2d
from sepwise.nn.dense import shape_of_dense
from sepwise.sources.models import load_model


def full_rank_plan(model: nn.Module, form: str = "tucker", example: Tensor | None = None, **options) -> Plan:
    """Every layer that can take the form, at full rank: the converted network must answer as before."""
    network = trace(model, example)
    layers = {}
    for site in network.sites:
        conv = shape_of_dense(network.conv(site))
        if not FORMS[form].why_not(conv):
            layers[site.name] = Choice(form, FORMS[form].full_rank(conv), "full rank", 1, 1, 1, 1)
    assert layers
    return Plan(layers, **options)


def pictures(n: int = 4, size: int = 8) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@torch.no_grad()
def assert_same_answer(found: nn.Module, wanted: nn.Module, x: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found(x.clone()), wanted(x.clone()), rtol=tolerance, atol=tolerance)


def assert_converted(model: nn.Module, names: set[str]) -> None:
    assert {name for name, m in model.named_modules() if isinstance(m, FactoredConv)} == names


def test_symbolic_trace_finds_sites_in_the_order_they_run():
    network = trace(settle(Residual()))
    assert [site.name for site in network.sites] == ["stem", "body"]
    assert network.left_out == {}
    assert network.conv(network.sites[0]) is network.model.stem
    assert network.site("body") is network.sites[1]
    assert network.site("scores") is None


def test_replacing_shows_in_the_copy_and_in_its_graph_but_not_in_the_users_model():
    model = settle(Residual())
    network = trace(model)
    layer = SpatialConv2d.from_conv(network.model.stem, 2)
    network.replace("stem", layer)
    assert network.model.stem is layer
    assert network.graph.get_submodule("stem") is layer
    assert isinstance(model.stem, nn.Conv2d)


@pytest.mark.parametrize("data", [False, True], ids=["data-free", "fitted"])
@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
def test_a_model_that_only_export_can_follow_is_converted_with_its_normalization(batch_norm, data):
    model, x = settle(Branching()).double(), pictures()
    with pytest.raises(Exception, match=r"symbolically traced|control flow"):
        fx.symbolic_trace(model)
    with pytest.raises(ModelError, match="give an example input"):
        trace(model)
    chosen = full_rank_plan(model, example=x, batch_norm=batch_norm)
    assert list(chosen.layers) == ["first", "second", "third"]
    converted = convert(model, chosen, [x] if data else None, example=x)
    assert_converted(converted, {"first", "second", "third"})
    assert isinstance(converted.norm, nn.Identity if batch_norm == "fold" else nn.BatchNorm2d)
    assert_same_answer(converted, model, x, 1e-5 if data else 1e-10)
    again = rebuild(model, chosen, converted.state_dict(), example=x)
    assert_same_answer(again, converted, x, 0)


def test_the_export_fallback_serves_batches_of_any_size_and_an_example_of_one():
    model, x = settle(Branching()).double(), pictures(7)
    chosen = plan(model, x[:1], budget={"macs": 0.7}, batches=[x[:4], x[4:6], x[6:]], forms=("tucker",))
    assert chosen.macs[1] <= 0.7 * chosen.macs[0]
    converted = convert(model, chosen, [x[:1], x[1:]])
    assert converted(x).shape == model(x).shape


def test_a_program_is_exported_saved_loaded_followed_and_converted(tmp_path):
    model, x = settle(Residual()), pictures().float()
    save_program(export(model, x), tmp_path / "net.pt2")
    loaded = load_model(str(tmp_path / "net.pt2")).model
    network = trace(loaded)
    assert [site.name for site in network.sites] == ["stem", "body"]
    chosen = full_rank_plan(loaded)
    for batches in (None, [x]):
        converted = convert(loaded, chosen, batches)
        assert_converted(converted, {"stem", "body"})
        assert_same_answer(converted, model, x, 1e-4)
    assert not any("batch_norm" in n.name for n in converted.graph.nodes)
    assert_same_answer(loaded, model, x, 1e-5)
    surveyed = plan(loaded, x, budget={"macs": 0.6}, batches=[x[:3], x[3:]])
    assert surveyed.converted


def test_a_converted_program_has_nothing_left_to_convert(tmp_path):
    model, x = settle(Residual()), pictures().float()
    converted = convert(model, full_rank_plan(model, "depthwise"))
    save_program(export(converted, x), tmp_path / "net.pt2")
    loaded = load_model(str(tmp_path / "net.pt2")).model
    network = trace(loaded, x)
    assert network.sites == []
    assert all("functional convolution" in reason for reason in network.left_out.values())
    assert_same_answer(network.model, converted, x, 1e-5)


@pytest.mark.parametrize("how", IN_PLACE)
def test_what_is_written_in_place_is_followed(how):
    model, x = settle(InPlace(how)).double(), pictures()
    network = trace(model)
    assert_same_answer(network.graph, model, x)
    converted = convert(model, full_rank_plan(model, "cp"), [x[:3], x[3:]])
    assert_converted(converted, {"first", "second"})
    assert_same_answer(converted, model, x, 1e-5)
    surveyed = plan(model, x, budget={"macs": 0.7}, batches=[x])
    assert surveyed.converted


def test_in_place_operations_of_an_exported_program_are_followed(tmp_path):
    model, x = settle(InPlace("method")).eval(), pictures().float()
    save_program(torch.export.export(model, (x,), strict=False), tmp_path / "net.pt2")
    loaded = load_model(str(tmp_path / "net.pt2")).model
    assert any(str(n.target).startswith("aten.relu_") for n in loaded.graph.nodes)
    converted = convert(loaded, full_rank_plan(loaded), [x])
    assert_same_answer(converted, model, x, 1e-3)
    assert_same_answer(trace(loaded).graph, model, x, 1e-5)


def test_writing_into_a_part_of_a_value_is_refused(tmp_path):
    class Item(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            y[:, :2] = 0.5
            return y

    x = pictures().float()
    with pytest.raises(ModelError, match="writes into a part of a value"):
        trace(Item(), x)
    save_program(torch.export.export(Item(), (x,), strict=False), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match="writes into a part of a value"):
        trace(load_model(str(tmp_path / "net.pt2")).model)


def test_an_alias_that_the_tracer_loses_is_noticed():
    class Alias(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            before = y
            y += 1  # fx sees y = y + 1, and `before` without it
            return self.conv(y) if isinstance(x, fx.Proxy) else y * before

    with pytest.raises(ModelError, match="answers differently when followed"):
        trace(Alias(), pictures().float())


def test_a_convolution_called_twice_is_left_out_and_one_of_two_names_is_replaced_under_both():
    model, x = settle(Twice()).double(), pictures()
    network = trace(model)
    assert [site.name for site in network.sites] == ["once"]
    assert network.left_out["twice"] == "it is called 2 times, each time on other inputs"
    assert network.left_out["read"] == "its weight is read by something else too"
    converted = convert(model, full_rank_plan(model, "spatial"))
    assert isinstance(converted.once, SpatialConv2d)
    assert converted.also_once is converted.once
    assert_same_answer(converted, model, x)


def test_convolutions_that_would_lose_something_are_left_out_with_the_reason():
    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    hooked = nn.Conv2d(4, 4, 3)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    before = nn.Conv2d(4, 4, 3)
    before.register_forward_pre_hook(lambda module, inputs: None)
    separable = SeparableConv2d(4, 4, 3)
    model = nn.Sequential(
        Own(3, 4, 3), weight_norm(nn.Conv2d(4, 4, 3)), hooked, before, nn.ConvTranspose2d(4, 4, 3), separable
    )
    network = trace(model)
    assert network.sites == []
    reasons = network.left_out
    assert set(reasons) == {"0", "1", "2", "3", "5"}, "a transposed convolution is no convolution of ours"
    assert "computes something of its own" in reasons["0"]
    assert "its weight is computed" in reasons["1"]
    assert "hooks" in reasons["2"]
    assert "hooks" in reasons["3"]
    assert reasons["5"] == "already separable"
    plain = nn.Sequential(*model, nn.Conv2d(4, 6, 3)).double()
    x = pictures(2, 20)
    converted = convert(plain, full_rank_plan(plain, "cp"))
    assert isinstance(converted[4], nn.ConvTranspose2d)
    assert_same_answer(converted, plain, x)


def test_left_out_layers_keep_their_reason_where_only_export_can_follow():
    model = settle(Branching())
    model.third.register_forward_hook(lambda module, inputs, output: output + 1)
    x = pictures().float()
    network = trace(model, x)
    assert [site.name for site in network.sites] == ["first", "second"]
    assert "hooks" in network.left_out["third"]
    assert_same_answer(convert(model, full_rank_plan(model, example=x), [x]), model, x, 1e-3)


def test_functional_convolutions_are_named_as_such():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
            self.conv = nn.Conv2d(4, 8, 3)

        def forward(self, x):
            return self.conv(F.conv2d(x, self.kernel))

    network = trace(Functional())
    assert [site.name for site in network.sites] == ["conv"]
    assert "functional convolution" in network.left_out["conv2d"]


def test_arguments_with_defaults_keep_them():
    model, x = Optional().double(), pictures()
    chosen = full_rank_plan(model)
    assert_same_answer(convert(model, chosen, [x]), model, x, 1e-5)
    assert plan(model, x, budget={"macs": 0.7}).converted
    assert model(x, scale=3.0).norm() > convert(model, chosen)(x).norm()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value):
    model = settle(Residual())
    with torch.no_grad():
        model.body.weight[0, 0, 0, 0] = value
    with pytest.raises(ModelError, match="a convolution weight holds NaN or Inf"):
        trace(model)
    broken = settle(Residual())
    broken.norm.running_var[0] = value if value != value else -1.0
    with pytest.raises(ModelError, match="normalization after stem holds NaN or Inf"):
        convert(broken, full_rank_plan(broken, batch_norm="fold"))


def test_pictures_that_are_no_numbers_are_refused():
    x = pictures()
    x[0, 0, 0, 0] = torch.nan
    model = settle(Residual()).double()
    with pytest.raises(ModelError, match="gives NaN or Inf on these pictures"):
        convert(model, full_rank_plan(model), [x])


class Secretive(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.conv(x)
        return y.flatten(1)[:, : int(y.abs().sum().item()) % 7 + 1]


def test_a_model_that_cannot_be_followed_is_refused_in_one_line():
    with pytest.raises(
        ModelError, match=r"^Secretive cannot be followed: symbolically, .*; by torch\.export, "
    ) as info:
        trace(Secretive(), torch.randn(2, 3, 8, 8))
    assert "\n" not in str(info.value)


def test_models_that_make_no_sense_are_refused():
    with pytest.raises(ModelError, match="Sequential has no convolution to convert"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
    with pytest.raises(ModelError, match="lazy layers"):
        trace(nn.Sequential(nn.LazyConv2d(4, 3)))

    class Locked(nn.Conv2d):
        def __reduce_ex__(self, protocol):
            raise pickle.PicklingError("holds a lock")

    with pytest.raises(ModelError, match="Locked cannot be copied: holds a lock"):
        trace(Locked(3, 4, 3))


class StopError(Exception):
    pass


def photograph(model: nn.Module):
    """Everything of a model that a careless conversion could touch."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modules = {name: (type(m), m.training, sorted(vars(m))) for name, m in model.named_modules()}
    flags = {name: getattr(m, "inplace", None) for name, m in model.named_modules()}
    identities = {name: (id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()}
    return state, modules, flags, identities, [id(m) for m in model.modules()]


def assert_untouched(model: nn.Module, before) -> None:
    after = photograph(model)
    assert before[0].keys() == after[0].keys()
    for name, value in before[0].items():
        assert torch.equal(value, after[0][name]), name
    assert before[1:] == after[1:]


@pytest.mark.parametrize("make", [Residual, Branching, Joined], ids=lambda m: m.__name__)
def test_the_users_model_is_unchanged(make):
    model, x = settle(make()), pictures().float()
    model.train()
    next(iter(model.parameters())).requires_grad_(False)
    kept = x.clone()
    before = photograph(model)
    chosen = plan(model, x, budget={"macs": 0.6}, batches=[x[:2], x[2:]], forms=("cp", "depthwise"))
    converted = convert(model, chosen, [x[:2], x[2:]])
    assert not converted.training
    assert_untouched(model, before)
    assert torch.equal(x, kept), "the pictures were written into"
    assert not {id(p) for p in model.parameters()} & {id(p) for p in converted.parameters()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, StopError])
def test_the_users_model_is_unchanged_after_an_interrupt(error):
    model, x = settle(Residual()), pictures().float()
    model.train()
    before = photograph(model)

    def interrupt(stage: str, done: int, total: int) -> None:
        if done == 1:
            raise error

    with pytest.raises(error):
        plan(model, x, budget={"macs": 0.6}, progress=interrupt)
    assert_untouched(model, before)
    with pytest.raises(error):
        convert(model, full_rank_plan(model), [x], progress=interrupt)
    assert_untouched(model, before)
    with pytest.raises(ModelError):
        convert(model, full_rank_plan(model), [torch.randn(2, 5, 8, 8)])
    assert_untouched(model, before)


def test_a_copy_of_a_converted_network_is_independent():
    model = settle(Residual())
    converted = convert(model, full_rank_plan(model))
    other = copy.deepcopy(converted)
    with torch.no_grad():
        other.body.bias.add_(1)
    assert not torch.equal(other.body.bias, converted.body.bias)
