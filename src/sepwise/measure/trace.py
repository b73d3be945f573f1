"""One run of a model, written down operation by operation; the model is left exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ..errors import ModelError
from ..geometry import ConvShape, Geometry

Example = Tensor | tuple[Any, ...]

_CONVOLUTIONS = {torch.ops.aten.convolution, torch.ops.aten._convolution}


@dataclass(frozen=True)
class Convolution:
    """A convolution as it was called, whoever called it: a module, a functional call or an exported graph.

    conv         its shape
    size         spatial size of its input, pixels
    batch        how many inputs there were
    weight       (out, in / groups, *kernel), the tensor itself
    name         of the parameter, without a final ".weight"; None when the weight was computed on the way
    transposed   True: a transposed convolution; `conv` then describes the weight as it lies
    """

    conv: ConvShape
    size: tuple[int, ...]
    batch: int
    weight: Tensor
    name: str | None
    transposed: bool


@dataclass(frozen=True)
class Call:
    """One ATen operation of the run.

    op             its overload packet, e.g. `torch.ops.aten.convolution`
    tags           what PyTorch says of it: pointwise, reduction, view ...
    within         names of the modules that were running, outermost (the model, "") first
    macs           multiply-accumulates; None when PyTorch has no formula for this operation
    bytes_moved    every tensor read and every tensor written, once
    output_shape   of the first tensor returned; None when there is none
    """

    op: Any
    tags: frozenset[str]
    within: tuple[str, ...]
    macs: int | None
    bytes_moved: int
    output_shape: tuple[int, ...] | None
    convolution: Convolution | None


@dataclass(frozen=True)
class Run:
    """calls: in order; output_shapes: of each module that ran, by name, at its last call."""

    calls: tuple[Call, ...]
    output_shapes: dict[str, tuple[int, ...] | None]


def run(model: nn.Module, example: Example) -> Run:
    """Run the model once in evaluation mode, without gradients, and write down what it did.

    example    a tensor, or the tuple of positional arguments
    Training flags, buffers, hooks and the random state are afterwards what they were before.
    Raises ModelError when the model cannot run on the example.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    recorder = _Recorder(model)
    with evaluating(model), recorder.following(), _attention_as_products(), recorder:
        try:
            model(*inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            shapes = ", ".join(str(tuple(t.shape)) for t in _tensors(inputs))
            first_line = str(error).strip().partition("\n")[0]
            raise ModelError(f"the model cannot run on an example of shape {shapes}: {first_line}") from error
    return Run(tuple(recorder.calls), recorder.output_shapes)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training flags, buffers and random state are put back at the end."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    values = [(b, b.clone(), b._version) for b in model.buffers()]
    devices = {t.device for t in (*model.parameters(), *model.buffers()) if t.device.type != "cpu"}
    with torch.random.fork_rng(devices=sorted(d.index for d in devices if d.index is not None)), torch.no_grad():
        try:
            for module, _ in flags:
                module.training = False  # not .eval(): exported modules refuse it
            yield
        finally:
            for module, flag in flags:
                module.training = flag
            for module, held in buffers:
                module._buffers.update(held)
            for buffer, value, version in values:
                if buffer._version != version:
                    buffer.copy_(value)


@contextmanager
def _attention_as_products() -> Iterator[None]:
    """Attention as plain matrix products, which have formulas on every device; its fused kernels have none on CPU."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Recorder(TorchDispatchMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls: list[Call] = []
        self.output_shapes: dict[str, tuple[int, ...] | None] = {}
        self.running: list[str] = []
        self.names = {_key(p): name.removesuffix(".weight") for name, p in model.named_parameters()}

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keep `running` up to date while the model runs."""
        handles = []
        for name, module in self.model.named_modules():

            def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
                self.running.append(name)

            def leave(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                self.running.pop()
                self.output_shapes[name] = _first_shape(output)

            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        op = func._overloadpacket
        formula = flop_registry.get(op)
        tags = {str(tag).rpartition(".")[2] for tag in func.tags} | ({"view"} if func.is_view else set())
        moved = sum(t.numel() * t.element_size() for t in (*_tensors((args, kwargs)), *_tensors(out)))
        self.calls.append(
            Call(
                op=op,
                tags=frozenset(tags),
                within=tuple(self.running),
                macs=None if formula is None else formula(*args, **kwargs, out_val=out) // 2,
                bytes_moved=moved,
                output_shape=_first_shape(out),
                convolution=self._convolution(args) if op in _CONVOLUTIONS else None,
            )
        )
        return out

    def _convolution(self, arguments: Sequence[Any]) -> Convolution:
        x, weight, _, stride, padding, dilation, transposed, _, groups = arguments[:9]
        kernel = tuple(weight.shape[2:])
        # ATen lets one entry stand for all axes.
        stride, padding, dilation = (
            tuple(v) * (len(kernel) if len(v) == 1 else 1) for v in (stride, padding, dilation)
        )
        geometry = Geometry.of(kernel, stride, padding, dilation)
        channels = (weight.shape[1] * groups, weight.shape[0])
        into, out = reversed(channels) if transposed else channels
        conv = ConvShape(into, out, geometry, groups)
        return Convolution(conv, tuple(x.shape[2:]), x.shape[0], weight, self.names.get(_key(weight)), transposed)


def _key(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.data_ptr(), tuple(tensor.shape))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _first_shape(tree: Any) -> tuple[int, ...] | None:
    return next((tuple(t.shape) for t in _tensors(tree)), None)
