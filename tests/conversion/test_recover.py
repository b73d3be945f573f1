"""Recovery: the student comes nearer to its teacher, never leaves worse, and survives being killed."""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn

from sepwise.conversion import Choice, Plan, convert, recover
from sepwise.conversion.balance import balance
from sepwise.conversion.composed import composed, linear_layers
from sepwise.conversion.distillation import output_loss
from sepwise.errors import BudgetError, ModelError, ShapeError, WeightsError
from sepwise.nn import CPConv2d, SeparableConv2d, SpatialConv2d, layer_for
from sepwise.nn.dense import shape_of_dense

pytest.importorskip("lightning_fabric")


RATE = 1e-2  # small networks, few steps


def dense_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 5),
    ).eval()  # fmt: skip


def pictures(count=96, size=16, seed=0):
    torch.manual_seed(seed)
    return list(torch.randn(count, 3, size, size).split(16))


def converted(dense, batches=None):
    plan = Plan({name: Choice("depthwise", 1, "", 0, 0, 0, 0) for name in ("0", "3")}, batch_norm="keep")
    return convert(dense, plan, batches)


def same_state(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@torch.no_grad()
def lost(student, dense):
    x = torch.cat(pictures(seed=7))
    return float(output_loss(student(x), dense(x)))


def test_recovery_brings_the_student_nearer_and_leaves_both_networks_alone():
    dense = dense_network()
    student = converted(dense, pictures())
    before = [t.clone() for net in (dense, student) for t in net.state_dict().values()]
    better = recover(student, dense, pictures(), epochs=20, rate=RATE)
    assert lost(better, dense) < 0.6 * lost(student, dense)
    after = [t for net in (dense, student) for t in net.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert not better.training
    assert torch.equal(better[1].running_mean, dense[1].running_mean)


def test_a_recovery_that_goes_wrong_returns_what_it_got():
    dense = dense_network()
    student, seen = converted(dense, pictures()), []
    same = recover(student, dense, pictures(), epochs=2, rate=0.8, measured=lambda done, loss: seen.append(loss))
    if min(seen) < seen[0]:
        pytest.fail(f"a rate of 0.8 was expected to do harm, and the loss went {seen}")
    assert all(
        torch.equal(a, b) for a, b in zip(same.state_dict().values(), student.state_dict().values(), strict=True)
    )


def test_labels_pull_toward_themselves():
    dense, batches = dense_network(), pictures()
    labels = [torch.full((len(b),), 3) for b in batches]
    student = converted(dense, batches)

    def chosen(network):
        return float((network(torch.cat(batches)).argmax(1) == 3).double().mean())

    # Held-out pictures that are answered as labelled make the labels' state the best one.
    without = recover(student, dense, batches, epochs=8, rate=RATE)
    teacher = dense_network()
    teacher[7].bias.data[3] += 2.0
    toward = recover(student, teacher, batches, epochs=8, rate=RATE, labels=labels)
    assert chosen(toward) > 0.8 > chosen(without)


def test_features_are_compared_by_name():
    dense = dense_network()
    student = converted(dense, pictures())
    with_features = recover(student, dense, pictures(), epochs=8, rate=RATE, features=["4"])
    without = recover(student, dense, pictures(), epochs=8, rate=RATE)
    x = torch.cat(pictures(seed=7))
    with torch.no_grad():
        errors = [(net[:5](x) - dense[:5](x)).square().mean() for net in (with_features, without, student)]
    assert errors[0] < 0.98 * min(errors[1:])
    with pytest.raises(ModelError, match="no module 'nine'"):
        recover(student, dense, pictures(), epochs=1, features=["nine"])


def test_batches_of_many_sizes_and_maps():
    dense = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1), nn.Sigmoid()).eval()
    batches = [torch.randn(2, 3, s, s) for s in (12, 16, 20, 12, 16)]
    plan = Plan({"0": Choice("spatial", 2, "", 0, 0, 0, 0)})
    student = convert(dense, plan, batches)
    better = recover(student, dense, batches, epochs=10, rate=RATE, held_out=[torch.randn(4, 3, 16, 16)], augment=None)
    x = torch.randn(8, 3, 16, 16)
    assert output_loss(better(x), dense(x)) < output_loss(student(x), dense(x))


@pytest.mark.parametrize("given", [{}, {"epochs": 1, "minutes": 1}, {"epochs": 0}, {"minutes": float("nan")}])
def test_one_length_is_needed(given):
    dense = dense_network()
    with pytest.raises(BudgetError, match="expected one of them, above 0"):
        recover(dense, dense, pictures(), **given)


def test_pictures_and_labels_must_fit():
    dense = dense_network()
    with pytest.raises(ShapeError, match="expected one label for each picture"):
        recover(dense, dense, pictures(), epochs=1, labels=[torch.zeros(3)])
    with pytest.raises(ShapeError, match="no pictures"):
        recover(dense, dense, [], epochs=1)
    with pytest.raises(ShapeError, match="one picture only"):
        recover(dense, dense, [torch.zeros(1, 3, 8, 8)], epochs=1)


def test_minutes_end():
    dense = dense_network()
    start = time.monotonic()
    recover(converted(dense), dense, pictures(), minutes=0.03)
    assert 1.5 < time.monotonic() - start < 30


