"""`sepwise convert --compare`: other ways to be so cheap, each at no more multiplications, on the same pictures."""

import copy
import json

import pytest
import small_networks
import torch

from sepwise.cli import comparing, peers
from sepwise.errors import MissingExtraError, ModelError
from sepwise.measure import cost

libraries = pytest.mark.parametrize("way", [peers.tucker, peers.pruned])


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip("tltorch")
    pytest.importorskip("torch_pruning")


def test_all_ways_stand_side_by_side(convert, tmp_path):
    code, out, _ = convert("small_networks:classifier", "--compare", "--json", forms="depthwise,spatial")
    data = json.loads(out)
    rows = {row["method"]: row for row in data["compare"]}
    assert code == 0
    assert list(rows) == [
        "nearest weights, no pictures",
        "fitted on synthetic pictures",
        "fitted on pictures",
        "TensorLy-Torch, Tucker, one relative rank",
        "Torch-Pruning, smallest weights, one share",
    ]
    ours = rows["fitted on pictures"]
    assert ours["agreement"] == data["agreement"]["top1"]
    for row in rows.values():
        assert "why" not in row, row
        assert row["macs_fraction"] <= ours["macs_fraction"] * (1 + 1e-9)
        assert 0 <= row["agreement"] <= 1
    report = (tmp_path / "out" / "report.html").read_text()
    assert all(name in report for name in rows)


def test_a_way_that_is_missing_or_fails_says_why(convert, monkeypatch):
    def absent(*_):
        raise MissingExtraError("tltorch is needed: pip install 'sepwise[compare]'")

    def broken(*_):
        raise KeyError("conv1")

    monkeypatch.setattr(comparing, "tucker", absent)
    monkeypatch.setattr(comparing, "pruned", broken)
    code, out, _ = convert("small_networks:edges", "--compare")
    assert code == 0
    assert "pip install 'sepwise[compare]'" in out
    assert "KeyError: 'conv1'" in out
    assert "no batch normalization with running statistics" in out


def test_multiplications_are_counted_alike_for_every_layer():
    model, x = small_networks.classifier().eval(), torch.randn(1, 3, 24, 24)
    assert peers.macs_of(model, x) == cost(model, x).macs


@libraries
def test_the_more_is_left_the_nearer_it_is_and_the_given_network_stays(way):
    model, x = small_networks.classifier().eval(), torch.randn(2, 3, 24, 24)
    wanted, before = model(x).detach(), copy.deepcopy(model.state_dict())
    almost = way(model, x, 0.99)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    def off(network) -> float:
        return float((network(x) - wanted).detach().square().mean().sqrt() / wanted.std())

    cheap = way(model, x, 0.3)
    assert peers.macs_of(cheap, x) <= 0.3 * peers.macs_of(model, x)
    assert off(cheap) > 1.2 * off(almost)


@libraries
def test_a_budget_out_of_reach(way):
    with pytest.raises(ModelError, match="takes more multiplications than that"):
        way(small_networks.classifier().eval(), torch.randn(1, 3, 24, 24), 1e-4)
