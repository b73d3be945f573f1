# pyright: reportMissingImports=false
"""ONNX Runtime's CPU provider, with input and output bound once: nothing is copied or allocated by a call.

It has no bfloat16 convolution on the CPU, so it appears in float32 only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime

from bench.candidates import Candidate, Job, NetworkJob, as_pixels
from bench.candidates.onnx_graph import graphs


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    if job.dtype != "float32":
        return {}
    x = job.tensors.x.transpose(0, 3, 1, 2)
    return {f"onnxruntime{name}": partial(_session, model, job.threads, x) for name, model in graphs(job).items()}


def network_builders(job: NetworkJob) -> dict[str, Callable[[], Candidate]]:
    if job.dtype != "float32":
        return {}
    return {"onnxruntime": lambda: _session(job.onnx, job.threads, job.x())}


def _session(model: bytes | str, threads: int, pictures: np.ndarray) -> Candidate:
    """A graph, or the file of one, for pictures (N, C, H, W)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(pictures))
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(session.get_outputs()[0].shape, np.float32))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output("y", y)

    def run() -> None:
        session.run_with_iobinding(binding)

    def answer() -> np.ndarray:
        run()
        return as_pixels(y.numpy())

    return Candidate(run, answer)
