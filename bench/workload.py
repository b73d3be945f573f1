"""What is timed: separable convolutions as rows of `bench/shapes/*.csv`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sepwise.errors import SepwiseError

FOLDER = Path(__file__).parent / "shapes"
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Workload:
    """One depthwise step and one pointwise step, both with biases.

    height, width            of the input, pixels; the kernel is square, the padding the same on all four sides
    between, activation      names as `separable_conv2d` takes them, or None
    data                     "normal" random numbers, or "hed:PICTURE": see `bench.activations`
    count                    how often a network holds this pair
    """

    name: str
    batch: int
    channels: int
    out_channels: int
    height: int
    width: int
    kernel: int
    stride: int
    padding: int
    multiplier: int
    between: str | None
    activation: str | None
    data: str = "normal"
    count: int = 1

    @property
    def out_size(self) -> tuple[int, int]:
        height, width = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in (self.height, self.width))
        return height, width

    @property
    def mid_channels(self) -> int:
        return self.channels * self.multiplier

    @property
    def macs(self) -> tuple[int, int]:
        """Multiplications of the depthwise and of the pointwise step."""
        pixels = self.batch * self.out_size[0] * self.out_size[1]
        return pixels * self.mid_channels * self.kernel**2, pixels * self.mid_channels * self.out_channels

    def bytes_moved(self, dtype: str) -> int:
        """Bytes that any implementation must move: input and weights read, output written."""
        height, width = self.out_size
        read = self.batch * self.channels * self.height * self.width
        weights = self.mid_channels * (self.kernel**2 + 1 + self.out_channels) + self.out_channels
        return BYTES[dtype] * (read + weights + self.batch * self.out_channels * height * width)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def shape(self) -> str:
        """Sizes in one word, e.g. "1x64x112x112 k3 s2 -> 128"; the multiplier where it is not 1."""
        multiplied = f" m{self.multiplier}" if self.multiplier > 1 else ""
        size = f"{self.batch}x{self.channels}x{self.height}x{self.width}"
        return f"{size} k{self.kernel} s{self.stride}{multiplied} -> {self.out_channels}"


def read(path: Path) -> list[Workload]:
    """The rows of one file; an empty cell of `between` or `activation` means none.

    Raises SepwiseError naming the line that is no workload.
    """
    found = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                found.append(_from_row(row))
            except (TypeError, ValueError) as error:
                raise SepwiseError(f"{path}, line {number}, is no workload: {error}") from None
    return found


def select(names: Sequence[str], folder: Path = FOLDER) -> list[tuple[str, Workload]]:
    """(file, workload) of each name: a file without its suffix ("study"), or one row of it ("study/512x14").

    names     empty: every file, the study first
    Raises SepwiseError listing what there is when a name fits nothing.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    wanted = names or sorted(files, key=lambda name: (name != "study", name))
    found: list[tuple[str, Workload]] = []
    for name in wanted:
        file, _, row = name.partition("/")
        if file not in files:
            raise SepwiseError(f"there are no shapes {file!r}; give some of {', '.join(files)}")
        rows = [w for w in read(files[file]) if not row or w.name == row]
        if not rows:
            known = ", ".join(w.name for w in read(files[file]))
            raise SepwiseError(f"{files[file].name} has no row {row!r}; it has {known}")
        found += [(file, w) for w in rows if (file, w) not in found]
    return found


def _from_row(row: dict[str, Any]) -> Workload:
    kinds = {name: kind for name, kind in Workload.__annotations__.items() if name in row}
    unknown = set(row) - set(kinds)
    if unknown:
        raise ValueError(f"unknown columns {sorted(map(str, unknown))}")
    values: dict[str, Any] = {}
    for name, kind in kinds.items():
        values[name] = int(row[name]) if kind == "int" else row[name] or None
    workload = Workload(**values)
    if min(workload.out_size) < 1 or min(workload.channels, workload.multiplier, workload.count) < 1:
        raise ValueError(f"{workload.shape} has no output")
    return workload
