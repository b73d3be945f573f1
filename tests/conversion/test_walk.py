"""Two versions of a network side by side: what is shared, what is dropped, and what is refused."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import gc
import weakref

import pytest
import torch
from plain_networks import Branching, Joined, Optional, Residual, settle
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepwise.conversion.walk import Visit, outputs_of, rest_of, walk
from sepwise.errors import ModelError
from sepwise.graph.network import Network, trace

NETWORKS = {"residual": Residual, "joined": Joined, "exported": Branching, "optional": Optional}


def pictures(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 9, 9)


def followed(make, x: Tensor) -> tuple[nn.Module, Network]:
    model = settle(make())
    return model, trace(model, x)


def feeds_the_same(at: Visit) -> bool:
    """Whether the layer reads one and the same tensor in both networks."""
    return at.inputs[0] is at.values[at.site.node.all_input_nodes[0]]


class Scaled(nn.Module):
    """A dense layer whose answer is changed a little."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * 1.5 + 0.1


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_without_replacements_both_versions_are_one_object(make):
    x = pictures(5)
    model, network = followed(make, x)
    visited = []

    def visit(at: Visit) -> None:
        visited.append(at.site.name)
        assert feeds_the_same(at)
        assert [len(y) for y in at.outputs] == [2, 3]

    results = walk(network, [x[:2], x[2:]], visit)
    assert visited == [site.name for site in network.sites]
    with torch.no_grad():
        wanted = [outputs_of(model(x[:2])), outputs_of(model(x[2:]))]
    for result, tensors in zip(results, wanted, strict=True):
        torch.testing.assert_close(outputs_of(result.dense), tensors)
        for a, b in zip(pytree.tree_leaves(result.dense), pytree.tree_leaves(result.converted), strict=True):
            assert a is b


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_replaced_layer_changes_the_converted_version_only(make):
    x = pictures(5)
    model, network = followed(make, x)
    first = network.sites[0].name
    seen = {}

    def visit(at: Visit) -> nn.Module | None:
        seen[at.site.name] = feeds_the_same(at)
        return Scaled(network.conv(at.site)) if at.site.name == first else None

    results = walk(network, [x[:2], x[2:]], visit)
    assert seen[first], "before the first replaced layer the versions agree"
    with torch.no_grad():
        torch.testing.assert_close(outputs_of(results[1].dense), outputs_of(model(x[2:])))
        model.set_submodule(first, Scaled(model.get_submodule(first)))
        torch.testing.assert_close(outputs_of(results[1].converted), outputs_of(model(x[2:])))
        torch.testing.assert_close(outputs_of(network.model(x[2:])), outputs_of(model(x[2:])))
    assert not torch.allclose(outputs_of(results[1].dense)[0], outputs_of(results[1].converted)[0])


def test_branches_that_do_not_see_the_change_stay_shared():
    x = pictures()
    _, network = followed(Joined, x)
    seen = {}

    def visit(at: Visit) -> nn.Module | None:
        seen[at.site.name] = feeds_the_same(at)
        return Scaled(network.conv(at.site)) if at.site.name == "left" else None

    walk(network, [x], visit)
    assert seen == {"left": True, "right": True, "after": False, "small": False}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_rest_of_the_network_equals_the_whole_with_one_value_changed(make):
    x = pictures()
    model, network = followed(make, x)

    def visit(at: Visit) -> None:
        other = at.outputs[0] * 1.5 + 0.1
        found = [outputs_of(rest_of(network, at.site.node, other, at.values)) for _ in range(2)]
        unchanged = outputs_of(rest_of(network, at.site.node, at.outputs[0], at.values))
        changed = settle(make())
        changed.load_state_dict(model.state_dict())
        torch.testing.assert_close(unchanged, outputs_of(changed(x)))
        changed.set_submodule(at.site.name, Scaled(changed.get_submodule(at.site.name)))
        torch.testing.assert_close(found[0], outputs_of(changed(x)))
        torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)

    walk(network, [x], visit)


class OwnInPlace(nn.Module):
    """A layer of the user's, without convolutions inside, that writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(0.5)


def test_asking_for_the_rest_writes_into_nothing():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
            self.own = OwnInPlace()

        def forward(self, x):
            y = self.one(x)
            return self.two(x) + self.own(y)

    x = pictures()
    model, network = followed(Net, x)

    def visit(at: Visit) -> None:
        found = [rest_of(network, at.site.node, at.outputs[0], at.values) for _ in range(3)]
        torch.testing.assert_close(found[2], model(x))

    results = walk(network, [x], visit)
    with torch.no_grad():
        torch.testing.assert_close(results[0].dense, model(x))


def test_values_are_dropped_after_their_last_use():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(6)))
    network = trace(model)
    alive: list[weakref.ref] = []
    counts = []

    def visit(at: Visit) -> None:
        gc.collect()
        counts.append(sum(ref() is not None for ref in alive))
        alive.append(weakref.ref(at.outputs[0]))

    walk(network, [pictures()], visit)
    assert counts == [0, 1, 1, 1, 1, 1], "only the value that the layer reads is alive"


def test_between_layers_the_values_of_one_batch_are_alive():
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answers: list[weakref.ref] = []
            self.most = 0

        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            self.answers.append(weakref.ref(y))
            self.most = max(self.most, sum(ref() is not None for ref in self.answers))
            return y

    passing, last = Watched(), Watched()
    network = trace(nn.Sequential(nn.Conv2d(3, 3, 1), passing, nn.ReLU(), last, nn.Conv2d(3, 3, 1)))
    watched = [m for m in network.model.modules() if isinstance(m, Watched)]
    walk(network, list(pictures(5).split(1)), lambda at: None)
    assert [m.most for m in watched] == [1, 5]


def test_outputs_are_found_whatever_holds_them():
    a, b, integers = torch.ones(1), torch.zeros(2), torch.ones(1, dtype=torch.long)
    assert outputs_of({"x": (a, [integers, "name"]), "y": b}) == [a, b]


def test_in_place_modules_are_as_they_were_after_a_walk_that_stops():
    x = pictures()
    _, network = followed(Residual, x)

    def visit(at: Visit) -> None:
        assert network.model.relu.inplace is False
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk(network, [x], visit)
    assert network.model.relu.inplace is True


def test_pictures_that_the_network_cannot_take_are_refused_in_a_sentence():
    network = trace(settle(Residual()))
    with pytest.raises(ModelError, match=r"cannot run on these pictures: .*to have 3 channels.* \(at stem\)"):
        walk(network, [torch.randn(2, 5, 8, 8)], lambda at: None)
    with pytest.raises(ModelError, match="cannot run on these pictures"):
        trace(settle(Residual()), torch.randn(2, 5, 8, 8))


def test_a_model_of_two_inputs_is_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x, other):
            return self.conv(x) + other

    with pytest.raises(ModelError, match=r"more than one input \(other\)"):
        walk(trace(Two()), [pictures()], lambda at: None)
    with pytest.raises(ModelError, match=r"cannot run on these pictures: .*other"):
        trace(Two(), pictures())
