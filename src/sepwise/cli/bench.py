"""`sepwise bench`: networks fused, against every other runtime that is installed."""

from __future__ import annotations

import argparse
from dataclasses import replace
from math import exp, log
from typing import TYPE_CHECKING, Any

from ..errors import SepwiseError
from .outcome import Outcome
from .progress import Progress
from .sizes import read_size

if TYPE_CHECKING:
    import torch

HELP = "time networks, fused, against PyTorch, ONNX Runtime and OpenVINO on this machine"
DTYPES = ("float32", "bfloat16")
MODELS = tuple(
    f"timm:{name}"
    for name in (
        "tf_efficientnet_lite0",
        "mobilenetv1_100",
        "mobilenetv2_100",
        "mobilenetv3_large_100",
        "mobilenetv4_conv_small",
        "xception41",
        "convnext_tiny",
    )
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="timm:NAME, zoo:NAME, package.module:factory or file.pt2; models: seven separable networks of timm",
    )
    parser.add_argument("--weights", metavar="FILE", help="trained weights of the only MODEL, such as net.safetensors")
    parser.add_argument("--size", metavar="HxW", help="size of inputs in pixels, or one number (default: their own)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pictures in a call; default: %(default)s")
    parser.add_argument("--threads", type=int, metavar="N", help="of all runtimes (default: as many as PyTorch takes)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="to compute in; default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well, a minute for each network")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="that take turns; default: %(default)s")


def run(args: argparse.Namespace) -> Outcome:
    import torch

    models = [m for given in args.models for m in (MODELS if given == "models" else (given,))]
    if args.weights and len(models) > 1:
        raise SepwiseError(f"--weights {args.weights} belongs to one network, given {len(models)}: name one MODEL")
    for option in ("batch", "threads", "rounds"):
        number = getattr(args, option)
        if number is not None and number < 1:
            raise SepwiseError(f"--{option} {number}: give a number, at least 1")
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(args.threads or before)
    try:
        with Progress() as progress:
            for count, model in enumerate(models):
                progress("bench", count, len(models))
                found.append(_timed(args, model, getattr(torch, args.dtype)))
            progress("bench", len(models), len(models))
        about = {"batch": args.batch, "threads": torch.get_num_threads(), "dtype": args.dtype, "rounds": args.rounds}
    finally:
        torch.set_num_threads(before)
    ratios = [one["ratio"] for one in found if "ratio" in one]
    mean = exp(sum(map(log, ratios)) / len(ratios)) if ratios else None
    lines = [f"batch {args.batch}, {args.dtype}, {about['threads']} threads, medians of {args.rounds} rounds"]
    lines += ["", *(_told(one) for one in found)]
    if len(ratios) > 1:
        lines += [f"the best other runtime over sepwise: geometric mean {mean:.2f}, least {min(ratios):.2f}"]
    data = {**about, "networks": found, "geometric_mean": mean}
    return Outcome(data, "\n".join(lines), exit_code=1 if len(ratios) < len(models) else 0)


def _timed(args: argparse.Namespace, model: str, dtype: torch.dtype) -> dict[str, Any]:
    """A network's times in milliseconds; or {"model": ..., "refused": why}."""
    import torch

    from ..fusion import fuse
    from ..measure import fastest, ratio
    from ..saving.runtimes import interleaved, runtimes
    from ..sources.models import load_model
    from .latency import runner

    try:
        loaded = load_model(model, args.weights)
        loaded = replace(loaded, size=read_size(args.size) if args.size else loaded.size)
        shape = (args.batch, loaded.channels, *loaded.size)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        fused = fuse(loaded.model, x, dtype=dtype)
        others = runtimes(loaded.model, x, dtype, args.compile)
    except SepwiseError as error:
        return {"model": model, "refused": str(error)}
    timings = interleaved({**others.calls, "sepwise": runner(fused, x.to(dtype))}, args.rounds)
    ours = timings.pop("sepwise")
    best = fastest(timings)
    rows = {name: {**timing.to_dict(), "ratio": ratio(timing, ours).median} for name, timing in timings.items()}
    speed = ratio(timings[best], ours)
    told = {"model": loaded.name, "weights": args.weights, "size": [*loaded.size], "sepwise": ours.to_dict()}
    told |= {"difference": fused.report.difference, "others": rows, "left_out": others.left_out, "best": best}
    return told | {"ratio": speed.median, "quartiles": list(speed.quartiles)}


def _told(one: dict[str, Any]) -> str:
    if "refused" in one:
        return f"{one['model']}: {one['refused']}\n"
    (height, width), (low, high), best = one["size"], one["quartiles"], one["best"]
    width_of = max(map(len, ["sepwise", *one["others"]]))
    lines = [f"{one['model']}, {height}×{width}", f"  {'sepwise':{width_of}}  {one['sepwise']['median_ms']:8.2f} ms"]
    for name, row in sorted(one["others"].items(), key=lambda item: item[1]["median_ms"]):
        lines.append(f"  {name:{width_of}}  {row['median_ms']:8.2f} ms  {row['ratio']:5.2f}×")
    lines += [f"  {name} left out: {why}" for name, why in one["left_out"].items()]
    says = "faster" if one["ratio"] >= 1 else "SLOWER"
    lines.append(f"  sepwise is {says}: {best} takes {one['ratio']:.2f} times as long ({low:.2f} to {high:.2f})")
    return "\n".join([*lines, ""])
