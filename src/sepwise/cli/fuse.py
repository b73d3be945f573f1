"""`sepwise fuse`: depthwise and pointwise layers of a network as one operation each; what was fused, and its speed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError
from ..extras import require
from .formats import FILES, USUAL, check_formats, write
from .outcome import Outcome

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..fusion import FusedNetwork

DTYPES = ("float32", "bfloat16")
HELP = "run the depthwise and pointwise layers of a network as one operation each, with the same outputs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="timm:NAME, zoo:NAME, package.module:factory or file.pt2")
    parser.add_argument("--weights", metavar="FILE", help="its trained weights, such as net.safetensors")
    parser.add_argument("--size", metavar="HxW", help="size of its input in pixels, or one number (default: its own)")
    parser.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help="of its weights and values; default: %(default)s"
    )
    parser.add_argument(
        "--precision",
        choices=("highest", "high", "medium"),
        help="of products of float32, as torch.set_float32_matmul_precision takes it (default: highest)",
    )
    parser.add_argument("--out", metavar="DIR", help="also write the fused network, in the formats that --format names")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FILES,
        metavar="FORMAT",
        help="any of weights (model.safetensors), stock (model.pt2, stock operations), fused (fused.pt2, for "
        "sepwise.load_fused), onnx (model.onnx, for any runtime) and compiled (compiled.pt2, machine code; takes a "
        f"minute); default: {' '.join(USUAL)}",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    parser.add_argument("--pictures", metavar="FOLDER", help="compare the answers to pictures; with --out also a page")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line (default: what tables say)")
    parser.add_argument("--limit", type=int, metavar="N", help="pictures at most, drawn by chance (default: all)")
    parser.add_argument("--skip-broken", action="store_true", help="go on without pictures that cannot be read")


def run(args: argparse.Namespace) -> Outcome:
    if args.precision and args.dtype != DTYPES[0]:
        raise OutputError(f"--precision is of products of {DTYPES[0]}: leave --precision or --dtype {args.dtype} out")
    with _products(args.precision):
        return _run(args)


def _run(args: argparse.Namespace) -> Outcome:
    import torch

    from .. import __version__, records, report
    from ..files import whole_folder
    from ..fusion import fuse
    from ..graph.network import copy_of
    from ..sources.models import load_model
    from .fused_pictures import check_options, compared
    from .results import RECORDS, check_results
    from .sizes import read_size

    check_options(args)
    out = Path(args.out) if args.out else None
    formats = list(dict.fromkeys(args.format or USUAL))
    if out is not None:
        check_results(out, args.overwrite, args.model, args.weights, args.pictures, args.labels)
        check_formats(formats, args.dtype)
        if args.pictures:
            require("jinja2", "the HTML report")
    elif args.format:
        raise OutputError(f"--format {' '.join(formats)}: name a folder to write to, with --out DIR")
    loaded = load_model(args.model, args.weights)
    height, width = read_size(args.size) if args.size else loaded.size
    loaded = replace(loaded, size=(height, width))
    example = torch.randn(1, loaded.channels, height, width, generator=torch.Generator().manual_seed(0))
    kind, networks, inputs = getattr(torch, args.dtype), {DTYPES[0]: loaded.model}, {DTYPES[0]: example}
    if args.dtype not in networks:
        networks[args.dtype], inputs[args.dtype] = copy_of(loaded.model).to(kind), example.to(kind)
    fused = fuse(loaded.model, example, dtype=kind)
    shown = compared(args, loaded, fused) if args.pictures else None
    told = fused.report.to_dict() | {"latency": _latency(networks, inputs, fused)}
    data: dict[str, Any] = {"model": loaded.name, "weights": args.weights, "size": [height, width]}
    data |= {"dtype": args.dtype, "precision": args.precision, **told}
    untrained = "" if args.weights else ", as built (no --weights)"
    lines = [f"{loaded.name}, input {height}×{width}×{loaded.channels}{untrained}", "", str(fused.report)]
    lines += ["", _speed(data["latency"])]
    if shown is not None:
        data["pictures"] = shown.facts
        lines += ["", str(shown)]
    if out is not None:
        with whole_folder(out, args.overwrite) as folder:
            files = [*write(fused, inputs[args.dtype], formats, folder), RECORDS]
            about = {
                "command": " ".join(["sepwise", *sys.argv[1:]]),
                "sepwise": __version__,
                "torch": torch.__version__,
            }
            records.append(folder / RECORDS, [records.here("fusion", data, about=about)])
            if shown is not None:
                records.append(folder / RECORDS, shown.records(folder, data["latency"]["before_form"]))
                report.build(folder)
                files.append("report.html")
        data |= {"out": str(out), "files": files}
        lines += [f"{out} holds {', '.join(files)}"]
    return Outcome(data, "\n".join(lines))


def _latency(networks: Mapping[str, nn.Module], inputs: Mapping[str, Tensor], fused: FusedNetwork) -> dict[str, Any]:
    """The fused network, which reads the last input, against the fastest stock form of all networks.

    networks    the first one in float32
    `stock_form` is that form, `before_form` the fastest one of the first network.
    """
    from ..measure import fastest, ratio
    from .latency import fused_latency

    stock, timing = fused_latency(networks, inputs, fused)
    first = f"{DTYPES[0]}, "
    best, before = fastest(stock), fastest({form: t for form, t in stock.items() if form.startswith(first)})
    speed = ratio(stock[best], timing)
    low, high = speed.quartiles
    told = {"ratio": speed.median, "low": low, "high": high, "rounds": len(speed.values), "threads": timing.threads}
    told |= {"stock_form": best.removeprefix(first) if len(networks) == 1 else best, "stock_ms": stock[best].median_ms}
    told |= {"before_form": before.removeprefix(first)}
    return told | {"fused_ms": timing.median_ms}


@contextmanager
def _products(precision: str | None) -> Iterator[None]:
    import torch

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision or before)
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _speed(told: dict[str, Any]) -> str:
    ratio, threads = told["ratio"], f"{told['threads']} thread" + ("s" if told["threads"] > 1 else "")
    compared = f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x SLOWER"
    medians = f"{told['stock_ms']:.2f} to {told['fused_ms']:.2f} ms"
    return (
        f"{compared} than the fastest stock form ({told['stock_form']}): {medians} "
        f"(medians of {told['rounds']} interleaved rounds, {threads})"
    )
