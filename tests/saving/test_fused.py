"""Fused networks saved and loaded: the same bits, in another process, without the model; damaged files refused."""

# pyright: reportArgumentType=false

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from saved_networks import decide, elsewhere, network, ours, pictures, rewritten, with_mark
from torch import nn

import sepwise
from sepwise.errors import ModelError, OutputError, ShapeError, UnsupportedError
from sepwise.fusion import FusedNetwork
from sepwise.ops import native
from sepwise.saving.about import FORMAT
from sepwise.sources import load_model
from sepwise.sources.exported import load_program

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))


@pytest.fixture(scope="module")
def file(fused, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "fused.pt2"
    sepwise.save_fused(fused, pictures(), path)
    return path


def layer_by_layer(fused, x):
    """What a fused network answers without rows of layers in one call, whose means are rounded otherwise."""
    return fused.network(x.contiguous(memory_format=torch.channels_last))


def test_the_same_bits_for_any_batch(fused, file):
    loaded = sepwise.load_fused(file)
    assert repr(loaded) == "LoadedNetwork(fused, (N, 3, 18, 22) in float32)"
    assert loaded.about.sepwise == sepwise.__version__
    for batch in (1, 2, 5):
        x = pictures(batch)
        y = loaded(x)
        assert torch.equal(loaded.network.network(x), layer_by_layer(fused, x))
        torch.testing.assert_close(y, layer_by_layer(fused, x), rtol=1e-5, atol=1e-6)
        assert y.abs().max() > 0.01
        assert not torch.equal(loaded(x + 1e-3), y)
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_are_found_again(dtype, tmp_path):
    pool = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1, ceil_mode=True))
    model = nn.Sequential(pool, nn.Conv2d(8, 3, 1), network()).eval()
    fused = sepwise.fuse(model, pictures(), dtype=dtype)
    sepwise.save_fused(fused, pictures().to(dtype), tmp_path / "fused.pt2")
    loaded, x = sepwise.load_fused(tmp_path / "fused.pt2"), pictures(2).to(dtype)
    assert torch.equal(loaded(x), fused(x))
    assert rows_called(loaded, x) == rows_called(fused, x) > 0


def rows_called(network, x) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        network(x)
    return sum(event.count for event in profile.key_averages() if event.key == "sepwise::run_program")


def test_decisions_and_layouts_are_kept(fused, file):
    program = load_program(file, ours=True)
    ours = [str(n.target) for n in program.graph.nodes if "sepwise" in str(n.target)]
    stock = [n for n in program.graph.nodes if str(n.target).startswith("aten.conv2d")]
    blocks = [m for m in fused.modules() if isinstance(m, sepwise.nn.FusedBlock)]
    assert sum(block.stock for block in blocks) > 0
    assert ours.count("sepwise.fused_block.default") == sum(not block.stock for block in blocks)
    assert ours.count("sepwise.separable_conv2d.default") == 1
    assert len(stock) == sum(block.stock for block in blocks) + len(fused.report.left)
    weights = fused.state_dict()
    assert {name: (w.shape, w.stride()) for name, w in program.state_dict.items()} == {
        name: (w.shape, w.stride()) for name, w in weights.items()
    }


def test_a_file_of_the_first_format_still_loads():
    """`network(4)` for batches of `pictures()`, saved by sepwise 0.1.0 with torch 2.13; with what it answered then."""
    folder = Path(__file__).parent
    loaded, held = sepwise.load_fused(folder / "format_1.pt2"), load_file(folder / "format_1.safetensors")
    torch.testing.assert_close(loaded(held["x"]), held["y"], rtol=1e-5, atol=1e-6)
    program = load_program(folder / "format_1.pt2", ours=True)
    operators = {str(n.target) for n in program.graph.nodes if "sepwise" in str(n.target)}
    assert operators == {"sepwise.fused_block.default", "sepwise.separable_conv2d.default"}


def test_torch_loads_it_too(fused, file):
    program = torch.export.load(file).module()
    assert torch.equal(program(pictures()), layer_by_layer(fused, pictures()))


def test_nothing_is_saved_twice_and_no_picture(fused, file):
    fused(pictures())  # by now weights are packed
    assert load_program(file, ours=True).example_inputs is None
    weights = sum(w.nbytes for w in fused.state_dict().values())
    graph = 60_000  # bytes of JSON
    assert weights > graph
    assert weights < file.stat().st_size < weights + graph


PROGRAM = """
import sys, torch
from safetensors.torch import load_file
import sepwise
from sepwise.ops.native import packed_weights
held, file = sys.argv[1:]
network, held = sepwise.load_fused(file), load_file(held)
assert packed_weights().packed == 0
torch.testing.assert_close(network(held["x"]), held["y"], rtol=1e-5, atol=1e-6)
print(packed_weights().packed, *({"chains", "plain_networks", "saved_networks"} & sys.modules.keys()))
"""


def test_another_process_without_the_model_runs_our_kernels(fused, file, tmp_path):
    x = pictures(3)
    printed = elsewhere(PROGRAM, tmp_path, {"x": x, "y": layer_by_layer(fused, x)}, file)
    (packed,) = printed
    assert int(packed) >= ours(fused)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes(dtype, tmp_path):
    x = pictures(2).to(dtype)
    fused = decide(sepwise.fuse(network().to(dtype), x))
    sepwise.save_fused(fused, x, tmp_path / "fused.pt2")
    assert torch.equal(sepwise.load_fused(tmp_path / "fused.pt2")(x), layer_by_layer(fused, x))


