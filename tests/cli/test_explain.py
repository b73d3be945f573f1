"""`sepwise explain` end to end: what is printed, the JSON of the same numbers, the refusals, and its page of docs."""

import json
import re
import shlex
from pathlib import Path

import pytest

from sepwise.cli import main

ARTICLE = "--input 12x12x3 --kernel 5x5 --outputs 256"
PAGE = Path(__file__).parents[2] / "docs" / "explain.md"


@pytest.fixture
def explain(capsys):
    """Run `sepwise explain ARGUMENTS`; give (exit code, stdout, stderr)."""

    def call(arguments):
        code = main(["explain", *shlex.split(arguments)])
        return (code, *capsys.readouterr())

    return call


def test_the_article_in_words(explain):
    code, out, err = explain(ARTICLE)
    lines = [re.sub(" +", " ", line).strip() for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert lines[0] == "12×12×3 input, 256 kernels 5×5, stride 1×1, padding 0×0 → 8×8×256"
    assert "dense → 8×8×256 256 × 5×5×3 × 8×8 = 1,228,800 19,200 parameters" in lines
    assert "depthwise → 8×8×3 3 × 5×5×1 × 8×8 = 4,800 75 parameters" in lines
    assert "pointwise → 8×8×256 256 × 1×1×3 × 8×8 = 49,152 768 parameters" in lines
    assert "together 4,800 + 49,152 = 53,952 843 parameters" in lines
    assert "22.8 times fewer multiplications (4.39 % of dense)" in lines
    assert '"52,952" multiplications and "12×12×256" outputs, sometimes seen for it, are slips' in out
    assert max(len(line) for line in out.splitlines() if "→" in line) <= 110


def test_json_holds_the_same_numbers(explain):
    data = json.loads(explain(f"{ARTICLE} --json")[1])
    depthwise = data["forms"]["depthwise"]
    assert data["output"] == [8, 8, 256]
    assert data["forms"]["dense"]["multiplications"] == 1_228_800
    assert [step["multiplications"] for step in depthwise["steps"]] == [4_800, 49_152]
    assert [step["shape"] for step in depthwise["steps"]] == [[8, 8, 3], [8, 8, 256]]
    assert [step["parameters"] for step in depthwise["steps"]] == [75, 768]
    assert (depthwise["multiplications"], depthwise["ratio"]) == (53_952, 53_952 / 1_228_800)
    spatial = {"spatial_each", "spatial", "spatial_reversed"}
    assert set(data["forms"]) == {"dense", *spatial, "depthwise", "blueprint", "grouped"}


def test_options_reach_the_arithmetic(explain):
    options = "--stride 2x1 --padding 1x2 --dilation 1 --depth-multiplier 2 --groups 2 --rank 2"
    data = json.loads(explain(f"--input 16x16x4 --kernel 3x5 --outputs 6 {options} --json")[1])
    assert (data["stride"], data["padding"], data["output"]) == ([2, 1], [[1, 1], [2, 2]], [8, 16, 6])
    forms = data["forms"]
    assert forms["depthwise"]["steps"][0]["shape"] == [8, 16, 8]
    assert forms["spatial"]["steps"][0]["shape"] == [8, 16, 2]
    assert forms["spatial_reversed"]["steps"][0]["shape"] == [16, 16, 2]
    assert forms["blueprint"]["steps"][0]["shape"] == [16, 16, 12]
    assert forms["grouped"]["steps"][0]["groups"] == 2


@pytest.mark.parametrize(
    ("padding", "expected"),
    [("same", "padding 0 before and 1 after, 0 before and 1 after → 4×4×2"), ("valid", "padding 0×0 → 3×3×2")],
)
def test_named_padding(explain, padding, expected):
    assert expected in explain(f"--input 8x8x3 --kernel 3x3 --outputs 2 --stride 2 --padding {padding}")[1]


def test_three_axes_and_kernels_written_with_their_depth(explain):
    assert "14×14×14×6" in explain("--input 16x16x16x3 --kernel 3x3x3 --outputs 6")[1].splitlines()[0]
    assert explain("--input 7x7x3 --kernel 3x3x3 --outputs 128") == explain("--input 7×7×3 --kernel 3×3 --outputs 128")


def test_a_form_that_does_not_exist_here_says_why(explain):
    assert "not here: a kernel (5,) has one spatial axis" in explain("--input 30x4 --kernel 5 --outputs 8")[1]


def test_more_multiplications_than_dense_are_called_so(explain):
    assert "1.3 times more multiplications" in explain("--input 8x8x1 --kernel 3x3 --outputs 1 --rank 2 --padding 1")[1]


def test_a_separable_matrix(explain):
    out = explain('--matrix "-1,0,1;-2,0,2;-1,0,1"')[1]
    assert "The kernel is separable: (1, 2, 1)ᵀ · (-1, 0, 1)." in out
    assert "3×3 = 9 multiplications at a position become 3 + 3 = 6." in out
    data = json.loads(explain('--json --matrix "3,6,9;4,8,12;5,10,15"')[1])["matrix"]
    assert (data["separable"], data["column"], data["row"], data["error"]) == (True, [3, 4, 5], [1, 2, 3], 0.0)


def test_a_matrix_that_is_not_separable(explain):
    assert "takes 2 column · row pairs" in explain('--matrix "0,1,0;1,-4,1;0,1,0"')[1]
    data = json.loads(explain('--json --matrix="0,1,0;1,-4,1;0,1,0"')[1])["matrix"]
    assert data["separable"] is False
    assert data["rank"] == 2
    assert 0.10 < data["error"] < 0.11


def test_both_at_once(explain):
    code, out, _ = explain(f'{ARTICLE} --matrix "1,2;2,4"')
    assert code == 0
    assert "1,228,800" in out
    assert "(1, 2)ᵀ · (1, 2)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--input 12x12 --kernel 5x5 --outputs 8", "size along 2 axes and then the channels, such as 12x12x3"),
        ("--input 12x12x3 --kernel 5x5", "missing: --outputs"),
        ("--kernel 5x5 --outputs 8", "missing: --input"),
        ("--input 12xAx3 --kernel 5x5 --outputs 8", "--input '12xAx3': expected whole numbers"),
        ("--input 12x12x3 --kernel 5.5 --outputs 8", "--kernel '5.5': expected whole numbers"),
        ("--input 4x4x3 --kernel 5x5 --outputs 8", "the output would be empty"),
        ("--input 12x12x3 --kernel 5x5 --outputs 8 --padding -1", "--padding '-1': expected whole numbers"),
        ("--input 12x12x3 --kernel 5x5 --outputs 8 --stride 1x1x1", "expected one integer >= 1, or 2 of them"),
        ("--input 12x12x3 --kernel 5x5 --outputs 8 --groups 2", "must be a positive multiple of groups=2"),
        ('--matrix "1,2;3"', r"the rows have different lengths \[2, 1\]"),
        ('--matrix "1,2;3,x"', "'x' is not a number"),
        ('--matrix "1,nan"', "finite numbers"),
        ("", "nothing to explain"),
    ],
)
def test_bad_input_is_one_sentence(explain, arguments, message):
    code, out, err = explain(arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.search(message, err), err


def test_its_page_shows_what_it_prints(explain):
    blocks = re.findall(r"```console\n\$ sepwise explain (.*?)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for arguments, shown in blocks:
        code, out, _ = explain(arguments)
        assert code == 0
        assert shown in ("", out)
