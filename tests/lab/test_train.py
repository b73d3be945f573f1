"""The one training loop: it learns, goes on after a stop to the same end, and says when it diverged."""

import dataclasses

import pytest
import torch
from torch import nn

from sepwise.errors import SepwiseError, WeightsError
from sepwise.lab import train as module
from sepwise.lab.data import Labelled, cifar10
from sepwise.lab.train import Training, error, predicted, train

HOW = Training(epochs=3, batch=32, rate=0.05)


@pytest.fixture(scope="module")
def pictures(colours) -> tuple[Labelled, Labelled]:
    return cifar10(str(colours))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_ten_colours(pictures):
    before = error(predicted(network(), pictures[1]), pictures[1])
    done = train(network(), pictures[0], dataclasses.replace(HOW, epochs=20, batch=16))
    assert before > 60
    assert error(predicted(done.network, pictures[1]), pictures[1]) < 20
    assert done.losses[-1] < done.losses[0] / 2
    assert not done.diverged
    assert not done.network.training


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_stopped_training_ends_as_one_that_was_not(pictures, tmp_path, monkeypatch, average):
    how = dataclasses.replace(HOW, average=average)
    whole = train(network(), pictures[0], how, seed=3)
    monkeypatch.setattr(module, "SAVED_EVERY", 0.0)
    path, steps = tmp_path / "state.pt", 0

    def stop(done: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 13:  # in the middle of the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network(), pictures[0], how, seed=3, checkpoint=path, progress=stop)
    assert path.exists()
    again = train(network(1), pictures[0], how, seed=3, checkpoint=path, progress=lambda done: None)
    assert again.losses == whole.losses
    assert same(again.network, whole.network)
    assert not same(train(network(), pictures[0], how, seed=4).network, whole.network)


def test_another_training_does_not_go_on_from_a_state(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVED_EVERY", 0.0)
    path = tmp_path / "state.pt"
    train(network(), pictures[0], HOW, checkpoint=path)
    with pytest.raises(WeightsError, match="belongs to another training"):
        train(network(), pictures[0], HOW, seed=1, checkpoint=path)
    path.write_bytes(b"torn")
    with pytest.raises(WeightsError, match="is no saved training of this version"):
        train(network(), pictures[0], HOW, checkpoint=path)


def test_a_loss_that_is_not_finite_is_said(pictures):
    done = train(network(), pictures[0], dataclasses.replace(HOW, rate=1e30, warm_up=0.0))
    assert done.diverged
    assert len(done.losses) < HOW.epochs or not torch.tensor(done.losses).isfinite().all()


def test_a_batch_larger_than_the_pictures_is_refused(pictures):
    with pytest.raises(SepwiseError, match="256 pictures do not fill one batch of 512"):
        train(network(), pictures[0], dataclasses.replace(HOW, batch=512))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("cosine", {0.0: 0.01, 0.025: 0.5, 0.05: 1.0, 0.525: 0.5, 1.0: 0.0}),
        ("line", {0.05: 1.0, 0.525: 0.5, 1.0: 0.0}),
        ("steps", {0.3: 1.0, 0.6: 0.1, 0.9: 0.01}),
    ],
)
def test_rates(schedule, rates):
    how = Training(epochs=1, rate=1.0, schedule=schedule)
    assert {done: pytest.approx(how.rate_at(done), abs=1e-12) for done in rates} == rates


def test_an_average_is_returned_where_it_is_asked_for(pictures):
    last = train(network(), pictures[0], HOW).network
    averaged = train(network(), pictures[0], dataclasses.replace(HOW, average=0.99)).network
    assert not same(last, averaged)
    start = network().state_dict()["0.weight"]
    assert (averaged.state_dict()["0.weight"] - start).norm() < (last.state_dict()["0.weight"] - start).norm()


def test_no_class_where_scores_are_not_finite(pictures):
    broken = network().eval()
    with torch.no_grad():
        broken.state_dict()["6.bias"][0] = torch.nan
    assert predicted(broken, pictures[1]).eq(-1).all()
    assert error(predicted(broken, pictures[1]), pictures[1]) == 100


def test_pictures_are_decoded_once_and_drawn_by_the_seed(colours, pictures, tmp_path, monkeypatch):
    kept = cifar10(str(colours), tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    monkeypatch.setattr("sepwise.lab.data.find_pictures", lambda path: pytest.fail("decoded again"))
    again = cifar10(str(colours), tmp_path)
    for read in (kept, again):
        assert torch.equal(read[0].images, pictures[0].images)
        assert torch.equal(read[1].labels, pictures[1].labels)
    some, other = pictures[0].some(10, 0), pictures[0].some(10, 1)
    assert len(some) == 10
    assert not torch.equal(some.images, other.images)
    assert torch.equal(some.images, pictures[0].some(10, 0).images)
    assert pictures[0].some(None, 0) is pictures[0]
