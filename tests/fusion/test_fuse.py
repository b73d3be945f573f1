"""The fused network as users get it: refused in a sentence, left unchanged, saved, exported, compiled."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false

import copy
from importlib.util import find_spec

import pytest
import torch
from chains import NORM, Block, assert_same, chain, layers_of, pictures
from plain_networks import settle
from torch import Tensor, nn

import sepwise
from sepwise.errors import ModelError, UnsupportedError
from sepwise.fusion import fuse
from sepwise.graph import export
from sepwise.sources.models import load_model


class Deciding(nn.Module):
    """Decides by a size in Python, so only torch.export can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = chain(None, NORM(6), nn.ReLU6(inplace=True), after=(NORM(8), nn.SiLU(inplace=True)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x.view(x.shape[0], -1) if x.shape[2] > 4 else x


def test_a_model_followed_by_export_and_an_exported_program_are_fused():
    model = settle(Deciding()).double()
    says = {"body.3": "depthwise 3x3, relu6, pointwise 6 to 8, silu"}
    fused = fuse(model, pictures())
    assert fused.report.fused == says
    assert_same(fused, model, pictures())
    assert_same(fused, model, pictures(n=3))
    program = torch.export.export(model, (pictures(),), strict=False).module()
    fused = fuse(program, pictures())
    assert fused.report.fused == says
    assert not fused.eval().training
    assert_same(fused, model, pictures())
    with pytest.raises(ModelError, match=r"exported in training mode; call model.eval\(\) before the export"):
        fuse(torch.export.export(settle(Deciding()).double().train(), (pictures(),), strict=False).module(), pictures())


def test_a_model_in_training_mode_is_refused():
    model = settle(chain(None, NORM(6)))
    model.train()
    with pytest.raises(ModelError, match=r"the model is in training mode.*call model.eval\(\) first"):
        fuse(model, pictures().float())
    model.eval()[4].train()
    with pytest.raises(ModelError, match=r"its module 4 is in training mode"):
        fuse(model, pictures().float())


def test_what_cannot_be_fused_at_all_is_refused_in_a_sentence():
    model = settle(chain())
    with pytest.raises(ModelError, match="cannot run on these pictures"):
        fuse(model, torch.randn(1, 5, 9, 9))
    with pytest.raises(UnsupportedError, match=r"give torch.channels_last or torch.contiguous_format"):
        fuse(model, torch.randn(1, 3, 9, 9), memory_format=torch.preserve_format)
    settled = settle(chain(None, NORM(6)))
    with torch.no_grad():
        settled[4].running_var[2] = float("nan")
    with pytest.raises(ModelError, match="the batch normalization after 3 holds NaN or Inf"):
        fuse(settled, torch.randn(1, 3, 9, 9))


def test_the_model_is_left_as_it_was():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block()))
    before, shown = copy.deepcopy(model.state_dict()), repr(model)
    fused = fuse(model, pictures().float())
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    assert repr(model) == shown
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fusing_twice_changes_nothing():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block("squeezed and excited"), Block())).double()
    once = fuse(model, pictures())
    twice = fuse(once, pictures())
    says = "expand 4 to 12, relu6, depthwise 3x3, relu6, pointwise 12 to 4, add"
    assert twice.report.fused == once.report.fused == {"2.depthwise": says}
    assert twice.report.alone == once.report.alone
    assert list(once.report.alone) == ["0", "1.expand", "1.project"]
    assert twice.report.left == once.report.left
    assert twice.report.norms == 0
    assert list(twice.state_dict()) == list(once.state_dict())
    assert torch.equal(twice(pictures()), once(pictures()))


def test_weights_are_saved_and_copied():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block()))
    x = pictures().float()
    fused = fuse(model, x)
    torch.manual_seed(9)
    other = fuse(settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block())), x)
    assert not torch.equal(other(x), fused(x))
    other.load_state_dict(fused.state_dict())
    assert torch.equal(other(x), fused(x))
    twin = copy.deepcopy(fused)
    assert torch.equal(twin(x), fused(x))
    assert twin.report == fused.report
    assert not any(p.requires_grad for p in twin.parameters())
    assert not fused.training


def test_a_fused_network_is_exported_and_compiled():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Tanh()))
    x = pictures().float()
    fused = fuse(model, x)
    program = export(fused, x).module()
    assert_same(program, model, pictures(n=5).float(), 1e-5)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    assert_same(compiled, model, x, 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
def test_a_fused_network_is_compiled_by_inductor():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Tanh()))
    x = pictures().float()
    assert_same(torch.compile(fuse(model, x), fullgraph=True), model, x, 1e-5)


class Viewing(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.body, self.flat = chain(), module

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.flat(x).view(-1, 2)


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1)


