"""The table of docs/zoo.md: every network is in it, with the size and the cost that it has."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sepwise import zoo
from sepwise.measure import cost

PAGE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
ROW = re.compile(r"^\| `(\w+)` \| (\d+)×(\d+) \| ([\d.,]+) M \| ([\d.,]+) M \| (.+) \|$", re.MULTILINE)
TABLE = {name: (int(height), int(width), *counts) for name, height, width, *counts, _ in ROW.findall(PAGE.read_text())}


def test_every_network_has_a_row():
    assert set(TABLE) == set(zoo.NETWORKS)


@pytest.mark.parametrize("name", TABLE)
def test_row(name):
    height, width, parameters, macs = TABLE[name]
    with torch.device("meta"):
        model: Any = zoo.NETWORKS[name]()
        found = cost(model, torch.zeros(1, 3, height, width))
    assert model.picture["size"] == (height, width)
    assert set(model.picture) == {"size", "mean", "std"}
    assert (parameters, macs) == (f"{found.parameters / 1e6:.2f}", f"{found.macs / 1e6:,.0f}")
