"""`sepwise convert` end to end on small networks: what it delivers and what it honours."""

import json
import re
from importlib import import_module
from importlib.util import find_spec

import pytest
import small_networks
import torch
from onnx.reference import ReferenceEvaluator

from sepwise import Plan, cli
from sepwise.cli import job
from sepwise.conversion import rebuild
from sepwise.errors import ModelError
from sepwise.sources import load_model, prepare, read_weights
from sepwise.sources.pictures import Picture

FILES = ["model.pt2", "model.safetensors", "plan.json", "records.jsonl", "report.html"]


def records_of(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("model", ["classifier", "edges"])
@torch.no_grad()
def test_the_whole_job(convert, tmp_path, pictures, model):
    code, out, _ = convert(f"small_networks:{model}", "--json", "--onnx", forms=None)
    data = json.loads(out)
    assert code == 0
    assert set(data) >= {"networks", "latency_ratio", "agreement", "plan", "curve", "files"}
    assert data["networks"]["separable"]["macs"] <= 0.5 * data["networks"]["dense"]["macs"]
    assert data["latency_ratio"] > 0
    assert data["fused_latency_ratio"] > 0
    forms = [choice["form"] for choice in data["plan"].values() if choice["form"] != "dense"]
    pairs = sum(form in ("depthwise", "cp") for form in forms)
    assert (data["fused_latency"]["pairs"], data["fused_latency"]["left"]) == (pairs, len(forms) - pairs)
    assert data["agreement"]["relative_error"] < 0.3
    assert {point["kind"] for point in data["curve"]} == {"this conversion", "other budget", "data-free"}
    costs, harms = ([point[key] for point in data["front"]] for key in ("cost", "harm"))
    assert costs == sorted(costs, reverse=True)
    assert harms == sorted(harms)
    mine = [point for point in data["front"] if point["kind"] == "this conversion"]
    metric = data["agreement"]["f1" if model == "edges" else "top1"]
    assert [(point["cost"] <= 0.5, point["agreement"]) for point in mine] == [(True, metric)]
    assert sum(point["agreement"] is not None for point in data["front"]) > 1
    folder = tmp_path / "out"
    assert {p.name for p in folder.iterdir()} == {*FILES, "model.onnx", "pictures", "kernels"}
    assert sorted(data["files"]) == sorted([*FILES, "model.onnx"])
    page = (folder / "report.html").read_text()
    assert "data:image/" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page), "the report must need no other file"
    dense = getattr(small_networks, model)()
    plan = Plan.load(folder / "plan.json")
    assert set(plan.converted) == {n for n, choice in data["plan"].items() if choice["form"] != "dense"} != set()
    rebuilt = rebuild(dense, plan, read_weights(folder / "model.safetensors"))
    program = load_model(str(folder / "model.pt2"))
    x = torch.randn(3, 3, *program.size)
    torch.testing.assert_close(program.model(x), rebuilt(x), rtol=1e-4, atol=1e-4)
    (answer,) = ReferenceEvaluator(str(folder / "model.onnx")).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(answer), rebuilt(x), rtol=1e-4, atol=1e-4)
    assert float((rebuilt(x) - dense.eval()(x)).abs().max()) > 1e-4, "the program must not be the dense network"


def test_a_network_that_cannot_be_fused_is_converted_and_says_why(convert, monkeypatch, tmp_path):
    def refuse(*arguments):
        raise ModelError("fuse: the fused network would answer differently")

    monkeypatch.setattr(import_module("sepwise.cli.latency"), "fuse", refuse)
    code, out, _ = convert("small_networks:classifier")
    assert code == 0
    assert "latency, fused        not measured: fuse: the fused network would answer differently\n" in out
    told = [r for r in records_of(tmp_path / "out") if r["what"] == "network.fused_latency_ratio"]
    assert [(r["value"], r["about"]["why"]) for r in told] == [
        (None, "fuse: the fused network would answer differently")
    ]
    assert "Latency, fused" not in (tmp_path / "out" / "report.html").read_text()


