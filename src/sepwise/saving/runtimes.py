# pyright: reportMissingImports=false
"""A network in PyTorch, torch.compile, ONNX Runtime and OpenVINO, each answer checked before it is timed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import SepwiseError
from ..extras import require
from ..fusion.stock import stock_calls
from ..graph.network import copy_of, sentence
from ..measure import Timing, measure_latency
from ..measure.timing import check_same
from .onnx import onnx_of

# Of the largest output, against the network in float32. What is computed in bfloat16 is rounded layer after layer.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
PAUSE = 0.1  # seconds: threads of the runtime before stop to wait for work, which would slow the next one down
COMPILED = "torch.compile"

Call = Callable[[], object]


@dataclass
class Runtimes:
    """calls: one call of a network by each runtime. left_out: why others are not there, a sentence each."""

    calls: dict[str, Call] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asked:
    """A network in float32, pictures for it, and the dtype in which they are to be computed."""

    network: nn.Module
    x: Tensor
    dtype: torch.dtype

    @cached_property
    def onnx(self) -> bytes:
        return onnx_of(self.network, self.x).SerializeToString()


@torch.no_grad()
def runtimes(network: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32, compiled: bool = False) -> Runtimes:
    """The ways to run a network without sepwise, on as many threads as PyTorch has.

    PyTorch's eager forms (see `stock_calls`), OpenVINO fed NCHW and NHWC, and ONNX Runtime (float32 alone).

    network     in float32
    x           pictures (N, C, H, W) in float32
    dtype       torch.float32 or torch.bfloat16, in which it is computed
    compiled    also torch.compile with freezing, which takes a minute
    """
    asked, expected, found = _Asked(network, x, dtype), network(x), Runtimes()
    cast = network if dtype == torch.float32 else copy_of(network).to(dtype)
    found.calls.update(stock_calls(cast, x.to(dtype)))
    made = {f"OpenVINO {layout}": partial(_openvino, asked, layout) for layout in ("NCHW", "NHWC")}
    if dtype == torch.float32:
        made["ONNX Runtime"] = partial(_onnxruntime, asked)
    if compiled:
        made[COMPILED] = partial(_compiled, cast, x.to(dtype))
    for name, make in made.items():
        try:
            call, answer = make()
            check_same(name, answer(), expected, TOLERANCE[dtype])
        except SepwiseError as error:
            found.left_out[name] = str(error)
        except Exception as error:  # each runtime has its own
            found.left_out[name] = f"it cannot run the network: {sentence(error)}"
        else:
            found.calls[name] = call
    return found


def interleaved(calls: Mapping[str, Call], rounds: int) -> dict[str, Timing]:
    """Time all calls in rounds, with a pause after each one."""
    paused: dict[str, Call] = {}
    for name, call in calls.items():
        paused |= {name: call, f"after {name}": partial(time.sleep, PAUSE)}
    timings = measure_latency(paused, rounds, warmup=2)
    return {name: timings[name] for name in calls}


Made = tuple[Call, Callable[[], list[Tensor]]]  # the call to time; its answer, to check


def _openvino(asked: _Asked, layout: str) -> Made:
    """In bfloat16 it converts at both ends by itself: it is fed and read in float32."""
    openvino = require("openvino", "the runtime OpenVINO")
    preprocess = require("openvino.preprocess", "the runtime OpenVINO")
    core, x = openvino.Core(), asked.x
    graph = core.read_model(asked.onnx, b"")
    graph.reshape(list(x.shape))
    steps = preprocess.PrePostProcessor(graph)
    steps.input().tensor().set_layout(openvino.Layout(layout))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    hints = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": {torch.float32: "f32", torch.bfloat16: "bf16"}[asked.dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_HYPER_THREADING": True,  # else two threads may share one core
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(steps.build(), "CPU", hints).create_infer_request()
    array = np.ascontiguousarray(x.numpy() if layout == "NCHW" else x.permute(0, 2, 3, 1).numpy())
    request.set_input_tensor(openvino.Tensor(array))  # keeps the array

    def answer() -> list[Tensor]:
        request.infer()
        return [torch.from_numpy(t.data.copy()) for t in request.output_tensors]

    return request.infer, answer


def _onnxruntime(asked: _Asked) -> Made:
    onnxruntime = require("onnxruntime", "the runtime ONNX Runtime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(asked.onnx, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    array = np.ascontiguousarray(asked.x.numpy())
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for output in session.get_outputs():
        binding.bind_output(output.name)

    def answer() -> list[Tensor]:
        session.run_with_iobinding(binding)
        return [torch.from_numpy(np.array(y)) for y in binding.copy_outputs_to_cpu()]

    return partial(session.run_with_iobinding, binding), answer


def _compiled(network: nn.Module, x: Tensor) -> Made:
    """The network and pictures are in the dtype asked for."""
    laid = copy_of(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = x.contiguous(memory_format=torch.channels_last)

    def call() -> object:
        with torch.no_grad():
            return module(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's remarks on its own parts while it compiles
        module = torch.compile(laid, dynamic=False, options={"freezing": True})
        call()
    return call, lambda: [y.float() for y in tree_leaves(call()) if isinstance(y, Tensor)]
