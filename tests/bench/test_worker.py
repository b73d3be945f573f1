"""The process that times: blocks, candidates that compute the right thing, and a death told in a sentence."""

import os
import signal
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from bench import quiet, roofline, worker
from bench.answer import draw, judge, solve
from bench.candidates import Candidate, Job, eager, ours
from bench.process import Worker, WorkerError
from bench.workload import Workload
from sepwise.errors import SepwiseError
from sepwise.ops.separable_conv2d import api

PAIR = Workload("pair", 1, 8, 16, 10, 10, 3, 1, 1, 2, "relu", "relu6")


@pytest.fixture(autouse=True)
def switches():
    yield
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]


def job(dtype="float32", classes=("highest", "high"), implementations=("auto", "split", "absent")):
    return Job(PAIR, draw(PAIR, dtype), dtype, 1, tuple(classes), tuple(implementations))


def test_long_blocks_go_without_priority(monkeypatch, tmp_path):
    """Linux would hold them up for a twentieth of each second, and each would count as disturbed."""
    favoured = []

    @contextmanager
    def realtime():
        favoured.append(name)
        yield

    made = {"short": 0.0, "long": 0.5 * quiet.LONGEST_SECONDS}
    candidates = {
        name: lambda seconds=seconds: Candidate(lambda: time.sleep(seconds), lambda: np.zeros(1))
        for name, seconds in made.items()
    }
    monkeypatch.setattr(quiet, "realtime", realtime)
    monkeypatch.setattr(worker, "builders", lambda *_, **__: candidates)
    bench = worker.Bench(None)
    bench.build("pair", str(tmp_path))
    for name in made:
        bench.time(name, realtime=True)
        bench.time(name, realtime=False)
    assert favoured == ["short"]


def test_a_block_warms_up_and_gives_the_median():
    calls = []
    now = [0]

    def run():
        calls.append(now[0])
        now[0] += 2_000_000 if len(calls) != 5 else 50_000_000

    block = worker.time_block(Candidate(run, lambda: np.zeros(1)), 0.006, clock=lambda: now[0])
    assert calls[2] == 4_000_000  # 3 ms of warm-up are two calls of 2 ms
    assert block == {"us": 2_000.0, "calls": 3}  # 2, 2 and 50 ms


def test_a_long_call_is_made_twice():
    now = [0]

    def run():
        now[0] += 100_000_000

    candidate = Candidate(run, lambda: np.zeros(1))
    assert worker.time_block(candidate, 0.040, clock=lambda: now[0]) == {"us": 1e5, "calls": 1}
    assert now[0] == 200_000_000


@pytest.mark.parametrize(("dtype", "classes"), [("float32", ("highest", "high")), ("bfloat16", ("bf16",))])
def test_ours_and_the_stock_pair_compute_the_answer(dtype, classes):
    here = job(dtype, classes, ("auto", "split"))
    wanted = solve(PAIR, here.tensors)
    for runtime in (ours, eager):
        built = runtime.builders(here)
        for make in built.values():
            candidate = make()
            candidate.settle()
            assert judge(candidate.answer(), wanted).refusal(8e-3 if dtype == "bfloat16" else 1e-6) is None
    assert set(ours.builders(here)) == {f"{i}, {c}" for i in ("auto", "split") for c in classes}


def test_what_auto_ran_is_named_and_the_list_left_as_it_was():
    before = {name: module.prepare for name, module in api.IMPLEMENTATIONS.items()}
    built = ours.builders(job())
    for _ in range(2):  # what was asked once is remembered
        assert built["split, highest"]().chose == "split"
    assert built["auto, highest"]().chose in before
    with pytest.raises(Exception, match="there is no impl='absent'"):
        built["absent, highest"]()
    assert {name: module.prepare for name, module in api.IMPLEMENTATIONS.items()} == before


