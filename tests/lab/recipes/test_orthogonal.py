"""U1: ranks, bounds and trained layers agree with each other and with sums by hand; the verdict follows the numbers."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sepwise.lab import named
from sepwise.lab.data import Labelled
from sepwise.lab.recipe import At, Result
from sepwise.lab.recipes import orthogonal
from sepwise.lab.recipes.orthogonal_judged import DENSE, EXPRESSIBLE, ONE, RELU, TWO
from sepwise.report.lab import figures

RECIPE = named("orthogonal")
FIT = {"network": ONE, "width": 1, "reads": "every", "inputs": "white", "filters": [3], "steps": 100}


@cache
def pictures():
    """Smooth pictures whose channels are alike, as (training, test)."""
    random = torch.Generator().manual_seed(0)
    gray, colour = (torch.randn(60, c, 12, 12, generator=random) for c in (1, 3))
    smooth = F.interpolate(gray + 0.3 * colour, size=(24, 24), mode="bilinear")
    images = (128 + 40 * smooth).clamp(0, 255).byte()
    labels = torch.zeros(60, dtype=torch.int64)
    return Labelled(images[:40], labels[:40]), Labelled(images[40:], labels[40:])


def fitted(seed=0, **settings):
    return RECIPE.trial(FIT | settings, seed, At(pictures))


def by_hand(wanted, multiplier):
    """What is missed on white noise: for each channel the singular values after the first ones, with NumPy."""
    scaled = wanted.numpy() / np.sqrt((wanted.numpy() ** 2).sum((1, 2, 3), keepdims=True))
    lost = [np.linalg.svd(scaled[:, c].reshape(len(scaled), 9))[1][multiplier:] for c in range(3)]
    return 100 * sum((values**2).sum() for values in lost) / len(scaled)


def test_the_filters_are_the_questions_and_span_all_kernels():
    assert orthogonal.FILTERS[0].tolist() == [[-1, 0, 1]] * 3
    assert orthogonal.FILTERS[1].tolist() == [[-1] * 3, [0] * 3, [1] * 3]
    assert orthogonal.FILTERS[2].tolist() == [[-1, -1, 0], [-1, 0, 1], [0, 1, 1]]
    assert float((orthogonal.FILTERS[0] * orthogonal.FILTERS[1]).sum()) == 0
    assert int(torch.linalg.matrix_rank(orthogonal.FILTERS.flatten(1))) == 9


def test_ranks_of_random_layers():
    layers = RECIPE.trial({"cases": orthogonal.CASES, "outputs": 16}, 0, At(pictures))["layers"]
    found = {
        (e["channels"], e["multiplier"], e["size"]): (e["one channel"], e["alike channels"], e["dimensions"])
        for e in layers
    }
    assert found[3, 1, 3] == (1, 3, 3 * (16 + 9 - 1))
    assert found[3, 2, 3] == (2, 6, 3 * 2 * (16 + 9 - 2))
    assert found[12, 1, 3] == (1, 9, 12 * (16 + 9 - 1))
    assert found[3, 9, 3] == found[3, 12, 3] == found[3, None, 3] == (9, 9, 16 * 3 * 9)
    assert found[3, 4, 5] == (4, 12, 3 * 4 * (16 + 25 - 4))


def test_bounds_on_noise():
    bounds = RECIPE.trial({"cases": (), "outputs": 16}, 0, At(pictures))["bounds"]
    assert bounds[0][1] == pytest.approx(50)  # vertical and horizontal are orthogonal: one filter gets one of them
    for m, row in enumerate(bounds, start=1):
        assert row[:m] == pytest.approx([0] * m, abs=1e-9)
        assert all(b > 0.1 for b in row[m:])
    assert bounds[2][8] == pytest.approx(by_hand(orthogonal._wanted("every", 9), 3))


@pytest.mark.parametrize(("reads", "width"), [("every", 1), ("every", 3), ("own", 2), ("weighted", 1), ("weighted", 2)])
def test_training_on_noise_reaches_the_bound_and_not_less(reads, width):
    found = fitted(seed=1, reads=reads, width=width, filters=[2, 3, 9])
    wanted = orthogonal._wanted(reads, 9, torch.Generator().manual_seed(1))
    assert found["bound"] == pytest.approx([by_hand(wanted[:n], width) for n in (2, 3, 9)], abs=1e-9)
    assert found["missed"] == pytest.approx(found["bound"], abs=1e-4)
    assert min(m - b for m, b in zip(found["missed"], found["bound"], strict=True)) > -1e-9


def test_a_training_cut_short_does_not_reach_it():
    found = fitted(filters=[9], steps=2)
    assert found["missed"][0] > found["bound"][0] + 1


def test_one_filter_for_each_channel_learns_three_kinds_where_it_may():
    assert fitted()["missed"][0] > 35
    assert fitted(reads="own")["missed"][0] < 1e-3
    assert fitted(inputs="gray")["missed"][0] < 1e-3


def test_on_gray_noise_three_channels_are_one_with_three_times_the_filters():
    three, one = fitted(inputs="gray", filters=[5, 9]), fitted(width=3, filters=[5, 9])
    assert three["bound"] == pytest.approx(one["bound"])
    assert three["missed"] == pytest.approx(three["bound"], abs=1e-4)


def test_few_patches_stand_for_all():
    train, _ = pictures()
    few = orthogonal._standing_for(train, 3)
    x = orthogonal.ready(train.images).double()
    tiles = F.unfold(x, 3, stride=3).transpose(1, 2).flatten(0, 1)  # 24 / 3 tiles on each side
    assert few.shape == (27, 3, 3, 3)
    torch.testing.assert_close(few.flatten(1).mT @ few.flatten(1), tiles.mT @ tiles)


def test_on_pictures_nothing_is_below_the_bound_and_every_channel_has_one_kernel():
    found = fitted(inputs="pictures", filters=[1, 3, 9], steps=200)
    assert all(m > b - 1e-9 for m, b in zip(found["missed"], found["bound"], strict=True))
    assert found["missed"][0] < 1e-3
    assert found["missed"][1] < 10
    assert 0.5 < found["alike"] < 1
    kernels = torch.tensor(found["kernels"])
    assert torch.linalg.matrix_rank(kernels.transpose(0, 1).flatten(2), rtol=1e-6).tolist() == [1, 1, 1]
    assert int(torch.linalg.matrix_rank(kernels.sum(1).flatten(1), rtol=0.1)) > 1


def test_multiplications_of_each_way():
    ways = [(ONE, 1), (ONE, 9), (orthogonal.BEFORE, 3), (TWO, 9), (RELU, 9), (DENSE, 1)]
    found = [fitted(network=n, width=w, filters=[9], steps=1)["multiplications"] for n, w in ways]
    assert found == [[54], [486], [63], [216], [216], [243]]


def test_a_second_step_helps():
    assert fitted(network=orthogonal.BEFORE, width=9, filters=[9])["missed"][0] < 0.1
    assert fitted(network=TWO, width=9, filters=[9])["missed"][0] < 10
    assert fitted(network=DENSE, filters=[9])["missed"][0] < 1e-3


def results(missed, seeds=3, rank=2):
    """Every arm of the recipe, one layer with m = 1 missing `missed` percent where it could learn several kinds."""
    found = []
    for arm in RECIPE.arms("small"):
        for seed in range(seeds):
            if arm.name == EXPRESSIBLE:
                layer = {"channels": 3, "multiplier": 2, "size": 3, "outputs": 16, "one channel": rank}
                numbers = {"layers": [layer | {"alike channels": 6, "dimensions": 138}], "bounds": [[1.0] * 9] * 9}
            else:
                noise = (arm.settings["reads"], arm.settings["inputs"]) == ("every", "white")
                count, bounded = len(arm.settings["filters"]), arm.settings["network"] == ONE
                numbers = {
                    "filters": arm.settings["filters"],
                    "missed": [35.0 if noise else missed] * count,
                    "bound": [35.0 if noise else 0.0] * count * bounded,
                    "multiplications": [54] * count,
                    "kernels": [[[[1.0] * 3] * 3] * 3] * 3,
                    "alike": 0.9,
                }
            found.append(Result(arm.name, seed, numbers))
    return found


@pytest.mark.parametrize(("missed", "verdict"), [(0.7, "does not hold"), (20.0, "not shown"), (34.0, "holds")])
def test_the_verdict_follows_what_one_layer_learned(missed, verdict):
    [finding] = RECIPE.findings(results(missed))
    assert (finding.claim, finding.verdict) == ("U1", verdict)
    assert "as the formulas say in 3 of 3 random layers" in finding.says
    assert f"{missed:.2f} % on CIFAR-10" in finding.says


def test_too_little_shows_nothing():
    assert RECIPE.findings(results(0.7, seeds=2))[0].verdict == "not shown"
    assert RECIPE.findings(results(0.7, rank=3))[0].verdict == "not shown"
    [some] = RECIPE.findings([r for r in results(0.7) if "pictures" not in r.arm])
    assert some.verdict == "not shown"
    assert "11 of 36 arms have no trial: one layer 1, every, pictures;" in some.says


def test_a_smoke_run_draws_its_figures():
    found = [Result(arm.name, 0, RECIPE.trial(arm.settings, 0, At(pictures))) for arm in RECIPE.arms("smoke")]
    [finding] = RECIPE.findings(found)
    assert finding.verdict == "not shown"
    drawn = figures(finding.figure)
    assert len(drawn) == 5
    assert all(each["title"] and each["svg"].startswith("<svg") for each in drawn)
