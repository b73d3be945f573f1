"""Which text decides what a function does: the statements that it leads to, in its own file and in those of the lab."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LAB = Path(__file__).parent
FRAME = ("recipe.py", "ledger.py")  # what all recipes stand in; a trial goes the same way whatever they say
WHOLE = "*"  # all statements of a file


def led_to(file: Path, roots: set[str]) -> dict[Path, str]:
    """Each file that the names `roots` of `file` lead to, with what they lead to there: no comments, no docstrings.

    Followed are relative imports of files beside it and of the lab's, except FRAME; other rooms are not.
    """
    wanted = {file: set(roots)}
    while True:
        more = {path: set(names) for path, names in wanted.items()}
        for path, names in wanted.items():
            statements = _reached(path, names)
            more[path] |= {n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name)}
            for other, imported in _imports(path, statements, more[path]):
                more.setdefault(other, set()).update(imported)
        if more == wanted:
            return {p: ast.dump(ast.Module(_reached(p, names), [])) for p, names in sorted(wanted.items())}
        wanted = more


def _reached(path: Path, names: set[str]) -> list[ast.stmt]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return [statement for statement in tree.body if WHOLE in names or _defined(statement) & names]


def _imports(path: Path, statements: list[ast.stmt], names: set[str]) -> Iterator[tuple[Path, set[str]]]:
    """The files that reached statements import, and the names they want of them."""
    for node in (n for s in statements for n in ast.walk(s)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        used = [a.name for a in node.names if WHOLE in names or (a.asname or a.name) in names]
        if place.with_suffix(".py").is_file():
            found = [(place.with_suffix(".py"), set(used))]
        else:
            found = [(place / f"{name}.py", {WHOLE}) for name in used if (place / f"{name}.py").is_file()]
        yield from ((f, wanted) for f, wanted in found if _followed(f, path) and wanted)


def _followed(file: Path, importing: Path) -> bool:
    return (file.parent in (LAB, importing.parent) or LAB in file.parents) and file.name not in FRAME


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement of a module gives a meaning."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
