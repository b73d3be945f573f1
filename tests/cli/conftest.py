"""`sepwise convert` on small pictures, for whoever looks at what it delivers or refuses."""

import re

import numpy as np
import pytest

from sepwise import cli


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """24 smooth pictures of 30 x 40 pixels."""
    Image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(24):
        small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((40, 30), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def convert(pictures, tmp_path, capsys):
    """Run `sepwise convert MODEL ...` with --out tmp_path/out; give (exit code, stdout, last line of stderr).

    Seldom-changed arguments have defaults; None leaves an argument out.
    """

    def call(model, *more, images=pictures, budget="macs=0.5", out=tmp_path / "out", forms="depthwise"):
        given = [("--images", images), ("--budget", budget), ("--out", out), ("--forms", forms)]
        words = [str(word) for name, value in given if value is not None for word in (name, value)]
        code = cli.main(["convert", model, *words, *map(str, more)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        lines = [line for line in re.split("[\r\n]", printed.err) if line.strip() and "%|" not in line]
        assert len(lines) <= 1 or code in (0, 130), f"one sentence was expected: {lines}"
        return code, printed.out, (lines or [""])[-1]

    return call


@pytest.fixture
def refused(convert, tmp_path):
    """Run `sepwise convert`, expect a refusal that leaves nothing, and give its sentence."""

    def call(*arguments, code=1, **given):
        found, out, sentence = convert(*arguments, **given)
        assert (found, out) == (code, "")
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".*"))
        return sentence

    return call
