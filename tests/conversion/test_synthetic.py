"""Pictures made from what normalizations remember: nearer to the statistics, and worth fitting on."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepwise.conversion import Choice, Plan, convert, synthetic_batches
from sepwise.conversion.synthetic import _batch_sizes
from sepwise.errors import ModelError


def photographs(n: int, seed: int) -> Tensor:
    """Pictures whose neighbours and channels agree."""
    fixed = torch.Generator().manual_seed(seed)
    smooth = F.avg_pool2d(torch.randn(n, 3, 24, 24, generator=fixed), 9, stride=1) * 9
    mix = torch.tensor([[1, 0.1, 0], [0.9, 0.2, 0.1], [0.8, 0, 0.3]])
    return torch.einsum("ij,njhw->nihw", mix, smooth) + torch.tensor([1.0, -0.5, 0.3]).view(3, 1, 1)


def trained() -> nn.Module:
    """Normalizations that remember photographs, as after training."""
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for into in (3, 12, 12, 12):
        layers += [nn.Conv2d(into, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True)]
    model = nn.Sequential(*layers, nn.Conv2d(12, 4, 3)).train()
    with torch.no_grad():
        for seed in range(60):
            model(photographs(16, 100 + seed))
    return model.eval()


@torch.no_grad()
def mismatch(model: nn.Module, batch: Tensor) -> float:
    """Largest difference of a channel's mean, in remembered deviations, over all normalizations."""
    worst, x = 0.0, batch
    for module in model.children():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            off = (x.mean((0, 2, 3)) - module.running_mean) / module.running_var.sqrt()
            worst = max(worst, float(off.abs().max()))
        x = module(x.clone())
    return worst


def test_normalizations_read_what_they_remember():
    model = trained()
    started, found = (synthetic_batches(model, (3, 16, 16), 64, steps=s)[0] for s in (1, 100))
    assert mismatch(model, found) < 0.3 * mismatch(model, started)
    assert mismatch(model, photographs(64, 0)) < 0.3 * mismatch(model, started)  # the measure knows photographs


@pytest.mark.parametrize(("form", "rank"), [("depthwise", 2), ("cp", 12)])
def test_fitting_on_them_beats_the_nearest_weight_and_plain_noise(form, rank):
    model, unseen = trained(), photographs(32, 1)
    plan = Plan({n: Choice(form, rank, "by hand", 1, 1, 1, 1) for n in ("3", "6", "9")}, "fold")

    @torch.no_grad()
    def missed(converted: nn.Module) -> float:
        wanted = model(unseen)
        return float((converted(unseen) - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())

    fitted = missed(convert(model, plan, synthetic_batches(model, (3, 16, 16), 64)))
    noise = missed(convert(model, plan, [torch.randn(64, 3, 16, 16)]))
    nearest = missed(convert(model, plan))
    assert fitted < 0.65 * nearest
    assert fitted < 0.9 * noise


def test_the_model_is_left_as_it_was_and_the_seed_decides():
    model = trained().train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    one, again, other = (synthetic_batches(model, (3, 16, 16), 8, steps=3, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("count", "sizes"), [(2, [2]), (64, [64]), (65, [63, 2]), (130, [64, 64, 2]), (129, [64, 63, 2])]
)
def test_no_batch_is_one_picture_alone(count, sizes):
    assert _batch_sizes(count, 64) == sizes


def test_what_is_not_known_is_refused():
    with pytest.raises(ModelError, match=r"no batch normalization with running statistics.*give pictures"):
        synthetic_batches(nn.Sequential(nn.Conv2d(3, 4, 3)), (3, 8, 8))
    with pytest.raises(ModelError, match=r"cannot run on pictures of size \(5, 8, 8\)"):
        synthetic_batches(trained(), (5, 8, 8))
    with pytest.raises(ModelError, match="count=1, steps=100"):
        synthetic_batches(trained(), (3, 8, 8), 1)
