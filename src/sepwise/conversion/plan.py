"""`Plan`: which form and rank each layer takes, and why. Plain data: printed, saved, edited by hand, replayed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import PlanError
from ..factor import FORMS, Rank
from ..files import whole_file

FORMAT = "sepwise-plan/1"
BatchNorm = Literal["fold", "keep"]


@dataclass(frozen=True)
class Choice:
    """What becomes of one layer.

    form                 "dense": left as it is; otherwise a form of `sepwise.factor`
    rank                 of that form; None for "dense"
    why                  one sentence
    macs_before, macs_after              for one picture of the size planned for
    parameters_before, parameters_after  weights without the bias
    energy_kept          fraction of the dense weight's energy that the chain keeps; 1.0 for "dense"
    effect               relative squared change of the network's output when only this layer is converted; 0 for
                         "dense", None when it was not measured
    milliseconds         (dense, chosen) with the activation that follows, one picture; None when it was not timed
    kernel               what was timed for the chosen form
    """

    form: str
    rank: Rank | None
    why: str
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    energy_kept: float | None = None
    effect: float | None = None
    milliseconds: tuple[float, float] | None = None
    kernel: str | None = None


@dataclass(frozen=True)
class Latency:
    """How long the converted network takes, one picture, when it runs through `fuse`.

    dense_ms        the dense network in its own fastest form in stock PyTorch, whose name is `dense_form`
    predicted_ms    the sum over its layers, and the rest of the network
    measured        the whole network as a fraction of the dense one in the same rounds; None when it was not measured
    threads, size   PyTorch's threads, and the spatial size of the picture
    """

    dense_ms: float
    dense_form: str
    predicted_ms: float
    measured: float | None
    threads: int
    size: tuple[int, ...]

    @property
    def predicted(self) -> float:
        """As a fraction of the dense network."""
        return self.predicted_ms / self.dense_ms


@dataclass(frozen=True)
class Agreed:
    """How far the network converted by a plan agreed with the dense one, on pictures it was not fitted on.

    metric      "f1", "top1" or "correlation", by the kind of output
    pictures    how many were held out
    """

    metric: str
    value: float
    pictures: int


@dataclass(frozen=True)
class Plan:
    """Choices for the layers of one network, in the order in which they run.

    layers        qualified layer name -> Choice
    batch_norm    "fold": batch normalization goes into the convolution before the fit; "keep": it stays
    budget        what was asked for, e.g. {"macs": 0.25}: fractions of the dense network's
    macs          (dense, planned) multiply-accumulates of the whole network for one picture
    parameters    (dense, planned) weights of the whole network
    weight_bytes  (dense, planned) bytes of everything that a file of its weights holds
    size          spatial size of that picture
    latency       predicted and measured; None when nothing was timed
    agreement     measured when the budget asks for it
    """

    layers: dict[str, Choice]
    batch_norm: BatchNorm = "fold"
    budget: dict[str, float] = field(default_factory=dict)
    macs: tuple[int, int] = (0, 0)
    parameters: tuple[int, int] = (0, 0)
    weight_bytes: tuple[int, int] = (0, 0)
    size: tuple[int, ...] = ()
    latency: Latency | None = None
    agreement: Agreed | None = None

    @property
    def converted(self) -> dict[str, Choice]:
        """The layers that change."""
        return {name: choice for name, choice in self.layers.items() if choice.form != "dense"}

    @property
    def harm(self) -> float:
        """The summed effects of its choices: what the planner made small."""
        return sum(choice.effect or 0.0 for choice in self.layers.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, whole or not at all."""
        with whole_file(path) as aside:
            aside.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan. Raises PlanError, naming what is wrong, for a file that is none."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise PlanError(f"{path} cannot be read as a plan: {reason}") from None
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise PlanError(f'{path} is no plan of this version: its "format" must be "{FORMAT}"')
        try:
            layers = {name: _choice(name, **values) for name, values in data.pop("layers").items()}
            told = {"latency": Latency, "agreement": Agreed}
            read: dict[str, Any] = {
                name: kind(**_tuples(data.pop(name))) for name, kind in told.items() if data.get(name)
            }
            plan = cls(layers=layers, **read, **_tuples(data))
        except (TypeError, KeyError, AttributeError) as error:
            raise PlanError(f"{path} is a damaged plan: {error}") from None
        if plan.batch_norm not in get_args(BatchNorm):
            raise PlanError(f'{path} gives batch_norm {plan.batch_norm!r}: expected "fold" or "keep"')
        return plan

    def __str__(self) -> str:
        timed = any(c.milliseconds for c in self.layers.values())
        clock = ("ms before", "ms after") if timed else ()
        head = ("layer", "form", "rank", "MACs before", "MACs after", "x", *clock, "energy kept", "why")
        rows: list[tuple[str, ...]] = [head]
        for name, c in self.layers.items():
            kept = "" if c.energy_kept is None else f"{c.energy_kept:.3f}"
            rank = "" if c.rank is None else str(c.rank)
            ratio = f"{c.macs_before / c.macs_after:.1f}" if c.macs_after else ""
            times = [f"{ms:.3f}" for ms in c.milliseconds] if c.milliseconds else [""] * 2 * timed
            counts = (f"{c.macs_before:,}", f"{c.macs_after:,}", ratio)
            rows.append((name, c.form, rank, *counts, *times, kept, c.why))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        left = {0, 1}
        lines = [
            "  ".join(
                [t.ljust(w) if i in left else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=False))]
            )
            + "  "
            + row[-1]
            for row in rows
        ]
        before, after = self.macs
        seen = f" for one input of {'x'.join(map(str, self.size))}" if self.size else ""
        fewer = f" ({before / after:.2f}x fewer)" if after else ""
        lines.append(f"whole network{seen}: {before:,} -> {after:,} MACs{fewer}")
        if self.latency:
            lines.append(_latency(self.latency))
        if self.agreement:
            told = self.agreement
            lines.append(f"agreement, {told.metric}: {told.value:.4f} on {told.pictures} pictures held out of the fit")
        return "\n".join(lines)


def _latency(told: Latency) -> str:
    size, threads = "x".join(map(str, told.size)), f"{told.threads} thread" + "s" * (told.threads != 1)
    found = "not measured"
    if told.measured is not None:
        found = f"measured {told.measured * told.dense_ms:.2f} ms ({1 / told.measured:.2f}x faster)"
    return (
        f"one input of {size}, {threads}: {told.dense_ms:.2f} ms dense ({told.dense_form}), predicted "
        f"{told.predicted_ms:.2f} ms ({1 / told.predicted:.2f}x faster) through fuse, {found}"
    )


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


def _choice(name: str, form: str, rank: Any = None, **rest: Any) -> Choice:
    if form != "dense" and form not in FORMS:
        raise PlanError(f"the plan gives {name} the form {form!r}; the forms are dense, {', '.join(FORMS)}")
    choice = Choice(form=form, rank=tuple(rank) if isinstance(rank, list) else rank, **_tuples(rest))
    for what in ("macs_before", "macs_after", "parameters_before", "parameters_after"):
        if type(getattr(choice, what)) is not int:
            raise TypeError(f"{name}: {what} must be an integer, not {getattr(choice, what)!r}")
    return choice
