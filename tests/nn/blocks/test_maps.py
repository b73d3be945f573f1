"""Blocks that are one function: outputs and gradients alike to the last digits, and the maps there and back exact."""

from functools import partial
from typing import Any

import pytest
import torch
from same_functions import CASES, PAIRS, Case, Pair, difference, largest
from torch import Tensor, nn

from sepwise.errors import UnsupportedError
from sepwise.nn import BlueprintConv2d, blocks
from sepwise.nn.blocks import carried
from sepwise.nn.blocks.drawing import Drawing

TOLERANCE = 1e-12
FAR = 1e6 * TOLERANCE

NOT_THE_FIRST = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)

by_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)
by_case = pytest.mark.parametrize("case", CASES, ids=str)


def picture(case: Case) -> Tensor:
    return torch.randn(2, case.in_channels, 7, 6, dtype=torch.float64)


@by_pair
@by_case
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_one_function(pair: Pair, case: Case, training: bool) -> None:
    """Outputs, running statistics, and gradients of the input and of every weight, both ways."""
    block, x = pair.block(case).train(training), picture(case)
    twin = pair.there(block)
    assert {m.training for m in twin.modules()} == {training}
    assert max(difference(block, twin, x)) <= TOLERANCE
    returned = pair.back(twin)
    assert isinstance(returned, type(block))
    assert max(difference(twin, returned, x)) <= TOLERANCE


@by_pair
@by_case
def test_a_planted_fault_is_seen(pair: Pair, case: Case) -> None:
    """One output channel of any one weight set to zero, or exchanged with the next, changes outputs and gradients."""
    block, x = pair.block(case).eval(), picture(case)
    weights = [name for name, p in pair.there(block).named_parameters() if p.dim() == 4]
    assert weights
    for name in weights:
        for fault in ("zeroed", "exchanged"):
            twin = pair.there(block)
            weight = twin.get_parameter(name)
            if fault == "exchanged" and len(weight) == 1:
                continue
            with torch.no_grad():
                weight[:2] = weight[:2].flip(0) if fault == "exchanged" else weight[:2] * NOT_THE_FIRST[: len(weight)]
            assert min(difference(block, twin, x)) >= FAR, (name, fault)


@by_pair
@by_case
def test_there_and_back_is_exact(pair: Pair, case: Case) -> None:
    block = pair.block(case)
    state, twin = block.state_dict(), pair.there(block)
    returned = pair.back(twin).state_dict()
    assert list(returned) == list(state)
    assert all(torch.equal(returned[name], state[name]) for name in state)
    assert twin.state_dict().keys() == carried(state, block, twin).keys()
    memory = {t.untyped_storage().data_ptr() for t in state.values()}
    assert not memory & {t.untyped_storage().data_ptr() for t in twin.state_dict().values()}


@by_pair
def test_training_takes_the_same_way(pair: Pair) -> None:
    """The maps move numbers, so that an optimizer that treats each number alone goes the same way in both."""
    case = CASES[0]
    block = pair.block(case).train()
    twin = pair.there(block)
    inputs = [picture(case) for _ in range(5)]
    for module in (block, twin):
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
        for x in inputs:
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()
    here, there = block.state_dict(), twin.state_dict()
    assert largest(carried(here, block, twin), there) <= 1e-9
    assert largest(here, pair.block(case).state_dict()) > 0.01


DRAWINGS = [b for b in vars(blocks).values() if isinstance(b, type) and issubclass(b, Drawing)]


def test_every_drawing_has_its_pair() -> None:
    assert len(DRAWINGS) == 9
    blocks_of_pairs = {type(m) for pair in PAIRS for m in (pair.block(CASES[0]), pair.there(pair.block(CASES[0])))}
    assert set(DRAWINGS) <= blocks_of_pairs
    assert {drawing.whole for drawing in DRAWINGS} <= blocks_of_pairs


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_the_same_seed_gives_the_same_function(drawing: Any) -> None:
    """So that networks of drawings begin alike, and differ by nothing but rounding."""
    torch.manual_seed(1)
    block = drawing(6, 12)
    after = torch.rand(1)
    torch.manual_seed(1)
    whole = drawing.whole(**block.arguments)
    assert torch.equal(torch.rand(1), after)
    assert largest(carried(block.state_dict(), block, whole), whole.state_dict()) == 0
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(block(x), whole(x))


def test_dtype_device_and_frozen_weights_are_kept() -> None:
    block = blocks.Hybrid(3, 4).bfloat16().requires_grad_(False)
    twin = blocks.as_separable(block)
    assert {t.dtype for t in twin.state_dict().values() if t.dim()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in blocks.as_separable(blocks.Hybrid(3, 4)).parameters())
    assert {t.device.type for t in blocks.as_hybrid(twin.to("meta")).state_dict().values()} == {"meta"}