def test_a_switch_is_set_for_its_own_block_only():
    built = eager.builders(job())
    plain, permitted = built["eager"](), built["eager, bf16 permitted"]()
    permitted.settle()
    assert torch.backends.fp32_precision == "bf16"  # type: ignore[attr-defined]
    plain.settle()
    assert torch.backends.fp32_precision == "none"  # type: ignore[attr-defined]


def test_onnx_graphs_compute_the_answer():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    from bench.candidates import onnx_runtime, open_vino

    for dtype, bound in (("float32", 1e-6), ("bfloat16", 8e-3)):
        here = job(dtype)
        wanted = solve(PAIR, here.tensors)
        for runtime in (onnx_runtime, open_vino):
            for name, make in runtime.builders(here).items():
                assert judge(make().answer(), wanted).refusal(bound) is None, name


def test_a_process_answers_is_measured_and_its_death_is_told(tmp_path):
    here = job()
    worker.save_tensors(here.tensors, tmp_path)
    process = Worker("eager", 1)
    try:
        built = process.ask(
            "build",
            kind="pair",
            folder=str(tmp_path),
            workload=PAIR.to_dict(),
            dtype="float32",
            threads=1,
            classes=["highest"],
            implementations=["auto"],
        )["built"]
        assert "refused" not in built["eager"]
        assert judge(np.load(built["eager"]["output"]), solve(PAIR, here.tensors)).error < 1e-6
        used = quiet.seconds_used(process.pid)
        assert process.ask("time", candidate="eager", realtime=False)["us"] > 0
        assert quiet.seconds_used(process.pid) > used
        if may_go_first():
            assert process.ask("time", candidate="eager", realtime=True)["waited"] < 0.5
            assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
        os.kill(process.pid, signal.SIGSEGV)
        with pytest.raises(WorkerError, match="eager ended by signal 11 during 'time'"):
            process.ask("time", candidate="eager", realtime=False)
        assert not process.alive
    finally:
        process.close()


def may_go_first():
    try:
        with quiet.realtime():
            assert os.sched_getscheduler(0) == os.SCHED_FIFO
    except SepwiseError as error:
        assert "real-time priority is not permitted" in str(error)  # noqa: PT017
        return False
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    return True


def test_silence_is_ended():
    process = Worker("eager", 1, seconds=0.2)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerError, match=r"eager gave no answer to 'time' in 0 seconds"):
        process.ask("time", candidate="eager", realtime=False)
    assert not process.alive


def test_sleep_is_waited_for(monkeypatch):
    monkeypatch.setattr(quiet, "PATIENCE_SECONDS", 0.2)
    used = iter(range(1000))
    monkeypatch.setattr(quiet, "seconds_used", lambda pid: next(used))  # a thread that never stops
    start = time.perf_counter()
    quiet.settle([1])
    assert time.perf_counter() - start >= 0.2
    monkeypatch.setattr(quiet, "seconds_used", lambda pid: 5.0)
    start = time.perf_counter()
    quiet.settle([1])
    assert 0.03 <= time.perf_counter() - start < 0.19


def test_the_floor_takes_the_larger_of_both_and_the_best_permitted_product():
    rates = {"macs_per_second": {"float32": 1e9, "bfloat16": 4e9}, "bytes_per_second": {"1000": 1.0, "1000000": 1e9}}
    depthwise, pointwise = PAIR.macs
    highest = roofline.floor_us(PAIR, "float32", "highest", rates)
    assert highest == {"us": pytest.approx((depthwise + pointwise) / 1e3), "bound": "compute"}
    high = roofline.floor_us(PAIR, "float32", "high", rates)
    assert high["us"] == pytest.approx((depthwise + pointwise * 3 / 4) / 1e3)
    slow = {**rates, "bytes_per_second": {"1000": 1e9, "1000000": 1e6}}
    assert roofline.floor_us(PAIR, "bfloat16", "bf16", slow) == {
        "us": pytest.approx(PAIR.bytes_moved("bfloat16")),
        "bound": "memory",
    }
