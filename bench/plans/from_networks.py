"""Writes the plans of the converted networks: `.venv/bin/python -m bench.plans.from_networks [NETWORK ...]`.

HED is planned as `./run demo` does it, for an eighth of its multiplications. The weights of the ResNets are random, so
their plans say nothing about trained ones; they have the shapes that about half of the multiplications leave.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.networks import Network, select
from bench.prepared import SETTLED, pictures, settled
from sepwise.cli.demo import FORMS, fit_crops
from sepwise.conversion import plan
from sepwise.sources.models import load_model

MACS = {"zoo:hed": 0.125, "timm:resnet18": 0.5, "timm:resnet50": 0.65}


def main(names: Sequence[str]) -> None:
    for network in select(names):
        if network.converted:
            print(network.name, file=sys.stderr, flush=True)
            written(network)


def written(network: Network) -> None:
    loaded = load_model(network.model, network.trained)
    if network.trained:
        batches = fit_crops(loaded)
    else:
        batches = [pictures(SETTLED, network.size, seed=1)]
        settled(loaded.model, batches)
    example = batches[0][:1]
    made = plan(loaded.model, example, budget={"macs": MACS[network.model]}, batches=batches, forms=FORMS)
    made.save(network.plan)


if __name__ == "__main__":
    main(sys.argv[1:])
