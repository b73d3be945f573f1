# pyright: reportMissingImports=false
"""OpenVINO, fed NCHW, fed NHWC, and in bfloat16 fed bfloat16, so that it need not reorder or convert at its doors.

Input and output tensors are set once: a call copies and allocates nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import openvino
from openvino import Layout, Type
from openvino.preprocess import PrePostProcessor

from bench.candidates import Candidate, Job, NetworkJob, as_pixels
from bench.candidates.onnx_graph import graphs


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    layouts = ("NCHW", "NHWC") if job.dtype == "float32" else ("NHWC",)
    x = job.tensors.x.transpose(0, 3, 1, 2)
    return {
        f"openvino {layout}{name}": partial(_request, model, job.dtype, job.threads, x, layout)
        for name, model in graphs(job).items()
        for layout in layouts
    }


def network_builders(job: NetworkJob) -> dict[str, Callable[[], Candidate]]:
    return {
        f"openvino {layout}": lambda layout=layout: _request(job.onnx, job.dtype, job.threads, job.x(), layout)
        for layout in ("NCHW", "NHWC")
    }


def _request(model: bytes | str, dtype: str, threads: int, pictures: np.ndarray, layout: str) -> Candidate:
    """A graph, or the file of one, for pictures (N, C, H, W) that are fed in `layout`; maps are read in it, too."""
    core = openvino.Core()
    graph = core.read_model(model) if isinstance(model, str) else core.read_model(model, b"")
    kind = {"float32": Type.f32, "bfloat16": Type.bf16}[dtype]
    steps = PrePostProcessor(graph)
    ends = [(steps.input(), graph.input()), (steps.output(), graph.output())]
    for end, port in ends:
        end.tensor().set_element_type(kind)
        if len(port.partial_shape) == 4:
            end.tensor().set_layout(Layout(layout))
            end.model().set_layout(Layout("NCHW"))
    compiled = core.compile_model(
        steps.build(),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": kind,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # Else two threads may share one core.
            "ENABLE_HYPER_THREADING": True,
            "ENABLE_CPU_PINNING": False,
        },
    )
    last = layout == "NHWC"
    x = openvino.Tensor(kind, compiled.input().shape)
    _put(x, np.ascontiguousarray(pictures.transpose(0, 2, 3, 1) if last else pictures))
    y = openvino.Tensor(kind, compiled.output().shape)
    request = compiled.create_infer_request()
    request.set_input_tensor(x)
    request.set_output_tensor(y)

    def run() -> None:
        request.infer()

    def answer() -> np.ndarray:
        run()
        found = _get(y)
        return found if last and found.ndim == 4 else as_pixels(found)

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
