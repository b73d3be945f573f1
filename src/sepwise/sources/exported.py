"""Programs saved by `torch.export.save` (.pt2): looked through for anything that would run on loading, then loaded."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import _package as package

from ..errors import ModelError, SepwiseError
from .weights import unpickle_tensors

# What `ExportedProgram` looks up by name and calls: operators of torch, and arithmetic on sizes.
TARGETS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|sepwise)\.\w+\.\w+|torch\.ops\.higher_order\.\w+|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|getitem|and_|or_|not_|rshift|lshift)"
)
# Sizes are read by sympy, which evaluates text as Python: only arithmetic on symbols is let through.
SIZE_WORDS = {
    *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Abs", "Identity"),
    *("FloorDiv", "CleanDiv", "CeilDiv", "PythonMod", "ModularIndexing", "Where", "FloorToInt", "CeilToInt"),
    *("IntTrueDiv", "FloatTrueDiv", "PowByNatural", "ToFloat", "TruncToInt", "Piecewise", "ExprCondPair"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality", "StrictLessThan"),
    *("LessThan", "StrictGreaterThan", "GreaterThan", "oo", "int_oo"),
}
SYMBOL = re.compile(r"[A-Za-z]\w{0,30}")
NAME = re.compile(r"[\w.]*", re.ASCII)
MARK = "extra/sepwise.json"  # what sepwise.save_fused and save_compiled put into their archives
KEEP_NAMES_OF = ("name", "as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool", "as_name", "as_bool")


def load_program(path: str | Path, *, ours: bool = False) -> ExportedProgram:
    """The program in a .pt2 file.

    ours    it was written by `sepwise.save_fused`, whose files are refused otherwise: nothing more can be done to them

    Refused before anything of it is used: pickles of anything but tensors, custom objects, compiled libraries, calls
    of anything but torch operators, sizes that are more than arithmetic, and names that are no names. It is still a
    program: run it only when you would run its author's code.
    Raises ModelError when the file is missing, unreadable or refused.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    content = path.read_bytes()  # what is checked is what is loaded, whoever writes to the file meanwhile
    try:
        with package.PT2ArchiveReader(BytesIO(content)) as archive:
            reason = why_refused(archive, ours)
    except SepwiseError as error:
        raise ModelError(str(error)) from None
    except Exception as error:  # the archive is made by others, and every way of being malformed has its own error
        raise _unreadable(path, error) from None
    if reason:
        raise ModelError(f"{path} is refused: {reason}")
    try:
        program = package.load_pt2(BytesIO(content)).exported_programs["model"]
    except Exception as error:
        raise _unreadable(path, error) from None
    program._guards_code = []  # text that `program.module()` would run as Python
    return program


def why_refused(archive: package.PT2ArchiveReader, ours: bool) -> str | None:
    """The reason this archive is not loaded, as a sentence; None when nothing in it would run on loading.

    Raises WeightsError when a pickle in it holds something else than tensors.
    """
    for name in archive.get_file_names():
        folder, _, file = name.rpartition("/")
        if name == MARK and not ours:
            return "it is a finished network, for sepwise.load_fused or load_compiled; give the program it was made of"
        if name.startswith("data/aotinductor/"):
            return "it carries compiled code; give the program as torch.export.save writes it"
        if folder in ("data/weights", "data/constants") and file.endswith("_config.json"):
            for entry in json.loads(archive.read_string(name))["config"].values():
                if not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                    return f"it holds a custom object, {entry['path_name']}, which would run code on loading"
                if entry.get("use_pickle"):
                    _check_pickle(archive, f"{folder}/{entry['path_name']}")
        elif folder.startswith("data/") and file.endswith(".pt"):
            _check_pickle(archive, name)
        elif folder == "models":
            reason = _why_refused_graph(json.loads(archive.read_string(name)))
            if reason:
                return reason
    return None


def _check_pickle(archive: package.PT2ArchiveReader, name: str) -> None:
    content = archive.read_bytes(name)
    if content:
        unpickle_tensors(BytesIO(content), f"{name}, inside the .pt2 file,")


