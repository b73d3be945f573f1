"""A small fused network in which everything occurs that a file must keep, and archives to tamper with."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from chains import Block
from plain_networks import settle
from safetensors.torch import save_file
from torch import Tensor, nn

from sepwise.fusion import FusedNetwork
from sepwise.nn import FusedBlock


def network(scores: int = 160) -> nn.Sequential:
    """A stem, an inverted residual, one that is squeezed and excited, a pair, and scores."""
    torch.manual_seed(6)
    blocks = [nn.Conv2d(3, 4, 3, 2, 1), nn.SiLU(), Block(), Block("squeezed and excited")]
    pair = [nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, scores, 1)]
    model = nn.Sequential(*blocks, *pair, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(scores, scores))
    settle(model)
    return model


def pictures(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 18, 22, generator=torch.Generator().manual_seed(batch))


def decide(fused: FusedNetwork) -> FusedNetwork:
    """The clock's decisions, made here: every other lone convolution is left to stock operations."""
    for place, block in enumerate(m for m in fused.modules() if isinstance(m, FusedBlock) and m.depthwise is None):
        block.stock = place % 2 == 1
    return fused


def ours(fused: FusedNetwork) -> int:
    """How many layers our kernels compute: the blocks that are not left to stock operations, and the pair."""
    return sum(not m.stock for m in fused.modules() if isinstance(m, FusedBlock)) + 1


def elsewhere(program: str, folder: Path, held: Mapping[str, Tensor], *arguments: Path | None) -> list[str]:
    """What a program prints in a process and a folder of its own, given a file with the tensors and the arguments."""
    save_file(dict(held), folder / "held.safetensors")
    command = [sys.executable, "-c", program, str(folder / "held.safetensors"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], to: Path) -> Path:
    """A copy of an archive with files changed (name without the folder, content), or left out where None is given."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = change(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return to


def with_mark(path: Path, to: Path, **told: Any) -> Path:
    """A copy of a file of ours that says something else of itself."""

    def change(name: str, content: bytes) -> bytes:
        return json.dumps(json.loads(content) | told).encode() if name == "extra/sepwise.json" else content

    return rewritten(path, change, to)
