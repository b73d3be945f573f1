"""Values kept in memory or in files: equal, counted, and gone when nobody needs them."""

import gc
import tempfile

import pytest
import torch
from plain_networks import Joined, Residual, settle
from torch import nn

from sepwise.conversion.shelf import SMALL, Shelf
from sepwise.conversion.walk import Visit, outputs_of, walk
from sepwise.errors import ModelError
from sepwise.graph.network import trace

LARGE = (4, 16, 40, 40)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_what_comes_back_is_equal(limit, dtype):
    value = torch.randn(LARGE).mul(9).to(dtype)
    for tensor in (value, value.contiguous(memory_format=torch.channels_last), value[:, ::2], value[:1].expand(LARGE)):
        kept = Shelf(limit).put({"a": [tensor], "b": 3})
        assert kept["b"] == 3
        assert torch.equal(kept["a"][0], tensor)
        last = torch.channels_last
        assert kept["a"][0].is_contiguous(memory_format=last) == tensor.is_contiguous(memory_format=last)


def test_memory_is_kept_within_the_limit_and_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    size = torch.zeros(LARGE).nbytes
    shelf = Shelf(2 * size)
    held = [shelf.put(torch.randn(LARGE)) for _ in range(5)]
    assert (shelf.in_memory, shelf.in_files) == (2 * size, 3 * size)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind, whatever ends the process
    del held[0], held[-1]
    gc.collect()
    assert (shelf.in_memory, shelf.in_files) == (size, 2 * size)
    small = torch.zeros(SMALL // 8)
    assert shelf.put(small) is small


def test_a_folder_or_disk_without_room_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
        with pytest.raises(ModelError, match=r"0 MB of activations do not fit .* set TMPDIR"):
            Shelf(0).put(torch.randn(LARGE))
    with pytest.raises(ModelError, match="do not fit"):
        Shelf(0).put(torch.empty(1).expand(1 << 50))


@pytest.mark.parametrize("make", [Residual, Joined])
def test_a_walk_through_files_gives_the_same(make):
    class Scaled(nn.Module):
        def __init__(self, conv: nn.Module) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) * 1.5

    torch.manual_seed(0)
    model, x = settle(make()), torch.randn(6, 3, 64, 64)
    results = []
    for memory in (1 << 30, 0):
        network = trace(model, x)

        def visit(at: Visit, network=network) -> nn.Module:
            return Scaled(network.conv(at.site))

        results.append(walk(network, [x[:4], x[4:]], visit, memory))
    for one, other in zip(*results, strict=True):
        for kind in ("dense", "converted"):
            torch.testing.assert_close(outputs_of(getattr(other, kind)), outputs_of(getattr(one, kind)), rtol=0, atol=0)
        assert not torch.equal(outputs_of(one.dense)[0], outputs_of(one.converted)[0])
