"""`sepwise fuse` end to end: the account, JSON, the folder it writes, and the refusals."""

import json
import re
import sys

import pytest
import small_networks
import torch
from onnx.reference import ReferenceEvaluator
from torch._inductor import config as inductor

import sepwise
from sepwise import fuse as fused_of
from sepwise import records
from sepwise.cli import main
from sepwise.sources import load_model, read_weights, save_weights

FILES = ["fused.pt2", "model.pt2", "model.safetensors", "records.jsonl"]


@pytest.fixture
def fuse(capsys):
    """Run `sepwise fuse ARGUMENTS`; give (exit code, stdout, stderr)."""

    def call(*arguments):
        code = main(["fuse", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return call


def test_the_account(fuse):
    code, out, err = fuse("small_networks:mobile")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "small_networks:mobile, input 24×24×1, as built (no --weights)"
    assert "1 of 2 depthwise or separable convolutions run as one operation each" in lines
    assert "  depthwise  depthwise 3x3, relu6, pointwise 8 to 16, relu6" in lines
    assert "  excited    its output is read 2 times (mean, mul), so it must exist" in lines
    assert any(f"than the fastest stock form ({how} " in lines[-1] for how in ("eager", "folded"))
    assert re.search(r"medians of (\d\d|100) interleaved rounds, 1 thread\)", lines[-1])


def test_json(fuse):
    data = json.loads(fuse("small_networks:mobile", "--size", "16x20", "--json")[1])
    assert (data["model"], data["size"], data["norms"]) == ("small_networks:mobile", [16, 20], 1)
    assert list(data["fused"]) == ["depthwise"]
    assert list(data["left"]) == ["excited"]
    assert data["difference"] <= data["budget"] == 1e-4
    assert data["latency"]["ratio"] > 0
    assert 10 <= data["latency"]["rounds"] <= 100


@torch.no_grad()
def test_in_bfloat16(fuse, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = fuse("small_networks:mobile", "--dtype", "bfloat16", "--out", out)
    assert code == 0
    assert re.search(r"the fastest stock form \((float32|bfloat16), (eager|folded) ", printed)
    x = torch.randn(3, 1, 24, 24)
    found, wanted = sepwise.load_fused(out / "fused.pt2")(x.bfloat16()), small_networks.mobile().eval()(x)
    assert found.dtype is torch.bfloat16
    assert 1e-4 < (found - wanted).abs().max() / wanted.abs().max() < 5e-2
    (told,) = records.read(out / "records.jsonl")
    assert (told.value["dtype"], told.value["budget"]) == ("bfloat16", 5e-2)
    assert 1e-4 < told.value["difference"] < 5e-2


def test_the_precision_of_products(fuse):
    data = json.loads(fuse("small_networks:mobile", "--precision", "high", "--json")[1])
    assert (data["dtype"], data["precision"], data["budget"]) == ("float32", "high", 1e-3)
    assert torch.get_float32_matmul_precision() == "highest"
    code, _, err = fuse("small_networks:mobile", "--precision", "high", "--dtype", "bfloat16")
    assert code == 1
    assert err == "--precision is of products of float32: leave --precision or --dtype bfloat16 out\n"


@torch.no_grad()
def test_the_folder(fuse, tmp_path):
    out = tmp_path / "out"
    code, printed, err = fuse("small_networks:mobile", "--out", out)
    assert (code, err) == (0, "")
    assert printed.endswith(f"{out} holds model.safetensors, model.pt2, fused.pt2, records.jsonl\n")
    assert sorted(p.name for p in out.iterdir()) == FILES
    x = torch.randn(3, 1, 24, 24)
    wanted = small_networks.mobile().eval()(x)
    program = load_model(str(out / "model.pt2"))
    torch.testing.assert_close(program.model(x), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sepwise.load_fused(out / "fused.pt2")(x), wanted, rtol=1e-4, atol=1e-5)
    other = fused_of(small_networks.Mobile().eval(), x)
    assert not torch.allclose(other(x), wanted, atol=1e-3)
    other.load_state_dict(read_weights(out / "model.safetensors"))
    torch.testing.assert_close(other(x), wanted, rtol=1e-4, atol=1e-5)
    told = list(records.read(out / "records.jsonl"))
    assert [r.what for r in told] == ["fusion"]
    assert list(told[0].value["fused"]) == ["depthwise"]
    assert fuse("small_networks:mobile", "--out", out)[0] == 1
    assert fuse("small_networks:mobile", "--out", out, "--overwrite")[0] == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a compiler works
@torch.no_grad()
def test_formats(fuse, tmp_path):
    out = tmp_path / "out"
    code, printed, err = fuse("small_networks:mobile", "--out", out, "--json", "--format", "onnx", "compiled", "onnx")
    assert (code, err) == (0, "")
    files = ["model.onnx", "compiled.pt2", "_C.so", "records.jsonl"]
    assert json.loads(printed)["files"] == files
    assert sorted(p.name for p in out.iterdir()) == sorted(files)
    x = torch.randn(3, 1, 24, 24)
    wanted = small_networks.mobile().eval()(x)
    torch.testing.assert_close(sepwise.load_compiled(out / "compiled.pt2")(x), wanted, rtol=1e-4, atol=1e-5)
    (answer,) = ReferenceEvaluator(str(out / "model.onnx")).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(answer), wanted, rtol=1e-4, atol=1e-5)


def test_formats_that_cannot_be_written_are_refused_before_any_work(fuse, tmp_path, monkeypatch):
    code, _, err = fuse("small_networks:mobile", "--format", "onnx")
    assert (code, err) == (1, "--format onnx: name a folder to write to, with --out DIR\n")
    code, _, err = fuse("no:network", "--out", tmp_path / "out", "--format", "onnx", "--dtype", "bfloat16")
    assert err == "--format onnx: runtimes compute no convolutions in bfloat16; leave --dtype bfloat16 out\n"
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for name, sentence in (("onnx", "onnxscript is needed for --format onnx"), ("compiled", "finds no C++ compiler")):
        with inductor.patch({"cpp.cxx": ("no-such-compiler",)}):
            code, out, err = fuse("no:network", "--out", tmp_path / "out", "--format", "weights", name)
        assert (code, out) == (1, "")
        assert sentence in err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit, match="2"):
        fuse("small_networks:mobile", "--out", tmp_path / "out", "--format", "tflite")


def test_only_results_of_ours_are_replaced(fuse, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    save_weights(small_networks.mobile(), out / "mine.safetensors")
    code, _, err = fuse("small_networks:mobile", "--out", out, "--overwrite")
    assert code == 1
    assert "no earlier result of sepwise (records.jsonl), so it is not replaced; name another folder" in err
    (out / "records.jsonl").write_text("")
    code, _, err = fuse("small_networks:mobile", "--weights", out / "mine.safetensors", "--out", out, "--overwrite")
    assert code == 1
    assert f"mine.safetensors lies in the folder {out}, which would be replaced; name another --out" in err
    assert sorted(p.name for p in out.iterdir()) == ["mine.safetensors", "records.jsonl"]


def test_the_program_it_wrote_is_fused_again(fuse, tmp_path):
    fuse("small_networks:mobile", "--out", tmp_path / "out")
    code, out, _ = fuse(tmp_path / "out" / "model.pt2")
    assert code == 0
    assert "depthwise 3x3, relu6, pointwise 8 to 16, relu6" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small_networks:untraceable"], "cannot be followed"),
        (["small_networks:no_convolution"], "has no convolution"),
        (["small_networks:mobile", "--size", "big"], "--size 'big'"),
        (["zoo:resnet21"], "resnet21"),
    ],
)
def test_refusals(fuse, tmp_path, arguments, message):
    code, out, err = fuse(*arguments, "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
