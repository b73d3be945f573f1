"""What this machine can do at best, by proxies: large matrix products for arithmetic, large copies for memory.

floor = max(compute, memory)
compute    depthwise at the float32 rate, pointwise at the best rate that the accuracy class permits: float32
           products, or 1 (bf16), 3 ("high"), 6 ("highest") products of bfloat16 parts
memory     input, weights and output once, at the speed of a copy of the same number of bytes
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.workload import Workload

PRODUCTS = {"highest": 6, "high": 3, "bf16": 1}
SIZES = (256, 512, 1024, 1536)
MEGABYTES = (0.25, 0.5, 1, 2, 4, 8, 16, 64, 256)


def measure(threads: int) -> dict[str, Any]:
    """macs_per_second of float32 and bfloat16 products; bytes_per_second (read and written) of copies, by footprint."""
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        rates = {"float32": _product_rate(torch.float32), "bfloat16": _product_rate(torch.bfloat16)}
        copies = {str(int(m * 2**20)): _copy_rate(int(m * 2**20)) for m in MEGABYTES}
    return {"macs_per_second": rates, "bytes_per_second": copies}


def _product_rate(dtype: Any) -> float:
    """Multiplications a second of the best size, through the default library and through oneDNN."""
    import torch

    best = 0.0
    for n in SIZES:
        a, b, bias = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype), torch.zeros(n, dtype=dtype)
        best = max(best, n**3 / _fastest(partial(torch.mm, a, b)))
        if torch.backends.mkldnn.is_available():
            linear = partial(torch.ops.mkldnn._linear_pointwise, a, b, bias, "none", [], "")
            best = max(best, n**3 / _fastest(linear))
    return best


def _copy_rate(moved: int) -> float:
    """Bytes a second of a copy that reads one half of them and writes the other."""
    import torch

    source, target = torch.randn(moved // 8), torch.empty(moved // 8)
    return moved / _fastest(partial(target.copy_, source))


def _fastest(call: Callable[[], object], seconds: float = 0.06) -> float:
    """Seconds of the fastest of many calls: a bound wants the best moment, not the usual one."""
    call()
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - before)
    return best


def floor_us(workload: Workload, dtype: str, accuracy: str, machine: dict[str, Any]) -> dict[str, Any]:
    """{"us": microseconds, "bound": "compute" or "memory"} that no implementation of this class should beat by much."""
    rates = machine["macs_per_second"]
    depthwise, pointwise = workload.macs
    fastest = max(rates["float32"], rates["bfloat16"] / PRODUCTS[accuracy])
    compute = depthwise / rates["float32"] + pointwise / fastest
    moved = workload.bytes_moved(dtype)
    copies = sorted((int(size), speed) for size, speed in machine["bytes_per_second"].items())
    speed = next((speed for size, speed in copies if size >= moved), copies[-1][1])
    memory = moved / speed
    return {"us": 1e6 * max(compute, memory), "bound": "compute" if compute >= memory else "memory"}
