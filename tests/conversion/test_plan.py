"""Plans as data: saved, loaded, edited by hand, replayed, and refused when they make no sense."""

# pyright: reportAttributeAccessIssue=false

import json

import pytest
import torch
from plain_networks import Branching, Residual, Twice, settle
from torch import nn

from sepwise.conversion import Choice, Plan, convert, plan, rebuild
from sepwise.errors import OutputError, PlanError


@pytest.fixture(scope="module")
def surveyed():
    torch.manual_seed(0)
    model, x = settle(Residual()), torch.randn(6, 3, 10, 10)
    return model, x, plan(model, x, budget={"macs": 0.6}, forms=("tucker", "depthwise"))


def test_a_saved_plan_is_the_same_plan(surveyed, tmp_path):
    _, _, chosen = surveyed
    chosen.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == chosen
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    pair = Plan(
        {"a": Choice("tucker", (2, 3), "why", 10, 5, 4, 2)}, "keep", {"parameters": 0.5}, (10, 5), (4, 2), (8, 8)
    )
    pair.save(tmp_path / "pair.json")
    assert Plan.load(tmp_path / "pair.json") == pair
    with pytest.raises(OutputError, match="does not exist"):
        pair.save(tmp_path / "nowhere" / "plan.json")


def test_a_plan_edited_by_hand_is_replayed(surveyed, tmp_path):
    model, x, chosen = surveyed
    chosen.save(tmp_path / "plan.json")
    data = json.loads((tmp_path / "plan.json").read_text())
    for name, form, rank in (("stem", "cp", 5), ("body", "tucker", [3, 4])):
        data["layers"][name] = {**data["layers"][name], "form": form, "rank": rank, "why": "by hand", "effect": None}
    (tmp_path / "plan.json").write_text(json.dumps(data))
    edited = Plan.load(tmp_path / "plan.json")
    converted = convert(model, edited, [x])
    assert (converted.stem.form, converted.stem.rank) == ("cp", 5)
    assert (converted.body.form, converted.body.rank) == ("tucker", (3, 4))
    again = rebuild(model, edited, converted.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), converted(x))
    data["layers"]["stem"]["form"], data["layers"]["stem"]["rank"] = "dense", None
    (tmp_path / "plan.json").write_text(json.dumps(data))
    assert isinstance(convert(model, Plan.load(tmp_path / "plan.json"), [x]).stem, nn.Conv2d)


def test_the_printed_plan_has_every_layer_and_why():
    model = Twice()
    chosen = plan(model, torch.randn(4, 3, 8, 8), budget={"macs": 0.9}, forms=("spatial", "cp"))
    lines = str(chosen).splitlines()
    assert {"once", "twice", "read"} == set(chosen.layers)
    for name, choice in chosen.layers.items():
        line = next(line for line in lines if line.startswith(name + " "))
        assert choice.form in line
        assert line.endswith(choice.why)
    assert "its weight is read by something else too" in str(chosen)
    assert f"{chosen.macs[0]:,} -> {chosen.macs[1]:,} MACs" in lines[-1]
    assert list(chosen.converted) == [n for n, c in chosen.layers.items() if c.form != "dense"]


GOOD = {
    "format": "sepwise-plan/1",
    "layers": {
        "body": {
            "form": "cp",
            "rank": 3,
            "why": "",
            "macs_before": 1,
            "macs_after": 1,
            "parameters_before": 1,
            "parameters_after": 1,
        }
    },
}


def written(tmp_path, **changes):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**GOOD, **changes}))
    return path


def layer(**changes):
    return {"body": {**GOOD["layers"]["body"], **changes}}


def test_files_that_are_no_plans_are_refused(tmp_path):
    assert Plan.load(written(tmp_path)).layers["body"].form == "cp"
    torn = tmp_path / "torn.json"
    torn.write_text(json.dumps(GOOD)[:60])
    with pytest.raises(PlanError, match=r"torn\.json cannot be read as a plan"):
        Plan.load(torn)
    torn.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="cannot be read as a plan"):
        Plan.load(torn)
    with pytest.raises(PlanError, match=r"cannot be read as a plan: .*No such file"):
        Plan.load(tmp_path / "missing.json")
    with pytest.raises(PlanError, match='"format" must be "sepwise-plan/1"'):
        Plan.load(written(tmp_path, format="sepwise-plan/99"))
    torn.write_text("[1, 2]")
    with pytest.raises(PlanError, match="no plan of this version"):
        Plan.load(torn)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": layer(form="quantum")}, "gives body the form 'quantum'; the forms are dense, depthwise"),
        ({"layers": {"body": {"rank": 3}}}, "damaged plan"),
        ({"layers": {"body": 3}}, "damaged plan"),
        ({"layers": [1]}, "damaged plan"),
        ({"layers": layer(colour="red")}, "damaged plan: .*colour"),
        ({"wheels": 4}, "damaged plan: .*wheels"),
        ({"batch_norm": "perhaps"}, 'gives batch_norm \'perhaps\': expected "fold" or "keep"'),
        ({"layers": layer(macs_before="many")}, "damaged plan: .*macs_before"),
    ],
)
def test_damaged_plans_are_refused(tmp_path, changes, message):
    with pytest.raises(PlanError, match=message):
        Plan.load(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("name", "form", "rank", "message"),
    [
        ("nose", "cp", 2, "converts nose, which is no convolution of Residual"),
        ("scores", "cp", 2, "converts scores, which is no convolution of Residual"),
        ("body", "cp", 1000, r"gives body a rank that does not exist: .*rank=1000.*an integer from 1 to 64"),
        ("body", "cp", 0, "a rank that does not exist"),
        ("body", "cp", "3", "a rank that does not exist"),
        ("body", "tucker", (9, 1), r"a rank that does not exist: .*from \(1, 1\) to \(8, 8\)"),
    ],
)
@pytest.mark.parametrize("data", [False, True])
def test_plans_that_do_not_fit_the_model_are_refused(surveyed, name, form, rank, message, data):
    model, x, _ = surveyed
    wrong = Plan({name: Choice(form, rank, "", 1, 1, 1, 1)})
    with pytest.raises(PlanError, match=message):
        convert(model, wrong, [x] if data else None)
    with pytest.raises(PlanError, match=message):
        rebuild(model, wrong, {})


def test_layers_that_cannot_be_converted_are_refused():
    def choose(name, form="cp"):
        return Plan({name: Choice(form, 1, "", 1, 1, 1, 1)})

    with pytest.raises(PlanError, match="converts twice, which cannot be converted: it is called 2 times"):
        convert(Twice(), choose("twice"))
    with pytest.raises(PlanError, match=r"gives 0 the form spatial: .*one pixel"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 1)), choose("0", "spatial"))
    with pytest.raises(PlanError, match=r"gives 0 the form spatial: .*one spatial axis"):
        convert(nn.Sequential(nn.Conv1d(3, 4, 3)), choose("0", "spatial"))


def test_weights_of_another_plan_are_refused(surveyed):
    model, x, chosen = surveyed
    converted = convert(model, chosen, [x], iterations=0)
    other = Plan({name: Choice("cp", 2, "", 1, 1, 1, 1) for name in ("stem", "body")})
    with pytest.raises(PlanError, match="the weights do not fit the model converted by this plan"):
        rebuild(model, other, converted.state_dict())
    with pytest.raises(PlanError, match="the weights do not fit"):
        rebuild(settle(Branching()), Plan({"first": Choice("cp", 2, "", 1, 1, 1, 1)}), {}, example=x)
