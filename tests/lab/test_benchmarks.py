"""Rows from the records of the benchmarks: ratios worked out by hand, the last timing, right answers alone."""

from pathlib import Path

import pytest

from sepwise import records
from sepwise.errors import SepwiseError
from sepwise.lab.benchmarks import networks, pairs
from sepwise.records import Record

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
PLACE = {"code": "c", "threads": 1, "isa": "", "instructions": ["avx2"]}
WORK = {"name": "w", "batch": 2, "channels": 4, "out_channels": 6, "height": 8, "width": 8, "kernel": 3}
WORK |= {"stride": 2, "padding": 1, "multiplier": 2}
DENSE = 2 * 6 * 4 * 9 * 4 * 4  # multiplications
RATE = 1e6


def latency(entries, dtype="float32", **place):
    return Record("ops.latency", entries, about=PLACE | place | {"shapes": "s", "dtype": dtype, "workload": WORK})


def entry(runtime, us, error=1e-7):
    return {"runtime": runtime, "rounds_us": [us, us * 9, us / 9], "error": error}


@pytest.fixture
def folder(tmp_path):
    rates = Record("ops.roofline", {"macs_per_second": {"float32": RATE, "bfloat16": 2 * RATE}}, about=PLACE)
    first = latency({"a": entry("eager", 1.0)})
    last = latency(
        {
            "a": entry("eager", 1000.0),
            "b": entry("eager", 500.0, 1e-3),  # faster, and wrong
            "c": entry("ours", 200.0),
            "d": entry("ours", 300.0),
            "e": {"runtime": "compiled", "error": 1e-7, "refused": "why"},
        }
    )
    coarse, elsewhere = (
        latency({"b": entry("eager", 500.0, 1e-3)}, "bfloat16"),
        latency({"a": entry("x", 1.0)}, threads=2),
    )
    records.append(tmp_path / "ops.jsonl", [rates, first, last, coarse, elsewhere])
    about = {"threads": 1, "reached": 8.0, "faster": 4.0, "faster_than_eager": 5.0}
    found = [Record("hed.f1", 0.97, about=about), Record("hed.f1", 0.98, about={"reached": 4.0})]
    records.append(tmp_path / "hed.jsonl", found)
    return str(tmp_path)


def test_a_pair_against_a_dense_convolution_at_full_rate(folder):
    single, half = pairs(folder)
    assert (single["dtype"], half["dtype"]) == ("float32", "bfloat16")
    separable = 2 * (8 * 9 + 8 * 6) * 4 * 4
    assert single["multiplications"] == pytest.approx(separable / DENSE)
    ideal_us = 1e6 * DENSE / RATE
    assert single["times"] == pytest.approx({"eager": 1000 / ideal_us, "ours": 200 / ideal_us})
    assert half["times"] == pytest.approx({"eager": 500 / (ideal_us / 2)})


def test_networks_are_those_that_were_timed(folder, tmp_path):
    [row] = networks(folder)
    assert (row["multiplications"], row["agreement"]) == (1 / 8, 0.97)
    assert row["times"] == {"best runtime": 0.25, "eager PyTorch": 0.2}
    (tmp_path / "hed.jsonl").unlink()
    assert networks(folder) == []


def test_a_folder_without_timings_is_refused(tmp_path):
    with pytest.raises(SepwiseError, match=r"there is no .*ops\.jsonl: pass --benchmarks with a folder"):
        pairs(str(tmp_path))
    records.append(tmp_path / "ops.jsonl", [Record("ops.roofline", {"macs_per_second": {}}, about=PLACE)])
    with pytest.raises(SepwiseError, match="holds no timings of pairs"):
        pairs(str(tmp_path))


def test_the_records_kept_here_can_be_read():
    found = pairs(str(RESULTS))
    assert len(found) > 100
    assert all(row["times"] for row in found)
    assert all(0.01 < row["multiplications"] < 1 for row in found if row["shapes"] != "multiplier")
    assert networks(str(RESULTS))
