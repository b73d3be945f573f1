"""Timing: order of the rounds, statistics on a made-up clock, and the refusal to time a wrong answer."""

import pytest
import torch
from torch import nn

from sepwise.errors import SepwiseError
from sepwise.measure import Timing, fastest, measure_latency, ratio, stock_forms
from sepwise.measure.timing import check_same


class Clock:
    """A clock that only moves when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, *seconds):
        turns = iter(seconds)
        return lambda: setattr(self, "now", self.now + next(turns))


def test_rounds_interleave_and_rotate():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    measure_latency(calls, rounds=3, warmup=0)
    assert "".join(order) == "abcbcacab"


def test_warm_up_is_thrown_away_and_the_rest_summed_up():
    clock = Clock()
    timings = measure_latency({"a": clock.work(9, 9, 1, 2, 3, 4, 5)}, rounds=5, warmup=2, clock=clock)
    assert timings["a"].rounds_ms == (1000, 2000, 3000, 4000, 5000)
    assert (timings["a"].median_ms, timings["a"].quartiles_ms) == (3000, (2000, 4000))
    assert timings["a"].threads == torch.get_num_threads()
    assert str(timings["a"]).startswith("3000.00 ms (quartiles 2000.00-4000.00, 5 rounds, ")
    assert timings["a"].to_dict()["low_ms"] == 2000


def test_the_ratio_is_taken_within_rounds():
    slow, fast = Timing((10.0, 40.0, 30.0), 1), Timing((5.0, 20.0, 10.0), 1)
    assert ratio(slow, fast).values == (2.0, 2.0, 3.0)
    assert ratio(slow, fast).median == 2.0
    assert fastest({"slow": slow, "fast": fast}) == "fast"


def test_one_round_has_no_spread():
    assert Timing((2.0,), 1).quartiles_ms == (2.0, 2.0)


def test_a_layout_that_the_model_cannot_run_in_is_no_form():
    class Viewing(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.conv, self.size = nn.Conv2d(3, 4, 3), size

        def forward(self, x):
            return self.conv(x).view(-1, self.size)

    assert list(stock_forms(Viewing(64), torch.rand(1, 3, 6, 6))) == ["eager contiguous"]
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        stock_forms(Viewing(7), torch.rand(1, 3, 6, 6))


def test_stock_forms_run_on_copies_and_give_the_same():
    conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
    model = nn.Sequential(conv, norm, nn.ReLU()).train()
    example = torch.rand(2, 3, 9, 9)
    forms = stock_forms(model, example)
    assert list(forms) == ["eager contiguous", "eager channels_last"]
    outputs = [run() for run in forms.values()]
    torch.testing.assert_close(outputs[0], outputs[1])
    assert isinstance(outputs[1], torch.Tensor)
    assert outputs[1].is_contiguous(memory_format=torch.channels_last)
    assert model.training
    assert conv.weight.is_contiguous()
    assert norm.num_batches_tracked == 0


def test_three_axes_have_their_own_channels_last_and_one_axis_has_none():
    assert len(stock_forms(nn.Conv3d(2, 3, 2), torch.rand(1, 2, 4, 4, 4))) == 2
    assert list(stock_forms(nn.Conv1d(2, 3, 2), torch.rand(1, 2, 4))) == ["eager contiguous"]


def test_a_wrong_answer_is_not_timed():
    class LayoutMatters(nn.Module):
        def forward(self, x):
            return x + float(not x.is_contiguous())

    with pytest.raises(SepwiseError, match="refusing to time the form 'eager channels_last': its output differs by 1"):
        stock_forms(LayoutMatters(), torch.rand(1, 3, 4, 4))


def test_of_half_precision_less_is_asked():
    x = torch.ones(4)
    for dtype, accepted in ((torch.float16, 0.008), (torch.bfloat16, 0.04), (torch.float32, 0.0008)):
        given = x.to(dtype)
        check_same("it", given * (1 + accepted), given)
        with pytest.raises(SepwiseError, match="refusing to time it: its output differs by"):
            check_same("it", given * (1 + 2 * accepted), given)


def test_check_same_sees_shapes_nan_and_small_faults():
    x = torch.ones(4)
    check_same("it", x, x * (1 + 1e-4))
    for other in (x * 1.01, torch.tensor([1.0, 1.0, 1.0, float("nan")]), torch.ones(5)):
        with pytest.raises(SepwiseError, match="refusing to time it"):
            check_same("it", other, x)


def test_refusals():
    with pytest.raises(SepwiseError, match="expected at least one callable, rounds >= 1"):
        measure_latency({})
    with pytest.raises(SepwiseError, match="2 rounds against 1: both must come from one measurement"):
        ratio(Timing((1.0, 1.0), 1), Timing((1.0,), 1))
