"""From rounds to ratios: arithmetic, who counts as a peer, what is marked."""

import doctest

import pytest

from bench import compared, printed, table
from bench.measuring import IDLE_SWITCH, SAME
from bench.table import rows, summaries
from bench.workload import Workload
from sepwise.records import Record

MACHINE = {"processor": "a processor", "cores": 2, "commit": "abc"}


def cell(entries, name="pair", shapes="study", threads=1, classes=("highest",), disturbed=0.0):
    pair = Workload(name, 1, 8, 16, 10, 10, 3, 1, 1, 1, "relu", "relu")
    about = {
        "shapes": shapes,
        "workload": pair.to_dict(),
        "dtype": "float32",
        "threads": threads,
        "classes": list(classes),
        "implementations": ["auto", "cpu"],
        "floor": {c: {"us": 2.0, "bound": "memory"} for c in classes},
        "versions": {"torch": "2"},
        "code": "c0de",
        "isa": "",
        "instructions": ["avx2"],
        "date": "2026-01-02",
        "strangers": 0.03,
        "realtime": False,
        "disturbed": disturbed,
        "unsteady": 0.02,
    }
    return Record("ops.latency", entries, "us", 3, None, about, MACHINE)


def ours(*us, accuracy="highest", **rest):
    return {"runtime": "ours", "ours": accuracy, "error": 1e-7, "peak": 1e-6, "rounds_us": list(us), **rest}


def peer(*us, error=1e-7, runtime="eager"):
    return {"runtime": runtime, "error": error, "peak": error, "rounds_us": list(us)}


def test_a_row_is_ours_against_the_fastest_peer():
    entries = {
        "auto, highest": ours(10, 20, 10, chose="cpu"),
        "cpu, highest": ours(9, 9, 9),
        "eager": peer(30, 40, 30),
        "onnxruntime": peer(15, 50, 20),
        "openvino": {"runtime": "open_vino", "refused": "too far from the answer, not timed"},
    }
    (row,) = rows([cell(entries)])
    assert row.times == {"auto": 10, "cpu": 9}
    assert (row.chose, row.stock, row.peer, row.peer_time) == ("cpu", 30, "onnxruntime", 20)
    assert (row.ratio, row.quartiles) == (2.0, (1.75, 2.25))  # of 1.5, 2.5, 2.0
    assert row.stock_ratio == 3.0
    assert not row.loses
    assert not row.slower_than_stock
    assert row.wrong == {}
    assert row.missing == {"openvino": "too far from the answer, not timed"}
    assert "pair, openvino: too far" in table.render([cell(entries)])


def test_a_switch_that_does_nothing_is_not_missed():
    entries = {"auto, highest": ours(10), "eager": peer(20), "eager, tf32 permitted": {"runtime": "eager"}}
    entries["eager, tf32 permitted"]["refused"] = f"same bits as 'eager' and no faster: {IDLE_SWITCH}"
    (row,) = rows([cell(entries)])
    assert (row.missing, row.marks) == ({}, "")


def test_a_peer_competes_where_it_is_accurate_enough():
    entries = {
        "auto, highest": ours(10),
        "auto, high": ours(8, accuracy="high"),
        "eager": peer(30),
        "eager, tf32 permitted": peer(16, error=5e-6),
        "eager, bf16 permitted": peer(1, error=3e-3),
    }
    highest, high = rows([cell(entries, classes=("highest", "high"))])
    assert (highest.peer, highest.ratio) == ("eager", 3.0)
    assert (high.peer, high.ratio) == ("eager, tf32 permitted", 2.0)


def test_losing_and_slower_than_stock_and_noise_are_marked():
    entries = {"auto, highest": ours(10), "eager": peer(9.9), "compile": peer(5)}
    (row,) = rows([cell(entries)])
    assert row.loses
    assert not row.slower_than_stock  # 1 % is within 3 %
    assert not row.noisy
    entries["eager"] = peer(9.6)
    (row,) = rows([cell(entries, disturbed=0.5)])
    assert row.slower_than_stock
    text = table.render([cell(entries, disturbed=0.5)])
    assert "loses, > stock, noisy" in text
    assert "0.50" in text


def test_a_wrong_answer_of_ours_is_shown_and_has_no_ratio():
    entries = {
        "auto, highest": {
            "runtime": "ours",
            "ours": "highest",
            "refused": "too far from the answer",
        },
        "cpu, highest": {"runtime": "ours", "ours": "highest", "refused": "UnsupportedError: needs AVX2"},
        "eager": peer(9),
    }
    (row,) = rows([cell(entries)])
    assert row.ratio is None
    assert row.wrong == {"auto, highest": "too far from the answer"}
    assert summaries([row]) == []
    text = table.render([cell(entries)])
    assert "WRONG" in text
    assert "pair, auto, highest: too far" in text
    dead = {"ours": {"runtime": "ours", "refused": "ours ended by signal 11"}, "eager": peer(9)}
    assert rows([cell(dead)])[0].wrong == {"ours": "ours ended by signal 11"}


def test_an_implementation_not_timed_because_auto_runs_it_is_no_fault():
    entries = {
        "auto, highest": ours(10, chose="cpu"),
        "cpu, highest": {"runtime": "ours", "ours": "highest", "refused": SAME},
        "eager": peer(20),
    }
    (row,) = rows([cell(entries)])
    assert row.wrong == {}
    assert table._cells(row)[1:4] == ("10.0", "cpu", "10.0")


def test_summaries_are_geometric_means_by_file_class_and_threads():
    cells = [
        cell({"auto, highest": ours(10), "eager": peer(20)}, "a"),
        cell({"auto, highest": ours(10), "eager": peer(5)}, "b"),
        cell({"auto, highest": ours(10), "eager": peer(30)}, "c", threads=2),
        cell({"auto, highest": ours(10), "eager": peer(40)}, "d", shapes="apart"),
    ]
    found = summaries(rows(cells))
    assert [(s.shapes, s.threads, s.rows, s.worst, s.losses) for s in found] == [
        ("study", 1, 2, "b", 1),
        ("study", 2, 1, "c", 0),
        ("apart", 1, 1, "d", 0),
    ]
    assert [s.geomean for s in found] == pytest.approx([1.0, 3.0, 4.0])
    assert [s.minimum for s in found] == [0.5, 3.0, 4.0]


def test_markdown_and_programs_get_the_same_numbers():
    cells = [cell({"auto, highest": ours(10), "eager": peer(25)})]
    text = table.render(cells, markdown=True)
    assert "### study, highest, 1 thread" in text
    assert "| 2.50 |" in text.replace("      ", " ").replace("     ", " ")
    data = table.to_dict(cells)
    assert (data["rows"][0]["ratio"], data["summaries"][0]["geomean"]) == (2.5, pytest.approx(2.5))
    assert table.render([]) == "no records yet: ./run bench ops"


def test_examples_run():
    assert [doctest.testmod(module).failed for module in (compared, printed)] == [0, 0]
