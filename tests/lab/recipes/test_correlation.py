"""U2 and U3: what is planted in the layers is what the verdicts say, and too little of it shows nothing."""

import json

import numpy as np
import pytest
import torch
from small_networks import classifier, edges

from sepwise.errors import SepwiseError, WeightsError
from sepwise.lab import Inputs, named
from sepwise.lab.data import Labelled
from sepwise.lab.recipe import At, Result
from sepwise.lab.recipes import correlation
from sepwise.lab.trained import NAMES
from sepwise.report.lab import figures

RECIPE = named("correlation")


def no_pictures():
    pytest.fail("no pictures of CIFAR-10 are needed")


def cifar(count: int = 64) -> tuple[Labelled, Labelled]:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 24, 24), dtype=torch.uint8, generator=random)
    return Labelled(images[:1], torch.zeros(1)), Labelled(images, torch.zeros(count))


def result(name, near=0.9, across=0.1, relation=0, count=20, seed=0):
    """A network whose layers are alike as told, and whose losses follow the correlation of neighbours by `relation`."""
    random = np.random.default_rng(NAMES.index(name))
    shift = np.linspace(-0.05, 0.05, count)
    loss = random.permutation(shift) if relation == 0 else relation * shift
    read, converted = [], []
    for i in range(count):
        r = near + float(shift[i])
        noise = random.uniform(size=5).tolist()
        row = {"name": f"l{i}", "place": i / count, "channels": 8, "varying": 8, "pictures": 4, "weighted": {}}
        row |= {"spatial": {"vertical": {"1": r, "2": r / 2}, "horizontal": {"1": r}}}
        row["across"] = across + (noise[4] - 0.5) / 10
        read.append(row | {"chance": 0.02, "dimensions": 1 + noise[0], "intra": noise[1], "intra_chance": 0.2})
        effect = float(np.exp(20 * loss[i]))
        pair = [{"form": "cp", "share": s, "effect": effect / s, "error": noise[2] / s} for s in (0.1, 0.4)]
        candidates = [{**c, "energy": noise[3], "nearest": None} for c in pair]
        converted.append({"name": f"l{i}", "macs": 100 + i % 3, "weight": 1.0, "felt": 1.0, "candidates": candidates})
    return Result(name, seed, {"read": read, "converted": converted})


def test_a_trial_reads_and_converts_every_layer(monkeypatch):
    monkeypatch.setattr(correlation, "trained", lambda name, inputs: classifier().eval())
    settings = {"network": "resnet20", "pictures": (16, 16), "sizes": None, "forms": ["depthwise"]}
    found = RECIPE.trial(settings, 0, At(cifar))
    assert [row["name"] for row in found["read"]] == ["first", "second", "third", "point"]
    assert [row["name"] for row in found["converted"]] == ["first", "second", "third"]
    assert found["read"][0]["pictures"] == 16
    assert json.loads(json.dumps(found)) == found  # a record keeps it as it is
    assert RECIPE.trial(settings, 1, At(cifar)) != found  # another seed, other pictures
    read, fit = correlation._pictures(settings, 0, At(cifar), {})
    assert not any(torch.equal(a, b) for a in torch.cat(read) for b in torch.cat(fit))


def test_natural_pictures_come_in_two_sizes(monkeypatch):
    asked = []

    def natural(inputs, count, size, picture, seed):
        asked.append((count, size, picture["size"], seed))
        return [torch.randn(count, 3, *size)]

    monkeypatch.setattr(correlation, "trained", lambda name, inputs: edges().eval())
    monkeypatch.setattr(correlation, "natural", natural)
    settings = {"network": "hed", "pictures": (3, 4), "sizes": ([24, 32], [16, 16]), "forms": ["spatial"]}
    found = RECIPE.trial(settings, 5, At(no_pictures))
    assert asked == [(3, (24, 32), (24, 32), 5), (4, (16, 16), (24, 32), 5)]
    assert found["read"][0]["pictures"] == 3


@pytest.mark.parametrize(
    ("near", "across", "verdict"),
    [(0.9, 0.1, "holds"), (0.3, 0.1, "does not hold"), (0.9, 0.6, "does not hold"), (0.5, 0.1, "not shown")],
)
def test_both_halves_are_needed(near, across, verdict):
    found, _ = RECIPE.findings([result(name, near, across) for name in NAMES])
    assert (found.claim, found.verdict) == ("U2", verdict)
    assert f"hed {near:.2f}" in found.says
    assert "by chance 0.02" in found.says
    assert len(figures(found.figure)) == 2


def test_networks_must_agree_and_be_enough():
    def verdict(*results):
        return RECIPE.findings(results)[0].verdict

    assert verdict(result("hed"), result("resnet20"), result("resnet32", near=0.2)) == "not shown"
    assert verdict(result("hed"), result("resnet20", near=0.2)) == "does not hold"
    assert verdict(result("resnet20")) == "not shown"
    assert verdict(result("resnet20", count=7), result("hed", count=7)) == "not shown"


@pytest.mark.parametrize(
    ("relations", "verdict"),
    [
        ((-1, -1, -1, -1), "holds"),
        ((1, 1, 1, 1), "does not hold"),  # the other way round than claimed
        ((0, 0, 0, 0), "does not hold"),
        ((-1, -1, -1, 1), "not shown"),  # one network disagrees
    ],
)
def test_the_loss_must_follow_what_layers_read(relations, verdict):
    results = [result(name, relation=r, count=40) for name, r in zip(NAMES, relations, strict=True)]
    _, found = RECIPE.findings(results)
    assert (found.claim, found.verdict) == ("U3", verdict)
    assert len({tuple(row) for row in found.table}) == 1
    assert len(figures(found.figure)) == 2
    row = next(row for row in found.table if row["predictor"] == "correlation of neighbours")
    assert row["layers"] == 160
    if abs(sum(relations)) == 4:
        assert row["rank correlation"] == f"{relations[0]:.2f} ({relations[0]:.2f} to {relations[0]:.2f})"
        assert "Strong enough to rank layers" in found.says
    if relations == (0, 0, 0, 0):
        assert "None is strong enough" in found.says


def test_one_network_is_too_little_to_tell():
    assert RECIPE.findings([result("resnet20", relation=-1)])[1].verdict == "not shown"
    assert RECIPE.findings([result("resnet20", relation=-1, count=7)])[1].says == (
        "Too few layers were converted to say anything."
    )


def test_arms_and_what_is_missing_is_named():
    assert [arm.name for arm in RECIPE.arms("small")] == list(NAMES)
    assert [arm.name for arm in RECIPE.arms("smoke")] == ["resnet20"]
    forms = {arm.name: arm.settings["forms"] for arm in RECIPE.arms("small")}
    assert "tucker" in forms["efficientnet_lite0"]
    assert "tucker" not in forms["hed"]
    settings = RECIPE.arms("smoke")[0].settings
    with pytest.raises(WeightsError, match=r"pass --weights FOLDER with resnet20\.safetensors"):
        RECIPE.trial(settings, 0, At(no_pictures))
    assert RECIPE.claims == ("U2", "U3")


def test_natural_pictures_must_be_named(monkeypatch):
    monkeypatch.setattr(correlation, "trained", lambda name, inputs: edges().eval())
    with pytest.raises(SepwiseError, match="pass --images"):
        RECIPE.trial(RECIPE.arms("small")[0].settings, 0, At(no_pictures, Inputs()))
