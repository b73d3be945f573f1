"""Compiled networks: machine code that needs torch and our library of operators, and nothing else of ours."""

# pyright: reportArgumentType=false

from pathlib import Path

import pytest
import torch
from saved_networks import elsewhere, network, ours, pictures, with_mark
from torch._inductor import config as inductor

import sepwise
from sepwise.errors import ModelError, OutputError, ShapeError, UnsupportedError
from sepwise.ops import native


@pytest.fixture(scope="module")
def file(fused, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "compiled.pt2"
    sepwise.save_compiled(fused, pictures(), path)
    return path


PROGRAM = """
import sys, torch
from safetensors.torch import load_file
held, library, file = sys.argv[1:]
torch.ops.load_library(library)
network, held = torch._inductor.aoti_load_package(file), load_file(held)
for batch in (1, 3):
    torch.testing.assert_close(network(held["x"][:batch]), held["y"][:batch], rtol=1e-4, atol=1e-5)
print(torch.ops.sepwise.packed_weights()[2], *(name for name in sys.modules if name.partition(".")[0] == "sepwise"))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a compiler works
def test_another_process_without_sepwise_runs_our_kernels(fused, file, tmp_path):
    x = pictures(3)
    printed = elsewhere(PROGRAM, tmp_path, {"x": x, "y": fused(x)}, native.LIBRARY, file)
    assert printed == [str(2 * ours(fused))]  # at each size


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a compiler works
def test_it_is_loaded_with_its_pictures_checked(fused, file, tmp_path):
    loaded = sepwise.load_compiled(file)
    assert repr(loaded) == "LoadedNetwork(compiled, (N, 3, 18, 22) in float32)"
    x = pictures(5)
    torch.testing.assert_close(loaded(x), fused(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(loaded(x + 0.1), fused(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match=r"given \(5, 3, 18, 21\) in float32"):
        loaded(x[..., 1:])
    with pytest.raises(ModelError, match=r"was written by sepwise.save_compiled, not by sepwise.save_fused"):
        sepwise.load_fused(file)
    with pytest.raises(UnsupportedError, match="has format 2, written by"):
        sepwise.load_compiled(with_mark(file, tmp_path / "later.pt2", format=2))
    (tmp_path / "damaged.pt2").write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ModelError, match=r"damaged.pt2 is damaged, or no file that sepwise.save_compiled wrote"):
        sepwise.load_compiled(tmp_path / "damaged.pt2")


def test_what_cannot_be_compiled_is_refused_before_it_is(fused, tmp_path):
    with pytest.raises(ModelError, match=r"save_compiled: given a Sequential; expected what sepwise.fuse returns"):
        sepwise.save_compiled(network(), pictures(), tmp_path / "compiled.pt2")
    with pytest.raises(OutputError, match=r"name a file that ends in .pt2"):
        sepwise.save_compiled(fused, pictures(), tmp_path / "compiled")
    sepwise.save_fused(fused, pictures(), tmp_path / "fused.pt2")
    with pytest.raises(ModelError, match=r"was written by sepwise.save_fused, not by sepwise.save_compiled"):
        sepwise.load_compiled(tmp_path / "fused.pt2")
    empty = with_mark(tmp_path / "fused.pt2", tmp_path / "empty.pt2", kind="compiled")
    with pytest.raises(ModelError, match=r"empty.pt2, compiled with torch .*, cannot be loaded by torch .* here: "):
        sepwise.load_compiled(empty)
    without = inductor.patch({"cpp.cxx": ("no-such-compiler",)})
    with (
        without,
        pytest.raises(UnsupportedError, match=r"no C\+\+ compiler: install g\+\+ or clang\+\+, or name one in"),
    ):
        sepwise.save_compiled(fused, pictures(), tmp_path / "compiled.pt2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.pt2", "fused.pt2"]
