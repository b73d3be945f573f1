"""`--compare`: the ways to make the network so cheap, side by side on the same held-out pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from .. import records
from ..conversion import Plan, convert, synthetic_batches
from ..conversion.agreed import METRIC, agreement_on
from ..errors import SepwiseError
from ..graph.network import sentence
from .peers import macs_of, pruned, tucker
from .progress import Progress

SYNTHETIC = 64


def compared(
    dense: nn.Module,
    plan: Plan,
    made: dict[str, nn.Module],
    shown: Sequence[Tensor],
    progress: Progress,
) -> Iterator[records.Record]:
    """A record for each method: its cost, and its agreement with the dense network, or why there is none.

    made    what this conversion has made already, by the name of its row
    """
    x = shown[0]
    whole = macs_of(dense, x)
    fraction = min(macs_of(model, x) for model in made.values()) / whole
    ways: dict[str, Callable[[], nn.Module]] = {
        "nearest weights, no pictures": lambda: convert(dense, plan),
        "fitted on synthetic pictures": lambda: convert(
            dense, plan, synthetic_batches(dense, tuple(x.shape[1:]), SYNTHETIC)
        ),
        **{name: lambda model=model: model for name, model in made.items()},
        "TensorLy-Torch, Tucker, one relative rank": lambda: tucker(dense, x, fraction),
        "Torch-Pruning, smallest weights, one share": lambda: pruned(dense, x, fraction),
    }
    for number, (name, way) in enumerate(ways.items()):
        progress("compare", number, len(ways))
        yield _row(name, way, dense, whole, shown)
    progress("compare", len(ways), len(ways))


def _row(
    name: str, way: Callable[[], nn.Module], dense: nn.Module, whole: int, shown: Sequence[Tensor]
) -> records.Record:
    try:
        model = way()
        agreed = agreement_on(model, dense, shown)
    except SepwiseError as error:
        return records.here("compare", {"method": name, "why": str(error)})
    except Exception as error:  # what another library makes of a network it does not know
        return records.here("compare", {"method": name, "why": f"{type(error).__name__}: {sentence(error)}"})
    metric = METRIC[agreed.kind or "tensors"]
    value = {"method": name, "metric": metric, "agreement": agreed.to_dict()[metric]}
    value |= {"macs_fraction": macs_of(model, shown[0]) / whole}
    value |= {"parameters_fraction": _parameters(model) / _parameters(dense)}
    return records.here("compare", value)


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
