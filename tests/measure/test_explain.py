"""The arithmetic claims of the articles (A1-A9), and each chain against the convolutions it stands for."""

import pytest
import torch
import torch.nn.functional as F

from sepwise.errors import ShapeError
from sepwise.measure.explain import explain, explain_matrix

ARTICLE = {"size": (12, 12), "in_channels": 3, "kernel": (5, 5), "outputs": 256}


def test_a1_nine_multiplications_become_six():
    found = explain_matrix([[3, 6, 9], [4, 8, 12], [5, 10, 15]])
    assert (found.separated.column, found.separated.row) == ((3, 4, 5), (1, 2, 3))
    assert found.to_dict()["multiplications"] == {"dense": 9, "separable": 6}
    forms = explain((7, 7), 1, (3, 3), 1, padding="same").forms
    assert (forms["dense"].multiplications, forms["spatial_each"].multiplications) == (9 * 49, 6 * 49)


def test_a2_sobel_is_separable():
    found = explain_matrix([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    assert (found.separated.column, found.separated.row, found.rank) == ((1, 2, 1), (-1, 0, 1), 1)


def test_a3_a_kernel_of_higher_rank_is_not():
    laplace = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)
    found = explain_matrix(laplace.tolist())
    nearest = torch.tensor(found.nearest, dtype=torch.float64)
    second = torch.linalg.svdvals(laplace)[1]
    assert not found.separated.exact
    assert found.rank == 2
    torch.testing.assert_close(found.separated.error, float(second / laplace.norm()))
    torch.testing.assert_close((nearest - laplace).norm(), second)


def test_a4_a5_the_article_and_its_slips():
    found = explain(**ARTICLE)
    dense, depthwise = found.forms["dense"], found.forms["depthwise"]
    assert found.output == (8, 8, 256)
    assert (dense.multiplications, dense.parameters) == (1_228_800, 19_200)
    assert dense.steps[0].formula == "256 × 5×5×3 × 8×8 = 1,228,800"
    assert [s.multiplications for s in depthwise.steps] == [4_800, 49_152]
    assert [s.formula for s in depthwise.steps] == ["3 × 5×5×1 × 8×8 = 4,800", "256 × 1×1×3 × 8×8 = 49,152"]
    assert (depthwise.multiplications, depthwise.parameters) == (53_952, 75 + 768)
    assert any('"52,952"' in note and '"12×12×256"' in note and "slips" in note for note in found.notes)


@pytest.mark.parametrize("change", [{"outputs": 255}, {"padding": 1}, {"depth_multiplier": 2}, {"stride": 2}])
def test_the_slips_are_only_mentioned_for_the_article(change):
    assert not any("slips" in note for note in explain(**{**ARTICLE, **change}).notes)


def test_a6_depth_multiplier_two():
    assert explain(**ARTICLE, depth_multiplier=2).forms["depthwise"].steps[0].shape == (8, 8, 6)


def test_a7_the_first_question():
    found = explain((7, 7), 3, (3, 3), 128)
    assert found.output == (5, 5, 128)
    assert [s.shape for s in found.forms["depthwise"].steps] == [(5, 5, 3), (5, 5, 128)]


def test_a8_columns_then_rows_and_planes_then_depth():
    flat, deep = explain((9, 9), 2, (5, 3), 4), explain((16, 16, 16), 3, (3, 4, 5), 6)
    for form in ("spatial", "spatial_each"):
        assert [s.conv.geometry.kernel for s in flat.forms[form].steps] == [(5, 1), (1, 3)]
        assert [s.conv.geometry.kernel for s in deep.forms[form].steps] == [(3, 4, 1), (1, 1, 5)]
    assert [s.conv.geometry.kernel for s in flat.forms["spatial_reversed"].steps] == [(1, 3), (5, 1)]
    assert [s.conv.geometry.kernel for s in deep.forms["spatial_reversed"].steps] == [(1, 4, 5), (3, 1, 1)]


def test_a9_depthwise_is_grouped_with_one_channel_a_group():
    found = explain((8, 8), 6, (3, 3), 12, depth_multiplier=2, groups=6)
    step = found.forms["depthwise"].steps[0].conv
    grouped = found.forms["grouped"].steps[0].conv
    assert (step.groups, step.weight_shape, step.out_channels) == (6, grouped.weight_shape, grouped.out_channels)
    assert any("grouped convolution with as many groups as input channels, 6:" in note for note in found.notes)
    assert any("depth multiplier 2, and no step mixes the channels" in note for note in found.notes)
    x, weight = torch.randn(1, 6, 8, 8), torch.randn(step.weight_shape)
    by_channel = torch.cat([F.conv2d(x[:, i : i + 1], weight[2 * i : 2 * i + 2]) for i in range(6)], dim=1)
    torch.testing.assert_close(F.conv2d(x, weight, groups=6), by_channel)


@pytest.mark.parametrize(
    "case",
    [
        {"size": (11, 9), "in_channels": 4, "kernel": (3, 5), "outputs": 6, "stride": (2, 1), "padding": (1, 2)},
        {"size": (13,), "in_channels": 4, "kernel": (3,), "outputs": 8, "dilation": 2},
        {"size": (6, 7, 8), "in_channels": 2, "kernel": (2, 3, 3), "outputs": 4, "padding": 1},
    ],
    ids=["2-D", "1-D", "3-D"],
)
def test_every_step_counts_what_its_convolution_does(case):
    """Real convolutions of each step's weight shape chain up to the same shapes, and weigh as many numbers."""
    convolution = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(case["kernel"])]
    found = explain(**case, rank=2)
    checked = 0
    for account in found.forms.values():
        x = torch.zeros(1, case["in_channels"], *case["size"])
        for step in account.steps:
            geometry, weight = step.conv.geometry, torch.zeros(step.conv.weight_shape)
            pads = tuple(low for low, _ in geometry.pads(step.size))
            x = convolution(x, weight, None, geometry.stride, pads, geometry.dilation, step.conv.groups)
            assert (*x.shape[2:], x.shape[1]) == step.shape
            assert step.multiplications == weight.numel() * x[0, 0].numel()
            checked += 1
        assert not account.steps or account.steps[-1].shape == found.output
    assert checked >= 6


