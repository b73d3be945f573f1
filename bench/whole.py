# pyright: reportMissingImports=false
"""Whole networks in PyTorch, torch.compile, OpenVINO and ONNX Runtime, each answer checked before it is timed."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from sepwise.measure import stock_forms
from sepwise.measure.timing import check_same

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}  # of the largest output


def runtimes(
    model: nn.Module, x: Tensor, threads: int, dtype: str = "float32", compiled: bool = False
) -> dict[str, Callable[[], object]]:
    """Callables that run `model` on `x`, by the name of the runtime; PyTorch's use the threads it has.

    model, x    float32; a runtime in bfloat16 converts them before it is timed
    compiled    also torch.compile
    Raises SepwiseError for a runtime that answers something else.
    """
    kind = getattr(torch, dtype)
    with torch.inference_mode():
        expected = model(x)
    cast, cast_x = copy.deepcopy(model).to(kind), x.to(kind)
    calls = stock_forms(cast, cast_x, compiled=compiled, tolerance=TOLERANCE[dtype])
    found = {f"openvino {layout}": _openvino(model, x, threads, dtype, layout) for layout in ("NCHW", "NHWC")}
    if dtype == "float32":
        found["onnxruntime"] = _onnxruntime(model, x, threads)
    for name, (call, answer) in found.items():
        check_same(f"the runtime {name!r}", answer(), expected, TOLERANCE[dtype])
        calls[name] = call
    return calls


@contextmanager
def tracing() -> Iterator[None]:
    """Both runtimes trace with TorchScript, which PyTorch warns of at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


Runtime = tuple[Callable[[], object], Callable[[], list[Tensor]]]  # the call to time; its answer, to check


def _openvino(model: nn.Module, x: Tensor, threads: int, dtype: str, layout: str) -> Runtime:
    """In bfloat16 its own conversions at both ends count: it is fed and read in float32."""
    import openvino
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    with tracing():
        graph = openvino.convert_model(model, example_input=x, input=[list(x.shape)])
    steps = PrePostProcessor(graph)
    steps.input().tensor().set_layout(Layout(layout))
    steps.input().model().set_layout(Layout("NCHW"))
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = openvino.Core().compile_model(steps.build(), "CPU", hints).create_infer_request()
    array = np.ascontiguousarray(x.numpy() if layout == "NCHW" else x.permute(0, 2, 3, 1).numpy())
    request.set_input_tensor(openvino.Tensor(array))  # keeps the array

    def answer() -> list[Tensor]:
        request.infer()
        return [torch.from_numpy(t.data.copy()) for t in request.output_tensors]

    return request.infer, answer


def _onnxruntime(model: nn.Module, x: Tensor, threads: int) -> Runtime:
    import onnxruntime

    written = io.BytesIO()
    with tracing():
        torch.onnx.export(model, (x,), written, input_names=["x"], dynamo=False)  # type: ignore[arg-type]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(written.getvalue(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x.numpy())))
    for output in session.get_outputs():
        binding.bind_output(output.name)

    def call() -> None:
        session.run_with_iobinding(binding)

    def answer() -> list[Tensor]:
        call()
        return [torch.from_numpy(np.array(y)) for y in binding.copy_outputs_to_cpu()]

    return call, answer
