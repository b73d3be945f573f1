"""Models by name: each kind is found, described and in eval mode; each mistake is one sentence."""

import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from sepwise.errors import ModelError, WeightsError
from sepwise.sources import load_model, save_weights


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a Python file into the current directory; gone from the imported modules afterwards."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "customer_net.py").write_text(text)
        return "customer_net"

    yield write
    sys.modules.pop("customer_net", None)


def test_zoo_with_weights(shared):
    path = shared / "weights" / "resnet20-cifar10.safetensors"
    loaded = load_model("zoo:resnet20", path)
    assert (loaded.size, loaded.channels, loaded.model.training) == ((32, 32), 3, False)
    with pytest.raises(WeightsError, match="missing"):
        load_model("zoo:resnet32", path)


def test_untrained_models_are_the_same_each_time():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = (load_model("zoo:resnet20").model.get_parameter("conv1.weight") for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")
def test_timm():
    loaded = load_model("timm:tf_efficientnet_lite0")
    assert (loaded.size, loaded.mean, loaded.interpolation, loaded.crop) == ((224, 224), (0.5,) * 3, "bicubic", 0.875)
    assert not loaded.model.training
    with pytest.raises(ModelError, match="timm has no 'resnet19': did you mean resnet18"):
        load_model("timm:resnet19")


def test_factory_in_the_current_directory(module):
    name = module(
        "from torch import nn\n"
        "def small():\n"
        "    model = nn.Conv2d(1, 2, 3)\n"
        "    model.picture = {'size': (8, 9), 'mean': (0.5,), 'std': (0.25,)}\n"
        "    return model\n"
    )
    before = list(sys.path)
    loaded = load_model(f"{name}:small")
    assert (loaded.size, loaded.mean, loaded.std, loaded.channels) == ((8, 9), (0.5,), (0.25,), 1)
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "factory", "message"),
    [
        ("", "build", "the module customer_net has no 'build'"),
        ("def built(): pass", "build", "did you mean built"),
        ("import absent_package", "build", "customer_net cannot be imported: .*No module named 'absent_package'"),
        ("1 / 0", "build", "customer_net cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "build", "customer_net cannot be imported: SystemExit: 3"),
        ("def build(", "build", "customer_net cannot be imported: SyntaxError"),
        ("build = 3", "build", "is a int; expected a function"),
        ("def build(): return {}", "build", r"build\(\) returned a dict; expected a torch.nn.Module"),
        ("def build(depth): pass", "build", r"build\(\) failed: TypeError: .*depth"),
    ],
)
def test_mistakes_in_a_factory(module, text, factory, message):
    with pytest.raises(ModelError, match=message):
        load_model(f"{module(text)}:{factory}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet20", "'resnet20' names no model: expected timm:NAME"),
        ("zoo:", "names no model"),
        ("zoo:resnet21", "zoo has no 'resnet21': did you mean"),
        ("absent.module:build", "there is no module absent"),
        ("absent.pt2", "there is no file absent.pt2"),
    ],
)
def test_mistakes_in_a_name(spec, message):
    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_program(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = torch.randn(2, 3, 12, 10)
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), path)
    loaded = load_model(str(path))
    assert (loaded.size, loaded.channels) == ((12, 10), 3)
    torch.testing.assert_close(loaded.model(x[:1]), model(x[:1]))
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    save_weights(other, tmp_path / "other.safetensors")
    filled = load_model(str(path), tmp_path / "other.safetensors")
    torch.testing.assert_close(filled.model(x), other(x).relu())


def test_program_of_training_is_refused(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).train()
    torch.export.save(torch.export.export(model, (torch.zeros(2, 3, 8, 8),)), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"exported in training mode; call model\.eval\(\)"):
        load_model(str(tmp_path / "net.pt2"))


def test_weights_in_another_dtype_are_refused(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval().bfloat16()
    program = torch.export.export(model, (torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"has weights in torch.bfloat16; expected torch.float32"):
        load_model(str(tmp_path / "net.pt2"))
