"""`sepwise fuse`: depthwise and pointwise layers of a network as one operation each; what was fused, and its speed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .outcome import Outcome

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..conversion import FusedNetwork

HELP = "run the depthwise and pointwise layers of a network as one operation each, with the same outputs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="timm:NAME, zoo:NAME, package.module:factory or file.pt2")
    parser.add_argument("--weights", metavar="FILE", help="its trained weights, such as net.safetensors")
    parser.add_argument("--size", metavar="HxW", help="size of its input in pixels, or one number (default: its own)")
    parser.add_argument("--out", metavar="DIR", help="also write the fused weights and the network in stock operations")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")


def run(args: argparse.Namespace) -> Outcome:
    import torch

    from .. import records
    from ..conversion import export, fuse, save_program
    from ..files import whole_folder
    from ..sources.models import load_model
    from ..sources.weights import save_weights
    from .results import RECORDS, check_results
    from .sizes import read_size

    out = Path(args.out) if args.out else None
    if out is not None:
        check_results(out, args.overwrite, args.model, args.weights)
    loaded = load_model(args.model, args.weights)
    height, width = read_size(args.size) if args.size else loaded.size
    example = torch.randn(1, loaded.channels, height, width, generator=torch.Generator().manual_seed(0))
    fused = fuse(loaded.model, example)
    told = fused.report.to_dict() | {"latency": _latency(loaded.model, fused, example)}
    data: dict[str, Any] = {"model": loaded.name, "weights": args.weights, "size": [height, width], **told}
    untrained = "" if args.weights else ", as built (no --weights)"
    lines = [f"{loaded.name}, input {height}×{width}×{loaded.channels}{untrained}", "", str(fused.report)]
    lines += ["", _speed(data["latency"])]
    if out is not None:
        program = export(fused, example)
        with whole_folder(out, args.overwrite) as folder:
            save_weights(fused, folder / "model.safetensors")
            save_program(program, folder / "model.pt2")
            about = {"command": " ".join(["sepwise", *sys.argv[1:]]), "torch": torch.__version__}
            records.append(folder / RECORDS, [records.here("fusion", data, about=about)])
        files = ["model.safetensors", "model.pt2", RECORDS]
        data |= {"out": str(out), "files": files}
        lines += [f"{out} holds {', '.join(files)}"]
    return Outcome(data, "\n".join(lines))


def _latency(model: nn.Module, fused: FusedNetwork, x: Tensor) -> dict[str, Any]:
    from ..measure import ratio
    from .latency import fused_latency

    form, stock, timing = fused_latency(model, fused, x)
    speed = ratio(stock, timing)
    low, high = speed.quartiles
    told = {"ratio": speed.median, "low": low, "high": high, "rounds": len(speed.values), "threads": timing.threads}
    return told | {"stock_form": form, "stock_ms": stock.median_ms, "fused_ms": timing.median_ms}


def _speed(told: dict[str, Any]) -> str:
    ratio, threads = told["ratio"], f"{told['threads']} thread" + ("s" if told["threads"] > 1 else "")
    compared = f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x SLOWER"
    medians = f"{told['stock_ms']:.2f} to {told['fused_ms']:.2f} ms"
    return (
        f"{compared} than the fastest stock form ({told['stock_form']}): {medians} "
        f"(medians of {told['rounds']} interleaved rounds, {threads})"
    )
