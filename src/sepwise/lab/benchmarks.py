"""What the records of `./run bench` say about separable convolutions, as plain rows: pairs in every runtime, HED."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from .. import records
from ..errors import SepwiseError
from ..geometry import ConvShape, Geometry, chain_macs

ERRORS = {"float32": 1e-5, "bfloat16": 8e-3}  # the largest error of an answer that counts: docs/benchmarks.md
OPS, NETWORKS = "ops.jsonl", "hed.jsonl"
Row = dict[str, Any]


def pairs(folder: str) -> list[Row]:
    """Every depthwise-pointwise pair, at its last timing, against a dense convolution that runs at full rate.

    The benchmark times no dense convolution. It measures how many multiply-accumulates a second this machine makes of
    large matrix products, and a dense convolution of the same shape at that rate is one that nothing waits for: only an
    algorithm with fewer multiplications (Winograd) could be faster.
    multiplications    of the pair over those of the dense convolution
    times              runtime -> the time of its fastest answer that is right, over that of this dense convolution
    Raises SepwiseError when the folder holds no such records.
    """
    path = _file(folder, OPS)
    rates: dict[tuple[Any, ...], dict[str, float]] = {}
    found: dict[tuple[Any, ...], Row] = {}
    for record in records.read(path, []):
        about = record.about
        if record.what == "ops.roofline":
            rates[_place(about)] = record.value["macs_per_second"]
        elif record.what == "ops.latency" and _place(about) in rates:
            row = _pair(about["workload"], about, record.value, rates[_place(about)][about["dtype"]])
            found[row["shapes"], row["name"], row["batch"], row["threads"], row["dtype"]] = row
    if not found:
        raise SepwiseError(f"{path} holds no timings of pairs: ./run bench ops writes them")
    return list(found.values())


def networks(folder: str) -> list[Row]:
    """HED planned for latency: multiplications and time of the converted network over those of the dense one.

    times    "best runtime": against the dense network in the fastest runtime tried; "eager PyTorch"
    An empty list when the folder holds none.
    """
    path = Path(folder) / NETWORKS
    return list(_networks(path)) if path.is_file() else []


def _networks(path: Path) -> Iterator[Row]:
    for record in records.read(path, []):
        about = record.about
        if record.what == "hed.f1" and "threads" in about:
            yield {
                "network": "hed",
                "threads": about["threads"],
                "agreement": record.value,
                "multiplications": 1 / about["reached"],
                "times": {"best runtime": 1 / about["faster"], "eager PyTorch": 1 / about["faster_than_eager"]},
            }


def _file(folder: str, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise SepwiseError(f"there is no {path}: pass --benchmarks with a folder that ./run bench ops has filled")
    return path


def _place(about: dict[str, Any]) -> tuple[Any, ...]:
    """What a time and a rate must have in common to be compared."""
    return about["code"], about["threads"], about["isa"], *about["instructions"]


def _pair(work: dict[str, Any], about: dict[str, Any], entries: dict[str, Any], rate: float) -> Row:
    size, batch = (work["height"], work["width"]), work["batch"]
    geometry = Geometry.of((work["kernel"],) * 2, work["stride"], work["padding"])
    dense = ConvShape(work["channels"], work["out_channels"], geometry)
    middle = work["channels"] * work["multiplier"]
    steps = (
        ConvShape(work["channels"], middle, geometry, work["channels"]),
        ConvShape(middle, work["out_channels"], Geometry.of((1, 1))),
    )
    seconds = batch * dense.macs(size) / rate
    times: dict[str, float] = {}
    for entry in entries.values():
        if entry.get("rounds_us") and entry["error"] <= ERRORS[about["dtype"]]:
            taken = median(entry["rounds_us"]) / 1e6 / seconds
            times[entry["runtime"]] = min(taken, times.get(entry["runtime"], taken))
    return {
        "shapes": about["shapes"],
        "name": work["name"],
        "batch": batch,
        "threads": about["threads"],
        "dtype": about["dtype"],
        "multiplications": chain_macs(steps, size) / dense.macs(size),
        "times": times,
    }
