"""Nothing is timed twice, nothing half written is believed."""

import json
from dataclasses import replace

import pytest

from bench import history, ops
from bench.history import OPS
from bench.measuring import Entry
from bench.workload import Workload
from sepwise import records
from sepwise.errors import SepwiseError

PAIR = Workload("pair", 1, 8, 16, 10, 10, 3, 1, 1, 1, "relu", "relu")
SAME = {"code": "c0de", "versions": {"torch": "2"}, "isa": "", "instructions": ["avx2"]}


def record(rounds=3, threads=1, dtype="float32", workload=PAIR, **about):
    entries = {
        "auto, highest": Entry("ours", "highest", "cpu", 1e-7, 1e-6, "", [1.234, 2.0, 3.0]),
        "eager": Entry("eager", refused="it is broken"),
    }
    place = {"workload": workload.to_dict(), "dtype": dtype, "threads": threads}
    kept = {"shapes": "study", "classes": ["highest"], "implementations": ["auto"], "disturbed": 0.0, "unsteady": 0.02}
    return history.to_record(OPS, entries, rounds, **SAME, **place, **{**kept, **about})


def test_a_record_comes_back(tmp_path):
    path = tmp_path / "ops.jsonl"
    records.append(path, [record()])
    (back,) = history.read(path, OPS)
    assert back.value["auto, highest"]["rounds_us"] == [1.23, 2.0, 3.0]
    assert back.value["eager"] == {"runtime": "eager", "refused": "it is broken"}
    assert Workload(**back.about["workload"]) == PAIR
    assert json.dumps(back.about)


def test_a_line_cut_off_by_a_kill_is_removed(tmp_path, capsys):
    path = tmp_path / "ops.jsonl"
    records.append(path, [record()])
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    assert len(history.read(path, OPS)) == 1
    assert path.read_text() == whole
    assert "the last line was never finished" in capsys.readouterr().err
    assert history.read(tmp_path / "absent.jsonl", OPS) == []


def test_the_newest_cell_of_a_place_is_shown():
    old, new, other = record(), record(rounds=9), record(threads=2)
    assert [c.n for c in history.newest(OPS, [old, other, new])] == [9, 3]


@pytest.mark.parametrize(
    ("about", "covered"),
    [
        ({}, True),
        ({"classes": ["high"]}, False),
        ({"implementations": ["cpu"]}, False),
        ({"disturbed": 0.5}, False),
        ({"unsteady": 0.5}, False),
        ({"classes": ["highest", "high"], "implementations": ["auto", "cpu"]}, True),
    ],
)
def test_finished_means_all_that_is_asked_for(about, covered):
    asked = {"classes": ["highest"], "implementations": ["auto"]}
    assert history.covers(record(**about), 3, **asked) is covered
    assert not history.covers(record(**about), 4, **asked)


def unfinished(path, *arguments):
    usual = ["--shapes", "study/128x56", "--threads", "1", "2", "--rounds", "3", "--impl", "auto", "--results"]
    args = ops._parser().parse_args([*usual, str(path), *arguments])
    return [(c.dtype, c.threads) for c in ops._unfinished(args, SAME)]


def test_a_second_run_does_only_what_is_missing(tmp_path, monkeypatch):
    from bench import workload

    path = tmp_path / "ops.jsonl"
    (_, pair), *_ = workload.select(["study/128x56"])
    wanted = ["--classes", "highest", "bf16"]
    assert unfinished(path, *wanted) == [("float32", (1, 2)), ("bfloat16", (1, 2))]
    records.append(path, [record(workload=pair)])
    assert unfinished(path, *wanted) == [("float32", (2,)), ("bfloat16", (1, 2))]
    assert unfinished(path, "--classes", "high") == [("float32", (1, 2))]
    assert unfinished(path, *wanted, "--again") == [("float32", (1, 2)), ("bfloat16", (1, 2))]
    records.append(path, [record(workload=pair, threads=2), record(workload=pair, dtype="bfloat16", classes=["bf16"])])
    assert unfinished(path, *wanted) == [("bfloat16", (2,))]
    assert unfinished(path, *wanted, "--threads", "1") == []
    other = replace(record(), machine={**records.machine(), "processor": "another"})
    assert history.key(OPS, other.about, other.machine) != history.key(OPS, record().about, records.machine())
    monkeypatch.setitem(SAME, "code", "changed")
    assert unfinished(path, *wanted) == [("float32", (1, 2)), ("bfloat16", (1, 2))]


def test_a_pair_that_two_networks_have_is_timed_for_both(tmp_path):
    """Each file has its own table, which must not depend on what was timed before."""
    from bench import workload

    path, name = tmp_path / "ops.jsonl", "32x112k3to16linear"
    (_, pair), (_, same) = workload.select([f"mobilenet_v2/{name}", f"efficientnet_lite0/{name}"])
    assert pair == same
    records.append(path, [record(workload=pair, threads=n, shapes="mobilenet_v2") for n in (1, 2)])
    wanted = ["--classes", "highest", "--shapes"]
    assert unfinished(path, *wanted, f"mobilenet_v2/{name}") == []
    assert unfinished(path, *wanted, f"efficientnet_lite0/{name}") == [("float32", (1, 2))]


def test_the_fingerprint_follows_what_decides_a_time(tmp_path):
    source, library = tmp_path / "src" / "sepwise" / "ops" / "api.py", tmp_path / "_C.so"
    source.parent.mkdir(parents=True)
    source.write_text("one")
    found = [history.code_fingerprint(OPS.code, tmp_path, [str(tmp_path)])]
    (tmp_path / "docs.md").write_text("words")
    assert history.code_fingerprint(OPS.code, tmp_path, [str(tmp_path)]) == found[0]
    for file in (source, library):
        file.write_text("two")
        found.append(history.code_fingerprint(OPS.code, tmp_path, [str(tmp_path)]))
    assert len(set(found)) == 3


def test_the_table_needs_records_alone(tmp_path, capsys):
    from bench import workload

    path = tmp_path / "ops.jsonl"
    (_, pair), *_ = workload.select(["study/128x56"])
    rest = {
        "floor": {"highest": {"us": 1.0, "bound": "compute"}},
        "date": "2026-01-02",
        "strangers": 0.0,
        "realtime": False,
    }
    records.append(path, [record(workload=pair, **rest)])
    assert ops.main(["--table", "--results", str(path)]) == 0
    assert "128x56" in capsys.readouterr().out
    assert ops.main(["--table", "--json", "--results", str(path), "--threads", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": [], "summaries": []}
    assert ops.main(["--table", "--shapes", "nothing"]) == 1
    assert "bench ops: there are no shapes 'nothing'" in capsys.readouterr().err


def test_only_the_classes_asked_for_are_shown(tmp_path, capsys):
    from bench import workload

    path = tmp_path / "ops.jsonl"
    (_, pair), *_ = workload.select(["study/128x56"])
    floor = {name: {"us": 1.0, "bound": "compute"} for name in ("highest", "high")}
    records.append(path, [record(workload=pair, classes=["highest", "high"], floor=floor)])
    for asked in (["highest"], ["high"], ["highest", "high"]):
        assert ops.main(["--table", "--json", "--results", str(path), "--classes", *asked]) == 0
        assert [row["accuracy"] for row in json.loads(capsys.readouterr().out)["rows"]] == asked


def test_a_missing_peer_is_named():
    lacking = replace(OPS, packages=("torch", "a-runtime-nobody-has"))
    with pytest.raises(SepwiseError, match=r"a-runtime-nobody-has is not installed: \./run bench installs it"):
        history.versions(lacking)