def test_the_table_for_people(convert, tmp_path):
    code, out, _ = convert("small_networks:classifier")
    lines = out.splitlines()
    assert code == 0
    start = next(i for i, line in enumerate(lines) if line.split() == ["dense", "separable"])
    assert [line[:20].strip() for line in lines[start + 1 : start + 7]] == [
        "parameters",
        "MACs at 24x24",
        "weight bytes",
        "fastest stock form",
        "latency, each in it",
        "latency, fused",
    ]
    for name in ("dense", "separable"):
        end = lines[start].index(name) + len(name)
        assert all(re.search(r"\S ", line[end - 1 : end + 1] + " ") for line in lines[start + 1 : start + 5])
    assert re.search(
        r"latency, each in it +\d+\.\d\dx (faster|SLOWER) \(median of (\d\d|100) interleaved rounds, ", out
    )
    assert re.search(
        r"latency, fused +\d+\.\d\dx (?:faster|SLOWER) \(([123]) of \1 separable layers as one operation each\)$",
        out,
        re.M,
    )
    assert "agreement with the dense network on 6 other pictures of " in out
    assert lines[-1].startswith(f"report: {tmp_path / 'out' / 'report.html'}")


def test_a_plan_edited_by_hand_is_carried_out(convert, tmp_path):
    assert convert("small_networks:classifier", forms="spatial")[0] == 0
    path = tmp_path / "plan.json"
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    plan["layers"]["third"] |= {"form": "spatial", "rank": 7}
    path.write_text(json.dumps(plan))
    code, out, _ = convert("small_networks:classifier", "--plan", path, "--overwrite", "--json", budget=None)
    assert code == 0
    assert (json.loads(out)["plan"]["third"]["form"], json.loads(out)["plan"]["third"]["rank"]) == ("spatial", 7)
    state = read_weights(tmp_path / "out" / "model.safetensors")
    assert [t.shape for n, t in state.items() if n.startswith("third.") and t.dim() == 4 and t.shape[0] == 7]


@pytest.mark.parametrize("unit", ["macs", "parameters", "weight_bytes"])
def test_budgets_are_kept(convert, unit):
    networks = json.loads(convert("small_networks:classifier", "--json", budget=f"{unit}=0.6")[1])["networks"]
    assert networks["separable"][unit] <= 0.6 * networks["dense"][unit]


