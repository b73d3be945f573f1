"""What every test may rely on: one torch thread, a seed, and the pictures and weights kept beside the checkout."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # from the start: tests share the cores, and two threads on small matrices only wait


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    """Examples in docstrings included."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and weights beside the checkout."""
    folder = Path(__file__).resolve().parents[1] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}")
    return folder
