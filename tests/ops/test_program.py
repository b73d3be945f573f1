"""Programs against the same steps one at a time, and what they refuse."""

import gc
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepwise.errors import ShapeError
from sepwise.geometry import Geometry
from sepwise.ops import fused_block, native
from sepwise.ops.program import Layer, Program, Step
from sepwise.ops.separable_conv2d.schema import operators

pytestmark = pytest.mark.skipif(native.PROBLEM is not None, reason=native.PROBLEM or "")


def seeded(*size: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def pointwise(channels: int, out: int, seed: int = 1, **options) -> Layer:
    dtype = options.pop("dtype", torch.float32)
    weights = {"pointwise": seeded(out, channels, 1, 1, seed=seed, dtype=dtype) / channels**0.5}
    return Layer({**weights, "bias": seeded(out, seed=seed + 1, dtype=dtype)}, **options)


def pair(channels: int, out: int, stride: int = 1, seed: int = 3, dtype: torch.dtype = torch.float32) -> Layer:
    weights = {
        "depthwise": seeded(channels, 1, 3, 3, seed=seed, dtype=dtype) / 3,
        "pointwise": seeded(out, channels, 1, 1, seed=seed + 1, dtype=dtype) / channels**0.5,
        "bias": seeded(out, seed=seed + 2, dtype=dtype),
    }
    return Layer(weights, Geometry.of((3, 3), stride, "same"), between="relu6", activation="hardswish")


def inverted(channels: int, wide: int, epsilon: float | None = None, seed: int = 9) -> Layer:
    weights = {
        "expand": seeded(wide, channels, 1, 1, seed=seed) / channels**0.5,
        "expand_bias": seeded(wide, seed=seed + 1),
        "depthwise": seeded(wide, 1, 3, 3, seed=seed + 2) / 3,
        "depthwise_bias": seeded(wide, seed=seed + 3),
        "pointwise": seeded(channels, wide, 1, 1, seed=seed + 4) / wide**0.5,
    }
    return Layer(weights, Geometry.of((3, 3), 1, 1), "relu6", "silu", epsilon)


def dense(channels: int, out: int, seed: int = 20) -> Layer:
    weights = {"pointwise": seeded(out, channels, 3, 3, seed=seed) / 3, "bias": seeded(out, seed=seed + 1)}
    return Layer(weights, Geometry.of((3, 3), 2, 1), activation="relu")


def one_at_a_time(given: list[Tensor], steps: list[Step]) -> list[Tensor]:
    """The values of all steps, by `fused_block` and by PyTorch's mean, products and convolutions."""
    values = list(given)
    for step in steps:
        x, layer = values[step.source], step.layer
        if step.gate >= 0:
            x = x * values[step.gate]
        if layer is None:
            values.append(x if step.gate >= 0 else x.float().mean((2, 3), keepdim=True).to(x.dtype))
            continue
        options: dict[str, Any] = {**layer.weights}
        widening, wide = layer.widening, layer.expand_geometry
        if wide is not None:
            expand = {"pointwise": options.pop("expand"), "bias": options.pop("expand_bias", None)}
            x = fused_block(x, **expand, activation=layer.widening, geometry=wide)
            widening = None
        pointwise = options.pop("pointwise", None)
        if pointwise is None:  # the same numbers
            pointwise = torch.eye(options["depthwise"].shape[0], dtype=x.dtype)[:, :, None, None]
        values.append(
            fused_block(
                x,
                pointwise,
                residual=values[step.residual] if step.residual >= 0 else None,
                widening=widening,
                between=layer.between,
                epsilon=layer.epsilon,
                activation=layer.activation,
                geometry=layer.geometry,
                **options,
            )
        )
    return values


def network(dtype: torch.dtype = torch.float32) -> list[Step]:
    """Shortcuts over one and over many steps, a stride, a branch, the mean, a classifier: from (N, 5, H, W)."""
    return [
        Step(0, layer=pair(5, 40, dtype=dtype)),  # 1
        Step(1, layer=pair(40, 24, stride=2, dtype=dtype)),  # 2
        Step(2, layer=pair(24, 24, dtype=dtype), residual=2),  # 3
        Step(3, layer=pointwise(24, 70, dtype=dtype, activation="gelu")),  # 4
        Step(4, layer=pair(70, 24, dtype=dtype), residual=2),  # 5
        Step(3, layer=pointwise(24, 24, dtype=dtype), residual=5),  # 6
        Step(6),  # 7
        Step(7, layer=pointwise(24, 11, dtype=dtype)),  # 8
    ]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [(1, 9, 14), (3, 32, 33)], ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
def test_the_same_as_one_step_at_a_time(size, dtype, bound, threads):
    batch, height, width = size
    x, steps = seeded(batch, 5, height, width, dtype=dtype), network(dtype)
    torch.set_num_threads(threads)
    wanted = one_at_a_time([x], steps)
    for returned in ([8], [3, 5, 8], [7], [6, 1]):  # what is returned does not lie among the rest
        found = Program([x], steps, returned)([x])
        for y, value in zip(found, returned, strict=True):
            torch.testing.assert_close(y, wanted[value], rtol=bound, atol=bound)
            assert y.is_contiguous(memory_format=torch.channels_last)


def test_every_kind_of_layer_and_two_tensors_given():
    given = [seeded(2, 6, 11, 10), seeded(2, 6, 11, 10, seed=5)]
    steps = [
        Step(0, 1, inverted(6, 36)),
        Step(2, 0, inverted(6, 36, epsilon=1e-3)),
        Step(3, -1, dense(6, 9)),
        Step(4, -1, pointwise(9, 9, epsilon=1e-5)),
    ]
    wanted = one_at_a_time(given, steps)
    for y, value in zip(Program(given, steps, [2, 3, 4, 5])(given), [2, 3, 4, 5], strict=True):
        torch.testing.assert_close(y, wanted[value], rtol=1e-6, atol=1e-6)


def chain(channels: int, wide: int, out: int, first: tuple[int, int], second: tuple[int, int], **options: Any) -> Layer:
    """Two dense convolutions, each padded such that the size stays."""
    dtype = options.pop("dtype", torch.float32)
    weights = {
        "expand": seeded(wide, channels, *first, seed=50, dtype=dtype) / (channels * prod(first)) ** 0.5,
        "expand_bias": seeded(wide, seed=51, dtype=dtype),
        "pointwise": seeded(out, wide, *second, seed=52, dtype=dtype) / (wide * prod(second)) ** 0.5,
        "bias": seeded(out, seed=53, dtype=dtype),
    }
    geometry = Geometry.of(second, options.pop("stride", 1), "same")
    return Layer(weights, geometry, "relu", expand_geometry=Geometry.of(first, 1, "same"), **options)


@pytest.mark.parametrize("size", [(1, 9, 50), (3, 4, 11), (2, 40, 300)], ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
def test_two_dense_convolutions_in_one_step(size, dtype, bound):
    batch, height, width = size
    x = seeded(batch, 5, height, width, dtype=dtype)
    steps = [
        Step(0, layer=chain(5, 64, 16, (1, 3), (3, 1), dtype=dtype)),
        Step(1, layer=chain(16, 40, 16, (4, 2), (2, 5), activation="silu", dtype=dtype), residual=1),
        Step(2, layer=chain(16, 70, 9, (3, 3), (3, 3), stride=2, dtype=dtype)),
    ]
    wanted = one_at_a_time([x], steps)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found = Program([x], steps, [1, 2, 3])([x])
        for y, value in zip(found, [1, 2, 3], strict=True):
            torch.testing.assert_close(y, wanted[value], rtol=bound, atol=bound)


@pytest.mark.parametrize(
    "geometry", [Geometry.of((3, 3), 2, 1), Geometry.of((3, 3), (1, 2), ((0, 2), (4, 0)))], ids=str
)
@pytest.mark.parametrize("second", ["dense", "depthwise"])
def test_a_stem_in_one_step_with_what_follows(geometry, second):
    x, layer = seeded(2, 5, 17, 60), chain(5, 24, 9, (3, 3), (3, 3), stride=2)
    if second == "depthwise":
        weights = {"depthwise": seeded(24, 1, 3, 3, seed=60), "pointwise": seeded(9, 24, 1, 1, seed=61)}
        layer = replace(layer, weights={**layer.weights, **weights}, between="silu")
    steps = [Step(0, layer=replace(layer, expand_geometry=geometry))]
    torch.testing.assert_close(Program([x], steps, [1])([x])[0], one_at_a_time([x], steps)[1], rtol=1e-5, atol=1e-5)


def test_what_expands_is_of_its_geometry():
    layer = chain(5, 8, 4, (3, 3), (3, 1))
    with pytest.raises(ShapeError, match=r"expand is \(8, 5, 3, 3\); its geometry has a kernel of \(1, 1\)"):
        Program([seeded(1, 5, 9, 9)], [Step(0, layer=replace(layer, expand_geometry=None))], [1])


def test_a_kernel_larger_than_its_picture_expands_nothing():
    layer, x = chain(5, 8, 4, (3, 3), (3, 1)), seeded(1, 5, 2, 9)
    with pytest.raises((RuntimeError, ShapeError), match="would be empty"):
        Program([x], [Step(0, layer=replace(layer, expand_geometry=Geometry.of((3, 3))))], [1])


@pytest.mark.parametrize("size", [(6, 7), (20, 40)], ids=str)
@pytest.mark.parametrize("kernel", [(3, 1), (1, 3), (3, 3)], ids=str)
def test_long_sums_in_parts(size, kernel):
    """More than 192 products each: no worse than what stock PyTorch makes of them."""
    x, weight = seeded(1, 300, *size), seeded(33, 300, *kernel, seed=7)
    layer = Layer({"pointwise": weight}, Geometry.of(kernel, 1, "same"))
    truth = F.conv2d(x.double(), weight.double(), padding="same")
    ours, stock = Program([x], [Step(0, layer=layer)], [1])([x])[0], F.conv2d(x, weight, padding="same")
    assert (ours - truth).norm() < 1.5 * (stock - truth).norm()


def bare(
    channels: int, expanded: int = 0, seed: int = 30, dtype: torch.dtype = torch.float32, stride: int = 1
) -> Layer:
    weights = {
        "depthwise": seeded(channels, 1, 5, 5, seed=seed, dtype=dtype) / 5,
        "depthwise_bias": seeded(channels, seed=seed + 1, dtype=dtype),
    }
    if expanded:
        weights |= {"expand": seeded(channels, expanded, 1, 1, seed=seed + 2, dtype=dtype) / expanded**0.5}
    return Layer(weights, Geometry.of((5, 5), stride, 2), "relu6" if expanded else None, "hardswish")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [(1, 9, 14), (3, 32, 33)], ids=str)
@pytest.mark.parametrize("channels", [5, 32, 70])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
def test_squeezed_and_excited(size, channels, dtype, bound, threads):
    batch, height, width = size
    x = seeded(batch, 6, height, width, dtype=dtype)
    steps = [
        Step(0, layer=bare(channels, 6, dtype=dtype, stride=2)),  # 1
        Step(1),  # 2
        Step(2, layer=pointwise(channels, 9, dtype=dtype, activation="relu")),  # 3
        Step(3, layer=pointwise(9, channels, dtype=dtype, activation="sigmoid")),  # 4
        Step(1, layer=pointwise(channels, 40, dtype=dtype), gate=4),  # 5
        Step(5, layer=bare(40, dtype=dtype)),  # 6
        Step(6),  # 7
        Step(7, layer=pointwise(40, 40, dtype=dtype, activation="hardsigmoid")),  # 8
        Step(6, gate=8),  # 9
        Step(6, 5, pointwise(40, 40, dtype=dtype), 8),  # 10
    ]
    torch.set_num_threads(threads)
    wanted = one_at_a_time([x], steps)
    for returned in ([10, 9], [1, 6], [9, 4], [5]):
        found = Program([x], steps, returned)([x])
        for y, value in zip(found, returned, strict=True):
            torch.testing.assert_close(y, wanted[value], rtol=bound, atol=bound * float(wanted[value].abs().max()))


def test_the_mean_is_as_exact_as_that_of_pytorch():
    x = seeded(2, 300, 57, 61) + 100
    truth = x.double().mean((2, 3), keepdim=True)
    error = (Program([x], [Step(0)], [1])([x])[0] - truth).abs().max()
    assert error <= 2 * (x.mean((2, 3), keepdim=True) - truth).abs().max() + 1e-5
    low = x.bfloat16()
    assert torch.equal(Program([low], [Step(0)], [1])([low])[0], low.float().mean((2, 3), keepdim=True).bfloat16())


def test_any_memory_format_is_taken():
    x = seeded(1, 5, 9, 14)
    program = Program([x], network(), [8])
    assert torch.equal(program([x.contiguous()])[0], program([x])[0])


def test_random_graphs_never_mix_up_their_memory():
    random = torch.Generator().manual_seed(3)

    def below(most: int) -> int:
        return int(torch.randint(most, (1,), generator=random))

    x = seeded(1, 4, 6, 5)
    for _ in range(40):
        steps = []
        for s in range(1 + below(12)):
            layer = pair(4, 4, seed=below(1000)) if below(2) else inverted(4, 20, seed=below(1000))
            steps.append(Step(below(s + 1), below(s + 2) - 1, layer))
        returned = [*{1 + below(len(steps)) for _ in range(1 + below(3))}]
        wanted = one_at_a_time([x], steps)
        for y, value in zip(Program([x], steps, returned)([x]), returned, strict=True):
            torch.testing.assert_close(y, wanted[value], rtol=1e-5, atol=1e-5 * float(wanted[value].abs().max()))


def test_weights_that_changed_unseen_are_noticed():
    layer, x = pointwise(5, 70), seeded(1, 5, 3, 3)
    program = Program([x], [Step(0, layer=layer)], [1])
    assert len(program([x])) == 1
    weight = layer.weights["pointwise"]
    assert weight is not None
    weight.numpy()[:] *= 2  # which PyTorch does not count
    assert program([x]) == []


def test_what_does_not_fit_is_refused():
    x, layer = seeded(1, 5, 6, 6), pair(5, 8)
    program = Program([x], [Step(0, layer=layer)], [1])
    with pytest.raises(RuntimeError, match="another size or dtype"):
        program([seeded(1, 5, 7, 6)])
    with pytest.raises(RuntimeError, match="another size or dtype"):
        program([x.bfloat16()])
    with pytest.raises(RuntimeError, match="expected 1 tensors"):
        program([x, x])
    with pytest.raises(RuntimeError, match="a residual must have the size"):
        Program([x], [Step(0, layer=layer, residual=0)], [1])
    with pytest.raises(RuntimeError, match="nothing is added without a pointwise step"):
        Program([seeded(1, 7, 6, 6)], [Step(0, 0, bare(7))], [1])
    with pytest.raises(RuntimeError, match="nor gated before another one"):
        Program([x, seeded(1, 5, 1, 1)], [Step(0, -1, layer, 1)], [2])
    with pytest.raises(RuntimeError, match="a gate must have one number for each channel"):
        Program([x, seeded(1, 4, 1, 1)], [Step(0, -1, pointwise(5, 3), 1)], [2])
    with pytest.raises(RuntimeError, match="one filter for each channel"):
        Program([seeded(1, 7, 6, 6)], [Step(0, layer=replace(bare(7), activation="relu"))], [1])
    with pytest.raises(RuntimeError, match="what is pooled has no weights"):
        Program([x], [Step(0, layer=Layer({"pointwise": seeded(5, 5, 1, 1)}, Geometry.of((2, 2)), pooled=True))], [1])
    with pytest.raises(RuntimeError, match="only results of steps"):
        Program([x], [Step(0, layer=layer)], [0])
    with pytest.raises(RuntimeError, match="not there yet"):
        operators.make_program([x], [], [], [1, -1, 0], [], [1], [])
    with pytest.raises(RuntimeError, match="end too early"):
        operators.make_program([x], [], [], [0, -1], [], [1], [])


def test_a_program_that_nobody_holds_is_gone():
    x = seeded(1, 5, 6, 6)
    program = Program([x], [Step(0)], [1])
    number = program._number
    del program
    gc.collect()
    with pytest.raises(RuntimeError, match="there is no program"):
        operators.run_program([x], number)


def test_a_program_that_goes_while_somebody_traces_is_no_part_of_the_trace():
    class Forgetful(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            programs.clear()
            gc.collect()
            return y * 2

    x = seeded(2, 4, 5, 5)
    programs = [Program([x], [Step(0, layer=pointwise(4, 6))], [1])]
    number = programs[0]._number
    exported = torch.export.export(Forgetful(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.aten.mul.Tensor]
    with pytest.raises(RuntimeError, match="there is no program"):
        operators.run_program([x], number)
