"""The arena of families: one network measured, its death survived, what is not done again, and the tables."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

import subprocess
from argparse import Namespace
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from bench import families
from sepwise import records
from sepwise.errors import SepwiseError
from sepwise.sources.models import LoadedModel


class Scaled(nn.Module):
    """A pair in a branch that a layer scale of 0 would silence; refuses pictures below 150 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 4, 3, 4), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm, self.pointwise, self.gamma = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Parameter(torch.zeros(4))

    def forward(self, x):
        torch._assert(x.shape[2] >= 150, "too small")
        x = self.stem(x)
        return x + self.pointwise(self.norm(self.depthwise(x))) * self.gamma.view(1, -1, 1, 1)


def test_a_network_is_settled_and_a_fault_in_it_is_seen():
    loaded = LoadedModel(Scaled().eval(), "own", (224, 224), (0.5,) * 3, (0.5,) * 3)
    x = families.prepared(loaded)
    assert tuple(x.shape) == (1, 3, 160, 160)
    gamma, norm = loaded.model.gamma, loaded.model.norm
    assert gamma.min() >= 0.5
    assert not torch.equal(norm.running_var, torch.ones(4))
    found = families.fused_on(loaded.model, x)
    assert (found["outcome"], found["fused"], found["left"], found["norms"]) == ("fused", 1, {}, 1)
    assert found["difference"] <= found["budget"] < 0.01 < found["fault"]


def test_a_network_that_takes_no_noise_is_told():
    class Never(Scaled):
        def forward(self, x):
            raise ValueError("I never run")

    with pytest.raises(SepwiseError, match="it takes no noise of its own size: I never run"):
        families.prepared(LoadedModel(Never().eval(), "own", (224, 224), (0.5,) * 3, (0.5,) * 3))


def test_reasons_lose_the_names_of_layers():
    twice = "its output is read 2 times (Conv2d stages.0.f1.conv, add), so it must exist"
    assert families.reason_of(twice) == "its output is read 2 times (Conv2d, add), so it must exist"
    assert families.reason_of("BlurPool2d a.b follows, not a pointwise convolution") == (
        "BlurPool2d follows, not a pointwise convolution"
    )
    own = "Conv2dSame computes something of its own; only a plain nn.Conv2d can be replaced"
    assert families.reason_of(own) == own


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
def test_every_network_of_the_families_has_one():
    names = families.chosen([], True)
    assert len(names) == len(set(names)) > 200
    assert {families.family_of(name) for name in names} == set(families.FAMILIES)
    few = families.chosen([], False)
    assert {families.family_of(name) for name in few} == set(families.FAMILIES) - {"MobileNetV5"}
    assert families.family_of("tf_efficientnet_lite0") == "EfficientNet-Lite"
    assert families.family_of("tf_efficientnet_el") == "EfficientNet EdgeTPU"
    assert families.family_of("tf_efficientnetv2_s") == "EfficientNetV2"
    assert families.family_of("resnet18") == families.family_of("test_efficientnet") == families.OTHERS
    with pytest.raises(SepwiseError, match="has no network called nosuchnet"):
        families.chosen(["nosuchnet", "lcnet_050"], False)


ASKED = {"network": "lcnet_050", "code": "c", "timm": "1", "threads": 1}


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11: no message"),
        ("raise KeyError('conv')", "exit code 1: KeyError: 'conv'"),
    ],
)
def test_a_process_that_dies_leaves_a_record(monkeypatch, does, why):
    plain = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: plain([command[0], "-c", does], **options))
    assert families.outcome(ASKED) == ASKED | {"outcome": "crashed", "why": why}


def test_too_little_memory_is_told(monkeypatch):
    def greedy(name):
        torch.empty(1 << 50)

    monkeypatch.setattr(families, "_leave_memory", lambda: 3 << 30)
    monkeypatch.setattr(families, "load_model", greedy)
    found = families.measured(ASKED)
    assert found == ASKED | {"outcome": "no memory", "why": "3 GiB that were free are too few"}


