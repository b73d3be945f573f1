"""A layer of rank m as the sum of m chains of rank 1: the same numbers, and only where it is worth it."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

import pytest
import torch
from torch import nn

from sepwise.factor import FORMS, Factors, factorize
from sepwise.nn import (
    BlueprintConv2d,
    CPConv2d,
    SeparableConv1d,
    SeparableConv2d,
    SeparableConv3d,
    SpatialConv2d,
    SpatialReversedConv2d,
    SpatialReversedConv3d,
)
from sepwise.nn.terms import SumOfTerms, why_not_terms

CASES = {
    "multiplier 2": (SeparableConv2d, (6, 8, 3), {"depth_multiplier": 2, "padding": 1}),
    "stride and uneven padding": (SeparableConv2d, (6, 8, (3, 5), 2, "same"), {"depth_multiplier": 3}),
    "reflected, dilated": (SeparableConv2d, (6, 8, 3, 1, 2, 2), {"depth_multiplier": 2, "padding_mode": "reflect"}),
    "grouped": (SeparableConv2d, (6, 8, 3), {"depth_multiplier": 2, "groups": 2}),
    "activations and biases": (
        SeparableConv2d,
        (6, 8, 3),
        {"depth_multiplier": 2, "depthwise_bias": True, "between": "relu", "activation": "silu"},
    ),
    "no bias": (SeparableConv2d, (6, 8, 3), {"depth_multiplier": 2, "bias": False}),
    "one axis": (SeparableConv1d, (6, 8, 5), {"depth_multiplier": 2}),
    "three axes": (SeparableConv3d, (6, 8, 3), {"depth_multiplier": 2}),
    "blueprint": (BlueprintConv2d, (6, 8, 3, 2), {"rank": 3}),
    "depthwise 7x7": (SpatialConv2d, (8, 8, 7), {"groups": 8, "rank": 2, "padding": 3}),
    "depthwise 7x7, reversed": (SpatialReversedConv2d, (8, 8, 7, 2), {"groups": 8, "rank": 3}),
    "depthwise with a multiplier": (SpatialConv2d, (8, 16, 5), {"groups": 8, "rank": 2}),
    "depthwise 3x7x7": (SpatialReversedConv3d, (4, 4, (3, 7, 7)), {"groups": 4, "rank": 2}),
}


def made(case):
    layer_class, arguments, options = CASES[case]
    torch.manual_seed(0)
    layer = layer_class(*arguments, **options, dtype=torch.float64)
    for bias in (layer.bias, getattr(layer, "depthwise_bias", None)):
        if bias is not None:
            nn.init.normal_(bias)
    x = torch.randn(2, layer.conv.in_channels, *[9] * layer.ndim, dtype=torch.float64)
    return layer, x


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_the_same_function(case):
    layer, x = made(case)
    assert why_not_terms(layer) is None
    terms, wanted = SumOfTerms(layer), layer(x)
    torch.testing.assert_close(terms(x), wanted, rtol=0, atol=1e-12)
    terms.last[-1].view(-1)[0] += 1e-9
    with pytest.raises(AssertionError):
        torch.testing.assert_close(terms(x), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_no_convolution_has_a_multiplier_any_more(case):
    layer, _ = made(case)
    if layer.conv.in_channels != layer.conv.out_channels and layer.form.startswith("spatial"):
        return  # the multiplier is that of the layer itself
    for step in SumOfTerms(layer).steps:
        assert step.groups in (1, layer.conv.groups) or step.in_channels == step.out_channels == step.groups


def test_the_terms_are_the_pairs_of_the_factors():
    conv = nn.Conv2d(6, 8, 3, dtype=torch.float64)
    factors: Factors = factorize(conv.weight, "depthwise", 3)
    terms = SumOfTerms(SeparableConv2d.from_factors(factors, conv))
    for pair, first, last in zip(factors.pairs(), terms.first, terms.last, strict=True):
        assert torch.equal(pair.weights[0], first)
        assert torch.equal(pair.weights[1], last)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (SeparableConv2d(6, 8, 3), "depthwise of rank 1 is not a sum of several chains"),
        (CPConv2d(6, 8, 3, rank=4), "cp of rank 4 is not a sum"),
        (SpatialConv2d(6, 8, 3, rank=4), "none of its steps filters single channels"),
        (SpatialConv2d(1, 8, 3, rank=2), "none of its steps filters single channels"),
        (SeparableConv2d(6, 8, 3, depth_multiplier=2, between_norm=nn.BatchNorm2d), "a normalization stands between"),
    ],
)
def test_layers_that_stay_as_they_are(layer, reason):
    assert reason in str(why_not_terms(layer))


def test_layers_with_hooks_or_a_forward_of_their_own_stay():
    class Own(SeparableConv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    hooked = SeparableConv2d(6, 8, 3, depth_multiplier=2)
    hooked.register_forward_hook(lambda *_: None)
    for layer in (hooked, Own(6, 8, 3, depth_multiplier=2)):
        assert why_not_terms(layer) == "it does more than its steps"


def test_every_form_is_asked():
    assert {CASES[case][0].form for case in CASES} == set(FORMS) - {"cp", "tucker"}
