"""What is known of the layers of a small network: measured, merged over seeds, and nothing where there is nothing."""

import pytest
import torch
from small_networks import classifier
from torch import nn

from sepwise.lab.layers import converted_layers, mean, over_seeds, read_by_layers


def pictures(count: int = 12, seed: int = 0) -> list[torch.Tensor]:
    x = torch.randn(count, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    return list(nn.functional.avg_pool2d(x, 3, stride=1, padding=1).split(6))


@pytest.fixture(scope="module")
def trial():
    model = classifier().eval()
    done: list[float] = []
    found = {
        "read": read_by_layers(model, pictures()),
        "converted": converted_layers(model, pictures(), ["depthwise", "cp"], done.append),
    }
    assert done == sorted(done)
    return found


def test_every_convolution_is_read(trial):
    rows = {row["name"]: row for row in trial["read"]}
    assert list(rows) == ["first", "second", "third", "point"]
    assert [row["place"] for row in rows.values()] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert rows["first"]["spatial"]["vertical"]["1"] > 0.5
    assert rows["point"]["intra"] is None  # a kernel of one pixel
    assert 1 / 9 < rows["third"]["intra_chance"] < rows["third"]["intra"] + 0.2 < 1.2


def test_what_can_be_converted_is(trial):
    rows = {row["name"]: row for row in trial["converted"]}
    assert list(rows) == ["first", "second", "third"]
    assert rows["second"]["weight_shape"] == [24, 12, 3, 3]
    assert rows["second"]["macs"] == 24 * 12 * 9 * 12 * 12
    candidates = rows["second"]["candidates"]
    assert {c["form"] for c in candidates} == {"depthwise", "cp"}
    assert all(0 < c["share"] < 1 and c["effect"] >= 0 and c["error"] >= 0 for c in candidates)
    assert all((c["nearest"] is None) == (c["form"] == "cp") for c in candidates)
    # Nothing of the same cost is nearer to the weight than the nearest.
    assert all(c["nearest"] <= c["energy"] + 1e-6 for c in candidates if c["form"] == "depthwise")


def test_noise_is_felt_as_much_as_it_gets_through():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False), nn.Flatten())
    [first, last] = converted_layers(model.eval(), pictures(), ["depthwise"])
    assert last["felt"] == pytest.approx(1, rel=0.05)  # nothing follows: its own relative change
    assert first["felt"] != pytest.approx(1, rel=0.05)


def test_seeds_are_averaged_layer_by_layer(trial):
    other = {
        "read": [{**row, "across": row["across"] and row["across"] + 0.2} for row in trial["read"]],
        "converted": [
            {
                **row,
                "felt": row["felt"] + 2,
                # One candidate fewer: rows of one form and share belong together, wherever they stand.
                "candidates": [{**c, "effect": c["effect"] + 1} for c in row["candidates"][1:]],
            }
            for row in trial["converted"]
        ],
    }
    one, both = over_seeds([trial]), over_seeds([trial, other])
    assert [row["name"] for row in both] == ["first", "second", "third", "point"]
    for single, merged in zip(one, both, strict=True):
        assert merged["across"] == pytest.approx(single["across"] + 0.1)
        assert merged["neighbours"] == single["neighbours"] == single["curve"][1]
        if "candidates" not in single:
            continue
        assert merged["felt"] == pytest.approx(single["felt"] + 1)
        effects = [[c["effect"] for c in layer["candidates"]] for layer in (single, merged)]
        assert effects[1][0] == effects[0][0]
        assert effects[1][1:] == pytest.approx([effect + 0.5 for effect in effects[0][1:]])
    assert "candidates" not in both[-1]
    assert one[0]["dimensions_share"] == pytest.approx(trial["read"][0]["dimensions"] / 3)


def test_the_mean_of_what_is_known():
    assert mean([1.0, None, 3.0]) == 2
    assert mean([None]) is None
