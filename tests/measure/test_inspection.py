"""Inspection: what is seen, what is counted, and the verdict for each kind of convolution."""

import json
from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sepwise.errors import ModelError
from sepwise.factor import factorize
from sepwise.geometry import ConvShape, Geometry
from sepwise.measure import inspect
from sepwise.measure.verdict import Candidate, at_energy, at_saving, judge


def separable_conv(rank, channels=16, kernel=(3, 3)):
    """A dense convolution that is exactly a depthwise separable one of this rank."""
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(channels, channels, kernel, padding=1)
    filters = torch.randn(channels, rank, prod(kernel), generator=generator)
    mix = torch.randn(channels, channels, rank, generator=generator)
    conv.weight.data = torch.einsum("oir,irk->oik", mix, filters).unflatten(2, kernel)
    return conv


def only_layer(conv, size=(10, 10), **options):
    return inspect(conv, torch.rand(1, conv.in_channels, *size), **options).layers[0]


def test_what_one_layer_says():
    conv = separable_conv(rank=1)
    layer = only_layer(nn.Sequential(conv)[0])
    assert (layer.form_today, layer.conv.weight_shape, layer.size) == ("dense", (16, 16, 3, 3), (10, 10))
    assert (layer.macs, layer.macs_share) == (16 * 16 * 9 * 100, 1.0)
    moved = 4 * (16 * 100 + 16 * 16 * 9 + 16 + 16 * 100)
    assert layer.arithmetic_intensity == layer.macs / moved
    assert layer.energy["depthwise"][1] == pytest.approx(1.0, abs=1e-12)
    assert layer.best is not None
    assert (layer.best.form, layer.best.rank, layer.best.macs) == ("depthwise", 1, (16 * 9 + 16 * 16) * 100)
    assert layer.best_intensity == layer.best.macs / (4 * ((1600 + 144 + 1600) + (1600 + 256 + 1600)))
    assert layer.verdict.verdict == "separate"
    assert layer.verdict.reason == "depthwise rank 1 keeps 100 % of the energy at 5.8 times fewer MACs"


def test_energy_is_that_of_the_factors():
    conv = nn.Conv2d(6, 8, 3)
    layer = only_layer(conv)
    assert set(layer.energy) == {"depthwise", "blueprint", "spatial", "spatial_reversed", "cp", "tucker"}
    for form in ("depthwise", "blueprint", "spatial", "spatial_reversed"):
        for rank, kept in layer.energy[form].items():
            assert kept == pytest.approx(factorize(conv.weight.double(), form, rank).energy_kept, abs=1e-6)
        assert list(layer.energy[form]) == [1, 2, 3, 4]


def test_spatial_rank_of_known_kernels():
    conv = nn.Conv2d(1, 2, 3)
    sobel, diagonal = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]), torch.eye(3)
    conv.weight.data = torch.stack([sobel, diagonal]).unsqueeze(1)
    layer = only_layer(conv)
    assert (layer.spatial_rank, layer.rank_one_share) == (2.0, 0.5)


@pytest.mark.parametrize(
    ("conv", "today", "verdict", "reason"),
    [
        (nn.Conv2d(8, 16, 1), "pointwise", "leave", "pointwise, nothing spatial to separate"),
        (nn.Conv2d(8, 16, 1, groups=2), "pointwise, 2 groups", "leave", "pointwise, nothing spatial to separate"),
        (
            nn.Conv2d(3, 32, 3),
            "dense",
            "leave",
            "too few channels to separate: every output sees only 3 input channels",
        ),
        (nn.Conv2d(16, 16, 3, groups=16), "depthwise", "leave", "already depthwise, and splitting its 3×3 kernels"),
        (nn.Conv2d(16, 16, 3, groups=4), "grouped, 4 groups", "leave", "sees only 4 input channels a group"),
        (nn.Conv2d(16, 16, (1, 3)), "spatial 1×3", "doubtful", "keeps"),
        (nn.Conv2d(32, 32, 3), "dense", "doubtful", "energy is spread: at 2.0 times fewer MACs the best form, spatial"),
        (nn.Conv1d(16, 2, 2), "dense", "leave", "too small: no form halves the multiplications"),
        (separable_conv(2), "dense", "separate", "depthwise rank 2 keeps"),
    ],
    ids=["pointwise", "grouped pointwise", "stem", "depthwise", "grouped", "one axis", "spread", "small", "separable"],
)
def test_verdicts(conv, today, verdict, reason):
    if verdict != "separate":
        nn.init.normal_(conv.weight, generator=torch.Generator().manual_seed(1))
    layer = only_layer(conv, (10,) * len(conv.kernel_size))
    assert (layer.form_today, layer.verdict.verdict) == (today, verdict)
    assert reason in layer.verdict.reason


