"""`carried` and `redraw`: tensors of one block, and the block itself, as another block that is the same function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from ...errors import UnsupportedError
from ..layers import BlueprintConv2d
from .block import Block
from .drawing import Drawing
from .parallel import Parallel
from .simplified import GroupedInception
from .unit import ACTIVATIONS

B = TypeVar("B", bound=Block)
M = TypeVar("M", bound=nn.Module)

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d)  # each channel alone, whichever paths share them
PLAIN = (nn.Conv2d, nn.Identity, *ACTIVATIONS.values())
BLUEPRINT = {"mix.conv.weight": "pointwise", "spatial.weight": "depthwise", "spatial.bias": "bias"}


def carried(tensors: Mapping[str, Tensor], source: nn.Module, target: nn.Module) -> dict[str, Tensor]:
    """Named tensors of one block as those of another that is the same function: weights, gradients, averages of them.

    tensors    name -> tensor, all of a kind: `source.state_dict()`, or the gradient of each parameter
    returns    the same numbers under the names and in the shapes of `target`

    Numbers are moved, never changed, so that an optimizer that treats each alone (SGD, Adam, weight decay) takes the
    same steps on either side. Raises UnsupportedError when the blocks are of different families.

    >>> from sepwise.nn.blocks import SplitSum, as_separable
    >>> block = SplitSum(2, 3)
    >>> sorted(carried(dict(block.named_parameters()), block, as_separable(block)))
    ['conv.depthwise', 'conv.pointwise', 'norm.bias', 'norm.weight']
    """
    if family(source) is not family(target):
        raise UnsupportedError(f"{type(source).__name__} is not the same function as {type(target).__name__}")
    whole = source.join(tensors) if isinstance(source, Drawing) else dict(tensors)
    if isinstance(source, BlueprintConv2d):
        whole = {name: whole[ours] for name, ours in BLUEPRINT.items() if ours in whole}
    if isinstance(target, BlueprintConv2d):
        return {ours: whole[name] for name, ours in BLUEPRINT.items() if name in whole}
    return target.cut(whole) if isinstance(target, Drawing) else whole


def redraw(block: Block, drawing: type[B]) -> B:
    """A new block of the class `drawing` that computes what `block` computes; see `as_grouped` for what is refused."""
    whole = drawing.whole if issubclass(drawing, Drawing) else drawing
    if family(block) is not whole:
        raise UnsupportedError(
            f"{type(block).__name__} cannot be drawn as {drawing.__name__}: it computes another function; "
            "docs/blocks.md lists the drawings of each"
        )
    arguments = drawing.arguments_from(block)
    try:
        new = drawing(**arguments)
    except ValueError as error:  # torch's own: this norm cannot have so few channels
        raise UnsupportedError(f"{drawing.__name__}: its paths cannot have the norm of this block: {error}") from error
    _check_paths(block)
    _check_paths(new)
    _check_unchanged(block, new)
    return take(new, block)


def take(new: M, block: nn.Module) -> M:
    """`new` with the tensors, their dtype and device, and the flags of `block`."""
    flags = {p.requires_grad for p in block.parameters()}
    if len(flags) > 1 or any(m.training != block.training for m in block.modules()):
        raise UnsupportedError(
            f"{type(block).__name__}: only a part of it is frozen (requires_grad) or in training mode; set all of it "
            "alike and freeze the new block instead"
        )
    state = {name: tensor.clone() for name, tensor in carried(block.state_dict(), block, new).items()}
    if state.keys() != new.state_dict().keys():
        changed = sorted(state.keys() ^ new.state_dict().keys())
        raise UnsupportedError(f"{type(block).__name__} was changed after it was made: {', '.join(changed)}")
    new.load_state_dict(state, assign=True)
    return new.train(block.training).requires_grad_(flags != {False})


def family(block: nn.Module) -> type[nn.Module]:
    """The class of the block with the fewest operations that computes the same."""
    if isinstance(block, BlueprintConv2d):
        return GroupedInception
    return block.whole if isinstance(block, Drawing) else type(block)


def _check_paths(block: Block) -> None:
    """Refuse what makes separate paths another function than one convolution: a norm that sees several channels."""
    for paths in (m for m in block.modules() if isinstance(m, Parallel)):
        for leaf in (m for m in paths.modules() if not [*m.children()]):
            if type(leaf) not in (*NORMS, *PLAIN):
                raise UnsupportedError(
                    f"{type(block).__name__}: a {type(leaf).__name__} stands in its paths; the drawings are one "
                    f"function only where it treats each channel alone, as {', '.join(n.__name__ for n in NORMS)} do"
                )


def _check_unchanged(block: Block, new: Block) -> None:
    """Refuse a block whose norms are not those it would be made with again."""
    found, made = _settings(block), _settings(new)
    if found != made:
        raise UnsupportedError(
            f"{type(block).__name__}: its norms were changed after it was made: {', '.join(sorted(found))}; expected "
            f"{', '.join(sorted(made))}"
        )


def _settings(block: Block) -> set[str]:
    """Each kind of norm, with its settings but without its number of channels."""
    norms = [m for name, m in block.named_modules() if name.endswith("norm") and type(m) is not nn.Identity]
    return {f"{type(m).__name__}({m.extra_repr().partition(', ')[2]})" for m in norms}
