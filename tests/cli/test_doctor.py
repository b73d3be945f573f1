"""`sepwise doctor`: the same facts as text and JSON, and an exit code only for what is really broken."""

import json
from importlib.util import find_spec

import pytest
import torch

from sepwise import cli
from sepwise.cli import doctor
from sepwise.ops import native
from sepwise.ops.separable_conv2d import split
from sepwise.ops.separable_conv2d.api import IMPLEMENTATIONS


def test_facts(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert found["torch"]["version"] == torch.__version__
    assert found["torch"]["threads"] == torch.get_num_threads()
    for answers in found["implementations"]["separable_conv2d"].values():
        assert list(answers) == list(IMPLEMENTATIONS)


def test_refusals_are_the_implementations_own_sentences(capsys, monkeypatch):
    monkeypatch.setattr(split, "why_not", lambda call: f"refuses multiplier {call.depthwise.shape[0] // 4}")
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "split      refuses multiplier 1" in text
    assert "reference  ready" in text


@pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))
def test_kernels(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["kernels"]
    assert found["offers"] == list(native.MACHINE.offers)
    assert [(k["name"], k["why_not"]) for k in found["kernels"]] == [(k.name, k.why_not) for k in native.kernels()]
    ready = {kernel.name: kernel for kernel in native.kernels() if kernel.why_not is None}
    assert set(found["taken"]) == {"float32, highest", "float32, high", "float32, medium", "bfloat16"}
    assert ready[found["taken"]["float32, highest"]].precision == "highest"
    assert ready[found["taken"]["bfloat16"]].dtype is torch.bfloat16
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for kernel in native.kernels():
        assert f"    {kernel.name:<20} {kernel.why_not or 'ready'}\n" in text


@pytest.mark.parametrize(("name", "broken"), [("PROBLEM", "it is gone"), ("MACHINE", native.Machine((), "x", "no x"))])
def test_kernels_that_cannot_run_at_all_are_a_problem(capsys, monkeypatch, name, broken):
    monkeypatch.setattr(native, "PROBLEM", None)
    monkeypatch.setattr(native, name, broken)
    assert cli.main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [broken if isinstance(broken, str) else broken.problem]
    assert found["kernels"] == {}
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.strip().endswith(found["problems"][0])


def test_missing_extra_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "timm" else find_spec(name))
    assert cli.main(["doctor"]) == 0
    assert "missing timm: pip install 'sepwise[timm]'" in capsys.readouterr().out


@pytest.mark.parametrize(("broken", "sentence"), [("2.10.1", "torch 2.10.1 is too old: sepwise needs 2.11 or newer")])
def test_old_torch_is_a_problem(capsys, monkeypatch, broken, sentence):
    monkeypatch.setattr(torch, "__version__", broken)
    assert cli.main(["doctor"]) == 1
    assert sentence in capsys.readouterr().out
