"""FractalNet: its depth, the mean of all columns, both ways of dropping paths, the separable twin."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from twins import counted

from sepwise import zoo
from sepwise.errors import ShapeError
from sepwise.nn import SeparableConv2d
from sepwise.zoo.fractalnet import FractalBlock


def block(columns=3, drop_path=0.15, channels=4, **options) -> FractalBlock:
    options = {"separable": False, "opens": False, "dropout": 0.0} | options
    return FractalBlock(channels, channels, columns, drop_path=drop_path, **options)


def blocks_of(model: nn.Module) -> list[FractalBlock]:
    return [m for m in model.modules() if isinstance(m, FractalBlock)]


def columns_of(fractal: FractalBlock) -> list[nn.Sequential]:
    return [column for column in fractal.columns if isinstance(column, nn.Sequential)]


class Depth(nn.Module):
    """Adds 1: a number that went through a path holds its length."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


@pytest.mark.parametrize(("columns", "blocks"), [(1, 1), (2, 3), (3, 5), (4, 2)])
def test_the_longest_path(columns, blocks):
    model = zoo.FractalNet((4,) * blocks, columns)
    assert model.depth == blocks * 2 ** (columns - 1)
    assert [len(column) for column in columns_of(blocks_of(model)[0])] == [2**k for k in range(columns)]


def test_one_column_alone_is_as_deep_as_it_has_units():
    fractal = block(columns=4)
    for column in columns_of(fractal):
        for index in range(len(column)):
            column[index] = Depth()
    assert [fractal(torch.zeros(()), k).item() for k in range(4)] == [1, 2, 4, 8]


def joined_by_the_rule(branches: list[list[nn.Module]], x: Tensor) -> Tensor:
    """f_C by the recursion of the paper: the inner fractal twice, then a join with one unit more."""

    def ends(columns: int, skipped: dict[int, int], x: Tensor) -> list[Tensor]:
        unit = branches[len(branches) - columns][skipped.setdefault(columns, 0)]
        skipped[columns] += 1
        short = unit(x)
        if columns == 1:
            return [short]
        middle = torch.stack(ends(columns - 1, skipped, x)).mean(0)
        return [short, *ends(columns - 1, skipped, middle)]

    return torch.stack(ends(len(branches), {}, x)).mean(0)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@torch.no_grad()
def test_evaluation_is_the_mean_of_all_columns(columns):
    fractal, x = block(columns).eval().double(), torch.randn(2, 4, 6, 6).double()
    assert_close(fractal(x), joined_by_the_rule([list(column) for column in columns_of(fractal)], x))
    assert torch.equal(fractal(x), fractal(x))


@torch.no_grad()
def test_evaluation_is_deterministic_and_training_is_not():
    model, x = zoo.fractalnet_cifar(width=0.125), torch.randn(2, 3, 32, 32)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    outputs = torch.stack([model(x) for _ in range(8)])
    assert (outputs.std(0) > 0).all()


def test_alone_only_one_column_gets_gradients(monkeypatch):
    model, x = zoo.fractalnet_cifar(width=0.125), torch.randn(4, 3, 32, 32)
    for drawn in range(3):
        monkeypatch.setattr(model, "drawn_column", lambda drawn=drawn: drawn)
        model.zero_grad(set_to_none=True)
        model(x).sum().backward()
        for fractal in blocks_of(model):
            for k, column in enumerate(columns_of(fractal)):
                assert all((p.grad is not None) == (k == drawn) for p in column.parameters())


def test_columns_are_drawn_evenly_for_half_of_the_batches():
    model = zoo.FractalNet((4,), columns=3)
    drawn = [model.drawn_column() for _ in range(3000)]
    shares = [drawn.count(k) / len(drawn) for k in (None, 0, 1, 2)]
    assert shares == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.03)
    assert zoo.FractalNet((4,), alone=0.0).drawn_column() is None
    assert zoo.FractalNet((4,), columns=1, alone=1.0).drawn_column() == 0


def test_joins_drop_inputs_but_never_all():
    inputs = [torch.full((1,), float(2**k)) for k in range(3)]
    for chance in (0.15, 0.999):
        fractal = block(drop_path=chance)
        means = [fractal.join(inputs).item() for _ in range(2000)]
        possible = {1.0, 2.0, 4.0, 1.5, 2.5, 3.0, 7 / 3}
        assert {round(m, 4) for m in means} <= {round(p, 4) for p in possible}
        whole = sum(m == pytest.approx(7 / 3) for m in means) / len(means)
        assert whole == pytest.approx((1 - chance) ** 3, abs=0.04)
    alone = [sum(m == value for m in means) / len(means) for value in (1.0, 2.0, 4.0)]
    assert alone == pytest.approx([1 / 3] * 3, abs=0.05)
    assert fractal.eval().join(inputs).item() == pytest.approx(7 / 3)


def test_dropout_grows_from_block_to_block():
    model = zoo.fractalnet_cifar(width=0.125)
    rates = [[m.p for m in fractal.modules() if isinstance(m, nn.Dropout)] for fractal in blocks_of(model)]
    assert rates == [[]] + [pytest.approx([rate] * 7) for rate in (0.1, 0.2, 0.3, 0.4)]
    kinds = [type(m).__name__ for m in columns_of(blocks_of(model)[1])[0][0].children()]
    assert kinds == ["Conv2d", "Dropout", "BatchNorm2d", "ReLU"]


def test_sizes():
    by_hand = sum(9 * (3 * i * o + 4 * o * o) + 7 * 2 * o for i, o in [(3, 64), (64, 128), (128, 256), (256, 512)])
    by_hand += 9 * 7 * 512 * 512 + 7 * 2 * 512 + 5130
    assert counted(zoo.fractalnet_cifar).parameters == by_hand == 33_724_618
    assert round(counted(zoo.fractalnet_cifar).macs / 1e6) == 845
    assert round(counted(zoo.fractalnet_cifar_separable).parameters / 1e6, 2) == 3.85
    quarter = counted(partial(zoo.fractalnet_cifar, width=0.25))
    assert quarter.parameters < counted(zoo.fractalnet_cifar).parameters / 15


def test_the_twin_is_separable_but_where_it_reads_the_picture():
    model = zoo.fractalnet_cifar_separable(width=0.125)
    assert [m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [3, 3, 3]
    assert sum(isinstance(m, SeparableConv2d) for m in model.modules()) == 5 * 7 - 3


def test_a_network_of_nothing_is_refused():
    for widths, columns in (((), 3), ((8,), 0)):
        with pytest.raises(ShapeError, match="expected one block and column or more"):
            zoo.FractalNet(widths, columns)