def test_memory_formats():
    x = pictures()
    model = settle(Viewing(nn.ReLU())).double()
    fused = fuse(model, x)
    assert_same(fused, model, x)
    assert fused.network.get_submodule("body.0").pointwise.is_contiguous(memory_format=torch.channels_last)
    flat = settle(nn.Sequential(*chain()[:5])).double()
    assert fuse(flat, x)(x).is_contiguous(memory_format=torch.channels_last)
    for kind in (torch.float64, torch.float32):
        laid = fuse(flat.to(kind), x.to(kind), memory_format=torch.contiguous_format)
        assert laid(x.to(kind)).is_contiguous()
    model = settle(Viewing(Flat())).double()
    with pytest.raises(ModelError, match=r"cannot run on the example in torch.channels_last \(a module may depend on"):
        fuse(model, x)
    assert_same(fuse(model, x, memory_format=torch.contiguous_format), model, x)


def test_another_dtype_rounds_folded_weights_once():
    model = settle(chain(None, NORM(6), nn.ReLU6(), after=(NORM(8), nn.SiLU())))
    x = pictures().float()
    exact, fused = fuse(model, x), fuse(model, x, dtype=torch.bfloat16)
    assert {name: w.bfloat16().tolist() for name, w in exact.state_dict().items()} == {
        name: w.tolist() for name, w in fused.state_dict().items()
    }
    assert fused(x.bfloat16()).dtype is torch.bfloat16
    assert model[0].weight.dtype is torch.float32
    gap = (fused(x.bfloat16()) - model(x)).abs().max() / model(x).abs().max()
    assert fused.report.difference == pytest.approx(gap.item(), rel=0.5)
    assert fused.report.difference > 1e-4
    assert fused.report.budget == 5e-2
    assert fuse(model, x, dtype=torch.float64).report.budget == 1e-4


def test_a_dtype_that_cannot_hold_the_network_is_refused():
    model, x = settle(chain(None, NORM(6))[:6]), pictures().float()
    with pytest.raises(UnsupportedError, match=r"fuse: dtype=torch.int8: give a floating point type, torch.bfloat16"):
        fuse(model, x, dtype=torch.int8)
    with torch.no_grad():
        model[4].bias.fill_(1e5)  # float16 ends at 65,504
    with pytest.raises(ModelError, match=r"bias holds numbers above 6.55e\+04, the largest of torch.float16"):
        fuse(model, x, dtype=torch.float16)
    with torch.no_grad():
        model[4].bias.fill_(1e3)
        model[5].weight.fill_(1e3)
    with pytest.raises(ModelError, match="would answer differently: by inf"):
        fuse(model, x, dtype=torch.float16)
    assert fuse(model, x, dtype=torch.bfloat16).report.difference < 5e-2


TIMM = {
    "mobilenetv1_100": (13, 0),
    "mobilenetv2_100": (17, 0),
    "efficientnet_lite0": (16, 0),
    "mobilenetv3_small_050": (2, 9),
}


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name):
    model = settle(load_model(f"timm:{name}").model)
    x = pictures(n=2, size=(64, 64)).float()
    fused = fuse(model, x)
    assert (len(fused.report.fused), len(fused.report.left)) == TIMM[name]
    assert all("so it must exist" in why for why in fused.report.left.values())
    assert fused.report.difference <= 0.1 * fused.report.budget
    assert not layers_of(fused, nn.BatchNorm2d)


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_050"])
def test_networks_of_timm_in_bfloat16(name):
    """Weights that are made of others are rounded once, too: those of a ConvNeXt block take in scales and a norm."""
    model, x = settle(load_model(f"timm:{name}").model), pictures(n=1, size=(64, 64)).float()
    exact, fused = fuse(model, x), fuse(model, x, dtype=torch.bfloat16)
    assert all(torch.equal(w, exact.state_dict()[key].bfloat16()) for key, w in fused.state_dict().items())
    assert 1e-4 < fused.report.difference < fused.report.budget == 5e-2


def test_one_operation_is_called(monkeypatch):
    """A fused layer goes through `separable_conv2d` once a call, with everything it took in."""
    from sepwise.nn import separable

    model = settle(chain(None, NORM(6), nn.ReLU6(), after=(NORM(8), nn.SiLU()))).double()
    fused, calls = fuse(model, pictures()), []
    plain = separable.separable_conv2d

    def noted(*arguments, **options):
        calls.append(options)
        return plain(*arguments, **options)

    monkeypatch.setattr(separable, "separable_conv2d", noted)
    assert_same(fused, model, pictures())
    assert [(c["between"], c["activation"], c["depthwise_bias"] is not None) for c in calls] == [
        ("relu6", "silu", True)
    ]


def test_fuse_is_public():
    assert sepwise.fuse is fuse
