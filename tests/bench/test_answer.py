"""The benchmark's own truth, and that it refuses to have a wrong answer timed."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import separable

from bench import answer
from bench.answer import BOUND, DTYPE, draw, judge, solve
from bench.workload import Workload

PAIRS = [
    Workload("plain", 2, 8, 16, 10, 12, 3, 2, 1, 1, "relu", "relu6"),
    Workload("multiplied", 1, 5, 7, 9, 9, 5, 1, 2, 3, None, "silu"),
    Workload("wide", 1, 32, 8, 7, 7, 7, 1, 3, 1, "hardswish", "gelu"),
    Workload("no padding", 1, 4, 4, 6, 6, 3, 1, 0, 1, "elu", None),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda w: w.name)
def test_the_answer_is_that_of_the_tests_oracle(pair):
    t = draw(pair, "float32")
    expected = separable(
        t.x.transpose(0, 3, 1, 2),
        t.depthwise[:, None],
        t.pointwise[:, :, None, None],
        t.bias,
        depthwise_bias=t.depthwise_bias,
        between=pair.between,
        activation=pair.activation,
        stride=pair.stride,
        padding=pair.padding,
    )
    np.testing.assert_allclose(solve(pair, t).transpose(0, 3, 1, 2), expected, rtol=1e-12, atol=1e-12)
    assert np.abs(expected).max() > 0.1


def test_bfloat16_inputs_are_rounded_as_torch_rounds():
    x = draw(PAIRS[0], "float32").x
    assert torch.equal(torch.from_numpy(answer.round_to_bfloat16(x)), torch.from_numpy(x).bfloat16().float())
    assert np.array_equal(draw(PAIRS[0], "bfloat16").x, answer.round_to_bfloat16(x))


def stock_output(pair: Workload, accuracy: str) -> tuple[np.ndarray, np.ndarray]:
    """What two stock convolutions give, and the answer."""
    from bench.candidates import Job
    from bench.candidates.pytorch import Pair, picture

    tensors = draw(pair, DTYPE[accuracy])
    job = Job(pair, tensors, DTYPE[accuracy], 1, (accuracy,), ())
    with torch.inference_mode():
        y = Pair(job)(picture(job)).permute(0, 2, 3, 1).float()
    return y.contiguous().numpy().copy(), solve(pair, tensors)


LARGER = Workload("larger", 2, 128, 64, 56, 56, 3, 1, 1, 1, "relu", "relu")


@pytest.mark.parametrize("accuracy", BOUND)
def test_a_right_answer_is_accepted(accuracy):
    for pair in (*PAIRS, LARGER):
        output, wanted = stock_output(pair, accuracy)
        assert judge(output, wanted).refusal(BOUND[accuracy]) is None


def _one_pixel(y):
    y[1, 55, 55] = 0


def _last_channel(y):
    y[..., -1] = 0


def _one_element(y):
    y[0, 20, 20, int(y[0, 20, 20].argmax())] *= 0.5


def _shifted(y):
    y[:] = np.roll(y, 1, axis=2)


def _not_a_number(y):
    y[1, 3, 4, 5] = np.nan


@pytest.mark.parametrize("accuracy", BOUND)
@pytest.mark.parametrize("fault", [_one_pixel, _last_channel, _one_element, _shifted, _not_a_number])
def test_a_planted_fault_is_refused(accuracy, fault):
    output, wanted = stock_output(LARGER, accuracy)
    fault(output)
    refusal = judge(output, wanted).refusal(BOUND[accuracy])
    assert refusal is not None
    assert refusal.startswith("too far from the answer, not timed: error ")


def test_an_output_of_another_shape_or_an_empty_truth_is_refused():
    output, wanted = stock_output(PAIRS[0], "highest")
    assert judge(output[:, :-1], wanted).refusal(1.0)
    assert judge(np.zeros_like(wanted), np.zeros_like(wanted)).refusal(1.0)


def test_bfloat16_inside_does_not_pass_for_float32():
    """What a reduced float32 mode might do: it must not compete among the accurate."""
    output, wanted = stock_output(LARGER, "highest")
    reduced = answer.round_to_bfloat16(output)
    assert judge(reduced, wanted).refusal(BOUND["high"])
    assert judge(reduced, wanted).refusal(BOUND["bf16"]) is None


def test_weights_differ_by_seed_and_data_can_be_given():
    pair = replace(PAIRS[0], name="other")
    assert not np.array_equal(draw(pair, "float32", seed=1).x, draw(pair, "float32").x)
    given = np.ones((2, 10, 12, 8), np.float32)
    assert draw(pair, "float32", given).x is given


def test_examples_run():
    assert doctest.testmod(answer).failed == 0
