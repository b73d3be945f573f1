"""The arrows of ARCHITECTURE.md, held by every file; and the habits that keep rooms light."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sepwise"
SOURCES = sorted(PACKAGE.rglob("*.py"))

EVERYTHING = {"everything"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "extras": {"errors"},
    "files": {"errors"},
    "records": {"errors"},
    "geometry": {"errors"},
    "ops": {"geometry", "errors"},
    "factor": {"geometry", "errors"},
    "nn": {"ops", "factor", "geometry", "extras", "errors"},
    "zoo": {"nn", "extras", "errors"},
    "measure": {"nn", "factor", "geometry", "errors"},
    "sources": {"zoo", "extras", "files", "errors"},
    "graph": {"measure", "nn", "ops", "geometry", "files", "errors"},
    "fusion": {"graph", "measure", "nn", "ops", "geometry", "errors"},
    "conversion": {
        *("fusion", "graph", "measure", "nn", "ops", "factor", "geometry"),
        *("records", "files", "extras", "errors"),
    },
    "saving": {"fusion", "graph", "measure", "sources", "ops", "extras", "files", "errors"},
    "lab": {
        *("conversion", "measure", "zoo", "sources", "nn", "ops", "factor", "geometry"),
        *("records", "files", "extras", "errors"),
    },
    "report": {"records", "files", "extras", "errors"},
    "cli": EVERYTHING,
}


def room_of(path: Path, package: Path = PACKAGE) -> str | None:
    """The room a file belongs to; None for the package's own `__init__.py`, which only lists names."""
    first = path.relative_to(package).parts[0]
    return None if first == "__init__.py" else first.removesuffix(".py")


def imported_modules(path: Path, package: Path = PACKAGE) -> Iterator[tuple[str, ...]]:
    """Every name that a file imports, anywhere in it: at the top, in a function or for type checkers only."""
    here = (package.name, *path.relative_to(package).with_suffix("").parts)
    inside = here[:-1]  # the package a relative import starts from
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            modules = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else ()
            base = (*start, *(node.module.split(".") if node.module else ()))
            modules = [(*base, alias.name) for alias in node.names]
        yield from (module for module in modules if module[0] == package.name)


def imported_rooms(path: Path, package: Path = PACKAGE) -> Iterator[str]:
    for module in imported_modules(path, package):
        if len(module) > 1 and room_of_module(module[1], package):
            yield module[1]


def imported_files(path: Path, package: Path = PACKAGE) -> set[Path]:
    """The files that a file imports by name; a name taken from a room's `__init__.py` leads to no file."""
    found = set()
    for module in imported_modules(path, package):
        for parts in (module[1:], module[1:-1]):  # `from .a import b`: b is a file of a, or a name in a
            file = package.joinpath(*parts).with_suffix(".py") if parts else package
            if file.is_file():
                found.add(file)
    return found


def room_of_module(name: str, package: Path) -> bool:
    return (package / name).is_dir() or (package / f"{name}.py").is_file()


def strangers(path: Path, package: Path = PACKAGE) -> set[str]:
    room = room_of(path, package)
    if room is None or MAY_IMPORT[room] is EVERYTHING:
        return set()
    return set(imported_rooms(path, package)) - MAY_IMPORT[room] - {room}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_room_keeps_to_its_arrows(path):
    found = strangers(path)
    assert not found, f"{path.name}: room {room_of(path)!r} may not import {sorted(found)}"


@pytest.mark.parametrize(
    "line",
    [
        "from ..report import page",
        "from .. import report",
        "import sepwise.report",
        "from sepwise.report.page import build",
        "def late():\n    from .. import report",
        "if TYPE_CHECKING:\n    from ..report import page",
    ],
)
def test_a_planted_stranger_is_found(tmp_path, line):
    package = tmp_path / "sepwise"
    for room in ("ops", "report"):
        (package / room).mkdir(parents=True)
    planted = package / "ops" / "planted.py"
    planted.write_text(f"from . import neighbour\n{line}\n")
    assert strangers(planted, package) == {"report"}
    planted.write_text("from . import neighbour\nimport report\n")
    assert strangers(planted, package) == set()


def test_table_in_architecture_says_the_same():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", text, flags=re.MULTILINE)
    drawn = {room: {name.strip() for name in allowed.split(",") if name.strip()} for room, allowed in rows}
    assert drawn == MAY_IMPORT


def test_every_room_has_a_row():
    rooms = {room_of(path) for path in SOURCES} - {None}
    assert rooms <= set(MAY_IMPORT)


def circle(arrows: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_circles_among_rooms():
    assert circle({room: allowed - EVERYTHING for room, allowed in MAY_IMPORT.items()}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None


def test_no_circles_among_files(tmp_path):
    assert circle({str(path): {str(f) for f in imported_files(path)} for path in SOURCES}) is None
    room = tmp_path / "sepwise" / "nn"
    room.mkdir(parents=True)
    (room / "a.py").write_text("from .b import name\n")
    (room / "b.py").write_text("def late():\n    from . import a\n")
    package = tmp_path / "sepwise"
    assert circle({str(p): {str(f) for f in imported_files(p, package)} for p in room.iterdir()}) is not None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_without_an_idea(path):
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "misc"}
    if path.stat().st_size:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} says nowhere what it does"


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh Python has loaded after the statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_sepwise_is_light():
    optional = {"timm", "torchvision", "scipy", "matplotlib", "triton", "PIL", "tqdm", "jinja2", "keras", "h5py"}
    optional |= {"onnx", "onnxscript"}
    assert not loaded_by("import sepwise") & (optional | {"torch", "numpy"})
    # torch itself may load Jinja2; ours must not add to what torch loads
    rooms = "from sepwise import ops, factor, nn, zoo, measure, sources, graph, fusion, conversion, saving"
    assert not (loaded_by(rooms) - loaded_by("import torch, torch.export, torch.fx")) & optional


def test_report_needs_no_torch():
    assert "torch" not in loaded_by("import sepwise.report, sepwise.records")
    torch_importers = [
        path.name
        for path in SOURCES
        if room_of(path) in {"report", "records"} and re.search(r"^\s*(import|from) torch\b", path.read_text(), re.M)
    ]
    assert torch_importers == []