def test_what_is_finished_is_not_done_again(tmp_path, monkeypatch):
    asked = []

    def answer(what):
        asked.append(what["network"])
        return what | {"outcome": "no memory" if what["network"] == "lcnet_100" else "refused", "why": "so"}

    monkeypatch.setattr(families, "outcome", answer)
    monkeypatch.setattr(families, "chosen", lambda patterns, every: ["lcnet_050", "lcnet_100"])
    args = Namespace(networks=[], all=False, threads=1, results=tmp_path / "r.jsonl")
    families.measure(args)
    families.measure(args)
    assert asked == ["lcnet_050", "lcnet_100", "lcnet_100"]
    monkeypatch.setattr(families, "code", lambda compiled: "other")
    families.measure(args)
    assert asked[3:] == ["lcnet_050", "lcnet_100"]


def test_the_tables(tmp_path):
    path = tmp_path / "r.jsonl"
    fine = {"size": 128, "fused": 3, "alone": 4, "slower": 1, "merged": 2, "norms": 9, "seconds": 2.2, "gib_peak": 0.5}
    fine |= {"difference": 1e-6, "budget": 1e-4, "fault": 0.2, "left": {"because": 2}, "outcome": "fused"}
    rows = [
        ("lcnet_100", fine | {"fused": 99}),
        ("lcnet_050", fine | {"difference": 3e-6, "fault": 0.1}),
        ("lcnet_100", fine | {"left": {"because": 1, "a": 1, "b": 1, "c": 1}}),
        ("lcnet_150", {"outcome": "refused", "why": "it cannot be followed"}),
        ("resnet18", fine | {"left": {}}),
        ("mobilenetv1_100", {"outcome": "no memory", "why": "3 GiB that were free are too few"}),
    ]
    records.append(path, [records.here(families.WHAT, a["outcome"], about={"network": n} | a) for n, a in rows])
    sums = "9 | 6 | 12 of 15 | 3e-06 of 1e-04 | 1e-01 | because (3); a (1); b (1); 1 other reasons |"
    assert families.by_family(path).splitlines()[2:] == [
        "| MobileNetV1 | 0 of 1 |" + " |" * 6,
        f"| LCNet | 2 of 3 | {sums.replace('9 | 6 | 12 of 15', '6 | 6 | 8 of 10')}",
        "| others | 1 of 1 | 3 | 0 | 4 of 5 | 1e-06 of 1e-04 | 2e-01 |  |",
        f"| **together** | 3 of 5 | {sums}",
        "",
        "- `mobilenetv1_100`: no memory: 3 GiB that were free are too few",
        "- `lcnet_150`: refused: it cannot be followed",
    ]
    networks = families.by_network(path).splitlines()[2:]
    assert [line.split(" | ")[0] for line in networks] == [
        "| mobilenetv1_100",
        "| lcnet_050",
        "| lcnet_100",
        "| lcnet_150",
        "| resnet18",
    ]
    assert networks[1] == "| lcnet_050 | 128 | 3 | 2 | 4, 1 | 2 | 9 | 3e-06, 1e-04 | 1e-01 | 2 | 0.5 |"
    assert len({line.count("|") for line in families.by_network(path).splitlines()}) == 1


def test_the_page_holds_the_table_of_the_records(tmp_path):
    table = families.by_family(families.RESULTS)
    page = (families.ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:] if line.startswith("|")]
    assert rows == [*families.FAMILIES, "**together**"]
    assert table in page, "run `./run bench families --table --markdown` and put its table there"
    other = tmp_path / "r.jsonl"
    other.write_bytes(families.RESULTS.read_bytes())
    first = next(families.read(other))
    records.append(other, [replace(first, about=first.about | {"fused": first.about["fused"] + 1})])
    assert families.by_family(other) not in page
