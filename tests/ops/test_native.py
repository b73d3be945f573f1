"""The compiled core: which kernels this machine runs, SEPWISE_ISA, and an installation without it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sepwise
from sepwise.errors import UnsupportedError
from sepwise.ops import native

ISAS = ["portable", "avx2", "avx512", "avx512_bf16", "amx"]

needs_core = pytest.mark.skipif(native.PROBLEM is not None, reason=str(native.PROBLEM))


def answer(expression: str, **environment: str) -> Any:
    """What a fresh Python computes."""
    program = f"""
import json, torch, sepwise
from sepwise.ops import native, separable_conv2d
def call(**more):
    try:
        y = separable_conv2d(torch.ones(1, 2, 4, 4), torch.ones(2, 1, 3, 3), torch.ones(5, 2, 1, 1), **more)
        return y[0, 0, 0, 0].item()
    except sepwise.errors.UnsupportedError as error:
        return str(error)
print(json.dumps({expression}))
"""
    kept = {name: value for name, value in os.environ.items() if name != "SEPWISE_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=kept | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_core
def test_kernels_need_what_the_machine_offers() -> None:
    offers = native.MACHINE.offers
    assert offers[0] == "portable"
    assert set(offers) <= set(ISAS)
    for kernel in native.kernels():
        assert kernel.isa in ISAS
        assert kernel.precision in ("highest", "high", "medium")
        if not native.MACHINE.setting:
            assert (kernel.why_not is None) == (kernel.isa in offers)


@needs_core
def test_offers_agree_with_the_operating_system() -> None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        pytest.skip("needs /proc/cpuinfo")
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    expected = {
        "avx2": {"avx2", "fma", "f16c"},
        "avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl", "bmi2"},
        "avx512_bf16": {"avx512f", "avx512_bf16"},
    }
    for isa, needed in expected.items():
        assert (isa in native.MACHINE.offers) == (needed <= flags)
    assert "amx" not in native.MACHINE.offers or {"amx_tile", "amx_bf16"} <= flags


CAPS = {"portable": ["portable"], "avx2": ISAS[:2], "avx512": ISAS[:4], "amx": ISAS}


@needs_core
@pytest.mark.parametrize("setting", CAPS)
def test_sepwise_isa_caps_the_choice(setting: str) -> None:
    if setting not in native.MACHINE.offers:
        pytest.skip(f"this machine does not offer {setting}")
    ready = "[kernel.isa for kernel in native.kernels() if kernel.why_not is None]"
    reasons = "[kernel.why_not for kernel in native.kernels() if kernel.why_not is not None]"
    isas, refused, value, made = answer(
        f"[{ready}, {reasons}, call(impl='cpu'), native.MACHINE.setting]", SEPWISE_ISA=setting
    )
    assert set(isas) == set(CAPS[setting]) & {kernel.isa for kernel in native.kernels()} & set(native.MACHINE.offers)
    assert all("which this machine does not offer" in r or f"SEPWISE_ISA={setting} leaves out" in r for r in refused)
    assert (value, made) == (18.0, setting)


@needs_core
@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("avx51", "SEPWISE_ISA=avx51 is unknown; give portable, avx2, avx512, amx, or unset it"),
        ("AVX2", "SEPWISE_ISA=AVX2 is unknown"),
        ("avx512_bf16", "SEPWISE_ISA=avx512_bf16 is unknown"),
    ],
)
def test_a_setting_that_cannot_be_read_is_refused(setting: str, sentence: str) -> None:
    said, also_by_auto, kernels = answer(
        "[call(impl='cpu'), call(), [kernel.why_not for kernel in native.kernels()]]", SEPWISE_ISA=setting
    )
    assert said.startswith(sentence)
    assert also_by_auto == said
    assert all(sentence in reason for reason in kernels)


@needs_core
def test_a_setting_that_the_machine_does_not_offer_is_refused() -> None:
    missing = [setting for setting in CAPS if setting not in native.MACHINE.offers]
    if not missing:
        pytest.skip("this machine offers everything")
    said = answer("call()", SEPWISE_ISA=missing[-1])
    assert said.startswith(f"SEPWISE_ISA={missing[-1]}: this machine does not offer it; it offers portable")


@needs_core
def test_an_empty_setting_is_none() -> None:
    assert answer("[call(impl='cpu'), native.MACHINE.problem]", SEPWISE_ISA="") == [18.0, None]


def test_without_the_compiled_core_the_rest_works(tmp_path: Path) -> None:
    """A copy of the package without the library: "auto" takes the next, "cpu" says what is missing."""
    source = Path(sepwise.__file__).parent
    (tmp_path / "sepwise").mkdir()
    for path in source.rglob("*.py"):
        copy = tmp_path / "sepwise" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    program = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
sys.path.insert(0, {str(tmp_path)!r})
import torch, sepwise
from sepwise.ops import native, separable_conv2d
assert sepwise.__file__.startswith({str(tmp_path)!r}), sepwise.__file__
inputs = torch.ones(1, 2, 4, 4), torch.ones(2, 1, 3, 3), torch.ones(5, 2, 1, 1)
print(separable_conv2d(*inputs)[0, 0, 0, 0].item())
for refused in (lambda: separable_conv2d(*inputs, impl="cpu"), native.kernels, native.forget_packed_weights):
    try:
        refused()
    except sepwise.errors.UnsupportedError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    value, *said = done.stdout.splitlines()
    missing = (
        "the compiled core of sepwise is not installed; install sepwise with pip, or run ./run in its source folder"
    )
    assert value == "18.0"
    assert said == [f"separable_conv2d: impl='cpu' cannot run this call: {missing}", missing, missing]


def test_a_library_that_cannot_be_loaded_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_C.so").write_bytes(b"not a library")
    monkeypatch.setattr(sepwise, "__path__", [str(tmp_path)])
    assert str(native._load()).startswith("the compiled core of sepwise cannot be loaded by torch 2.")


def test_every_question_needs_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PROBLEM", "it is gone")
    for question in (native.kernels, native.packed_weights, native.forget_packed_weights):
        with pytest.raises(UnsupportedError, match="it is gone"):
            question()