def _why_refused_graph(graph: Any) -> str | None:
    for holder, key, text in _texts(graph):
        if key == "target" and "inputs" in holder and not TARGETS.fullmatch(text):
            return f"it calls {text!r}, which is no operator of torch"
        if key == "expr_str" and not _is_size(text):
            return f"it holds the size {text!r}, which is more than arithmetic"
        if key in KEEP_NAMES_OF and not NAME.fullmatch(text):
            return f"it holds the name {text!r}, which is none"
        if key in ("in_spec", "out_spec") and any(not NAME.fullmatch(t) for t in _names_of_spec(text)):
            return "the names of its inputs or outputs are none"
    return None


def _texts(value: Any) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Every text of nested JSON as (object that holds it, key, text); keys of objects count as names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, "name", key
            if key == "metadata":  # stack traces: kept as text, never read as anything else
                continue
            if isinstance(inner, str):
                yield value, key, inner
            elif isinstance(inner, list) and all(isinstance(v, str) for v in inner) and "names" in key:
                yield from ((value, "name", v) for v in inner)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _names_of_spec(text: str) -> Iterator[str]:
    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from strings(inner)

    for name in strings(json.loads(text)) if text else ():
        # A context may itself be JSON, such as the keys of a dict.
        yield from strings(json.loads(name)) if name[:1] in '["' else (name,)


def _is_size(text: str) -> bool:
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return _is_arithmetic(tree)


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float)
        case ast.Name(id=name):
            return name in SIZE_WORDS or bool(re.fullmatch(r"[suz][a-z]*\d+", name))
        case ast.UnaryOp(operand=operand):
            return _is_arithmetic(operand)
        case ast.BinOp(left=left, right=right):
            return _is_arithmetic(left) and _is_arithmetic(right)
        case ast.Compare(left=left, comparators=others):
            return all(_is_arithmetic(n) for n in (left, *others))
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=keywords):
            return bool(SYMBOL.fullmatch(name)) and all(_is_arithmetic(k.value) for k in keywords)
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str(digits))], keywords=keywords):
            return bool(re.fullmatch(r"[-+.\deE]+", digits)) and all(_is_arithmetic(k.value) for k in keywords)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            return name in SIZE_WORDS and all(_is_arithmetic(a) for a in (*arguments, *(k.value for k in keywords)))
        case ast.Tuple(elts=items):
            return all(_is_arithmetic(item) for item in items)
    return False


def input_shape(program: ExportedProgram) -> tuple[int, int, int]:
    """(C, H, W) of the pictures a program takes: of its example, or where it kept none, of its graph.

    Raises ModelError when its first input is no batch of pictures.
    """
    users = set(program.graph_signature.user_inputs)
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in users]
    example = program.example_inputs[0][0] if program.example_inputs and program.example_inputs[0] else None
    value = example if isinstance(example, torch.Tensor) else placeholders[0].meta.get("val") if placeholders else None
    if not isinstance(value, torch.Tensor) or value.dim() != 4 or len(placeholders) != 1:
        raise ModelError(
            f"the program takes {len(placeholders)} inputs, the first "
            f"{tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__}; "
            "expected one batch of pictures (N, C, H, W)"
        )
    channels, height, width = (int(n) for n in value.shape[1:])
    return channels, height, width


def trains(program: ExportedProgram) -> bool:
    """Whether the program was exported in training mode: statistics of the batch, dropout that drops."""
    flag = {"batch_norm": 5, "dropout": 2, "feature_dropout": 2, "alpha_dropout": 2}
    for node in program.graph.nodes:
        place = flag.get(getattr(node.target, "__name__", "").partition(".")[0])
        if node.op == "call_function" and place is not None and node.args[place:] and node.args[place] is True:
            return True
    return False


def _unreadable(path: Path, error: Exception) -> ModelError:
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    return ModelError(f"{path} cannot be read as a program of torch.export: {reason}")
