"""Programs of converted networks: any batch size, the same answers after saving and loading, wrong ones refused."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

import pytest
import torch
from plain_networks import Joined, Residual, settle
from torch import nn

from sepwise.conversion import convert, plan
from sepwise.conversion.walk import outputs_of
from sepwise.errors import ModelError, OutputError
from sepwise.graph import export, save_program
from sepwise.nn import SeparableConv2d, SpatialConv2d
from sepwise.sources.models import load_model


@pytest.fixture(scope="module")
def converted():
    torch.manual_seed(0)
    model, x = settle(Residual()), torch.randn(6, 3, 10, 10)
    chosen = plan(model, x, budget={"macs": 0.5}, forms=("cp", "spatial"))
    return convert(model, chosen, [x])


@torch.no_grad()
@pytest.mark.parametrize("example", [1, 2, 5])
def test_a_program_takes_any_batch_and_reloads(converted, tmp_path, example):
    save_program(export(converted, torch.randn(example, 3, 10, 10)), tmp_path / "model.pt2")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt2"]
    ours = load_model(str(tmp_path / "model.pt2")).model
    stock = torch.export.load(tmp_path / "model.pt2").module()
    for batch in (1, 2, 3, 8):
        x = torch.randn(batch, 3, 10, 10)
        for loaded in (ours, stock):
            torch.testing.assert_close(loaded(x), converted(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(ours(x), converted(x + 0.01), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_program_holds_stock_operations_only(converted):
    program = export(converted, torch.randn(2, 3, 10, 10))
    calls = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert any(name.startswith("aten.conv2d") for name in calls)
    assert {name.split(".")[0] for name in calls} <= {"aten", "_operator", "<built-in function getitem>"}


@torch.no_grad()
def test_nested_outputs_are_exported():
    model, x = settle(Joined()), torch.randn(2, 3, 9, 9)
    found = export(model, x).module()(x)
    assert found.keys() == {"maps", "flat"}
    torch.testing.assert_close(outputs_of(found), outputs_of(model(x)))


def test_the_model_is_unchanged(converted):
    state = {name: value.clone() for name, value in converted.state_dict().items()}
    names = sorted(vars(converted))
    export(converted, torch.randn(1, 3, 10, 10))
    assert sorted(vars(converted)) == names
    assert all(torch.equal(value, state[name]) for name, value in converted.state_dict().items())


class TwoFaced(nn.Module):
    """Another answer while it is being exported."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x) + (0.01 if torch.compiler.is_exporting() else 0)


class Secretive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)[: int(x.sum().item()) % 2 + 1]


def test_programs_that_answer_differently_are_refused():
    with pytest.raises(ModelError, match="the exported program differs from the model: ") as info:
        export(TwoFaced(), torch.randn(2, 3, 6, 6))
    assert "\n" not in str(info.value)


def test_models_that_cannot_be_exported_are_refused_in_one_line():
    with pytest.raises(ModelError, match=r"^torch\.export cannot export Secretive: ") as info:
        export(Secretive(), torch.randn(2, 3, 6, 6))
    assert "\n" not in str(info.value)


def test_a_place_that_cannot_be_written_is_refused(converted, tmp_path):
    program = export(converted, torch.randn(2, 3, 10, 10))
    with pytest.raises(OutputError, match="does not exist"):
        save_program(program, tmp_path / "nowhere" / "model.pt2")


@torch.no_grad()
def test_multipliers_are_exported_as_plain_depthwise_convolutions():
    shared = SeparableConv2d(4, 4, 3, padding=1, depth_multiplier=2)
    split = SpatialConv2d(4, 4, 7, padding=3, groups=4, rank=2)
    model = nn.Sequential(shared, nn.ReLU(), split, shared).double().eval()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    for found, wanted in ((model, model), (shared, shared)):
        program = export(found, x)
        convolutions = [n for n in program.graph.nodes if str(n.target).startswith("aten.conv2d")]
        assert {n.args[1].meta["val"].shape[0] for n in convolutions} == {4}
        torch.testing.assert_close(program.module()(x), wanted(x), rtol=0, atol=1e-12)
    assert isinstance(model[0], SeparableConv2d)  # the model itself keeps its layers
