"""`sepwise doctor`: what this machine and this installation offer."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from .outcome import Outcome

HELP = "show what this machine and this installation offer, and what is missing"

INSTRUCTIONS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")
TORCH_NEEDED = (2, 11)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # no arguments of its own


def run(args: argparse.Namespace) -> Outcome:
    del args
    problems: list[str] = []
    torch = _torch(problems)
    torch_works = not problems
    data: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch,
        "processor": _processor(),
        "kernels": _kernels(problems) if torch_works else {},
        "implementations": {} if problems else {"separable_conv2d": _implementations()},
        "extras": _extras(),
        "torchvision": _torchvision() if torch_works else "not looked at",
        "problems": problems,
    }
    return Outcome(data, _text(data), exit_code=1 if problems else 0)


def _torch(problems: list[str]) -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a half-installed torch fails in many ways, and every one of them is the finding
        problems.append(f"torch cannot be imported: {error}")
        return {}
    numbers = tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2])
    if numbers < TORCH_NEEDED:
        problems.append(
            f"torch {torch.__version__} is too old: sepwise needs {'.'.join(map(str, TORCH_NEEDED))} or newer"
        )
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cuda": cuda,
    }


def _processor() -> dict[str, Any]:
    from .. import records

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line.split(":")[1].split() for line in file if line.startswith("flags")), [])
    except OSError:
        flags = []
    return {
        "name": records.machine()["processor"],
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
    }


def _kernels(problems: list[str]) -> dict[str, Any]:
    """The compiled kernels: which this machine runs, why not the others, and which one each kind of call takes."""
    from ..ops import native

    problem = native.PROBLEM or native.MACHINE.problem
    if problem is not None:
        problems.append(problem)
        return {}
    return {
        "offers": native.MACHINE.offers,
        "SEPWISE_ISA": native.MACHINE.setting or None,
        "kernels": [{**vars(kernel), "dtype": _spelled(kernel.dtype)} for kernel in native.kernels()],
        "taken": _taken(),
    }


def _taken() -> dict[str, str]:
    import torch

    from ..ops.separable_conv2d import cpu

    kinds = [(torch.float32, precision) for precision in ("highest", "high", "medium")] + [(torch.bfloat16, None)]
    return {
        f"{_spelled(dtype)}{f', {precision}' if precision else ''}": cpu.kernel_for(_example(dtype, 1, precision))
        for dtype, precision in kinds
    }


def _implementations() -> dict[str, dict[str, str | None]]:
    """For each kind of call, what each implementation answers: None when it can run it, or its sentence."""
    import torch

    from ..ops.separable_conv2d.api import IMPLEMENTATIONS

    answers = {}
    for dtype in (torch.float32, torch.bfloat16):
        for multiplier in (1, 2):
            call = _example(dtype, multiplier)
            kind = f"{_spelled(dtype)}, depth multiplier {multiplier}"
            answers[kind] = {name: module.why_not(call) for name, module in IMPLEMENTATIONS.items()}
    return answers


def _example(dtype: Any, multiplier: int, precision: str | None = None) -> Any:
    import torch

    from ..geometry import Geometry
    from ..ops.separable_conv2d.call import Call

    x, depthwise = torch.zeros(1, 64, 8, 8, dtype=dtype), torch.zeros(64 * multiplier, 1, 3, 3, dtype=dtype)
    pointwise, geometry = torch.zeros(64, 64 * multiplier, 1, 1, dtype=dtype), Geometry.of((3, 3))
    return Call(x, depthwise, pointwise, None, None, None, None, precision, geometry, geometry.pads((8, 8)))


def _spelled(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _extras() -> dict[str, dict[str, Any]]:
    """For each extra: the packages it brings with their versions (None: missing) and how to install it."""
    from ..extras import EXTRA_OF

    extras: dict[str, dict[str, Any]] = {}
    for module, extra in sorted(EXTRA_OF.items(), key=lambda item: item[::-1]):
        entry = extras.setdefault(extra, {"packages": {}, "install": f"pip install 'sepwise[{extra}]'"})
        entry["packages"][module] = _version(module)
    return extras


def _version(module: str) -> str | None:
    from importlib.metadata import packages_distributions

    if find_spec(module) is None:
        return None
    try:
        return version(packages_distributions().get(module, [module])[0])
    except PackageNotFoundError:
        return "unknown"


def _torchvision() -> str:
    from ..sources import torchvision_workaround

    return torchvision_workaround.prepare()


def _text(data: dict[str, Any]) -> str:
    processor, torch = data["processor"], data["torch"]
    lines = [
        f"python       {data['python']}",
        f"torch        {torch['version']}, {torch['threads']} threads, uses {torch['instructions']}" if torch else "",
        f"processor    {processor['name']}, {processor['cores']} cores: {' '.join(processor['instructions'])}",
        f"gpu          {', '.join(torch['cuda']) or 'none that torch sees'}" if torch else "",
        f"torchvision  {data['torchvision']}",
    ]
    lines += _text_of_kernels(data["kernels"]) if data["kernels"] else []
    for op, kinds in data["implementations"].items():
        for kind, answers in kinds.items():
            lines += ["", f"{op}, {kind}"]
            lines += [f"    {name:<10} {reason or 'ready'}" for name, reason in answers.items()]
    lines += ["", "extras"]
    for extra, entry in data["extras"].items():
        missing = [name for name, found in entry["packages"].items() if found is None]
        found = ", ".join(f"{name} {number}" for name, number in entry["packages"].items() if number)
        lines.append(
            f"    {extra:<10} {found}" + (f"  missing {', '.join(missing)}: {entry['install']}" if missing else "")
        )
    lines += ["", *(data["problems"] or ["everything required works"])]
    return "\n".join(lines)


def _text_of_kernels(data: dict[str, Any]) -> list[str]:
    setting = data["SEPWISE_ISA"]
    lines = [
        "",
        f"compiled kernels may use {' '.join(data['offers'])}" + (f"; SEPWISE_ISA={setting}" if setting else ""),
    ]
    lines += [f"    {kernel['name']:<20} {kernel['why_not'] or 'ready'}" for kernel in data["kernels"]]
    lines += [f"    {kind:<20} takes {name}" for kind, name in data["taken"].items()]
    return lines
