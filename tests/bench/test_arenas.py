"""The arenas of the converter: what is measured on what, that a finished cell is not done again, and the tables."""

# pyright: reportAttributeAccessIssue=false

from argparse import Namespace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from bench import cifar, hed
from sepwise import records, zoo
from sepwise.lab.data import cifar10
from sepwise.sources.models import load_model
from sepwise.sources.weights import save_weights


def table_of_pictures(path: Path, count: int, size: tuple[int, int]) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    random = torch.Generator().manual_seed(count)
    rows = []
    for _ in range(count):
        held = BytesIO()
        Image.fromarray(torch.randint(256, (*size, 3), generator=random).byte().numpy()).save(held, "PNG")
        rows.append({"bytes": held.getvalue(), "path": None})
    parquet.write_table(arrow.table({"img": rows, "label": [i % 10 for i in range(count)]}), path)
    return path


def test_pictures_to_fit_on_are_drawn_by_the_seed_and_those_measured_on_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(hed, "PHOTOGRAPHS", ())
    source = str(table_of_pictures(tmp_path / "p.parquet", 30, (330, 490)))
    loaded = load_model("zoo:hed", None)
    fit, tested = hed.pictures(loaded, source, 10, seed=1)
    other, same = hed.pictures(loaded, source, 10, seed=2)
    assert sum(map(len, fit)) == 10
    assert len(tested) == 16
    assert all(torch.equal(a, b) for a, b in zip(tested, same, strict=True))
    assert not torch.equal(fit[0], other[0])


def test_table_of_hed_has_means_and_errors_of_the_last_code(tmp_path):
    assert hed.table(tmp_path / "none.jsonl").count("\n") == 1
    results = tmp_path / "r.jsonl"
    for code, seed, f1 in (("old", 0, 0.1), ("new", 0, 0.90), ("new", 1, 0.94), ("new", 0, 0.92)):
        about = {"forms": ["cp", "spatial"], "pictures": 64, "seed": seed, "code": code, "reduction": 8.0}
        about |= {"f1": f1, "mean_absolute_difference": 0.01, "reached": 8.1}
        records.append(results, [records.here("hed.f1", f1, about=about)])
    assert hed.table(results).splitlines()[2:] == ["| cp+spatial | 64 | 8.10× | 0 | 0.9300 ± 0.0100 | 0.0100 | 2 |"]


def test_augmentation_shifts_and_mirrors_whole_pictures():
    pictures = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    pictures[:, :, 10, 7] = 255
    out = cifar.augmented(pictures, torch.Generator().manual_seed(0))
    assert out.shape == pictures.shape
    assert out.dtype == torch.uint8
    where = out[:, 0].nonzero()
    assert len(where) == 400
    assert torch.equal(out[:, 0], out[:, 2])
    rows, columns = where[:, 1], where[:, 2]
    assert set(rows.tolist()) == set(range(6, 15))
    assert set(columns.tolist()) == {*range(3, 12), *(31 - c for c in range(3, 12))}


def test_points_lost_are_those_of_the_networks_and_nothing_is_done_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "EPOCHS", 1)
    for name, count in (("train", 160), ("test", 60)):
        table_of_pictures(tmp_path / f"{name}.parquet", count, (32, 32))
    torch.manual_seed(0)
    save_weights(zoo.resnet20(), tmp_path / "w.safetensors")
    args = Namespace(
        pictures=tmp_path,
        weights=tmp_path / "w.safetensors",
        network="resnet20",
        forms=["spatial"],
        reductions=[2.0],
        fit=40,
        seeds=[5],
        results=tmp_path / "r.jsonl",
        kept=tmp_path / "k",
        epochs=[0, 1],
        precision="32-true",
        train_precision="32-true",
    )
    cifar.measure(args)
    cifar.measure(args)
    record, recovered = cifar.read(args.results)
    assert (record.about["epochs"], recovered.about["epochs"]) == (0, 1)
    assert record.about["reached"] == recovered.about["reached"]
    assert list((tmp_path / "k" / "recoveries").iterdir()) == []
    assert record.value == pytest.approx(record.about["dense"] - record.about["converted"])
    assert 2.0 <= record.about["reached"] < 2.5
    test = cifar10(str(tmp_path))[1]
    pictures, labels = test.images, test.labels
    scores = cifar.scores_of(cifar.baseline(args, 5, (pictures, labels)), pictures)  # from its file
    assert record.about["dense"] == pytest.approx(cifar.accuracy(scores, labels))
    rows = cifar.table(args.results).splitlines()[2:]
    assert [row.split(" | ")[3] for row in rows] == ["0", "1"]
    assert all("| resnet20 | spatial |" in row for row in rows)


def test_a_baseline_that_was_stopped_goes_on_to_the_same_end(tmp_path, monkeypatch):
    train = (torch.randint(256, (256, 3, 32, 32), dtype=torch.uint8), torch.randint(10, (256,)))
    start = zoo.CifarResNet(8).state_dict()

    def network():
        fresh = zoo.CifarResNet(8)
        fresh.load_state_dict(start)
        return fresh

    def trained(name):
        return cifar._train(network(), train, 3, 0.02, 1e-4, 7, tmp_path / f"{name}.safetensors", "32-true")

    whole = trained("whole").state_dict()
    said = []

    def stop(text, **_):
        said.append(text)
        if "epoch 2" in text:  # before its state is written
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("builtins.print", stop)
        with pytest.raises(KeyboardInterrupt):
            trained("again")
        patch.setattr("builtins.print", lambda text, **_: said.append(text))
        again = trained("again").state_dict()
    assert [text.split()[2] for text in said] == ["1", "2", "2", "3"]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors", ".safetensors"]
