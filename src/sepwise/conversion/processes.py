"""Lightning Fabric as everything here that trains sets it up: one device, or all processes of `torchrun`."""

from __future__ import annotations

import os
from typing import Any

from ..extras import require


def fabric_for(precision: Any, purpose: str) -> Any:
    """One device; under `torchrun` all of its processes, training one network.

    precision   "32-true", "bf16-mixed", ...
    purpose     what it is needed for, as it reads in the sentence when it is missing
    """
    lightning = require("lightning_fabric", purpose)
    if not under_torchrun():
        return lightning.Fabric(accelerator="auto", devices=1, precision=precision)
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = int(os.environ["WORLD_SIZE"]) // devices
    return lightning.Fabric(accelerator="auto", strategy="ddp", devices=devices, num_nodes=nodes, precision=precision)


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
