"""`sepwise explain`: the multiplications of a convolution and of its separable forms, with the numbers put in."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from ..errors import ShapeError
from .outcome import Outcome

if TYPE_CHECKING:
    from ..measure.explain import Account, ExplainedMatrix, Explanation

HELP = "count the multiplications of a convolution and of its separable forms, or separate one kernel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # A kernel may start with a minus sign; argparse would take "-1,0,1;..." for an option.
    parser._negative_number_matcher = re.compile(r"-[\d.]")
    parser.add_argument("--input", metavar="HxWxC", help="size of the input, channels last, such as 12x12x3")
    parser.add_argument("--kernel", metavar="KxK", help="size of the kernel, such as 5x5")
    parser.add_argument("--outputs", type=int, metavar="N", help="number of output channels (kernels)")
    parser.add_argument("--stride", default="1", metavar="S", help="one number or one an axis, such as 2 or 2x1")
    parser.add_argument("--padding", default="0", metavar="P", help='pixels, one an axis, "same" or "valid"')
    parser.add_argument("--dilation", default="1", metavar="D", help="one number or one an axis")
    parser.add_argument("--depth-multiplier", type=int, default=1, metavar="M", help="filters for each input channel")
    parser.add_argument("--groups", type=int, metavar="G", help="groups of the grouped form (default: the most)")
    parser.add_argument(
        "--rank",
        type=int,
        metavar="R",
        help="middle channels of the spatial forms (default: input channels) and rank of blueprint (default: 1)",
    )
    parser.add_argument("--matrix", metavar="ROWS", help='a kernel to separate, such as "-1,0,1;-2,0,2;-1,0,1"')


def run(args: argparse.Namespace) -> Outcome:
    from ..measure.explain import explain, explain_matrix

    data: dict[str, Any] = {}
    texts = []
    if args.input or args.kernel or args.outputs is not None:
        size, channels, kernel = _read_sizes(args)
        found = explain(
            size,
            channels,
            kernel,
            args.outputs,
            stride=_read_steps("--stride", args.stride),
            padding=args.padding if args.padding in ("same", "valid") else _read_steps("--padding", args.padding),
            dilation=_read_steps("--dilation", args.dilation),
            depth_multiplier=args.depth_multiplier,
            groups=args.groups,
            rank=args.rank,
        )
        data |= found.to_dict()
        texts.append(_text(found))
    if args.matrix:
        kernel_found = explain_matrix(_read_matrix(args.matrix))
        data["matrix"] = kernel_found.to_dict()
        texts.append(_matrix_text(kernel_found))
    if not texts:
        raise ShapeError(
            "explain: nothing to explain; give a convolution (--input 12x12x3 --kernel 5x5 --outputs 256) "
            'or a kernel (--matrix "-1,0,1;-2,0,2;-1,0,1")'
        )
    return Outcome(data, "\n\n".join(texts))


def _read_sizes(args: argparse.Namespace) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    given = {"--input": args.input, "--kernel": args.kernel, "--outputs": args.outputs}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ShapeError(f"explain: a convolution needs --input, --kernel and --outputs; missing: {', '.join(missing)}")
    whole, kernel = _read_numbers("--input", args.input), _read_numbers("--kernel", args.kernel)
    if len(kernel) == len(whole) and kernel[-1] == whole[-1] and len(kernel) > 1:
        kernel = kernel[:-1]  # written with its depth, as in "5×5×3 kernels on a 12×12×3 image"
    *size, channels = whole
    if len(size) != len(kernel):
        raise ShapeError(
            f"--input {args.input} and --kernel {args.kernel} do not fit: the input is the size along "
            f"{len(kernel)} axes and then the channels, such as {'x'.join(['12'] * len(kernel))}x3"
        )
    return tuple(size), channels, kernel


def _read_numbers(name: str, text: str) -> tuple[int, ...]:
    parts = re.split("[x×]", text.lower())
    if not all(re.fullmatch(r"[0-9]+", part) for part in parts):
        raise ShapeError(f"{name} {text!r}: expected whole numbers with an x between them, such as 5x5")
    return tuple(int(part) for part in parts)


def _read_steps(name: str, text: str) -> int | tuple[int, ...]:
    numbers = _read_numbers(name, text)
    return numbers[0] if len(numbers) == 1 else numbers


def _read_matrix(text: str) -> list[list[float]]:
    rows = [row.split(",") for row in text.strip().strip(";").split(";")]
    try:
        matrix = [[_number(entry) for entry in row] for row in rows]
    except ValueError as error:
        raise ShapeError(f'--matrix: {error}; write rows like "1,2,1;2,4,2;1,2,1"') from None
    lengths = [len(row) for row in matrix]
    if len(set(lengths)) > 1:
        raise ShapeError(f"--matrix: the rows have different lengths {lengths}; all must have as many numbers")
    return matrix


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text.strip()!r} is not a number") from None
    return int(value) if value.is_integer() else value


def _text(found: Explanation) -> str:
    from ..measure.explain import times

    conv, geometry = found.conv, found.conv.geometry
    pads = geometry.pads(found.size)
    even = all(low == high for low, high in pads)
    padding = (
        times([low for low, _ in pads]) if even else ", ".join(f"{low} before and {high} after" for low, high in pads)
    )
    dilation = "" if set(geometry.dilation) == {1} else f", dilation {times(geometry.dilation)}"
    kernels = f"{conv.out_channels} kernel{'s' if conv.out_channels > 1 else ''} {times(geometry.kernel)}"
    lines = [
        f"{times((*found.size, conv.in_channels))} input, {kernels}, "
        f"stride {times(geometry.stride)}, padding {padding}{dilation} → {times(found.output)}",
        "multiplications = outputs × kernel×input channels seen × output positions; biases are not counted",
    ]
    for account in found.forms.values():
        lines += ["", *_account_lines(account)]
    return "\n".join([*lines, "", *found.notes])


def _account_lines(account: Account) -> list[str]:
    from ..measure.explain import times

    if account.why_not:
        return [account.title, f"  not here: {account.why_not}"]
    lines = [account.title]
    for step in account.steps:
        parameters = f"{step.conv.parameters:>10,} parameters"
        lines.append(f"  {step.conv.name:<10} → {times(step.shape):<14} {step.formula:>44}  {parameters}")
    if len(account.steps) > 1:
        terms = " + ".join(f"{step.multiplications:,}" for step in account.steps)
        total = f"{terms} = {account.multiplications:,}"
        lines.append(f"  {'together':<27} {total:>44}  {account.parameters:>10,} parameters")
    if account.title != "dense":
        lines.append(f"  {_compared(account.ratio)}")
    return lines


def _compared(ratio: float) -> str:
    if ratio == 1:
        return "as many multiplications as dense"
    factor = f"{1 / ratio:.1f} times fewer" if ratio < 1 else f"{ratio:.1f} times more"
    return f"{factor} multiplications ({100 * ratio:.2f} % of dense)"


def _matrix_text(found: ExplainedMatrix) -> str:
    rows, columns = len(found.matrix), len(found.matrix[0])
    separated = found.separated
    product = f"({_row(separated.column)})ᵀ · ({_row(separated.row)})"
    saved = f"{rows}×{columns} = {rows * columns} multiplications at a position become {rows} + {columns}"
    if separated.exact:
        return f"The kernel is separable: {product}.\n{saved} = {rows + columns}."
    grid = "\n".join("  " + "  ".join(f"{_short(value):>9}" for value in row) for row in found.nearest)
    return (
        f"The kernel is not separable: it takes {found.rank} column · row pairs.\n"
        f"The nearest separable kernel is {product}, with an error of {100 * separated.error:.2f} % of its norm:\n"
        f"{grid}\n{saved} = {rows + columns} for the nearest, {found.rank * (rows + columns)} for the exact sum."
    )


def _row(values: tuple[float, ...]) -> str:
    return ", ".join(_short(value) for value in values)


def _short(value: float) -> str:
    return f"{round(value, 12) + 0.0:.4g}"  # the sum turns a rounded -0.0 into 0.0
