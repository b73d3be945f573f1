"""Check first, then time in turn: with processes that answer as they are told."""

import doctest
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from bench import measuring, quiet
from bench.answer import BOUND, draw, solve
from bench.measuring import Workers, build_and_check, time_rounds
from bench.process import WorkerError
from bench.workload import Workload

PAIR = Workload("pair", 1, 4, 4, 6, 6, 3, 1, 1, 1, "relu", None)
ANSWER = solve(PAIR, draw(PAIR, "float32"))
JOB = {"kind": "pair", "dtype": "float32", "classes": ["highest"]}


class Scripted:
    """Candidates whose outputs are the answer, changed; notes what it was asked."""

    outputs = {  # noqa: RUF012
        "ours": {"auto, highest": 0.0, "cpu, highest": 1e-3},
        "eager": {"eager": 0.0, "eager, tf32 permitted": 0.0, "eager, bf16 permitted": 0.0},
        "compiled": {"compile": float("nan")},
        "onnx_runtime": {},
        "open_vino": {"openvino NHWC": 0.0},
    }
    timed: list[str]
    waits: Iterator[float]

    def __init__(self, runtime, threads):
        self.runtime, self.alive, self.pid = runtime, True, 0

    def ask(self, do, **request):
        if do == "time":
            self.timed.append(request["candidate"])
            if request["candidate"] == "openvino NHWC" and self.timed.count("openvino NHWC") == 2:
                self.alive = False
                raise WorkerError("open_vino ended by signal 9 during 'time'")
            return {"us": 2.5 if "bf16" in request["candidate"] else 5.0, "calls": 3, "waited": next(self.waits)}
        if self.runtime == "onnx_runtime":
            raise WorkerError("onnx_runtime ended with exit code 1 during 'build': no module")
        built = {}
        for number, (name, off) in enumerate(self.outputs[self.runtime].items()):
            file = Path(request["folder"]) / f"{self.runtime}{number}.npy"
            np.save(file, (ANSWER * (1 + off)).astype(np.float32))
            built[name] = {"output": str(file), "chose": name.partition(", ")[0] if "cpu" in name else "reference"}
        return {"built": built}

    def close(self):
        self.alive = False


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setattr(quiet, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(quiet, "PATIENCE_SECONDS", 0.0)
    Scripted.timed, Scripted.waits = [], repeat(0.0)
    return Workers(1, start=Scripted)  # type: ignore[arg-type]


def test_a_wrong_answer_is_never_timed(workers, tmp_path):
    entries = build_and_check(workers, tmp_path, JOB, ANSWER, BOUND)
    assert {name: entry.refused.partition(":")[0] for name, entry in entries.items()} == {
        "auto, highest": "",
        "cpu, highest": "too far from the answer, not timed",
        "eager": "",
        "eager, tf32 permitted": "same bits as 'eager' and no faster",
        "eager, bf16 permitted": "",
        "compile": "too far from the answer, not timed",
        "onnx_runtime": "onnx_runtime ended with exit code 1 during 'build'",
        "openvino NHWC": "",
    }
    assert entries["auto, highest"].ours == "highest"
    assert entries["compile"].error is None  # not a number is no number
    assert list(tmp_path.iterdir()) == []  # outputs are large
    Scripted.timed.clear()
    found = time_rounds(workers, entries, rounds=3)
    assert set(Scripted.timed) == {"auto, highest", "eager", "eager, bf16 permitted", "openvino NHWC"}
    assert found["disturbed"] == 0.0


def test_each_round_starts_with_the_next_one_and_the_dead_are_left_out(workers, tmp_path):
    entries = build_and_check(workers, tmp_path, JOB, ANSWER, BOUND)
    Scripted.timed.clear()
    time_rounds(workers, entries, rounds=3)
    first, second, third, fourth = "auto, highest", "eager", "eager, bf16 permitted", "openvino NHWC"
    assert Scripted.timed == [first, second, third, fourth, second, third, fourth, first, third, first, second]
    assert entries[fourth].rounds_us == []
    assert "signal 9" in entries[fourth].refused
    assert entries[first].rounds_us == [5.0] * 3


def test_a_block_with_others_in_its_way_is_taken_again(workers, tmp_path):
    entries = build_and_check(workers, tmp_path, JOB, ANSWER, BOUND)
    entries = {"eager": entries["eager"]}
    Scripted.timed.clear()
    Scripted.waits = iter([0.5, 0.0, *[0.5] * measuring.TRIES])
    assert time_rounds(workers, entries, rounds=2)["disturbed"] == 0.5
    assert Scripted.timed == ["eager"] * (2 + measuring.TRIES)
    assert entries["eager"].rounds_us == [5.0, 5.0]


def test_a_noisy_row_is_timed_once_more_and_the_steadier_half_kept(workers, monkeypatch):
    rounds = iter([[1.0, 9.0, 5.0], [4.0, 4.0, 4.1], [1.0, 9.0, 5.0], [1.0, 20.0, 5.0]])

    def time_once(workers, entries, number):
        entries["eager"].rounds_us = next(rounds)
        low, middle, high = measuring.quartiles(entries["eager"].rounds_us)
        return {"disturbed": 0.0, "unsteady": (high - low) / middle}

    monkeypatch.setattr(measuring, "time_rounds", time_once)
    entries = {"eager": measuring.Entry("eager")}
    assert not measuring.noisy(measuring.time_steadily(workers, entries, 3))
    assert entries["eager"].rounds_us == [4.0, 4.0, 4.1]
    assert measuring.noisy(measuring.time_steadily(workers, entries, 3))
    assert entries["eager"].rounds_us == [1.0, 9.0, 5.0]


def test_what_auto_runs_is_not_timed_by_its_own_name_too():
    entries = {
        "auto, highest": measuring.Entry("ours", "highest", "cpu"),
        "cpu, highest": measuring.Entry("ours", "highest", "cpu"),
        "auto, high": measuring.Entry("ours", "high", "reference"),
        "cpu, high": measuring.Entry("ours", "high", "cpu"),
        "eager": measuring.Entry("eager"),
    }
    measuring.drop_what_auto_runs(entries)
    assert {name for name, entry in entries.items() if entry.refused} == {"cpu, highest"}
    entries = {
        "auto, highest": measuring.Entry("ours", "highest", "cpu", refused="too far from the answer"),
        "cpu, highest": measuring.Entry("ours", "highest", "cpu"),
    }
    measuring.drop_what_auto_runs(entries)
    assert entries["cpu, highest"].refused == ""


def test_examples_run():
    assert doctest.testmod(measuring).failed == 0
