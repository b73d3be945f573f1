"""The least-squares fit against plain least squares on explicit patches."""

# pyright: reportArgumentType=false

import pytest
import torch
import torch.nn.functional as F

from sepwise.conversion import fit
from sepwise.conversion.fit import LayerFit
from sepwise.conversion.statistics import MomentSum
from sepwise.factor import FORMS, compose
from sepwise.geometry import ConvShape, Geometry

LAYERS = {
    "dense": ConvShape(6, 8, Geometry.of((3, 3), padding=1)),
    "strided": ConvShape(6, 8, Geometry.of((3, 3), stride=2, padding=((0, 1), (1, 1)))),
    "grouped": ConvShape(6, 8, Geometry.of((3, 3), padding=1, dilation=2), groups=2),
    "uneven kernel": ConvShape(5, 4, Geometry.of((5, 3), padding=(2, 1))),
    "depthwise": ConvShape(6, 6, Geometry.of((7, 7), padding=3), groups=6),
    "one axis": ConvShape(6, 8, Geometry.of((3,), padding=1)),
    "three axes": ConvShape(4, 6, Geometry.of((3, 2, 3), padding=1)),
}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _layer(conv: ConvShape, pictures: int = 6, seed: int = 0):
    torch.manual_seed(seed)
    size = {1: (40,), 2: (12, 13), 3: (6, 7, 6)}[conv.geometry.axes]
    mix = torch.randn(conv.in_channels, conv.in_channels, dtype=torch.float64)
    x = torch.einsum("ij,nj...->ni...", mix, torch.randn(pictures, conv.in_channels, *size, dtype=torch.float64)) + 1
    weight = torch.randn(conv.weight_shape, dtype=torch.float64)
    return x, weight, _run(conv, x, weight)


def _run(conv: ConvShape, x, weight, bias=None):
    g = conv.geometry
    pads = [p for pair in reversed(g.pads(x.shape[2:])) for p in pair]
    return CONV[g.axes](F.pad(x, pads), weight, bias, g.stride, 0, g.dilation, conv.groups)


def _moments(conv, x, y, positions=10**6):
    total = MomentSum(conv, "zeros", positions)
    total.add(x[:3], y[:3])
    total.add(x[3:], y[3:])
    return total.moments()


@pytest.mark.parametrize("conv", LAYERS.values(), ids=LAYERS)
def test_moments_are_the_covariances_of_all_patches(conv):
    x, weight, y = _layer(conv)
    moments = _moments(conv, x, y)
    answer = y.transpose(0, 1).flatten(1)
    # B = cov(W x, x) = W G, and the mean answer is W times the mean patch: true only if patches are laid out right
    flat = weight.reshape(conv.groups, -1, moments.gram.shape[-1])
    torch.testing.assert_close(flat @ moments.gram, moments.cross)
    torch.testing.assert_close((flat @ moments.patch.unsqueeze(-1)).flatten(), answer.mean(1))


