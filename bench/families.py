"""`./run bench families`: networks of timm fused at random weights: what is found, and how near they answer.

Each network has a process of its own, so that one that dies leaves a record. Normalizations get the statistics of
noise, and every scale and shift numbers that are not 1 and 0, layer scales too: a branch that counts for nothing would
hide its errors. The fused network must answer noise as the original does, within its budget; the record also holds how
far off it is with an eighth of the channels of a layer taken away. Networks that were finished with the same code are
not done again; those that found too little memory are.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import arena
from bench.arena import ROOT, code, in_own_process, run
from bench.prepared import SETTLED, settled
from bench.structural import SHIFTS, peak_gib
from sepwise import records
from sepwise.errors import ModelError, SepwiseError
from sepwise.extras import require
from sepwise.fusion import FusedNetwork, fuse
from sepwise.graph.sameness import difference
from sepwise.sources import torchvision_workaround
from sepwise.sources.models import LoadedModel, load_model

# What the networks of timm are called, family by family; a name belongs to the first that it fits, or to OTHERS.
FAMILIES = {
    "MobileNetV1": "mobilenetv1*",
    "MobileNetV2": "mobilenetv2*",
    "MobileNetV3": "mobilenetv3*",
    "MobileNetV4": "mobilenetv4*",
    "MobileNetV5": "mobilenetv5*",
    "MobileNet EdgeTPU": "mobilenet_edgetpu*",
    "EfficientNet-Lite": "efficientnet_lite* tf_efficientnet_lite*",
    "EfficientNet EdgeTPU": "efficientnet_e[slm]* tf_efficientnet_e[slm]*",
    "EfficientNet CondConv": "efficientnet_cc* tf_efficientnet_cc*",
    "EfficientNet": "efficientnet_* tf_efficientnet_*",
    "EfficientNetV2": "efficientnetv2* tf_efficientnetv2*",
    "MixNet": "mixnet* tf_mixnet*",
    "MnasNet": "mnasnet*",
    "FBNet": "fbnet*",
    "HardCoRe-NAS": "hardcorenas*",
    "ConvNeXt": "convnext_*",
    "ConvNeXtV2": "convnextv2*",
    "Xception": "xception*",
    "GhostNet": "ghostnet_*",
    "GhostNetV2": "ghostnetv2*",
    "GhostNetV3": "ghostnetv3*",
    "RepViT": "repvit*",
    "StarNet": "starnet*",
    "EdgeNeXt": "edgenext*",
    "MobileOne": "mobileone*",
    "LCNet": "lcnet_*",
    "LCNetV2": "lcnetv2*",
    "ReXNet": "rexnet*",
}
OTHERS = "others"
FEW = (
    *("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small"),
    *("mobilenetv4_conv_blur_medium", "mobilenetv4_hybrid_medium", "mobilenet_edgetpu_v2_xs", "tf_efficientnet_lite0"),
    *("efficientnet_lite4", "efficientnet_es", "efficientnet_cc_b0_4e", "efficientnet_b0", "tf_efficientnet_b4"),
    *("efficientnet_b0_gn", "efficientnetv2_rw_t", "mixnet_s", "mnasnet_small", "fbnetc_100", "fbnetv3_b"),
    *("hardcorenas_a", "convnext_atto", "convnext_tiny", "convnextv2_atto", "xception41", "ghostnet_100"),
    *("ghostnetv2_100", "ghostnetv3_100", "repvit_m1", "starnet_s1", "edgenext_xx_small", "mobileone_s0"),
    *("mobileone_s4", "lcnet_050", "lcnetv2_small", "rexnet_100"),
)
RESULTS = ROOT / "bench" / "results" / "families.jsonl"
SIZES = (128, 160, 192, 256)  # pixels; its own where none of them will do
SPARED = 1 << 30  # bytes of the free memory that are left to others
SECONDS = 1800
WHAT = "families.network"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bench families", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=[], metavar="NAME", help="of timm, or patterns of them")
    parser.add_argument("--all", action="store_true", help="every network of the families; takes hours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--markdown", action="store_true", help="print a row for each family, for docs/families.md")
    wanted = by_family if "--markdown" in arguments else by_network
    return run(parser, arguments, [], measure, wanted)


def measure(args: argparse.Namespace) -> None:
    names = chosen(args.networks, args.all)
    done = {key_of(r.about) for r in read(args.results) if r.value != "no memory"}
    for number, name in enumerate(names, start=1):
        asked = {
            "network": name,
            "code": code(compiled=True),
            "timm": metadata.version("timm"),
            "threads": args.threads,
        }
        if key_of(asked) in done:
            continue
        print(f"{number} of {len(names)}: {name}", file=sys.stderr, end=" ", flush=True)
        found = outcome(asked)
        print(found["outcome"], found.get("why", ""), file=sys.stderr, flush=True)
        records.append(args.results, [records.here(WHAT, found["outcome"], about=found)])


def chosen(patterns: Sequence[str], every: bool) -> list[str]:
    """The names of timm that fit a pattern. Raises SepwiseError for a pattern that none fits."""
    torchvision_workaround.prepare()
    known = require("timm", "the networks of the families").list_models()
    patterns = patterns or (" ".join(FAMILIES.values()).split() if every else FEW)
    fitting = {pattern: [name for name in known if fnmatch(name, pattern)] for pattern in patterns}
    strange = [pattern for pattern, names in fitting.items() if not names]
    if strange:
        raise SepwiseError(f"timm {metadata.version('timm')} has no network called {', '.join(strange)}")
    return list(dict.fromkeys(name for names in fitting.values() for name in names))


def outcome(asked: dict[str, Any]) -> dict[str, Any]:
    """What `measured` finds in a fresh process, or how that ended."""
    try:
        return in_own_process(measured, asked, seconds=SECONDS)
    except SepwiseError as error:
        return asked | {"outcome": "crashed", "why": str(error)}


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    """Everything about one network, fused in this process with the memory that is free now."""
    free = _leave_memory()
    torch.set_num_threads(asked["threads"])
    started = time.perf_counter()
    try:
        loaded = load_model(f"timm:{asked['network']}")
        x = prepared(loaded)
        found = {"size": x.shape[-1]} | fused_on(loaded.model, x)
    except (MemoryError, RuntimeError) as error:
        if "allocate memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        return asked | {"outcome": "no memory", "why": f"{free / 2**30:.0f} GiB that were free are too few"}
    return asked | found | {"seconds": round(time.perf_counter() - started, 1), "gib_peak": round(peak_gib(), 1)}


def _leave_memory() -> int:
    """Let this process take no more memory than is free, but for some: bytes. It fails before others suffer."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024 - SPARED
    resource.setrlimit(resource.RLIMIT_DATA, (free, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return free


@torch.no_grad()
def prepared(loaded: LoadedModel) -> Tensor:
    """Settle the network on noise of the first size that it takes, and give one picture of it."""
    random = torch.Generator().manual_seed(1)
    for name, parameter in loaded.model.named_parameters():
        if parameter.dim() == 1:  # scales and shifts of any kind, and biases
            low, high = SHIFTS if "bias" in name else (0.5, 1.5)
            parameter.uniform_(low, high, generator=random)
    refusal = ""
    for size in (*((s, s) for s in SIZES), loaded.size):
        x = torch.randn(SETTLED, loaded.channels, *size, generator=random)
        try:
            settled(loaded.model, [x], SHIFTS)
            return x[:1]
        except (AssertionError, RuntimeError, ValueError) as error:
            if "allocate memory" in str(error):
                raise
            refusal = str(error)
    raise SepwiseError(f"it takes no noise of its own size: {refusal}")


def fused_on(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """What `fuse` makes of a network on one picture, and what a fault in it does."""
    try:
        fused = fuse(model, x)
    except ModelError as error:
        return {"outcome": "refused", "why": str(error)}
    told = fused.report
    return {
        "outcome": "fused",
        "fused": len(told.fused),
        "alone": len(told.alone),
        "slower": len(told.slower),
        "merged": len(told.merged),
        "norms": told.norms,
        "left": Counter(map(reason_of, told.left.values())),
        "difference": told.difference,
        "budget": told.budget,
        "fault": faulty(fused, model, x),
    }


def reason_of(why: str) -> str:
    """A reason without the names of the layers.

    >>> reason_of("Conv2d blocks.1.conv follows in 2 groups; one operation mixes all channels")
    'Conv2d follows in 2 groups; one operation mixes all channels'
    """
    why = re.sub(r"^(\w+) [\w.]+ follows", r"\1 follows", why)
    return re.sub(r"([A-Z]\w*) (?!follows)[\w.]+(?=[,)])", r"\1", why)


@torch.no_grad()
def faulty(fused: FusedNetwork, model: nn.Module, x: Tensor) -> float:
    """How far off the fused network is when the middle one of its layers loses an eighth of its channels.

    That is a pair where there are any. One channel alone may answer nothing but zeros.
    """
    names = list(fused.report.fused) or [*fused.report.alone, *fused.report.slower]
    weight = fused.network.get_submodule(names[len(names) // 2]).get_parameter("pointwise")
    weight[: -(-len(weight) // 8)] = 0
    return difference(fused(x), model(x))[0]


def key_of(about: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(about[name] for name in ("network", "code", "timm", "threads"))


def read(path: Path) -> Iterator[records.Record]:
    return arena.read(path, WHAT)


def newest(path: Path) -> list[dict[str, Any]]:
    """What was found in each network last, family by family."""
    found = {r.about["network"]: r.about for r in read(path)}
    places = [*FAMILIES, OTHERS]
    return sorted(found.values(), key=lambda a: (places.index(family_of(a["network"])), a["network"]))


@cache
def family_of(name: str) -> str:
    """The family that a network belongs to."""
    fitting = (f for f, patterns in FAMILIES.items() if any(fnmatch(name, pattern) for pattern in patterns.split()))
    return next(fitting, OTHERS)


def by_network(path: Path) -> str:
    """A row for each network: what was found last."""
    lines = [
        "| network | size | fused | left | other convolutions: ours, PyTorch | sums | norms | difference, accepted "
        "| with a fault | seconds | GiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for a in newest(path):
        if a["outcome"] != "fused":
            lines.append(f"| {a['network']} | {a['outcome']}: {a['why']} |" + " |" * 9)
            continue
        counts = (
            f"{a['fused']} | {sum(a['left'].values())} | {a['alone']}, {a['slower']} | {a['merged']} | {a['norms']}"
        )
        numbers = f"{a['difference']:.0e}, {a['budget']:.0e} | {a['fault']:.0e} | {a['seconds']:.0f} | {a['gib_peak']}"
        lines.append(f"| {a['network']} | {a['size']} | {counts} | {numbers} |")
    return "\n".join(lines)


def by_family(path: Path) -> str:
    """A row for each family: sums over its networks, the worst of their numbers, and why pairs are left."""
    lines = [
        "| family | networks fused | pairs fused | left | other convolutions by our kernels | largest difference "
        "| smallest fault | left because |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = newest(path)
    groups = {family: [a for a in found if family_of(a["network"]) == family] for family in (*FAMILIES, OTHERS)}
    for family, rows in [*groups.items(), ("**together**", found)]:
        good = [a for a in rows if a["outcome"] == "fused"]
        if not good:
            lines += [f"| {family} | 0 of {len(rows)} |" + " |" * 6] if rows else []
            continue
        left: Counter[str] = sum((Counter(a["left"]) for a in good), Counter())
        fused, alone, slower = (sum(a[key] for a in good) for key in ("fused", "alone", "slower"))
        off = max(good, key=lambda a: a["difference"] / a["budget"])
        why = "; ".join(f"{reason} ({count})" for reason, count in left.most_common(3))
        more = f"; {len(left) - 3} other reasons" if len(left) > 3 else ""
        lines.append(
            f"| {family} | {len(good)} of {len(rows)} | {fused} | {left.total()} | {alone} of {alone + slower} | "
            f"{off['difference']:.0e} of {off['budget']:.0e} | {min(a['fault'] for a in good):.0e} | {why}{more} |"
        )
    others = [f"- `{a['network']}`: {a['outcome']}: {a['why']}" for a in found if a["outcome"] != "fused"]
    return "\n".join([*lines, *([""] if others else []), *others])
