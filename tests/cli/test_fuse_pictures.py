"""`sepwise fuse --pictures`: what both networks answer, counted by hand, on a page and in numbers; and the refusals."""

# pyright: reportArgumentType=false

import json
from argparse import Namespace

import pytest
import torch
from PIL import Image
from torch import nn

from sepwise import fuse as fused_of
from sepwise import records
from sepwise.cli import main
from sepwise.cli.fused_pictures import compared
from sepwise.sources import find_pictures, load_model, prepare

MODEL = "small_networks:mobile"


@pytest.fixture
def fuse(capsys, pictures):
    """Run `sepwise fuse MODEL --pictures ... ARGUMENTS`; give (exit code, stdout, last line of stderr)."""

    def call(*arguments, model=MODEL, source=pictures):
        code = main(["fuse", model, "--pictures", str(source), *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, (printed.err.strip().splitlines() or [""])[-1]

    return call


@pytest.fixture
def table(pictures, tmp_path):
    """The same pictures as a table with labels and the names of ten classes."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": p.read(), "path": None} for p in find_pictures(pictures)]
    told = json.dumps({"info": {"features": {"label": {"names": [f"n0000000{i}_kind_{i}" for i in range(10)]}}}})
    held = arrow.table({"image": rows, "label": [i % 10 for i in range(len(rows))]})
    parquet.write_table(held.replace_schema_metadata({"huggingface": told}), tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


@torch.no_grad()
def firsts(source):
    loaded = load_model(MODEL)
    xs = [prepare(p.decode(), loaded.size, loaded.mean, loaded.std, 1) for p in find_pictures(source)]
    return loaded.model(torch.stack(xs)).argmax(1).tolist()


def test_the_page(fuse, table, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = fuse("--out", out, source=table)
    right = sum(first == i % 10 for i, first in enumerate(firsts(table)))
    assert code == 0
    assert f"right first answer on {right} of 24 before, {right} after" in printed
    assert printed.endswith(f"{out} holds model.safetensors, model.pt2, fused.pt2, records.jsonl, report.html\n")
    told = list(records.read(out / "records.jsonl"))
    assert [r.what for r in told] == ["fusion", "fusion.pictures", *["fusion.picture"] * 12]
    facts = told[1].value
    assert (facts["count"], facts["same"], facts["labelled"], facts["skipped"]) == (24, 24, 24, [])
    assert (facts["right_before"], facts["right_after"]) == (right, right)
    assert 0 < facts["relative"] < 1e-5
    assert told[2].value["relative"] == facts["relative"]
    assert told[2].value["label"].startswith("kind ")
    assert len(told[2].value["before"]) == len(told[2].value["after"]) == 5
    assert min(told[2].value["before_ms"], told[2].value["after_ms"]) > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "the same first answer on 24 of 24 pictures" in page
    assert page.count('<article class="picture">') == 12
    assert "kind 3" in page


def test_in_bfloat16_the_answers_are_compared_with_those_in_float32(fuse, table, tmp_path):
    out = tmp_path / "out"
    code, _, _ = fuse("--dtype", "bfloat16", "--out", out, source=table)
    assert code == 0
    told = list(records.read(out / "records.jsonl"))
    assert 1e-4 < told[1].value["relative"] < 5e-2
    assert min(told[2].value["before_ms"], told[2].value["after_ms"]) > 0
    assert told[0].value["latency"]["before_form"].startswith(("eager ", "folded "))


def test_without_a_folder_the_numbers_are_printed(fuse, pictures, tmp_path):
    data = json.loads(fuse("--json", "--limit", 5)[1])["pictures"]
    assert (data["count"], data["same"], data["labelled"], data["right_before"]) == (5, 5, 0, None)
    assert data["preparation"] | {"by": None} == {
        "size": [24, 24],
        "resized": [24, 24],
        "interpolation": "bicubic",
        "mean": [0.5],
        "std": [0.2],
        "by": None,
    }
    printed = fuse("--limit", 5)[1]
    assert f"on 5 pictures of {pictures}:\n  same first answer on 5 of 5\n" in printed
    assert list(tmp_path.iterdir()) == []


def test_names_of_classes_are_read_from_a_file(fuse, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"thing {i}" for i in range(10)))
    assert fuse("--out", tmp_path / "out", "--labels", names)[0] == 0
    tops = [r.value["before"] for r in records.read(tmp_path / "out" / "records.jsonl") if r.what == "fusion.picture"]
    assert {name.split()[0] for top in tops for name, _ in top} == {"thing"}


class Otherwise(nn.Module):
    """Answers as the network does, but for pictures whose mean is above a number."""

    def __init__(self, network, above):
        super().__init__()
        self.network, self.above = network, above

    def forward(self, x):
        y = self.network(x)
        return y.flip(1) if x.mean() > self.above else y


def test_another_answer_is_counted_and_shown_first(pictures):
    loaded = load_model(MODEL)
    xs = [prepare(p.decode(), loaded.size, loaded.mean, loaded.std, 1)[None] for p in find_pictures(pictures)]
    above = sorted(float(x.mean()) for x in xs)[-3]
    args = Namespace(pictures=pictures, labels=None, limit=None, skip_broken=False)
    found = compared(args, loaded, Otherwise(fused_of(loaded.model, xs[0]), above))
    assert (found.facts["same"], found.facts["count"]) == (22, 24)
    assert found.facts["relative"] > 0.1
    changed = [len(set(seen.best or ())) == 2 for seen in found.worst]
    assert changed == [True, True, *[False] * 10]
    assert found.worst[0].relative == found.facts["relative"]


def test_a_network_without_classes(fuse, tmp_path):
    code, out, _ = fuse("--out", tmp_path / "out", "--limit", 3, model="small_networks:edges")
    assert code == 0
    assert "first answer" not in out
    assert "of the largest of a picture, at most" in out
    assert "outputs differ by" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_labels_that_the_network_does_not_know_count_for_nothing(fuse, table):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    held = parquet.read_table(table)
    parquet.write_table(held.set_column(1, "label", arrow.array([7, 10] * 12)), table)
    data = json.loads(fuse("--json", source=table)[1])["pictures"]
    assert (data["labelled"], data["right_before"], data["same"]) == (0, None, 24)


def test_broken_pictures(fuse, tmp_path):
    Image.new("RGB", (30, 30), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    code, _, sentence = fuse(source=tmp_path)
    assert code == 1
    assert "b.png cannot be read: it is no picture; remove it, or pass --skip-broken" in sentence
    code, out, _ = fuse("--skip-broken", source=tmp_path)
    assert code == 0
    assert "1 left out, the first: " in out
    (tmp_path / "a.png").unlink()
    code, _, sentence = fuse("--skip-broken", source=tmp_path)
    assert (code, "none of the 1 pictures can be read" in sentence) == (1, True)


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ("one\ntwo\n", [], "names 2 classes, the network answers 10 classes"),
        ("one\n\nthree\n", [], "expected the name of a class in every line"),
        (None, [], "cannot be read"),
        ("\n".join("abcdefghij"), ["--limit", 0], "--limit 0: give the number of pictures, at least 1"),
    ],
)
def test_refusals(fuse, tmp_path, names, arguments, message):
    if names is not None:
        (tmp_path / "names.txt").write_text(names)
    code, out, sentence = fuse("--labels", tmp_path / "names.txt", "--out", tmp_path / "out", *arguments)
    assert (code, out) == (1, "")
    assert message in sentence
    assert not (tmp_path / "out").exists()


def test_options_of_pictures_need_pictures(capsys, tmp_path):
    assert main(["fuse", MODEL, "--labels", str(tmp_path / "names.txt")]) == 1
    assert "--labels says nothing without --pictures" in capsys.readouterr().err
