"""The walls of the compiled core: who knows PyTorch, and that code for one instruction set serves no other machine.

An inline function that two files compile becomes one: the linker keeps either. Were it the one compiled for AVX-512, an
older machine would crash in code that has nothing to do with AVX-512. So files of kernels use no library but C's, and
nothing in them is visible from outside but the kernels.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
KERNELS = CSRC / "separable_conv2d"
SOURCES = sorted(
    path for path in CSRC.rglob("*") if path.suffix in {".cpp", ".h", ".inc"} and "checks" not in path.parts
)
KERNEL_FILES = sorted(path for path in KERNELS.glob("*.cpp") if path.name != "dispatch.cpp")
by_file = pytest.mark.parametrize("path", KERNEL_FILES, ids=lambda path: path.name)

# Declarations and macros; all that could be inlined from them is meant for these instructions.
PLAIN = {"<stddef.h>", "<stdint.h>", "<string.h>", "<immintrin.h>", "<xmmintrin.h>", "<arm_neon.h>"}


def included(path: Path) -> list[str]:
    return re.findall(r"^\s*#\s*include\s+([<\"][^>\"]+[>\"])", path.read_text(encoding="utf-8"), re.MULTILINE)


def reached(path: Path) -> set[Path]:
    """The file and all our own files that it includes, directly or not."""
    found, new = set(), {path}
    while new:
        found |= new
        own = {(file.parent / name.strip('"')).resolve() for file in new for name in included(file) if name[0] == '"'}
        new = own - found
    return found


def strangers(path: Path) -> list[str]:
    """What a file of kernels must not use, wherever it is included."""
    found = []
    for file in reached(path):
        found += [f"{file.name}: {name}" for name in included(file) if name[0] == "<" and name not in PLAIN]
        code = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
        found += [f"{file.name}: std::" for _ in re.findall(r"\bstd::", code)]
        found += [f"{file.name}: {word}" for word in re.findall(r"\bthread_local\b|\bnew\b|\bthrow\b", code)]
    return sorted(set(found))


def test_only_the_bindings_know_pytorch():
    known = {
        path.name for path in SOURCES if any("torch/" in name for file in reached(path) for name in included(file))
    }
    assert known == {"bindings.cpp", "program_bindings.cpp", "layer.h", "layer.cpp"}


@by_file
def test_kernels_use_nothing_that_is_inlined_elsewhere(path):
    assert strangers(path) == []


def test_a_planted_stranger_is_found(tmp_path):
    (tmp_path / "near.h").write_text('#include "far.h"\n#include <stdint.h>\n')
    (tmp_path / "far.h").write_text("#include <vector>  // std::vector\ninline int f() { return std::max(1, 2); }\n")
    planted = tmp_path / "avx9.cpp"
    planted.write_text('#include "near.h"\n')
    assert strangers(planted) == ["far.h: <vector>", "far.h: std::"]


def test_every_file_is_built():
    text = re.sub(r"#.*", "", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert set(re.findall(r"add_kernels\((\S+\.cpp)", text)) == {path.name for path in KERNEL_FILES}
    others = {str(path.relative_to(ROOT)) for path in SOURCES if path.suffix == ".cpp"}
    others -= {str(path.relative_to(ROOT)) for path in KERNEL_FILES}
    assert set(re.findall(r"csrc/[\w/]+\.cpp", text)) == others


def test_kernels_are_listed_once_and_exist():
    listed = re.findall(
        r"^SEPWISE_KERNEL\((\w+)\)", (KERNELS / "kernels.inc").read_text(encoding="utf-8"), re.MULTILINE
    )
    defined = [
        name
        for path in KERNEL_FILES
        for name in re.findall(r"^extern const Kernel (\w+) =", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(listed) == sorted(defined)


def visible(symbols: str) -> list[str]:
    """Of what `nm` lists, the names that another file could meet, but for the kernels and the mark of C++ itself."""
    found = []
    for line in symbols.splitlines():
        kind, name = line.split(maxsplit=2)[1:]
        kernel = kind in "DR" and re.fullmatch(r"sepwise::\w+", name)
        if kind.isupper() and not kernel and name != "DW.ref.__gxx_personality_v0":
            found.append(name)
    return found


@by_file
def test_nothing_is_visible_but_the_kernels(path):
    objects = sorted(ROOT.glob(f"build/*/CMakeFiles/_C.dir/csrc/separable_conv2d/{path.name}.o"))
    if not objects or shutil.which("nm") is None:
        pytest.skip("needs the objects of a build in build/, and nm")
    done = subprocess.run(["nm", "-C", "--defined-only", objects[0]], capture_output=True, text=True, check=True)
    assert "sepwise::" in done.stdout
    assert visible(done.stdout) == []


def test_a_planted_inline_function_is_found():
    listed = "0000 W std::max(int, int)\n0000 t sepwise::(anonymous namespace)::run()\n0000 D sepwise::f32_avx2\n"
    assert visible(listed) == ["std::max(int, int)"]
