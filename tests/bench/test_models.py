"""The command for whole networks: what is asked of processes, that nothing is done twice, and what is printed."""

import json
import mmap
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench import frame, history, memory, models, models_table, profiled, quiet
from bench.candidates import Candidate
from bench.history import MEMORY, MODELS
from bench.networks import Network
from bench.process import WorkerError
from sepwise import records
from sepwise.errors import SepwiseError
from sepwise.records import Record

ANSWER = np.random.default_rng(0).standard_normal((2, 1, 1, 50))
SAME = {"code": "c0de", "versions": {"torch": "2"}, "isa": "", "instructions": ["avx2"]}


# Before the fixture puts others in their place.
ordinary_prepared, ordinary_warning = models.prepared, frame.warn_if_busy


class Scripted:
    """Runtimes whose outputs are the answer, changed; notes what it was asked."""

    outputs = {  # noqa: RUF012
        "ours": {"fuse, highest": 1e-7, "fuse, high": 1e-5},
        "eager": {"eager": 1e-7, "eager, folded": 1e-2},
        "compiled": {"compile": 1e-7},
        "onnx_runtime": {"onnxruntime": 1e-7},
        "open_vino": {},
    }
    asked: list[tuple[str, str | None]]

    def __init__(self, runtime, threads):
        self.runtime, self.alive, self.pid = runtime, True, 0

    def ask(self, do, **request):
        self.asked.append((do, request.get("candidate", self.runtime)))
        mine = self.outputs[self.runtime]
        if do == "names":
            return {"names": list(mine)}
        if self.runtime == "onnx_runtime" and do in ("build", "memory"):
            raise WorkerError(f"onnx_runtime ended by signal 9 during {do!r}")
        if do == "time":
            return {"us": 500.0 if self.runtime == "ours" else 900.0, "calls": 3, "waited": 0.0}
        if do == "profile":
            return {"share": 0.75, "others": [["aten::addmm", 0.2], ["between operators", 0.05]]}
        assert (request["kind"], request["network"]) == ("network", "mobilenetv1_100")
        files = {name: self._written(request, number) for number, name in enumerate(mine)}
        if do == "memory":
            sizes = {"runtime": 100.0, "loading": 300.0, "loaded": 200.0, "calls": 250.0}
            return {**sizes, "output": files[request["candidate"]]}
        return {"built": {name: {"output": file, "chose": "13 fused"} for name, file in files.items()}}

    def _written(self, request, number):
        file, off = Path(request["folder"]) / f"{self.runtime}{number}.npy", list(self.outputs[self.runtime].values())
        np.save(file, (ANSWER[: request["batch"]] * (1 + off[number])).astype(np.float32))
        return str(file)

    def close(self):
        self.alive = False


@pytest.fixture(autouse=True)
def scripted(monkeypatch, tmp_path):
    @contextmanager
    def prepared(network, dtype, batches):
        np.save(tmp_path / "answer.npy", ANSWER[: max(batches)])
        Scripted.asked.append(("prepare", f"{network.name} {dtype} {batches}"))
        yield tmp_path

    Scripted.asked = []
    for name in ("PAUSE_SECONDS", "PATIENCE_SECONDS"):
        monkeypatch.setattr(quiet, name, 0.0)
    monkeypatch.setattr(frame, "warn_if_busy", lambda name: None)
    monkeypatch.setattr(models, "Worker", lambda runtime, threads, **rest: Scripted(runtime, threads))
    monkeypatch.setattr(models, "prepared", prepared)
    monkeypatch.setattr(history, "same", lambda series: SAME)
    return tmp_path / "models.jsonl"


def run(path, *arguments):
    usual = ["--networks", "mobilenetv1_100", "--batches", "1", "--threads", "1", "--rounds", "3"]
    return models.main([*usual, "--results", str(path), *arguments])


def test_a_cell_is_checked_timed_followed_and_written(scripted, capsys):
    assert run(scripted, "--classes", "highest", "high") == 0
    (cell,) = history.read(scripted, MODELS)
    assert {name: entry.get("refused", "")[:12] for name, entry in cell.value.items()} == {
        "fuse, highest": "",
        "fuse, high": "",
        "eager": "",
        "eager, folded": "too far from",
        "compile": "",
        "onnx_runtime": "onnx_runtime",
    }
    assert cell.value["fuse, highest"]["rounds_us"] == [500.0] * 3
    assert set(cell.about["profile"]) == {"highest", "high"}
    assert [what for what, _ in Scripted.asked][:2] == ["prepare", "build"]
    timings = [candidate for do, candidate in Scripted.asked if do == "time"]
    assert timings[:5] == ["fuse, highest", "fuse, high", "eager", "compile", "fuse, high"]
    text = capsys.readouterr().out
    assert "1.80" in text
    assert "75%" in text
    assert "aten::addmm 20 %" in text


