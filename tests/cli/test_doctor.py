"""`sepwise doctor`: the same facts as text and JSON, and an exit code only for what is really broken."""

import json
from importlib.util import find_spec

import pytest
import torch

from sepwise import cli
from sepwise.cli import doctor
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


def test_missing_extra_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "timm" else find_spec(name))
    assert cli.main(["doctor"]) == 0
    assert "missing timm: pip install 'sepwise[timm]'" in capsys.readouterr().out


@pytest.mark.parametrize(("broken", "sentence"), [("2.10.1", "torch 2.10.1 is too old: sepwise needs 2.11 or newer")])
def test_old_torch_is_a_problem(capsys, monkeypatch, broken, sentence):
    monkeypatch.setattr(torch, "__version__", broken)
    assert cli.main(["doctor"]) == 1
    assert sentence in capsys.readouterr().out
