"""The whole networks that are timed: what `sepwise` calls them, the size of their pictures, their plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sepwise.errors import SepwiseError

PLANS = Path(__file__).parent / "plans"


@dataclass(frozen=True)
class Network:
    """One network for pictures of three channels.

    name        what the benchmark calls it
    model       what `sepwise` calls it
    size        (H, W) of its pictures, pixels
    trained     weights of its own, as `load_model` takes them; None: drawn from seed 0, norms settled
    converted   whether it is converted by the plan of its name in `bench/plans`
    deviation   of the numbers in its pictures
    """

    name: str
    model: str
    size: tuple[int, int] = (224, 224)
    trained: str | None = None
    converted: bool = False
    deviation: float = 1.0

    @property
    def plan(self) -> Path:
        return PLANS / f"{self.name}.json"


NETWORKS = {
    network.name: network
    for network in (
        Network("efficientnet_lite0", "timm:tf_efficientnet_lite0"),
        Network("mobilenetv1_100", "timm:mobilenetv1_100"),
        Network("mobilenetv2_100", "timm:mobilenetv2_100"),
        Network("mobilenetv3_large_100", "timm:mobilenetv3_large_100"),
        Network("mobilenetv4_conv_small", "timm:mobilenetv4_conv_small"),
        Network("xception41", "timm:xception41", (299, 299)),
        Network("convnext_tiny", "timm:convnext_tiny"),
        Network("hed_converted", "zoo:hed", (320, 480), trained="bsds500", converted=True, deviation=64.0),
        Network("resnet18_converted", "timm:resnet18", converted=True),
        Network("resnet50_converted", "timm:resnet50", converted=True),
    )
}


def select(names: Sequence[str]) -> list[Network]:
    """The networks of these names; all of them for none. Raises SepwiseError, listing what there is."""
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        raise SepwiseError(f"there is no network {unknown[0]!r}; give some of {', '.join(NETWORKS)}")
    return [NETWORKS[name] for name in dict.fromkeys(names or NETWORKS)]