def test_a_large_depthwise_kernel_of_low_rank_is_worth_splitting():
    conv = nn.Conv2d(8, 8, 7, groups=8)
    conv.weight.data = torch.einsum("cu,cv->cuv", torch.rand(8, 7), torch.rand(8, 7)).unsqueeze(1)
    layer = only_layer(conv, (20, 20))
    assert set(layer.energy) == {"spatial", "spatial_reversed"}
    assert layer.skipped["depthwise"] == "every output sees one channel already"
    assert layer.verdict.reason.startswith("spatial rank 1 keeps")


def test_candidates_sit_exactly_at_their_thresholds():
    conv, curve = ConvShape(32, 32, Geometry.of((3, 3))), [0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0]
    assert at_energy(conv, (9, 9), "depthwise", curve).rank == 3
    assert at_energy(conv, (9, 9), "depthwise", [0.5, 0.89]).rank == 2
    cheap = at_saving(conv, (9, 9), "depthwise", curve)
    assert cheap is not None
    assert cheap.rank == 3
    assert 2 * cheap.macs <= conv.macs((9, 9)) < 2 * cheap.macs * 4 / 3
    assert at_saving(ConvShape(2, 2, Geometry.of((1, 2))), (9, 9), "depthwise", [0.9, 1.0]) is None


def test_a_share_is_never_rounded_up_to_all():
    almost = Candidate("spatial", 5, 0.9999, 10, 4.0)
    assert "keeps 99 %" in judge(ConvShape(8, 8, Geometry.of((3, 3))), [almost], []).reason


@pytest.mark.parametrize(
    ("conv", "size", "forms"),
    [
        (nn.Conv1d(16, 16, 5), (30,), {"depthwise", "blueprint", "cp", "tucker"}),
        (
            nn.Conv3d(8, 8, (3, 2, 2)),
            (6, 6, 6),
            {"depthwise", "blueprint", "spatial", "spatial_reversed", "cp", "tucker"},
        ),
    ],
    ids=["1-D", "3-D"],
)
def test_one_and_three_axes(conv, size, forms):
    layer = only_layer(conv, size)
    assert set(layer.energy) == forms
    assert (layer.spatial_rank is None) == (len(size) == 1)


def test_large_weights_skip_the_iterative_forms_unless_asked():
    conv = nn.Conv2d(20, 20, 3)
    layer = only_layer(conv)
    assert set(layer.energy) == {"depthwise", "blueprint", "spatial", "spatial_reversed"}
    assert "iterative=True" in layer.skipped["cp"]
    assert "iterative=True" in layer.skipped["tucker"]
    assert set(only_layer(conv, iterative=True).energy) == {
        "depthwise",
        "blueprint",
        "spatial",
        "spatial_reversed",
        "cp",
        "tucker",
    }