def test_a_second_run_does_only_what_is_missing(scripted, capsys):
    assert run(scripted, "--classes", "highest") == 0
    Scripted.asked.clear()
    assert run(scripted, "--classes", "highest") == 0
    assert Scripted.asked == []
    assert "everything asked for is finished" in capsys.readouterr().err
    assert run(scripted, "--classes", "highest", "bf16", "--batches", "1", "2") == 0
    assert [what for do, what in Scripted.asked if do == "prepare"] == [
        "mobilenetv1_100 float32 (2,)",
        "mobilenetv1_100 bfloat16 (1, 2)",
    ]
    assert run(scripted, "--classes", "highest", "--again") == 0
    assert len(history.read(scripted, MODELS)) == 5


def test_what_was_finished_before_a_stop_is_kept(scripted, monkeypatch, capsys):
    ordinary, calls = models.timed, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ordinary(*arguments)

    monkeypatch.setattr(models, "timed", stopped)
    assert run(scripted, "--classes", "highest", "--batches", "1", "2") == 130
    assert [cell.about["batch"] for cell in history.read(scripted, MODELS)] == [1]
    assert "what was finished is in" in capsys.readouterr().err


def test_a_wrong_answer_of_ours_is_told_and_fails_the_command(scripted, monkeypatch, capsys):
    monkeypatch.setitem(Scripted.outputs, "ours", {"fuse, highest": 1e-3})
    assert run(scripted, "--classes", "highest") == 1
    text = capsys.readouterr().out
    assert "WRONG" in text
    assert "mobilenetv1_100, fuse, highest: too far from the answer, not timed" in text


def test_memory_has_its_own_records_and_table_and_a_process_for_each_candidate(scripted, capsys):
    assert run(scripted, "--memory", "--classes", "highest") == 0
    (cell,) = history.read(scripted, MEMORY)
    assert history.read(scripted, MODELS) == []
    assert cell.value["compile"] == {
        "kind": "compiled",
        "runtime": 100.0,
        "loading": 300.0,
        "loaded": 200.0,
        "calls": 250.0,
    }
    assert "too far" in cell.value["eager, folded"]["refused"]
    assert "signal 9" in cell.value["onnxruntime"]["refused"]
    assert [name for do, name in Scripted.asked if do == "memory"] == [
        *("fuse, highest", "fuse, high", "eager", "eager, folded", "compile", "onnxruntime")
    ]
    text = capsys.readouterr().out
    assert "memory, float32, 1 thread, batch 1" in text
    Scripted.asked.clear()
    assert run(scripted, "--memory", "--classes", "highest") == 0
    assert Scripted.asked == []
    assert run(scripted, "--memory", "--classes", "highest", "--table", "--json") == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["memory"]
    assert [row["candidate"] for row in rows][:3] == ["fuse, highest", "fuse, high", "eager"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--networks", "vgg"], "there is no network 'vgg'"),
        (["--batches", "0"], "--batches 0: expected 1 or more of each"),
        (["--rounds", "0"], "--rounds 0 --threads 1: expected 1 or more of each"),
        (["--results", "/absent/models.jsonl"], "the folder /absent does not exist; make it first"),
    ],
)
def test_what_makes_no_sense_is_refused(scripted, capsys, arguments, why):
    assert run(scripted, *arguments) == 1
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(("taken", "told"), [(0.5, "other programs use 50 % of a core"), (0.05, "")])
def test_other_programs_are_told_of(monkeypatch, capsys, taken, told):
    seen = iter([quiet.Usage(0.0, 0.0, 0.0, 0.0), quiet.Usage(1.0, taken, 0.0, 0.0)])
    monkeypatch.setattr(quiet.Usage, "now", lambda pids: next(seen))
    monkeypatch.setattr(frame.time, "sleep", lambda seconds: None)
    ordinary_warning("models")
    words = capsys.readouterr().err
    assert told in words
    assert bool(words) is bool(told)


