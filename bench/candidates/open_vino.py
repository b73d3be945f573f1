# pyright: reportMissingImports=false
"""OpenVINO, fed NCHW, fed NHWC, and in bfloat16 fed NHWC bfloat16, so that it need not reorder or convert at its doors.

Input and output tensors are set once: a call copies and allocates nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino
from openvino import Layout, Type
from openvino.preprocess import PrePostProcessor

from bench.candidates import Candidate, Job
from bench.candidates.onnx_graph import graphs


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    layouts = ("NCHW", "NHWC") if job.dtype == "float32" else ("NHWC",)
    found = {}
    for name, model in graphs(job).items():
        for layout in layouts:
            found[f"openvino {layout}{name}"] = lambda model=model, layout=layout: _request(job, model, layout)
    return found


def _request(job: Job, model: bytes, layout: str) -> Candidate:
    core = openvino.Core()
    kind = {"float32": Type.f32, "bfloat16": Type.bf16}[job.dtype]
    steps = PrePostProcessor(core.read_model(model, b""))
    for end in (steps.input(), steps.output()):
        end.tensor().set_element_type(kind).set_layout(Layout(layout))
        end.model().set_layout(Layout("NCHW"))
    compiled = core.compile_model(
        steps.build(),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": job.threads,
            "INFERENCE_PRECISION_HINT": kind,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        },
    )
    order = (0, 1, 2, 3) if layout == "NHWC" else (0, 3, 1, 2)
    x = openvino.Tensor(kind, compiled.input().shape)
    _put(x, np.ascontiguousarray(job.tensors.x.transpose(order)))
    y = openvino.Tensor(kind, compiled.output().shape)
    request = compiled.create_infer_request()
    request.set_input_tensor(x)
    request.set_output_tensor(y)

    def run() -> None:
        request.infer()

    def answer() -> np.ndarray:
        run()
        found = _get(y)
        return found if layout == "NHWC" else np.ascontiguousarray(found.transpose(0, 2, 3, 1))

    return Candidate(run, answer)


def _put(tensor: openvino.Tensor, array: np.ndarray) -> None:
    if tensor.element_type == Type.bf16:  # NumPy sees it as float16: the upper halves of the float32 bits go in
        tensor.data.view(np.uint16)[...] = array.view(np.uint32) >> 16
    else:
        tensor.data[...] = array


def _get(tensor: openvino.Tensor) -> np.ndarray:
    if tensor.element_type == Type.bf16:
        return (tensor.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return tensor.data.copy()