def test_a_finished_file_gives_the_same_network_again_and_a_strange_one_is_refused(tmp_path):
    dense = dense_network()
    student = converted(dense, pictures())
    path = tmp_path / "state.pt"
    first = recover(student, dense, pictures(), epochs=3, rate=RATE, checkpoint=path)
    seen = []
    again = recover(
        student, dense, pictures(), epochs=3, rate=RATE, checkpoint=path, measured=lambda *m: seen.append(m)
    )
    assert seen == []  # nothing was trained
    assert same_state(first, again)
    with pytest.raises(WeightsError, match="belongs to another recovery"):
        recover(student, dense, pictures(), epochs=3, rate=RATE, checkpoint=path, seed=1)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no saved recovery"):
        recover(student, dense, pictures(), epochs=3, rate=RATE, checkpoint=path)


KILLED = """
    import sys, torch
    sys.path.insert(0, {tests!r})
    from test_recover import RATE, converted, dense_network, pictures
    from sepwise.conversion import recover
    import sepwise.conversion.recovery as recovery
    recovery.SAVED_EVERY = 0.0
    recovery.composing_pays = lambda *_: True  # timed, so not the same each time
    torch.set_num_threads(1)
    dense = dense_network()
    better = recover(converted(dense, pictures()), dense, pictures(), epochs=30, rate=RATE, checkpoint={path!r})
    torch.save(better.state_dict(), {out!r})
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_end(tmp_path):
    def script(name):
        told = {"tests": os.path.dirname(__file__), "path": str(tmp_path / f"{name}.state")}
        return textwrap.dedent(KILLED.format(**told, out=str(tmp_path / f"{name}.pt")))

    subprocess.run([sys.executable, "-c", script("whole")], check=True, timeout=200)
    kills = 0
    for delay in (0.05, 0.3, 0.6):
        child = subprocess.Popen([sys.executable, "-c", script("killed")])
        while child.poll() is None and not (tmp_path / "killed.state").exists():
            time.sleep(0.01)
        time.sleep(delay)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
    assert kills
    subprocess.run([sys.executable, "-c", script("killed")], check=True, timeout=200)
    whole, killed = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("whole", "killed"))
    for name, value in whole.items():
        torch.testing.assert_close(killed[name], value, rtol=1e-3, atol=1e-4)


TOGETHER = """
    import sys, torch
    sys.path.insert(0, {tests!r})
    from test_recover import RATE, converted, dense_network, lost, pictures
    from sepwise.conversion import recover
    torch.set_num_threads(1)
    dense = dense_network()
    student = converted(dense, pictures())
    better = recover(student, dense, pictures(), epochs=20, rate=RATE)
    rank = torch.distributed.get_rank()
    torch.save((torch.distributed.get_world_size(), lost(student, dense), better.state_dict()), {out!r} + str(rank))
"""


def test_two_processes_train_one_network(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(textwrap.dedent(TOGETHER.format(tests=os.path.dirname(__file__), out=str(tmp_path / "rank"))))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(launch, check=True, timeout=200, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (size, start, first), (_, _, second) = (torch.load(tmp_path / f"rank{r}", weights_only=True) for r in (0, 1))
    assert size == 2
    assert all(torch.equal(first[name], second[name]) for name in first)
    dense = dense_network()
    better = converted(dense, pictures())
    better.load_state_dict(first)
    assert lost(better, dense) < 0.7 * start


@pytest.mark.parametrize(("form", "rank"), [("depthwise", 2), ("cp", 5), ("spatial", 3), ("tucker", (3, 4))])
@pytest.mark.parametrize("groups", [1, 2])
def test_balanced_steps_compute_the_same_function_on_one_scale(form, rank, groups):
    shape = shape_of_dense(nn.Conv2d(8, 12, 3, groups=groups))
    layer = layer_for(form, shape, rank, dtype=torch.float64)
    with torch.no_grad():
        layer.weights[0].mul_(100.0)
    before = layer.dense_weight().detach().clone()
    balance(nn.Sequential(layer))
    torch.testing.assert_close(layer.dense_weight(), before, rtol=1e-12, atol=1e-12)
    norms = torch.stack([w.norm() for w in layer.weights])
    assert norms.max() < 1.2 * norms.min()


def test_composed_layers_answer_and_learn_as_their_steps_do():
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(6, 6, 3, padding="same", groups=2)
    ).double()
    network[0] = CPConv2d.from_conv(network[0], 7)
    network[2] = SpatialConv2d.from_conv(network[2], 2)
    x, found = torch.randn(2, 4, 9, 9, dtype=torch.float64), []
    for way in (False, True):
        network.zero_grad()
        with composed(network, way):
            y = network(x)
            y.square().sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in network.parameters())])
    for plain, dense in zip(*found, strict=True):
        torch.testing.assert_close(dense, plain, rtol=1e-12, atol=1e-12)
    assert "forward" not in network[0].__dict__
    others = [SeparableConv2d(4, 4, 3, between="relu"), SeparableConv2d(4, 4, 3, activation="relu")]
    assert linear_layers(nn.Sequential(*others)) == []
