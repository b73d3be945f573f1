# pyright: reportMissingImports=false
"""A workload as an ONNX graph (N, C, H, W), for the runtimes that read one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bench.candidates import Job

OPSET, IR = 21, 10
OPERATOR = {"relu": "Relu", "hardswish": "HardSwish", "elu": "Elu", "gelu": "Gelu"}


def graphs(job: Job) -> dict[str, bytes]:
    """Suffix of the name -> serialized model, float32: the pair, and for a multiplier also the sum of pairs."""
    found = {"": _model(job, parts=1)}
    if job.workload.multiplier > 1:
        found[", sum of pairs"] = _model(job, parts=job.workload.multiplier)
    return found


def _model(job: Job, parts: int) -> bytes:
    w, t, graph = job.workload, job.tensors, _Graph()
    outputs = []
    for j in range(parts):
        depthwise, depthwise_bias = t.depthwise[j::parts, None], t.depthwise_bias[j::parts]
        mid = graph.conv("x", depthwise, depthwise_bias, group=w.channels, pads=[w.padding] * 4, strides=[w.stride] * 2)
        mid = graph.activation(mid, w.between)
        outputs.append(graph.conv(mid, t.pointwise[:, j::parts, None, None], t.bias if j == 0 else None))
    y = outputs[0]
    for output in outputs[1:]:
        y = graph.node("Add", [y, output])
    graph.activation(y, w.activation)
    graph.nodes[-1].output[0] = "y"
    size = (w.batch, w.channels, w.height, w.width)
    out = (w.batch, w.out_channels, *w.out_size)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "separable",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, size)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, out)],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


class _Graph:
    """Nodes and weights, named as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def conv(self, x: str, weight: np.ndarray, bias: np.ndarray | None, **attributes: Any) -> str:
        biases = [] if bias is None else [self.weight(bias)]
        return self.node("Conv", [x, self.weight(weight), *biases], kernel_shape=weight.shape[2:], **attributes)

    def activation(self, x: str, name: str | None) -> str:
        match name:
            case None:
                return x
            case "relu6":
                return self.node("Clip", [x, self.weight(np.array(0)), self.weight(np.array(6))])
            case "silu":
                return self.node("Mul", [x, self.node("Sigmoid", [x])])
        return self.node(OPERATOR[name], [x])
