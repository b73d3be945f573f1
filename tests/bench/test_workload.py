"""Shapes as data: read, chosen by name, refused in a sentence."""

import pytest

from bench import workload
from bench.workload import Workload
from sepwise.errors import SepwiseError

PAIR = Workload("pair", 2, 8, 16, 10, 12, 3, 2, 1, 2, "relu", None)


def test_sizes_follow_from_the_columns():
    assert PAIR.out_size == (5, 6)
    assert PAIR.macs == (2 * 5 * 6 * 16 * 9, 2 * 5 * 6 * 16 * 16)
    numbers = 2 * 8 * 10 * 12 + 16 * 9 + 16 + 16 * 16 + 16 + 2 * 16 * 5 * 6
    assert (PAIR.bytes_moved("float32"), PAIR.bytes_moved("bfloat16")) == (4 * numbers, 2 * numbers)
    assert PAIR.shape == "2x8x10x12 k3 s2 m2 -> 16"


@pytest.mark.parametrize("file", sorted(workload.FOLDER.glob("*.csv")), ids=lambda p: p.stem)
def test_every_file_of_shapes_can_be_read(file):
    rows = workload.read(file)
    assert rows
    assert len({w.name for w in rows}) == len(rows)


def test_the_study_is_the_nine_pairs_and_comes_first():
    chosen = workload.select([])
    assert [file for file, _ in chosen[:10]].count("study") == 9
    assert len({(file, w.name) for file, w in chosen}) == len(chosen)


def test_rows_are_chosen_by_name():
    assert [w.name for _, w in workload.select(["study/512x14", "study/256x28", "study/512x14"])] == [
        "512x14",
        "256x28",
    ]
    with pytest.raises(SepwiseError, match=r"there are no shapes 'studies'; give some of .*study"):
        workload.select(["studies"])
    with pytest.raises(SepwiseError, match=r"study\.csv has no row 'x'; it has 32x112, 64x112s2"):
        workload.select(["study/x"])


HEAD = "name,batch,channels,out_channels,height,width,kernel,stride,padding,multiplier,between,activation\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a,1,8,8,4,4,3,1,1,one,,", "invalid literal"),
        ("a,1,8,8,4,4,7,1,0,1,,", "has no output"),
        ("a,1,8,8,4,4,3,1,1,1,,,9", "unknown columns"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, why):
    file = tmp_path / "some.csv"
    file.write_text(f"{HEAD}good,1,8,8,4,4,3,1,1,1,relu,\n{line}\n")
    with pytest.raises(SepwiseError, match=rf"some\.csv, line 3, is no workload: .*{why}"):
        workload.read(file)
