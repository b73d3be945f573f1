"""The metric of outputs against derivatives taken number by number, and what fitting in it gains."""

# pyright: reportArgumentType=false

import pytest
import torch
from plain_networks import Residual, settle
from torch import Tensor, nn

from sepwise.conversion import fit, metric
from sepwise.conversion.metric import output_metrics
from sepwise.conversion.statistics import MomentSum
from sepwise.errors import ModelError
from sepwise.factor import FORMS, compose
from sepwise.graph.network import trace
from sepwise.nn.dense import shape_of_dense


def network(*rest: nn.Module, groups: int = 1) -> nn.Module:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=groups)
    return nn.Sequential(conv, *(rest or (nn.ReLU(), nn.Conv2d(6, 3, 3)))).eval()


def derivative_squares(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """Sum over all outputs z and positions of (dz / dy) (dz / dy)^T, y the output of the layer `name`."""
    kept = {}
    hook = model.get_submodule(name).register_forward_hook(lambda _m, _i, y: kept.update(y=y))
    z = model(x)
    hook.remove()
    rows = [torch.autograd.grad(number, kept["y"], retain_graph=True)[0] for number in z.flatten()]
    flat = torch.stack(rows).transpose(1, 2).flatten(2)  # (numbers of z, O, samples)
    return (flat @ flat.mT).sum(0)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_metric_is_the_mean_of_squared_derivatives(monkeypatch, groups):
    model, x = network(groups=groups).double(), torch.randn(2, 4, 6, 6, dtype=torch.float64)
    monkeypatch.setattr(metric, "PROJECTIONS", 3000)
    found = output_metrics(trace(model), [x])["0"]
    wanted = derivative_squares(model, "0", x)
    size = 6 // groups
    blocks = torch.stack([wanted[g * size : (g + 1) * size, g * size : (g + 1) * size] for g in range(groups)])
    blocks = blocks / blocks.diagonal(dim1=1, dim2=2).mean()
    error = (found - blocks - metric.FLOOR * torch.eye(size)).abs().max()
    assert error < 0.06  # of numbers near 1; 3,000 random directions
    assert (found - torch.eye(size)).abs().max() > 3 * error  # all outputs alike would not pass


def test_first_pictures_are_asked_and_nothing_is_changed():
    model, x = settle(Residual()), torch.randn(5, 3, 300, 300)
    assert [len(p) for p in metric._parts([x, x, x])] == [2, 2, 1, 2, 2]
    followed = trace(model)
    before = {n: p.clone() for n, p in followed.model.state_dict().items()}
    first = output_metrics(followed, [x[:, :, :9, :9]])
    assert set(first) == {site.name for site in followed.sites}
    assert all(torch.equal(first[n], m) for n, m in output_metrics(followed, [x[:, :, :9, :9]]).items())
    assert all(torch.equal(before[n], p) for n, p in followed.model.state_dict().items())
    assert not any(m._forward_hooks for m in followed.graph.modules())
    assert all(p.grad is None for p in followed.model.parameters())


class Counted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).float()


def test_a_layer_that_nothing_differentiable_follows_has_no_metric():
    followed = trace(network(Counted()))
    assert output_metrics(followed, [torch.randn(2, 4, 6, 6)]) == {}
    with pytest.raises(ModelError, match="cannot run on these pictures"):
        output_metrics(followed, [torch.randn(2, 5, 6, 6)])


@pytest.mark.parametrize("form", FORMS)
def test_fitting_in_the_metric_serves_the_outputs_that_count(form):
    conv = nn.Conv2d(8, 12, 3, padding=1).double()
    shape, x = shape_of_dense(conv), torch.randn(6, 8, 12, 12, dtype=torch.float64)
    moments = MomentSum(shape, "zeros", 10**6)
    with torch.no_grad():
        moments.add(x, conv(x))
    counts = torch.diag(torch.tensor([1.0] * 3 + [1e-3] * 9, dtype=torch.float64))
    turn = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    wanted = (turn @ counts @ turn.T)[None]
    rank = (4, 4) if form == "tucker" else 2 if form in ("depthwise", "blueprint") else 6

    def missed(weights) -> float:
        with torch.no_grad():
            full = compose(weights, [s.groups for s in FORMS[form].steps(shape, rank)])
            off = torch.nn.functional.conv2d(x, full - conv.weight, padding=1).transpose(0, 1).flatten(1)
            return float((off * (wanted[0] @ off)).mean())

    alike = fit.LayerFit(shape, conv.weight, moments.moments()).fit(form, rank, 20)
    served = fit.LayerFit(shape, conv.weight, moments.moments(), wanted).fit(form, rank, 20)
    if form == "blueprint":  # each output has filters of its own: nothing to share out
        assert all(torch.allclose(a, b) for a, b in zip(alike.weights, served.weights, strict=True))
    else:
        assert missed(served.weights) < 0.5 * missed(alike.weights)
    assert served.bias.shape == (12,)
