"""Times of layers: what is timed, what is kept between runs, and what becomes of times that are wrong."""

# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportOptionalOperand=false

import json
from dataclasses import replace

import pytest
import torch
from plain_networks import Residual, settle
from torch import nn

import sepwise
from sepwise.conversion import planning, survey, totals_of
from sepwise.conversion.clock import Clock, planned_network
from sepwise.conversion.kept_times import FORMAT, KeptTimes, cache_folder
from sepwise.conversion.plan import Plan
from sepwise.conversion.planner import plan_from
from sepwise.conversion.planning import CORRECTIONS, TOLERANCE, plan_for_latency
from sepwise.conversion.segment import segments
from sepwise.conversion.times import Time, Times
from sepwise.errors import BudgetError


class Wide(nn.Module):
    """Convolutions large enough to be worth separating, with and without an activation that can be taken in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.second, self.third = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, stride=2)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = x + nn.functional.silu(self.second(x))
        return self.third(x).mean((2, 3))


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 20, 20)
    return survey(settle(Wide()), [x], forms=("depthwise", "spatial", "cp")), x


@pytest.fixture
def kept(tmp_path) -> KeptTimes:
    return KeptTimes(tmp_path / "times.json")


def test_every_layer_is_timed_with_its_activation_at_its_own_size(found):
    surveyed, x = found
    parts = {part.name: part for part in segments(surveyed.network, x)}
    told = {name: (part.size, str(part.activation)) for name, part in parts.items()}
    assert told == {"first": ((20, 20), "ReLU()"), "second": ((20, 20), "SiLU()"), "third": ((20, 20), "None")}
    compiled = "in one compiled operation"
    for key, kernel in {
        None: "dense 3x3, 32 to 32, silu in one compiled operation",
        ("depthwise", 2): "depthwise and pointwise in one compiled operation",
        ("spatial", 4): f"dense 3x1, 32 to 4 {compiled}, dense 1x3, 4 to 32, silu {compiled}",
        ("cp", 5): "expand 32 to 5, depthwise 3x3, pointwise 5 to 32, silu in one compiled operation",
    }.items():
        run, words = parts["second"].fused(key, parts["second"].example())
        assert words == kernel or ("in stock operations" in words and sepwise.ops.native.PROBLEM)
        assert run(parts["second"].example()).shape == (1, 32, 20, 20)
    assert len({part.words for part in parts.values()}) == 3


def test_times_add_up_to_the_network(found, kept):
    surveyed, x = found
    times = Clock(surveyed, x, kept).times()
    for layer in surveyed.layers:
        assert set(times.layers[layer.name]) == {None, *((c.form, c.rank) for c in layer.candidates)}
    assert min(t.ms for many in times.layers.values() for t in many.values()) > 0
    assert sum(many[None].ms for many in times.layers.values()) < 2 * times.base_ms  # parts of it, and a busy machine
    assert (times.threads, times.size) == (1, (20, 20))


def test_kept_times_are_not_measured_again(found, kept, monkeypatch):
    surveyed, x = found
    first = Clock(surveyed, x, kept).times()

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(Clock, "_measure", never)
    again = Clock(surveyed, x, KeptTimes(kept.path)).times()
    assert again.layers == first.layers
    with pytest.raises(AssertionError, match="measured again"):  # at another size nothing was kept
        Clock(surveyed, torch.randn(1, 3, 24, 24), KeptTimes(kept.path)).times()


def test_what_was_measured_before_an_interruption_is_kept(found, kept, monkeypatch):
    surveyed, x = found
    measure, calls = Clock._measure, []

    def interrupted(self, segment, keys):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(segment.name)
        return measure(self, segment, keys)

    monkeypatch.setattr(Clock, "_measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Clock(surveyed, x, kept).times()
    calls.clear()
    Clock(surveyed, x, KeptTimes(kept.path)).times()
    assert calls == ["third"]


def test_kept_times_belong_to_their_conditions(tmp_path, monkeypatch):
    one = KeptTimes(tmp_path / "times.json")
    one.put({"layer | cp 3": Time(1.5, "stock")})
    torch.set_num_threads(2)
    two = KeptTimes(one.path)
    torch.set_num_threads(1)
    assert (one.get("layer | cp 3"), two.get("layer | cp 3")) == (Time(1.5, "stock"), None)
    two.put({"layer | cp 3": Time(0.8, "stock")})
    assert KeptTimes(one.path).get("layer | cp 3") == Time(1.5, "stock")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEPWISE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "sepwise"
    monkeypatch.setenv("SEPWISE_CACHE", str(tmp_path / "mine"))
    assert KeptTimes().path == tmp_path / "mine" / "times.json"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"format": "sepwise-times/0", "times": {}}', "negative", json.dumps({"format": FORMAT})]
)
def test_a_damaged_file_is_set_aside(tmp_path, damage):
    path = tmp_path / "times.json"
    good = KeptTimes(path)
    good.put({"layer": Time(2.0, "stock")})
    text = path.read_text().replace("2.0", "-2.0") if damage == "negative" else damage
    path.write_text(text)
    with pytest.warns(UserWarning, match=r"holds no times .* set aside as .*times\.json\.damaged"):
        fresh = KeptTimes(path)
    assert fresh.get("layer") is None
    assert (tmp_path / "times.json.damaged").read_text() == text
    fresh.put({"other": Time(1.0, "stock")})
    assert json.loads(path.read_text())["format"] == FORMAT


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="not kept for the next run|holds no times"):
        KeptTimes(tmp_path / "file" / "times.json").put({"layer": Time(1.0, "stock")})


class Told:
    """A clock whose network takes exactly what `truth` says, though it first told `wrong`."""

    def __init__(self, wrong: Times, truth: Times) -> None:
        self.wrong, self.truth, self.plans = wrong, truth, []

    def times(self) -> Times:
        return self.wrong

    def measured(self, plan: Plan) -> float:
        self.plans.append(plan)
        return self.truth.predicted_ms(plan.layers) / self.truth.dense_ms

    def again(self, times: Times, plan: Plan) -> Times:
        fresh = {n: {(c.form, c.rank): self.truth.layers[n][c.form, c.rank]} for n, c in plan.converted.items()}
        return replace(times, layers={n: {**many, **fresh.get(n, {})} for n, many in times.layers.items()})


def by_macs(surveyed) -> Times:
    """Every layer takes a millisecond for each million MACs, and a twentieth more."""
    layers = {
        la.name: {None: Time(la.macs / 1e6, "dense")}
        | {(c.form, c.rank): Time(c.macs / 1e6 + 0.05, c.form) for c in la.candidates}
        for la in surveyed.layers
    }
    whole = 1 + sum(many[None].ms for many in layers.values())
    return Times(whole, "eager channels_last", whole, layers, 1, (20, 20))


def test_a_planted_wrong_latency_is_caught(found, monkeypatch):
    surveyed, x = found
    truth, totals = by_macs(surveyed), totals_of(surveyed, x)
    gentle = min(surveyed.layers[1].candidates, key=lambda c: c.effect)
    planted = {**truth.layers["second"], (gentle.form, gentle.rank): Time(1e-3, "too good to be true")}
    wrong = replace(truth, layers={**truth.layers, "second": planted})
    clock = Told(wrong, truth)
    plan, used = plan_for_latency(surveyed, {"latency": 0.45}, totals, clock)  # type: ignore[arg-type]
    assert clock.plans[0].layers["second"].kernel == "too good to be true"
    assert clock.measured(clock.plans[0]) > 0.45 * (1 + TOLERANCE)
    assert 1 < len(clock.plans) - 1 <= 1 + CORRECTIONS
    assert plan.latency.measured <= 0.45 * (1 + TOLERANCE)
    assert used.layers["second"][gentle.form, gentle.rank] == truth.layers["second"][gentle.form, gentle.rank]
    monkeypatch.setattr(planning, "CORRECTIONS", 0)
    with pytest.raises(
        BudgetError, match=r"latency=0\.45 was predicted to be met, but the whole network takes 0\.[5-9]"
    ):
        plan_for_latency(surveyed, {"latency": 0.45}, totals, Told(wrong, truth))  # type: ignore[arg-type]


def test_a_network_slower_than_its_layers_is_planned_smaller(found):
    surveyed, x = found
    truth, totals = by_macs(surveyed), totals_of(surveyed, x)
    clock = Told(truth, replace(truth, scale=1.5))
    plan, used = plan_for_latency(surveyed, {"latency": 0.5}, totals, clock)  # type: ignore[arg-type]
    assert plan.latency.measured <= 0.5 * (1 + TOLERANCE) < clock.measured(clock.plans[0])
    assert used.scale == pytest.approx(1.5)
    assert plan.macs[1] < clock.plans[0].macs[1]


def test_planted_times_in_the_file_are_measured_again(found, kept):
    surveyed, x = found
    clock = Clock(surveyed, x, kept)
    times = clock.times()
    plan = plan_from(surveyed, {"macs": 0.5}, totals_of(surveyed, x), times)
    name, choice = next(iter(plan.converted.items()))
    key = choice.form, choice.rank
    planted = replace(times, layers={**times.layers, name: {**times.layers[name], key: Time(1e-9, "planted")}})
    again = clock.again(planted, plan)
    assert again.layers[name][key].ms > 1e-3
    assert again.layers[name][key].kernel == times.layers[name][key].kernel
    assert 0 < clock.measured(plan) < 20
    torch.testing.assert_close(planned_network(surveyed, replace(plan, layers={}))(x), surveyed.network.model(x))


def test_plan_takes_a_latency(tmp_path, monkeypatch):
    monkeypatch.setenv("SEPWISE_CACHE", str(tmp_path))
    model, x = (
        nn.Sequential(nn.Conv2d(16, 96, 5, padding=2), nn.ReLU(), nn.Conv2d(96, 96, 5)).eval(),
        torch.randn(4, 16, 24, 24),
    )
    larger = torch.randn(1, 16, 40, 40)
    plan = sepwise.plan(
        model, larger, budget={"latency": 0.8, "macs": 0.6}, batches=[x], forms=["spatial", "depthwise"]
    )
    assert plan.latency.size == plan.size == (40, 40)
    assert plan.latency.predicted <= 0.8
    assert plan.latency.measured <= 0.8 * (1 + TOLERANCE)
    assert plan.macs[1] <= 0.6 * plan.macs[0]
    assert plan.macs[0] == 38_400 * 40 * 40 + 230_400 * 36 * 36
    assert (tmp_path / "times.json").exists()
    assert "faster) through fuse, measured" in str(plan)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_what_cannot_be_reached_is_named(found, monkeypatch, tmp_path):
    monkeypatch.setenv("SEPWISE_CACHE", str(tmp_path))
    with pytest.raises(BudgetError, match=r"latency=0\.001 cannot be met: these forms reach \d\.\d+ at best"):
        sepwise.plan(settle(Residual()), torch.randn(4, 3, 9, 9), budget={"latency": 0.001})
