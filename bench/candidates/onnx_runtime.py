# pyright: reportMissingImports=false
"""ONNX Runtime's CPU provider, with input and output bound once: nothing is copied or allocated by a call.

It has no bfloat16 convolution on the CPU, so it appears in float32 only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime

from bench.candidates import Candidate, Job
from bench.candidates.onnx_graph import graphs


def builders(job: Job) -> dict[str, Callable[[], Candidate]]:
    if job.dtype != "float32":
        return {}
    found = graphs(job)
    return {f"onnxruntime{name}": lambda model=model: _session(job, model) for name, model in found.items()}


def _session(job: Job, model: bytes) -> Candidate:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    w = job.workload
    x = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(job.tensors.x.transpose(0, 3, 1, 2)))
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((w.batch, w.out_channels, *w.out_size), np.float32))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output("y", y)

    def run() -> None:
        session.run_with_iobinding(binding)

    def answer() -> np.ndarray:
        run()
        return np.ascontiguousarray(y.numpy().transpose(0, 2, 3, 1))

    return Candidate(run, answer)