GROUPS, HALVES = partial(nn.GroupNorm, 1), partial(nn.GroupNorm, 2)
REFUSED = [
    (blocks.as_grouped, blocks.InceptionModule(4, 4), "InceptionModule has no grouped form"),
    (blocks.as_grouped, blocks.Hybrid(4, 4), "Hybrid has no grouped form; expected a drawing of GroupedBlock, Grouped"),
    (
        blocks.as_separable,
        blocks.ResNeXtModule(4, 4),
        "cannot be drawn as SeparableBlock: it computes another function",
    ),
    (blocks.as_split_sum, blocks.Hybrid(4, 4), r"SplitSum has no shortcut, which this Hybrid has \(identity=True\)"),
    (
        partial(blocks.from_grouped, drawing=blocks.ExtremeInception),
        blocks.GroupedInception(4, 8),
        "ExtremeInception has a segment for each channel; this GroupedInception has 4 segments of 8 channels for 8",
    ),
    (
        blocks.as_separable,
        blocks.Hybrid(4, 4, between_norm=GROUPS),
        "Hybrid: a GroupNorm stands in its paths; the drawings are one function only where it treats each channel",
    ),
    (blocks.as_hybrid, blocks.SeparableBlock(4, 4, between_norm=GROUPS), "Hybrid: a GroupNorm stands in its paths"),
    (
        blocks.as_hybrid,
        blocks.SeparableBlock(4, 4, between_norm=HALVES),
        "Hybrid: its paths cannot have the norm of this block: num_channels .* must be divisible by num_groups",
    ),
]


@pytest.mark.parametrize(("turn", "block", "sentence"), REFUSED)
def test_refusals(turn: Any, block: Any, sentence: str) -> None:
    with pytest.raises(UnsupportedError, match=sentence):
        turn(block)


def test_tensors_are_carried_between_one_function_only() -> None:
    with pytest.raises(UnsupportedError, match="SplitSum is not the same function as ResNeXtModule"):
        carried({}, blocks.SplitSum(4, 4), blocks.ResNeXtModule(4, 4))


def test_a_segment_for_each_channel_may_be_named() -> None:
    assert blocks.from_grouped(blocks.GroupedInception(4, 4, segments=4), blocks.ExtremeInception).segments == 4


def test_a_norm_after_the_paths_may_be_any() -> None:
    block = blocks.SplitSum(4, 6, norm=GROUPS).double()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    assert max(difference(block, blocks.as_separable(block), x)) <= TOLERANCE


def test_a_norm_between_that_mixes_channels_is_another_function() -> None:
    """What the refusal is for: with the same numbers, the drawings then give different answers."""
    whole = blocks.SeparableBlock(4, 6, between_norm=GROUPS)
    drawn = blocks.Hybrid(4, 6, between_norm=GROUPS, identity=False)
    drawn.load_state_dict(
        drawn.cut(whole.state_dict()) | {n: t for n, t in drawn.state_dict().items() if ".norm." in n}
    )
    x = torch.randn(2, 4, 5, 5)
    assert (whole(x) - drawn(x)).abs().max() > 0.1


def test_refused_when_changed_after_it_was_made() -> None:
    block = blocks.SplitSum(3, 4, between_norm="same")
    first: Any = block.paths[0]
    first.depthwise.norm.eps = 1e-3
    with pytest.raises(
        UnsupportedError, match=r"SplitSum: its norms were changed .*eps=0.001.*; expected BatchNorm2d\("
    ):
        blocks.as_separable(block)
    first.depthwise.norm.eps = 1e-5
    first.depthwise.norm.num_batches_tracked += 1
    with pytest.raises(
        UnsupportedError, match=r"its paths differ in conv.between_norm.num_batches_tracked \(1, 0, 0\)"
    ):
        blocks.as_separable(block)
    first.depthwise.norm.num_batches_tracked -= 1
    first.depthwise.norm.eval()
    with pytest.raises(UnsupportedError, match="only a part of it is frozen"):
        blocks.as_separable(block)
    first.depthwise.norm.train()
    first.pointwise.requires_grad_(False)
    with pytest.raises(UnsupportedError, match="only a part of it is frozen"):
        blocks.as_separable(block)
    block.requires_grad_(True)
    block.extra = nn.Conv2d(1, 1, 1)
    with pytest.raises(UnsupportedError, match=r"SplitSum was changed after it was made: extra.bias, extra.weight"):
        blocks.as_separable(block)


BARE: dict[str, Any] = {"between": None, "between_norm": None, "norm": None, "activation": None}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"between_norm": nn.BatchNorm2d}, "a norm stands between its steps; make it with between_norm=None"),
        ({"between": "relu"}, "an activation stands between its steps; make it with between=None"),
        ({"bias": True}, "a bias stands between its steps; make it without bias=True"),
        ({"norm": nn.BatchNorm2d}, "a norm stands after its steps; make it with norm=None"),
        ({"activation": "relu"}, "an activation stands after its steps; make it with activation=None"),
    ],
)
def test_what_is_no_blueprint(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UnsupportedError, match=f"as_blueprint: ExtremeInception is no BlueprintConv2d: {sentence}"):
        blocks.as_blueprint(blocks.ExtremeInception(4, 6, **BARE | changed))
    with pytest.raises(UnsupportedError, match="it has 2 segments for 6 output channels"):
        blocks.as_blueprint(blocks.GroupedInception(4, 6, segments=2))


@pytest.mark.parametrize(
    "layer",
    [
        BlueprintConv2d(4, 6, 2),
        BlueprintConv2d(4, 6, (3, 5), padding=(1, 2)),
        BlueprintConv2d(4, 6, 3),
        BlueprintConv2d(4, 6, 3, padding=2, dilation=2),
        BlueprintConv2d(4, 6, 3, padding=1, stride=(1, 2)),
        BlueprintConv2d(4, 6, 3, padding=1, groups=2),
        BlueprintConv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_blueprints_that_no_block_can_be(layer: BlueprintConv2d) -> None:
    with pytest.raises(UnsupportedError, match=r"from_blueprint: BlueprintConv2d\(4, 6.*: expected one odd kernel"):
        blocks.from_blueprint(layer)