def test_moments_ask_for_nothing_but_the_sampled_positions():
    conv = LAYERS["dense"]
    x, _, y = _layer(conv)
    assert _moments(conv, x, y, positions=5).gram.shape == (1, 54, 54)
    total = MomentSum(conv, "zeros", 5)
    total.add(x, y)
    assert total.count == 5 * len(x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("conv", LAYERS.values(), ids=LAYERS)
def test_full_rank_answers_exactly(conv, form):
    if FORMS[form].why_not(conv):
        pytest.skip(str(FORMS[form].why_not(conv)))
    x, weight, y = _layer(conv)
    fitted = LayerFit(conv, weight, _moments(conv, x, y)).fit(form, FORMS[form].full_rank(conv))
    dense = compose(fitted.weights, [s.groups for s in FORMS[form].steps(conv, FORMS[form].full_rank(conv))])
    torch.testing.assert_close(dense, weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(_run(conv, x, dense, fitted.bias), y, rtol=1e-6, atol=1e-6)
    assert abs(fitted.error) < 1e-9


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("conv", LAYERS.values(), ids=LAYERS)
def test_the_fit_beats_the_nearest_weight_and_searching_helps(conv, form):
    if FORMS[form].why_not(conv):
        pytest.skip(str(FORMS[form].why_not(conv)))
    full = FORMS[form].full_rank(conv)
    rank = tuple(max(1, r // 2) for r in full) if isinstance(full, tuple) else max(1, full // 4)
    x, weight, y = _layer(conv)
    layer = LayerFit(conv, weight, _moments(conv, x, y), ridge=1e-6)
    groups = [s.groups for s in FORMS[form].steps(conv, rank)]

    def missed(weights):
        answer = _run(conv, x, compose(weights, groups))
        return float((answer - y - (answer - y).mean(dim=[0, *range(2, y.dim())], keepdim=True)).square().mean())

    nearest = missed(FORMS[form].factor(weight, conv.groups, rank))
    start, searched = layer.fit(form, rank), layer.fit(form, rank, iterations=30)
    assert missed(start.weights) < nearest * 1.001 + 1e-9
    assert missed(searched.weights) <= missed(start.weights) * 1.0001 + 1e-9
    assert searched.error <= start.error * 1.0001 + 1e-9
    # the reported error is the measured one, as a share of the wanted output's variance
    variance = float((y - y.mean(dim=[0, *range(2, y.dim())], keepdim=True)).square().mean())
    assert searched.error == pytest.approx(missed(searched.weights) / variance, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("pictures", "noise"), [(400, 0.0), (4, 0.0), (4, 1.0), (30, 3.0)])
def test_the_ridge_of_the_last_step_is_the_one_that_serves_other_pictures(monkeypatch, form, pictures, noise):
    conv = LAYERS["dense"]
    rank = (4, 4) if form == "tucker" else 2 if form in ("depthwise", "blueprint") else 8

    x, weight, _ = _layer(conv, pictures + 60)
    seen = 0.8 * x + 0.1 * x.roll(1, 1)  # the converted network before this layer, off in a way to be undone
    y = _run(conv, x, weight)
    y = y + noise * y.std() * torch.randn_like(y)
    total = MomentSum(conv, "zeros", 12)
    total.add(seen[60:], y[60:])
    moments, groups = total.moments(), [s.groups for s in FORMS[form].steps(conv, rank)]

    def missed(ridges: tuple[float, ...]) -> float:
        monkeypatch.setattr(fit, "RIDGES", ridges)
        fitted = LayerFit(conv, weight, moments).fit(form, rank)
        return float((_run(conv, seen[:60], compose(fitted.weights, groups), fitted.bias) - y[:60]).square().mean())

    chosen, fixed = missed(fit.RIDGES), [missed((ridge,)) for ridge in fit.RIDGES]
    assert chosen < 1.1 * min(fixed)
    assert chosen < max(fixed)


def test_the_last_step_is_the_least_squares_answer():
    conv = LAYERS["dense"]
    x, weight, _ = _layer(conv)
    seen = x + 0.3 * torch.randn_like(x)  # what the converted network would feed it
    y = _run(conv, x, weight)
    moments = _moments(conv, seen, y)
    fitted = LayerFit(conv, weight, moments, ridge=1e-12).fit("depthwise", 2)
    middle = _run(ConvShape(6, 12, conv.geometry, 6), seen, fitted.weights[0])
    rows = torch.cat([middle, torch.ones_like(middle[:, :1])], 1).transpose(0, 1).flatten(1).T
    best = torch.linalg.lstsq(rows, y.transpose(0, 1).flatten(1).T).solution.T
    torch.testing.assert_close(fitted.weights[1].flatten(1), best[:, :-1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fitted.bias, best[:, -1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_large_layers_are_fitted_in_single_precision_with_the_same_answer(monkeypatch, form):
    conv = LAYERS["dense"]
    x, weight, y = _layer(conv)
    rank = (4, 4) if form == "tucker" else 2 if form in ("depthwise", "blueprint") else 8
    moments = _moments(conv, x, y)
    fits = []
    for limit in (fit.LARGE, 0):
        monkeypatch.setattr(fit, "LARGE", limit)
        fits.append(LayerFit(conv, weight, moments).fit(form, rank, 3))
    double, single = fits
    steps = [s.groups for s in FORMS[form].steps(conv, rank)]
    one, other = compose(double.weights, steps), compose(single.weights, steps)
    assert 0 < float((one - other).norm() / one.norm()) < 1e-3
    assert single.error == pytest.approx(double.error, rel=1e-3, abs=1e-5)


def test_a_fit_leaves_the_moments_as_they_were():
    conv = LAYERS["grouped"]
    x, weight, y = _layer(conv)
    moments = _moments(conv, x, y)
    before = moments.gram.clone(), moments.cross.clone()
    first, second = (LayerFit(conv, weight, moments).fit("spatial", 3, 2) for _ in range(2))
    assert torch.equal(before[0], moments.gram)
    assert torch.equal(before[1], moments.cross)
    assert all(torch.equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))


def test_halves_add_up_to_the_whole_and_nothing_depends_on_how_samples_come():
    conv = LAYERS["grouped"]
    x, _, y = _layer(conv, pictures=7)
    moments = _moments(conv, x, y)
    halves = moments.halves
    assert halves is not None
    assert [half.share for half in halves] == pytest.approx([4 / 7, 3 / 7])
    for name in ("gram", "cross"):
        torch.testing.assert_close(sum(h.share * getattr(h, name) for h in halves), getattr(moments, name))
    one_by_one, alone = MomentSum(conv, "zeros", 10**6), MomentSum(conv, "zeros", 10**6, halves=False)
    for a, b in zip(x, y, strict=True):
        one_by_one.add(a[None], b[None])
        alone.add(a[None], b[None])
    again = one_by_one.moments()
    assert again.halves is not None
    torch.testing.assert_close(again.gram, moments.gram)
    torch.testing.assert_close(again.halves[1].cross, halves[1].cross)
    assert not torch.allclose(halves[0].gram, halves[1].gram)
    assert alone.moments().halves is None


@pytest.mark.parametrize("weighed", [False, True], ids=["all outputs alike", "by a metric"])
def test_a_pointwise_layer_gets_the_best_chain_of_its_rank(weighed):
    """Against least squares cut at the rank (reduced-rank regression), from inputs that are not the dense network's."""
    conv, rank = ConvShape(12, 10, Geometry.of((1, 1))), 4
    weight, x = torch.randn(10, 12, 1, 1), torch.randn(20, 12, 8, 8)
    seen = F.conv2d(x, torch.randn(12, 12, 1, 1)) + 0.5 * torch.randn_like(x)
    half = torch.randn(1, 10, 10, dtype=torch.float64)
    metric = half @ half.mT + 0.1 * torch.eye(10, dtype=torch.float64) if weighed else None
    total = MomentSum(conv, "zeros", 64, halves=False)
    total.add(seen, F.conv2d(x, weight))
    moments = total.moments()
    found = LayerFit(conv, weight, moments, metric, 1e-9).fit("tucker", (rank, rank), iterations=8)
    root = torch.eye(10, dtype=torch.float64) if metric is None else torch.linalg.cholesky(metric[0]).mT
    whiten = torch.linalg.cholesky(moments.gram[0])
    wanted = root @ torch.linalg.solve_triangular(whiten, moments.cross[0].mT, upper=False).mT
    left, values, right = torch.linalg.svd(wanted, full_matrices=False)
    best = left[:, :rank] * values[:rank] @ right[:rank]
    dense = compose(found.weights, [1, 1, 1]).flatten(1)
    assert (root @ dense @ whiten - best).norm() < 1e-4 * best.norm()
    nearest = compose(FORMS["tucker"].factor(weight.double(), 1, (rank, rank)), [1, 1, 1]).flatten(1)
    assert (root @ nearest @ whiten - best).norm() > 0.1 * best.norm()
