"""What the PyTorch runtimes share: tensors in channels_last, stock pairs and networks, the float32 switches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bench.candidates import Candidate, Job, NetworkJob, as_pixels
from bench.prepared import loaded, stock
from sepwise.conversion import Plan, convert
from sepwise.ops.activations import ACTIVATIONS

# `torch.backends.fp32_precision`: what float32 convolutions and products may use inside. It stands above
# `torch.set_float32_matmul_precision` ("medium" = "bf16") and the switches of single back ends.
SWITCHES = ("tf32", "bf16")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Form = TypeVar("Form")  # a module, or what makes one


class Pair(nn.Module):
    """Two stock convolutions and their activations."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        w, t = job.workload, job.tensors
        self.depthwise = nn.Conv2d(
            w.channels, w.mid_channels, w.kernel, w.stride, w.padding, groups=w.channels, dtype=DTYPES[job.dtype]
        )
        self.pointwise = nn.Conv2d(w.mid_channels, w.out_channels, 1, dtype=DTYPES[job.dtype])
        self.between, self.activation = activation(w.between), activation(w.activation)
        fill(self.depthwise, t.depthwise[:, None], t.depthwise_bias)
        fill(self.pointwise, t.pointwise[:, :, None, None], t.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.pointwise(self.between(self.depthwise(x))))


class SumOfPairs(nn.Module):
    """A depth multiplier m as m pairs of multiplier 1, added up: often faster than the grouped convolution."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        w, t, m = job.workload, job.tensors, job.workload.multiplier
        self.depthwise, self.pointwise = nn.ModuleList(), nn.ModuleList()
        for j in range(m):
            depthwise = nn.Conv2d(
                w.channels, w.channels, w.kernel, w.stride, w.padding, groups=w.channels, dtype=DTYPES[job.dtype]
            )
            pointwise = nn.Conv2d(w.channels, w.out_channels, 1, bias=j == 0, dtype=DTYPES[job.dtype])
            fill(depthwise, t.depthwise[j::m, None], t.depthwise_bias[j::m])
            fill(pointwise, t.pointwise[:, j::m, None, None], t.bias if j == 0 else None)
            self.depthwise.append(depthwise)
            self.pointwise.append(pointwise)
        self.between, self.activation = activation(w.between), activation(w.activation)

    def forward(self, x: Tensor) -> Tensor:
        parts = [p(self.between(d(x))) for d, p in zip(self.depthwise, self.pointwise, strict=True)]
        y = parts[0]
        for part in parts[1:]:
            y = y + part
        return self.activation(y)


FORMS: dict[str, type[nn.Module]] = {"": Pair, ", sum of pairs": SumOfPairs}


def forms(job: Job) -> dict[str, nn.Module]:
    """Suffix of the name -> module, in channels_last and eval mode."""
    wanted = FORMS if job.workload.multiplier > 1 else {"": Pair}
    return {name: form(job).eval().to(memory_format=torch.channels_last) for name, form in wanted.items()}  # type: ignore[call-overload]


def network_forms(job: NetworkJob) -> dict[str, Callable[[], nn.Module]]:
    """Suffix of the name -> makes the network in stock operations, in channels_last: as it is, and with norms folded.

    A converted network has its norms folded already. Each is made once, when it is first asked for: a process that
    measures the memory of one must not hold the other.
    """

    def as_it_is() -> nn.Module:
        return stock(loaded(job.network, job.folder), pictures(job).float())

    def folded() -> nn.Module:
        return convert(loaded(job.network, job.folder), Plan({}, batch_norm="fold"))

    def laid(make: Callable[[], nn.Module]) -> nn.Module:
        permit("none")  # torch.export refuses to trace while a candidate's switch is on
        return make().to(DTYPES[job.dtype]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    found = {"": cache(partial(laid, as_it_is))}
    modules = () if job.network.converted else loaded(job.network, job.folder).modules()
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
        found[", folded"] = cache(partial(laid, folded))
    return found


def pictures(job: NetworkJob) -> Tensor:
    """x as (N, C, H, W) in channels_last."""
    x = torch.from_numpy(job.x()).to(DTYPES[job.dtype])
    return x.contiguous(memory_format=torch.channels_last)


def with_switches(
    dtype: str, name: str, found: Mapping[str, Form], build: Callable[[Form, str], Candidate]
) -> dict[str, Callable[[], Candidate]]:
    """Every form of a pair or network, built with no switch, and in float32 under each of them as well."""
    switches = ("none", *SWITCHES) if dtype == "float32" else ("none",)
    return {
        f"{name}{suffix}" + ("" if switch == "none" else f", {switch} permitted"): partial(build, form, switch)
        for suffix, form in found.items()
        for switch in switches
    }


def activation(name: str | None) -> Callable[[Tensor], Tensor]:
    return (lambda x: x) if name is None else ACTIVATIONS[name]


def fill(conv: nn.Conv2d, weight: np.ndarray, bias: np.ndarray | None) -> None:
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(weight))
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(torch.from_numpy(bias))


def tensor(array: np.ndarray, dtype: str) -> Tensor:
    return torch.tensor(array, dtype=DTYPES[dtype])


def picture(job: Job) -> Tensor:
    """x as (N, C, H, W) in channels_last."""
    return tensor(job.tensors.x, job.dtype).permute(0, 3, 1, 2)


def candidate(call: Callable[[Tensor], Tensor], x: Tensor, switch: str = "none", chose: str = "") -> Candidate:
    """`call(x)` in inference mode, under a setting of `torch.backends.fp32_precision`."""

    def run() -> Tensor:
        with torch.inference_mode():
            return call(x)

    def answer() -> np.ndarray:
        return as_pixels(run().float().numpy())

    return Candidate(run, answer, partial(permit, switch), chose)


def permit(switch: str) -> None:
    torch.backends.fp32_precision = switch  # type: ignore[attr-defined]


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
