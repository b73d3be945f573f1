"""Cost: known totals, every way to call a convolution, attribution to modules, and a model left as it was."""

import copy
import json
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sepwise.errors import ModelError
from sepwise.measure import cost
from sepwise.sources.models import load_model


class Functional(nn.Module):
    """The same two convolutions as functional calls on parameters."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.second = nn.Parameter(torch.randn(8, 1, 3, 3))

    def forward(self, x):
        return F.conv2d(F.conv2d(x, self.first, padding=1), self.second, groups=8)


FIRST, SECOND = 8 * 3 * 9 * 10 * 10, 8 * 1 * 9 * 8 * 8


def stack():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))


@pytest.mark.parametrize("build", [stack, Functional])
def test_modules_and_functional_calls_count_the_same(build):
    assert cost(build(), torch.rand(1, 3, 10, 10)).macs == FIRST + SECOND


def test_an_exported_graph_counts_the_same():
    example = torch.rand(1, 3, 10, 10)
    exported = torch.export.export(stack().eval(), (example,)).module()
    assert cost(exported, example).macs == FIRST + SECOND


def test_by_module_with_bytes_and_intensity():
    counted = cost(stack(), torch.rand(1, 3, 10, 10))
    first = counted.modules["0"]
    assert (first.parameters, first.macs, first.output_shape) == (8 * 3 * 9 + 8, FIRST, (1, 8, 10, 10))
    assert first.bytes_moved == 4 * (300 + 8 * 27 + 8 + 800)
    assert first.arithmetic_intensity == FIRST / first.bytes_moved
    assert counted.modules["1"].macs == counted.modules["1"].bytes_moved == 0
    assert counted.bytes_moved == first.bytes_moved + counted.modules["3"].bytes_moved


def test_the_batch_is_part_of_the_count():
    assert cost(stack(), torch.rand(3, 3, 10, 10)).macs == 3 * (FIRST + SECOND)


def test_a_shared_module_counts_its_macs_twice_and_its_parameters_once():
    conv = nn.Conv2d(4, 4, 1, bias=False)
    counted = cost(nn.Sequential(conv, conv), torch.rand(1, 4, 5, 5))
    assert (counted.macs, counted.parameters, counted.modules["0"].macs) == (2 * 16 * 25, 16, 2 * 16 * 25)


@pytest.mark.parametrize(
    ("model", "example", "macs"),
    [
        (nn.Conv1d(2, 6, 3), torch.rand(1, 2, 9), 6 * 2 * 3 * 7),
        (nn.Conv3d(2, 4, (1, 2, 3)), torch.rand(1, 2, 4, 4, 4), 4 * 2 * 6 * (4 * 3 * 2)),
        (nn.Conv2d(4, 8, 3, stride=2, padding="valid", dilation=2), torch.rand(1, 4, 11, 11), 8 * 4 * 9 * 16),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), torch.rand(1, 4, 5, 5), 4 * 6 * 9 * 25),
        (nn.Linear(7, 5), torch.rand(3, 7), 3 * 35),
        (nn.Linear(7, 5), torch.rand(2, 3, 7), 6 * 35),
    ],
    ids=["1-D", "3-D", "strided dilated", "transposed", "linear", "linear on three axes"],
)
def test_known_counts(model, example, macs):
    assert cost(model, example).macs == macs


def test_attention_counts_as_its_matrix_products():
    attention = nn.MultiheadAttention(16, 2, batch_first=True)

    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x)

    counted = cost(SelfAttention(), torch.rand(2, 5, 16))
    assert counted.macs == 2 * 5 * (4 * 16 * 16) + 2 * (2 * 5 * 5 * 16)
    assert not counted.unsupported


def test_what_has_no_formula_is_named():
    counted = cost(nn.LSTM(4, 5), torch.rand(2, 1, 4))
    assert counted.unsupported == {"aten.mkldnn_rnn_layer": 1}
    assert "NOT counted, because there is no formula for them: aten.mkldnn_rnn_layer ×1." in str(counted)


def test_a_learned_slope_is_free_as_every_activation():
    counted = cost(nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(4), nn.LeakyReLU()), torch.rand(1, 3, 5, 5))
    assert (counted.macs, counted.unsupported) == (3 * 4 * 25, {})


def test_an_unknown_operation_of_a_library_is_not_taken_as_free():
    with torch.library._scoped_library("sepwise_test", "FRAGMENT") as library:
        library.define("twice_norm(Tensor x) -> Tensor")
        library.impl("twice_norm", lambda x: 2 * x, "CompositeExplicitAutograd")

        class Model(nn.Module):
            def forward(self, x):
                return torch.ops.sepwise_test.twice_norm(x)

        counted = cost(Model(), torch.rand(3))
    assert counted.unsupported == {"sepwise_test.twice_norm": 1}
    assert counted.arithmetic_intensity == 0.0


def test_the_model_and_the_random_state_are_left_as_they_were():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
            self.register_buffer("in_place", torch.zeros(1))
            self.register_buffer("replaced", torch.zeros(1))

        def forward(self, x):
            self.in_place += 1
            self.replaced = self.replaced + torch.rand(1)
            return self.inner(x)

    model = Counting().train()
    model.inner[1].eval()
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    cost(model, torch.rand(1, 3, 4, 4, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)
    assert flags == [m.training for m in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_that_cannot_run_is_refused_in_a_sentence_and_left_without_hooks():
    model = stack()
    with pytest.raises(ModelError, match=r"cannot run on an example of shape \(1, 5, 10, 10\)"):
        cost(model, torch.rand(1, 5, 10, 10))
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_text_and_json_hold_the_convention():
    counted = cost(stack(), torch.rand(1, 3, 10, 10))
    assert "1 MAC = one multiply-add" in str(counted)
    assert "Nothing that multiplies was left out." in str(counted)
    plain = json.loads(json.dumps(counted.to_dict()))
    assert plain["total"]["macs"] == counted.macs
    assert plain["modules"]["3"]["output_shape"] == [1, 8, 8, 8]


@pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")
@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [("resnet18", 1_814_073_344, 11_689_512), ("mobilenetv2_100", 300_774_272, 3_504_872)],
)
def test_published_networks(name, macs, parameters):
    loaded = load_model(f"timm:{name}")
    counted = cost(loaded.model, torch.zeros(1, 3, 224, 224))
    assert (counted.macs, counted.parameters, counted.unsupported) == (macs, parameters, {})
