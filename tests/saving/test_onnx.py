"""ONNX files: what runtimes answer, what stands in them, and that a wrong one is not kept."""

# pyright: reportArgumentType=false

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from plain_networks import Joined, Residual, settle
from saved_networks import network, pictures
from torch import Tensor

import sepwise
from sepwise.errors import MissingExtraError, ModelError, OutputError, UnsupportedError
from sepwise.saving import onnx as saving


def by_reference(path, x: Tensor) -> list[np.ndarray]:
    answer = ReferenceEvaluator(str(path)).run(None, {"x": x.numpy()})
    assert isinstance(answer, list)
    return answer


def by_onnxruntime(path, x: Tensor) -> list[np.ndarray]:
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x.numpy()})


@pytest.mark.parametrize("run", [by_reference, by_onnxruntime])
def test_runtimes_answer_as_the_network_for_any_batch(fused, tmp_path, run):
    sepwise.save_onnx(fused, pictures(), tmp_path / "model.onnx")
    model = network()
    for batch in (1, 2, 5):
        (y,) = run(tmp_path / "model.onnx", pictures(batch))
        wanted = model(pictures(batch)).detach()
        torch.testing.assert_close(torch.from_numpy(y), wanted, rtol=1e-4, atol=1e-5)
        assert wanted.abs().max() > 0.01
        assert not np.allclose(y, run(tmp_path / "model.onnx", pictures(batch) + 0.1)[0], rtol=1e-4, atol=1e-5)


def test_the_file_speaks_of_the_network_alone(fused, tmp_path):
    path = tmp_path / "model.onnx"
    sepwise.save_onnx(fused, pictures(), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (x,), (y,) = (
        [(v.name, v.type.tensor_type.shape.dim) for v in vs] for vs in (model.graph.input, model.graph.output)
    )
    assert (x[0], x[1][0].dim_param, [d.dim_value for d in x[1][1:]]) == ("x", "batch", [3, 18, 22])
    assert (y[0], y[1][0].dim_param, [d.dim_value for d in y[1][1:]]) == ("y", "batch", [160])
    assert {node.domain for node in model.graph.node} == {""}
    assert [node.op_type for node in model.graph.node].count("Conv") == 11  # 1, 3, 3, and a sum of two pairs
    assert b".py" not in path.read_bytes()


def test_converted_networks_and_several_outputs(tmp_path):
    dense, x = settle(Residual()), torch.randn(4, 3, 10, 10)
    converted = sepwise.convert(dense, sepwise.plan(dense, x, budget={"macs": 0.5}, forms=("cp", "depthwise")), [x])
    sepwise.save_onnx(converted, x, tmp_path / "model.onnx")
    (y,) = by_reference(tmp_path / "model.onnx", x)
    torch.testing.assert_close(torch.from_numpy(y), converted(x).detach(), rtol=1e-4, atol=1e-5)
    joined, x = settle(Joined()), torch.randn(1, 3, 9, 9)
    sepwise.save_onnx(joined, x, tmp_path / "joined.onnx")
    assert [value.name for value in onnx.load(tmp_path / "joined.onnx").graph.output] == ["y0", "y1", "y2"]
    wanted = joined(x)
    for y, tensor in zip(by_reference(tmp_path / "joined.onnx", x), (*wanted["maps"], wanted["flat"]), strict=True):
        torch.testing.assert_close(torch.from_numpy(y), tensor.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", None])
def test_a_wrong_file_is_not_kept(tmp_path, monkeypatch, runtime):
    if runtime:
        pytest.importorskip(runtime)
    else:
        monkeypatch.setattr(saving, "find_spec", lambda name: None)
    written = saving.onnx_of

    def planted(*arguments):
        model = written(*arguments)
        weight = max(model.graph.initializer, key=lambda w: len(w.raw_data))
        weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.01)).tobytes()
        return model

    path = tmp_path / "model.onnx"
    sepwise.save_onnx(network(), pictures(), path)
    before = path.read_bytes()
    monkeypatch.setattr(saving, "onnx_of", planted)
    with pytest.raises(ModelError, match=r"^the ONNX file differs from the model: by .* of the largest value"):
        sepwise.save_onnx(network(), pictures(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

    def without_operators(*arguments):
        model = written(*arguments)
        model.graph.node[0].op_type = "Nothing"
        return model

    monkeypatch.setattr(saving, "onnx_of", without_operators)
    with pytest.raises(ModelError, match=r"^save_onnx: .* cannot run what was written: ") as refused:
        sepwise.save_onnx(network(), pictures(), path)
    assert "\n" not in str(refused.value)


def test_refusals(tmp_path, monkeypatch):
    for dtype in (torch.bfloat16, torch.float64):
        with pytest.raises(UnsupportedError, match=rf"no convolutions in {dtype}; call .float\(\) on network and exam"):
            sepwise.save_onnx(network().to(dtype), pictures().to(dtype), tmp_path / "model.onnx")
    with pytest.raises(OutputError, match=r"name a file that ends in .onnx"):
        sepwise.save_onnx(network(), pictures(), tmp_path / "model.pt2")
    monkeypatch.setattr(saving, "LARGEST", 10_000)
    with pytest.raises(UnsupportedError, match=r"0\.0 GB of weights; one ONNX file holds at most 2 GB"):
        sepwise.save_onnx(network(), pictures(), tmp_path / "model.onnx")
    for missing in ("onnxscript", "onnx"):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(MissingExtraError, match=rf"^{missing} is needed for writing ONNX .* 'sepwise\[onnx\]'$"):
            sepwise.save_onnx(network(), pictures(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
