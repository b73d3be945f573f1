"""A3: the shares are those of kernels made to separate, and what is missing or too little shows nothing."""

import pytest
import torch
from torch import nn

from sepwise.errors import SepwiseError, WeightsError
from sepwise.lab import Folder, Inputs, named, run
from sepwise.lab.recipe import At, Result
from sepwise.lab.recipes import rank_one
from sepwise.lab.trained import NAMES

RECIPE = named("rank_one")


def no_pictures():
    pytest.fail("no pictures are needed")


def network():
    """Four dense kernels, of which one separates and holds 81 of 90 parts of the energy; four depthwise identities."""
    dense, depthwise = nn.Conv2d(2, 2, 3, bias=False), nn.Conv2d(4, 4, 5, groups=4, bias=False)
    with torch.no_grad():
        dense.weight.copy_(torch.eye(3).expand(2, 2, 3, 3))
        dense.weight[0, 0] = 3.0 * torch.ones(3, 3)
        depthwise.weight.copy_(torch.eye(5).expand(4, 1, 5, 5))
    return nn.Sequential(dense, depthwise, nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, (1, 3)))


def results(share, seeds=3, names=NAMES):
    """Networks whose kernels separate to `share` percent at every tolerance, random ones to 1 percent."""
    ways = {way: [share] * len(rank_one.TOLERANCES) for way in rank_one.WAYS}
    chance = {way: [1.0] * len(rank_one.TOLERANCES) for way in rank_one.WAYS}
    numbers = {"3×3": {"kernels": 100, "trained": ways, "random": chance}}
    return [Result(name, seed, numbers) for name in names for seed in range(seeds)]


def test_shares_by_count_and_by_energy(monkeypatch):
    monkeypatch.setattr(rank_one, "trained", lambda name, inputs: network())
    found = RECIPE.trial({"network": "hed"}, 0, At(no_pictures))
    assert list(found) == ["3×3", "5×5 depthwise"]  # kernels with a side of 1 separate by themselves
    assert (found["3×3"]["kernels"], found["5×5 depthwise"]["kernels"]) == (4, 4)
    at = rank_one.TOLERANCES.index(0.01)
    assert found["3×3"]["trained"]["by count"][at] == 25
    assert found["3×3"]["trained"]["by energy"][at] == pytest.approx(100 * 81 / (81 + 3 * 3))
    assert found["5×5 depthwise"]["trained"]["by count"] == [0] * len(rank_one.TOLERANCES)  # 4 of 5 parts are lost


def test_random_kernels_are_those_of_the_seed_and_seldom_separate(monkeypatch):
    monkeypatch.setattr(rank_one, "trained", lambda name, inputs: nn.Conv2d(40, 40, 3))
    at = At(no_pictures)
    one, same, other = (RECIPE.trial({"network": "hed"}, seed, at)["3×3"]["random"] for seed in (0, 0, 1))
    assert one == same != other
    shares = one["by count"]
    assert shares == sorted(shares)
    assert shares[rank_one.TOLERANCES.index(0.01)] < 2
    assert shares[-1] > 90


@pytest.mark.parametrize(("share", "verdict"), [(49.9, "holds"), (50.0, "does not hold"), (97.0, "does not hold")])
def test_most_is_more_than_half(share, verdict):
    [finding] = RECIPE.findings(results(share))
    assert (finding.claim, finding.verdict) == ("A3", verdict)
    assert f"hed 3×3 {share:.1f} %" in finding.says


def test_one_network_of_another_kind_decides():
    [finding] = RECIPE.findings([*results(10.0, names=NAMES[1:]), *results(60.0, names=NAMES[:1])])
    assert finding.verdict == "does not hold"


def test_too_little_shows_nothing():
    [few] = RECIPE.findings(results(10.0, seeds=2))
    assert few.verdict == "not shown"
    [some] = RECIPE.findings(results(10.0, names=("hed", "resnet20")))
    assert some.verdict == "not shown"
    assert "Missing: efficientnet_lite0, resnet32." in some.says
    assert [row["network"] for row in some.table] == ["hed", "resnet20"]


def test_a_network_without_weights_keeps_no_other_from_being_counted(monkeypatch, tmp_path):
    def trained(name, inputs):
        if name == "resnet20":
            raise WeightsError("there is no resnet20.safetensors")
        return network()

    monkeypatch.setattr(rank_one, "trained", trained)
    with pytest.raises(SepwiseError, match="1 of 3 trials of rank_one are not done:\n    there is no resnet20"):
        run("rank_one", "smoke", tmp_path, Inputs(), workers=1)
    [finding] = RECIPE.findings(Folder(tmp_path).results(RECIPE, "smoke"))
    assert "Missing: hed, resnet20." in finding.says


def test_of_real_weights_a_few_separate(shared):
    numbers = RECIPE.trial({"network": "resnet20"}, 0, At(no_pictures, Inputs(weights=str(shared / "weights"))))
    at = rank_one.TOLERANCES.index(0.01)
    assert 1 < numbers["3×3"]["trained"]["by count"][at] < 10
    assert numbers["3×3"]["random"]["by count"][at] < 0.5
