"""Programs in .pt2 files: honest ones load; whatever would run code on loading is refused before it can."""

import io
import json
import logging
import zipfile
from contextlib import suppress

import pytest
import torch
from baits import Touch
from torch import nn

from sepwise.errors import ModelError
from sepwise.sources.exported import input_shape, load_program


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A .pt2 file with a symbolic batch and sizes computed from it."""
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Upsample(scale_factor=2)
    )
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free},)
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(2, 3, 12, 16),), dynamic_shapes=shapes), path)
    return path


def changed(program, path, change):
    """A copy of the archive with every file's (name, content) passed through `change`."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
    return path


def test_honest_programs_load(program, tmp_path):
    assert input_shape(load_program(program)) == (3, 12, 16)
    same = changed(program, tmp_path / "net.pt2", lambda name, content: content)
    assert input_shape(load_program(same)) == (3, 12, 16)


def bait_bytes(bait):
    buffer = io.BytesIO()
    torch.save((((Touch(bait)),), {}), buffer)
    return buffer.getvalue()


def test_pickled_example_input(program, tmp_path):
    bait = tmp_path / "touched"
    path = changed(program, tmp_path / "net.pt2", lambda n, c: bait_bytes(bait) if "sample_inputs" in n else c)
    with pytest.raises(ModelError, match=r"sample_inputs/model.pt.* is refused: loading it would execute code"):
        load_program(path)
    assert not bait.exists()
    logging.disable()  # torch's own line about this case is malformed
    torch.export.load(path)
    logging.disable(logging.NOTSET)
    assert bait.exists(), "the bait itself is broken"


def test_pickled_weight(program, tmp_path):
    bait = tmp_path / "touched"

    def change(name, content):
        if name.endswith("model_weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        return bait_bytes(bait) if name.endswith("weight_0") else content

    path = changed(program, tmp_path / "net.pt2", change)
    with pytest.raises(ModelError, match=r"weight_0.* is refused: loading it would execute code"):
        load_program(path)
    assert not bait.exists()


def with_graph(program, path, change):
    """A copy of the archive whose graph went through `change(graph)`."""

    def edit(name, content):
        if name != "models/model.json":
            return content
        graph = json.loads(content)
        change(graph)
        return json.dumps(graph)

    return changed(program, path, edit)


def test_size_that_is_a_program(program, tmp_path):
    bait = tmp_path / "touched"
    code = f"__import__('pathlib').Path({str(bait)!r}).touch()"

    def change(graph):
        sizes = graph["graph_module"]["graph"]["tensor_values"]["input"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = code

    path = with_graph(program, tmp_path / "net.pt2", change)
    with pytest.raises(ModelError, match="which is more than arithmetic"):
        load_program(path)
    assert not bait.exists()
    with suppress(Exception):  # whatever follows once the code has run
        torch.export.load(path)
    assert bait.exists(), "the bait itself is broken"


def test_call_of_a_function_of_python(program, tmp_path):
    def change(graph):
        graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"

    path = with_graph(program, tmp_path / "net.pt2", change)
    with pytest.raises(ModelError, match=r"it calls 'torch.hub.load', which is no operator of torch"):
        load_program(path)


def test_name_that_is_code(program, tmp_path):
    def change(graph):
        graph["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = "x=print('run')"

    path = with_graph(program, tmp_path / "net.pt2", change)
    with pytest.raises(ModelError, match=r"it holds the name \"x=print"):
        load_program(path)


def test_custom_object_and_compiled_code(program, tmp_path):
    def change(name, content):
        return (
            json.dumps({"config": {"c": {"path_name": "opaque_obj_0", "use_pickle": True}}})
            if "constants" in name
            else content
        )

    with pytest.raises(ModelError, match="it holds a custom object, opaque_obj_0"):
        load_program(changed(program, tmp_path / "custom.pt2", change))
    path = changed(program, tmp_path / "compiled.pt2", lambda name, content: content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/aotinductor/model/x.so", b"")
    with pytest.raises(ModelError, match="it carries compiled code"):
        load_program(path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_unreadable(tmp_path, content):
    (tmp_path / "net.pt2").write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.pt2 cannot be read as a program"):
        load_program(tmp_path / "net.pt2")


def test_input_that_is_no_picture(tmp_path):
    torch.export.save(torch.export.export(nn.Linear(4, 2), (torch.zeros(3, 4),)), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"takes 1 inputs, the first \(3, 4\); expected one batch of pictures"):
        input_shape(load_program(tmp_path / "net.pt2"))