def test_only_pictures_that_it_was_saved_for(file):
    loaded = sepwise.load_fused(file)
    with pytest.raises(ShapeError, match=r"saved for pictures \(N, 3, 18, 22\) in float32; given \(1, 3, 18, 23\)"):
        loaded(torch.zeros(1, 3, 18, 23))
    with pytest.raises(ShapeError, match=r"given \(1, 3, 18, 22\) in float64: save it anew"):
        loaded(pictures().double())
    with pytest.raises(ShapeError, match=r"given \(\) in float32"):
        loaded(torch.tensor(1.0))
    with pytest.raises(UnsupportedError, match=r"the pictures are on meta: call x.cpu"):
        loaded(pictures().to("meta"))
    x = pictures().requires_grad_()
    with pytest.raises(UnsupportedError, match="has no gradients"):
        loaded(x)
    with torch.no_grad():
        wanted = loaded(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loaded(x.detach()), wanted)


def refusal(path: Path) -> str:
    with pytest.raises((ModelError, UnsupportedError)) as refused:
        sepwise.load_fused(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_another_format_is_refused(file, tmp_path):
    said = refusal(with_mark(file, tmp_path / "later.pt2", format=FORMAT + 1, sepwise="9.0"))
    assert f"later.pt2 has format {FORMAT + 1}, written by sepwise 9.0; sepwise {sepwise.__version__} reads " in said
    with_mark(file, tmp_path / "same.pt2")
    assert torch.equal(sepwise.load_fused(tmp_path / "same.pt2")(pictures()), sepwise.load_fused(file)(pictures()))


def test_other_files_are_refused(file, tmp_path):
    assert "there is no file" in refusal(tmp_path / "nowhere.pt2")
    other = tmp_path / "other.pt2"
    other.write_text("weights")
    assert "is damaged, or no file that sepwise.save_fused wrote" in refusal(other)
    program = torch.export.export(nn.Conv2d(3, 4, 3), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, other)
    assert "was not written by sepwise.save_fused" in refusal(other)
    assert "was written by sepwise.save_compiled, not by sepwise.save_fused" in refusal(
        with_mark(file, other, kind="compiled")
    )
    for told in ({"shape": 3}, {"format": FORMAT, "more": 1}):
        assert "what it says of itself cannot be read" in refusal(with_mark(file, other, **told))
    with pytest.raises(ModelError, match=r"is a finished network, for sepwise.load_fused or load_compiled; give the"):
        load_model(str(file))


@pytest.mark.parametrize("place", ["weight", "end", "middle"])
def test_damaged_files_are_refused(fused, file, tmp_path, place):
    content = bytearray(file.read_bytes())
    if place == "weight":  # one bit, which torch.export.load does not see
        weight = fused.state_dict()["network.9.weight"].numpy().tobytes()
        content[content.index(weight) + 100] ^= 1
    elif place == "end":
        content = content[:-100]
    else:
        content = content[: len(content) // 2]
    (tmp_path / "damaged.pt2").write_bytes(content)
    assert "damaged.pt2 is damaged" in refusal(tmp_path / "damaged.pt2")


def test_what_would_run_other_code_is_refused(file, tmp_path):
    def calls_more(name: str, content: bytes) -> bytes:
        return content.replace(b"torch.ops.aten.sigmoid.default", b"posix.system") if "models" in name else content

    assert "it calls 'posix.system'" in refusal(rewritten(file, calls_more, tmp_path / "calls.pt2"))

    def pickles(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return content if name != "data/weights/weight_0" else b"\x80\x04cposix\nsystem\n."
        told = json.loads(content)
        for entry in told["config"].values():
            entry["use_pickle"] = True
        return json.dumps(told).encode()

    assert "weight_0, inside the .pt2 file," in refusal(rewritten(file, pickles, tmp_path / "pickles.pt2"))


class Secretive(nn.Module):
    """Cannot be exported any more."""

    def forward(self, x):
        return x[: int(x.sum().item()) % 2 + 1]


def test_what_cannot_be_saved_leaves_no_file(fused, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"save_fused: given a Sequential; expected what sepwise.fuse returns"):
        sepwise.save_fused(network(), pictures(), tmp_path / "fused.pt2")
    with pytest.raises(OutputError, match=r"fused.onnx: name a file that ends in .pt2"):
        sepwise.save_fused(fused, pictures(), tmp_path / "fused.onnx")
    with pytest.raises(OutputError, match="does not exist"):
        sepwise.save_fused(fused, pictures(), tmp_path / "nowhere" / "fused.pt2")
    with pytest.raises(UnsupportedError, match=r"run on the CPU; move network and example there, with .cpu\(\)"):
        sepwise.save_fused(fused, pictures().to("meta"), tmp_path / "fused.pt2")
    broken = FusedNetwork(Secretive(), fused.memory_format, fused.report)
    with pytest.raises(ModelError, match=r"torch.export cannot export FusedNetwork"):
        sepwise.save_fused(broken, pictures(), tmp_path / "fused.pt2")
    monkeypatch.setattr(native, "PROBLEM", "the compiled core is not installed")
    with pytest.raises(UnsupportedError, match="save_fused: the compiled core is not installed"):
        sepwise.save_fused(fused, pictures(), tmp_path / "fused.pt2")
    assert list(tmp_path.iterdir()) == []


def test_loading_needs_the_kernels(file, monkeypatch):
    monkeypatch.setattr(native, "PROBLEM", "the compiled core is not installed")
    assert refusal(file) == "load_fused: the compiled core is not installed"