def test_what_cannot_be_prepared_is_told_with_the_last_line():
    absent = Network("absent", "timm:absent")
    with (
        pytest.raises(SepwiseError, match=r"absent cannot be prepared in float32: KeyError: 'absent'"),
        ordinary_prepared(absent, "float32", [1]),
    ):
        pass


def cell(fuse, peer, network="a", batch=1, threads=1, accuracy="highest"):
    entries = {
        f"fuse, {accuracy}": {"runtime": "ours", "ours": accuracy, "error": 1e-7, "peak": 1e-7, "rounds_us": [fuse]},
        "eager": {"runtime": "eager", "error": 1e-7, "peak": 1e-7, "rounds_us": [peer * 2]},
        "compile": {"runtime": "compiled", "error": 1e-7, "peak": 1e-7, "rounds_us": [peer]},
        "coarse": {"runtime": "compiled", "error": 1e-5, "peak": 1e-5, "rounds_us": [1.0]},
    }
    about = {**SAME, "network": network, "batch": batch, "threads": threads, "dtype": "float32", "classes": [accuracy]}
    about |= {"profile": {}, "disturbed": 0.0, "unsteady": 0.0, "strangers": 0.0, "date": "2026-01-02"}
    return Record(MODELS.what, entries, "us", 1, None, about, {"processor": "p", "cores": 2, "commit": "abc"})


def test_rows_and_summaries():
    cells = [cell(1e3, 2e3), cell(1e3, 5e2, "b"), cell(1e3, 4e3, batch=16), cell(1e3, 3e3, accuracy="high")]
    rows = models_table.rows(cells)
    assert [(r.peer, r.ratio, r.stock_ratio, r.marks) for r in rows[:2]] == [
        ("compile", 2.0, 4.0, ""),
        ("compile", 0.5, 1.0, "loses"),
    ]
    assert rows[3].peer == "coarse"  # accurate enough for "high"
    found = models_table.summaries(rows)
    assert [(s.accuracy, s.threads, s.batch, s.rows, s.geomean, s.worst, s.losses) for s in found] == [
        ("highest", 1, 1, 2, pytest.approx(1.0), "b", 1),
        ("highest", 1, 16, 1, pytest.approx(4.0), "a", 0),
        ("high", 1, 1, 1, pytest.approx(1e-3), "a", 1),
    ]
    assert "### highest, 1 thread, batch 16" in models_table.render(cells, [], markdown=True)
    assert models_table.render([], []) == "no records yet: ./run bench models"


def test_the_share_of_our_operators_is_found():
    torch = pytest.importorskip("torch")
    import sepwise

    x, depthwise, pointwise = torch.randn(1, 32, 56, 56), torch.randn(32, 1, 3, 3), torch.randn(32, 32, 1, 1)

    def ours():
        with torch.inference_mode():
            return sepwise.separable_conv2d(x, depthwise, pointwise, padding=1)

    def others():
        return x.sin().cos().add_(1.0)

    both = profiled.shares(Candidate(lambda: (ours(), others()), lambda: np.zeros(1)))
    alone = profiled.shares(Candidate(others, lambda: np.zeros(1)))
    assert 0.0 < both["share"] < 1.0
    assert alone["share"] == 0.0
    assert {name for name, _ in alone["others"]} >= {"aten::sin", "aten::cos", profiled.BETWEEN}
    shares = [share for _, share in alone["others"]]
    assert shares == sorted(shares, reverse=True)
    assert 0.9 < sum(shares) <= 1.001


def filled(mebibytes):
    """Memory straight from the system, which goes back there when it is closed, whatever the C library keeps."""
    held = mmap.mmap(-1, mebibytes * 2**20)
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    return held


def test_memory_of_the_calls_is_told_apart_from_that_of_loading():
    kept, sizes = [], iter([70, *[20] * memory.CALLS])  # the first call takes more

    def build():
        filled(100).close()
        kept.append(filled(50))
        return Candidate(lambda: filled(next(sizes)).close(), lambda: np.zeros(1))

    candidate, found = memory.measure(build)
    kept.pop().close()
    assert candidate.answer().shape == (1,)
    assert next(sizes, None) is None
    assert 110 < found["loading"] - found["runtime"] < 140
    assert 45 < found["loaded"] - found["runtime"] < 70
    assert 15 < found["calls"] - found["loaded"] < 40


def test_records_come_back(tmp_path):
    records.append(tmp_path / "r.jsonl", [cell(1.0, 2.0)])
    assert history.read(tmp_path / "r.jsonl", MODELS)[0].value == cell(1.0, 2.0).value