@torch.no_grad()
def test_size_mean_and_deviation_are_honoured(convert, tmp_path, pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(cli.import_module("sepwise.cli.job"), "survey", _spy(job.survey, seen))
    code, _, _ = convert("small_networks:edges", "--size", "16x20", "--mean", ".1,.2,.3", "--std", "1,2,3")
    assert code == 0
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["size"] == [16, 20]
    batches = torch.cat(list(seen[0][1]))
    every = [
        prepare(Picture(p.name, p.read_bytes).decode(), (16, 20), (0.1, 0.2, 0.3), (1, 2, 3))
        for p in sorted(pictures.iterdir())
    ]
    assert len(batches) == 18
    assert all(any(torch.equal(x, y) for y in every) for x in batches)


def _spy(function, calls):
    def run(*arguments, **rest):
        calls.append(arguments)
        return function(*arguments, **rest)

    return run


def test_batch_normalization_is_folded_or_kept(convert, tmp_path):
    for more, wanted in (([], "fold"), (["--keep-batch-norm", "--overwrite"], "keep")):
        assert convert("small_networks:classifier", *more)[0] == 0
        assert Plan.load(tmp_path / "out" / "plan.json").batch_norm == wanted
        held = any("running_mean" in name for name in read_weights(tmp_path / "out" / "model.safetensors"))
        assert held == (wanted == "keep")


def test_only_the_forms_named_are_used(convert):
    plan = json.loads(convert("small_networks:classifier", "--json", forms="blueprint,spatial")[1])["plan"]
    assert {choice["form"] for choice in plan.values()} <= {"dense", "blueprint", "spatial"}


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_pictures_from_a_parquet_table(convert, tmp_path, pictures):
    import pyarrow
    import pyarrow.parquet

    rows = [{"bytes": p.read_bytes(), "path": p.name} for p in sorted(pictures.iterdir())]
    pyarrow.parquet.write_table(pyarrow.table({"img": rows}), tmp_path / "pictures.parquet")
    code, out, _ = convert("small_networks:edges", images=tmp_path / "pictures.parquet")
    assert code == 0
    assert "6 other pictures of" in out


def test_a_trained_network_on_real_pictures(convert, shared):
    code, out, _ = convert(
        "zoo:resnet20",
        *("--weights", shared / "weights" / "resnet20-cifar10.safetensors", "--json"),
        *("--limit", 64, "--held-out", 50),
        images=next((shared / "data" / "cifar10").rglob("*test*.parquet")),
        budget="macs=0.7",
    )
    assert code == 0
    assert json.loads(out)["agreement"]["top1"] >= 0.8


def test_a_trained_network_from_a_factory(convert, shared, tmp_path):
    code, _, _ = convert(
        "sepwise.zoo:resnet20",
        *("--weights", shared / "weights" / "resnet20-cifar10.safetensors"),
        *("--limit", 16, "--size", 32, "--iterations", 0),
        budget="parameters=0.8",
    )
    assert code == 0
    assert records_of(tmp_path / "out")[0]["value"]["model"] == "sepwise.zoo:resnet20"


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_of_timm(convert):
    code, out, _ = convert("timm:test_resnet", "--size", 64, "--iterations", 0, "--json", budget="macs=0.7")
    assert code == 0
    assert json.loads(out)["networks"]["separable"]["macs"] > 0


def test_a_layer_that_cannot_be_converted_is_left_dense_with_the_reason(convert):
    code, out, _ = convert("small_networks:shared", "--size", 24, "--json", budget="macs=0.7")
    twice = json.loads(out)["plan"]["twice"]
    assert (code, twice["form"]) == (0, "dense")
    assert "called 2 times" in twice["why"]


def test_a_network_planned_for_latency_tells_prediction_and_measurement(convert, tmp_path, monkeypatch):
    monkeypatch.setenv("SEPWISE_CACHE", str(tmp_path / "cache"))
    planned = []
    within = job.plan_within

    def never_missed(*arguments):  # on a busy machine the smallest networks take any time
        monkeypatch.setattr("sepwise.conversion.clock.Clock.measured", lambda *_: 0.4)
        planned.append(within(*arguments))
        return planned[-1]

    monkeypatch.setattr(job, "plan_within", never_missed)
    code, out, _ = convert("small_networks:edges", "--size", 96, budget="latency=0.9", forms="depthwise,spatial")
    assert code == 0
    told = planned[0][0].latency
    assert told.predicted <= 0.9
    assert f"predicted {told.predicted_ms:.2f} ms" in out
    assert "ms before  ms after" in out
    assert re.search(r"fewer MACs  fewer parameters  faster  predicted harm +f1", out)
    assert out.count("<- this conversion") == 1
    assert json.loads((tmp_path / "cache" / "times.json").read_text())["times"]
    assert "faster, as predicted, than the dense network" in (tmp_path / "out" / "report.html").read_text()


def test_an_agreement_is_kept_on_pictures_held_out(convert, tmp_path):
    wanted = ("--minimise", "parameters", "--json")
    code, out, _ = convert("small_networks:classifier", *wanted, budget="agreement=0.75", forms="depthwise,cp")
    data = json.loads(out)
    assert code == 0
    assert data["planned_agreement"]["metric"] == "top1"
    assert data["planned_agreement"]["value"] >= 0.75
    assert data["networks"]["separable"]["parameters"] < data["networks"]["dense"]["parameters"]
    assert Plan.load(tmp_path / "out" / "plan.json").agreement.value == data["planned_agreement"]["value"]  # type: ignore[union-attr]
    assert {point["unit"] for point in data["front"]} == {"parameters"}
    refusal = convert("small_networks:edges", "--overwrite", budget="agreement=0.9")[2]
    assert "f1 is undefined on the 4 pictures held out" in refusal, "none of its maps has a value above 0.5"