class Mixed(nn.Module):
    """A shared module, a functional call on a parameter, a computed weight and a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3))
        self.unused = nn.Conv2d(8, 8, 3)
        self.up = nn.ConvTranspose2d(8, 8, 2)

    def forward(self, x):
        x = self.shared(self.shared(x))
        x = F.conv2d(F.conv2d(x, self.kernel, padding=1), self.kernel * 2, padding=1)
        return self.up(x)


def test_every_convolution_is_seen_once_or_named_as_left_out():
    found = inspect(Mixed(), torch.rand(1, 8, 9, 9))
    assert [(layer.name, layer.calls) for layer in found.layers] == [("shared", 2), ("kernel", 1)]
    assert found.layers[0].macs == 2 * 8 * 8 * 9 * 81
    computed, transposed = found.not_inspected
    assert computed == "a convolution with a weight 8×8×3×3: its weight is computed on the way, not a parameter"
    assert transposed == "a convolution with a weight 8×8×2×2 in 'up': it is transposed, and no form stands for that"
    assert f"Not inspected: {computed}." in str(found)


def test_an_exported_graph_is_inspected_under_the_same_names():
    model, example = nn.Sequential(separable_conv(1), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval(), torch.rand(1, 16, 8, 8)
    exported = torch.export.export(model, (example,)).module(check_guards=False)
    direct, through = inspect(model, example), inspect(exported, example)
    assert [layer.to_dict() for layer in through.layers] == [layer.to_dict() for layer in direct.layers]


def test_the_batch_changes_counts_and_no_verdict():
    conv = separable_conv(1)
    one, four = (inspect(conv, torch.rand(n, 16, 10, 10)).layers[0] for n in (1, 4))
    assert four.macs == 4 * one.macs
    assert four.verdict == one.verdict
    assert (four.best_intensity or 0) > (one.best_intensity or 0)


def test_totals():
    model = nn.Sequential(separable_conv(1), nn.Conv2d(16, 32, 1), nn.Flatten(), nn.Linear(3200, 10))
    found = inspect(model, torch.rand(1, 16, 10, 10))
    first, second = found.layers
    assert found.verdicts == {"separate": 1, "leave": 1}
    assert found.cost.macs == first.macs + second.macs + 32_000
    assert first.best is not None
    assert found.macs_after == first.best.macs + second.macs + 32_000
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["total"]["macs_if_separated"] == found.macs_after
    assert plain["layers"][0]["energy"]["depthwise"]["1"] == pytest.approx(1.0)
    assert "misleads at low ranks" in plain["total"]["caveat"]


def test_the_table():
    model = nn.Sequential(separable_conv(1), nn.Conv2d(16, 32, 1))
    text = str(inspect(model, torch.rand(1, 16, 10, 10)))
    lines = text.splitlines()
    assert lines[1].split()[:6] == ["0", "dense", "16×16×3×3", "10×10×16", "230,400", "81.8%"]
    assert lines[2].strip().startswith("energy kept, % at ranks 1 to 4: depthwise 100 100 100 100;")
    assert lines[3].strip().startswith("separate: depthwise rank 1 keeps 100 %")
    assert lines[5] == "    leave: pointwise, nothing spatial to separate"
    assert "2 convolutions: 1 separate, 1 leave." in lines
    assert "misleads at low ranks" in lines[-1]


def test_nan_weights_are_left_with_the_reason():
    conv = nn.Conv2d(8, 8, 3)
    conv.weight.data[0, 0, 0, 0] = float("nan")
    layer = only_layer(conv)
    assert (layer.verdict.verdict, layer.energy) == ("leave", {})
    assert "holds NaN or infinite values" in layer.verdict.reason


def test_the_model_and_the_threads_are_left_alone():
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)).train()
    before, threads = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_num_threads()
    inspect(model, torch.rand(2, 8, 9, 9))
    assert torch.get_num_threads() == threads
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_model_without_convolutions():
    found = inspect(nn.Linear(3, 4), torch.rand(1, 3))
    assert found.layers == ()
    assert "0 convolutions: nothing to separate." in str(found)


def test_a_model_that_cannot_run_is_refused():
    with pytest.raises(ModelError, match="cannot run on an example of shape"):
        inspect(nn.Conv2d(3, 4, 3), torch.rand(1, 5, 9, 9))
