"""Convolutions added up, in one: the same numbers, whatever lies beside them; and the sums that stay."""

# pyright: reportArgumentType=false, reportCallIssue=false

import pytest
import torch
from chains import assert_same, layers_of, pictures
from plain_networks import settle
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sepwise.fusion import fuse
from sepwise.fusion.stock import stock_calls


def conv(*arguments, bias=True, **options):
    return nn.Conv2d(6, 6, *arguments, bias=bias, **options)


class Beside(nn.Module):
    """A stem, branches side by side with what is added besides, and a pointwise convolution."""

    def __init__(self, *branches: nn.Module, plus: str = "", after: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 6, 3, padding=1), nn.SiLU()
        self.branches = nn.ModuleList(branches)
        self.plus, self.after, self.out = plus, after or nn.Identity(), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        y = 0
        for branch in self.branches:
            y = y + branch(x)
        if "itself" in self.plus:
            y = x + y
        if "twice" in self.plus:
            y = x + y + x
        if "other" in self.plus:
            y += x.tanh()
        if "number" in self.plus:
            y = y + 0.5
        if "read" in self.plus:
            y = y * self.branches[0](x).mean()
        return self.out(self.after(y))


def deep(*arguments, **options):
    return conv(*arguments, groups=6, **options)


def normed(layer):
    return nn.Sequential(layer, nn.BatchNorm2d(6))


MERGED = {
    "RepVGG": ((normed(conv(3, 1, 1, bias=False)), normed(conv(1)), nn.BatchNorm2d(6)), "", 2, "dense 3x3, 6 to 6"),
    "MobileOne": ((*(normed(deep(3, 1, 1)) for _ in "12"), normed(deep(1)), nn.BatchNorm2d(6)), "", 3, "depthwise 3x3"),
    "the value itself": ((deep(5, 1, 2), deep(3, 1, 1, bias=False)), "itself", 1, "depthwise 5x5"),
    "one and the value": ((deep(3, 1, 1),), "itself", 0, "depthwise 3x3"),
    "something else": ((deep(3, 1, 1), deep(1)), "other", 1, "dense 3x3, 3 to 6, silu"),
    "a number": ((deep(3, 1, 1), deep(1)), "number", 1, "dense 3x3, 3 to 6, silu"),
    "strides": ((conv(5, 2, 2, groups=2), conv(3, 2, 1, groups=2), conv(1, 2, groups=2)), "", 2, ""),
    "dilations": ((deep(3, 1, 2, dilation=2), deep(1), deep(3, 1, 2, dilation=2)), "itself", 2, "depthwise 3x3"),
    "a row": ((deep((1, 5), 1, (0, 2)), deep((1, 3), 1, (0, 1))), "itself", 1, "depthwise 1x5"),
    "even kernels": ((deep((1, 4), 1, (0, 2)), deep((1, 2), 1, (0, 1))), "", 1, "depthwise 1x4"),
    "no padding": ((deep(3), deep(3)), "", 1, "depthwise 3x3"),
}  # fmt: skip


@pytest.mark.parametrize("case", MERGED)
def test_one_convolution_is_left(case):
    branches, plus, beside, says = MERGED[case]
    torch.manual_seed(1)
    model = settle(Beside(*branches, plus=plus)).double()
    fused = fuse(model, pictures())
    assert_same(fused, model, pictures())
    assert_same(fused, model, pictures(n=3, size=(12, 7)))
    assert [len(others) for others in fused.report.merged.values()] == [beside]
    assert any(what.startswith(says) for what in (*fused.report.fused.values(), *fused.report.alone.values()))
    assert fused.report.left == {} or plus in ("other", "number")
    assert not layers_of(fused, nn.BatchNorm2d)


STAYS = {
    "a cross": ((deep((1, 5), 1, (0, 2)), deep((5, 1), 1, (2, 0))), ""),
    "mirrored edges": ((deep(3, 1, 1), deep(3, 1, 1, padding_mode="reflect")), ""),
    "other dilations": ((deep(3, 1, 1), deep(3, 1, 2, dilation=2)), ""),
    "other groups": ((conv(3, 1, 1), deep(3, 1, 1)), ""),
    "the value twice": ((deep(3, 1, 1),), "twice"),
    "called again": ((deep(3, 1, 1),), "itself, read"),
    "norms alone": ((nn.BatchNorm2d(6), nn.BatchNorm2d(6)), ""),
}


@pytest.mark.parametrize("case", STAYS)
def test_sums_of_other_kinds_stay(case):
    branches, plus = STAYS[case]
    model = settle(Beside(*branches, plus=plus)).double()
    fused = fuse(model, pictures())
    assert fused.report.merged == {}
    assert_same(fused, model, pictures())


def test_a_norm_after_the_sum_is_folded_too():
    model = settle(Beside(deep(3, 1, 1), deep(1), plus="itself", after=nn.BatchNorm2d(6))).double()
    fused = fuse(model, pictures())
    assert fused.report.norms == 1
    assert fused.report.fused == {"branches.0": "depthwise 3x3, pointwise 6 to 5"}
    assert fused.report.merged == {"branches.0": ["branches.1"]}
    assert "1 sums of parallel layers written as one convolution each" in str(fused.report)
    assert_same(fused, model, pictures())


def test_a_sum_within_a_sum():
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Beside(deep(3, 1, 1), deep(1), plus="itself"), deep(3, 1, 1)
            self.first.out = nn.Identity()  # type: ignore[assignment]
            self.out = nn.Conv2d(6, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.out(x + self.second(x) + x.tanh())

    model = settle(Nested()).double()
    fused = fuse(model, pictures())
    assert fused.report.merged == {"first.branches.0": ["first.branches.1"], "second": []}
    assert_same(fused, model, pictures())


def test_a_program_is_merged_as_its_model():
    model = settle(Beside(deep(3, 1, 1), deep(1), plus="itself")).double()
    program = torch.export.export(model, (pictures(),), strict=False).module()
    fused = fuse(program, pictures())
    assert fused.report.merged == {"branches.0": ["branches.1"]}
    assert_same(fused, model, pictures())


def test_a_sum_of_two_values_each_with_branches():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.out = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 1)
            self.a, self.b, self.c, self.d = deep(3, 1, 1), deep(1), deep(5, 1, 2), deep(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = x.tanh()
            return self.out(self.a(x) + self.c(y) + x.sigmoid() + self.b(x) + self.d(y))

    model = settle(Two()).double()
    fused = fuse(model, pictures())
    assert fused.report.merged == {"a": ["b"], "c": ["d"]}
    assert_same(fused, model, pictures())


@torch.no_grad()
def test_the_fastest_stock_form_is_merged_as_well():
    model = settle(Beside(deep(3, 1, 1), deep(1), plus="itself"))
    x = pictures().float()
    forms = stock_calls(model, x)
    assert sorted(forms) == ["eager channels_last", "eager contiguous", "folded channels_last", "folded contiguous"]
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        forms["folded contiguous"]()
    assert sum(event.count for event in seen.key_averages() if event.key == "aten::conv2d") == 3  # stem, one, out
