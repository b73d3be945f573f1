"""Weights: strict, finite, tensors only; a failure leaves the model as it was."""

import pickle
from typing import Any

import pytest
import torch
from baits import Touch
from torch import nn

from sepwise.errors import OutputError, WeightsError
from sepwise.sources import load_weights, read_weights, save_weights


def net() -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_who_may_read_a_file_may_read_written_weights(tmp_path):
    (tmp_path / "plain").touch()
    save_weights(net(), tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_round_trip(tmp_path, suffix):
    source, target = net(), net()
    path = tmp_path / f"net{suffix}"
    save_weights(source, path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    assert not same(source, target)
    load_weights(target, path)
    assert same(source, target)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_wrapped_and_prefixed(tmp_path, wrapper):
    source, target = net(), net()
    prefixed = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({wrapper: prefixed, "epoch": 3}, tmp_path / "net.pth")
    load_weights(target, tmp_path / "net.pth")
    assert same(source, target)


def test_prefix_is_kept_when_the_model_has_it(tmp_path):
    source, target = nn.ModuleDict({"module": net()}), nn.ModuleDict({"module": net()})
    save_weights(source, tmp_path / "net.safetensors")
    load_weights(target, tmp_path / "net.safetensors")
    assert same(source, target)


def test_what_does_not_fit_is_listed_and_the_model_unchanged(tmp_path):
    state = dict(net().state_dict())
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    del state["0.bias"]
    state["head.weight"] = torch.zeros(1)
    save_weights(state, tmp_path / "net.safetensors")
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_weights(model, tmp_path / "net.safetensors")
    assert str(error.value).splitlines()[1:] == [
        "    1 missing: 0.bias",
        "    1 unexpected: head.weight",
        "    1 of another shape: 0.weight (4, 3, 5, 5) for (4, 3, 3, 3)",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_by_name(tmp_path, value):
    source, target = net(), net()
    source[2].bias.data[1] = value
    save_weights(source, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"holds NaN or Inf in 2\.bias \(1 of 9 tensors\)"):
        load_weights(target, tmp_path / "net.safetensors")
    assert bool(target[2].bias.isfinite().all())
    load_weights(target, tmp_path / "net.safetensors", allow_nonfinite=True)
    assert not bool(target[2].bias.isfinite().all())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path, legacy):
    bait = tmp_path / "touched"
    path = tmp_path / "net.pth"
    if legacy:
        path.write_bytes(pickle.dumps(Touch(bait)))
    else:
        torch.save({"0.weight": Touch(bait)}, path)
    with pytest.raises(WeightsError, match=r"is refused: .*loading it would execute code"):
        load_weights(net(), path)
    assert not bait.exists()
    torch.load(path, weights_only=False) if not legacy else pickle.loads(path.read_bytes())
    assert bait.exists(), "the bait itself is broken"


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(net(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="would execute code"):
        read_weights(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.pth", b"nothing of use", "is refused: it is damaged"),
        ("net.pth", b"", "cannot be read"),
        ("net.safetensors", b"nothing of use", "cannot be read as safetensors"),
        ("net.h5", b"", r"weights are read from \.safetensors"),
        ("absent.pth", None, "there is no file"),
    ],
)
def test_unreadable(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"lr": 0.1}, {}, {"state_dict": {"a": 1}}])
def test_other_contents(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="expected named tensors"):
        read_weights(tmp_path / "net.pth")


def test_tied_tensors_round_trip(tmp_path):
    def tied() -> Any:
        model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
        model["b"].weight = model["a"].weight
        return model

    source, target = tied(), tied()
    save_weights(source, tmp_path / "net.safetensors")
    load_weights(target, tmp_path / "net.safetensors")
    assert same(source, target)
    state = {name: tensor for name, tensor in source.state_dict().items() if name != "b.weight"}
    save_weights(state, tmp_path / "once.safetensors")
    load_weights(tied(), tmp_path / "once.safetensors")


def test_no_place_to_write(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        save_weights(net(), tmp_path / "absent" / "net.safetensors")