def test_each_kernel_on_its_own_computes_the_sum_of_outer_products():
    """Columns laid out by output, then rows: the steps of `spatial_each` are the convolution with column · row."""
    channels, outputs = 2, 3
    columns, rows = torch.randn(outputs, channels, 5), torch.randn(outputs, channels, 3)
    first, second = explain((9, 9), channels, (5, 3), outputs).forms["spatial_each"].steps
    x = torch.randn(1, channels, 9, 9)
    middle = F.conv2d(x, columns.transpose(0, 1).reshape(first.conv.weight_shape), groups=first.conv.groups)
    by_output = middle.unflatten(1, (channels, outputs)).transpose(1, 2).flatten(1, 2)
    y = F.conv2d(by_output, rows.reshape(second.conv.weight_shape), groups=second.conv.groups)
    torch.testing.assert_close(y, F.conv2d(x, torch.einsum("oiu,oiv->oiuv", columns, rows)))


def test_forms_that_do_not_exist_say_why_and_leave_the_others():
    forms = explain((20,), 3, (5,), 7, rank=9).forms
    assert "one spatial axis" in (forms["spatial"].why_not or "")
    assert "one spatial axis" in (forms["spatial_each"].why_not or "")
    assert "expected an integer from 1 to 3" in (forms["blueprint"].why_not or "")
    assert "divide both 3 input and 7 output channels" in (forms["grouped"].why_not or "")
    assert forms["depthwise"].why_not is None
    assert forms["spatial"].to_dict()["steps"] == []


def test_a_kernel_of_one_pixel_has_nothing_spatial_to_separate():
    found = explain((8, 8), 4, (1, 1), 8)
    assert {name for name, account in found.forms.items() if account.why_not is None} == {"dense", "grouped"}


def test_ratio_is_over_dense():
    forms = explain(**ARTICLE).forms
    assert forms["dense"].ratio == 1
    assert forms["depthwise"].ratio == 53_952 / 1_228_800


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": (13, 5)}, r"the output would be empty: input \(12, 12\)"),
        ({"kernel": (5, 5, 5)}, "input has 2 spatial axes"),
        ({"groups": 2}, "grouped: in_channels=3 must be a positive multiple of groups=2"),
        ({"groups": 0}, "groups=0: expected an integer >= 1"),
        ({"rank": 0}, "rank=0: expected an integer >= 1"),
        ({"depth_multiplier": 0}, "depth_multiplier=0: expected an integer >= 1"),
        ({"outputs": 0}, "out_channels=0 must be a positive multiple"),
        ({"stride": 0}, "stride=0: expected one integer >= 1"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ShapeError, match=message):
        explain(**{**ARTICLE, **change})


def test_a_kernel_of_zeros_has_rank_zero():
    assert explain_matrix([[0, 0], [0, 0]]).rank == 0
