"""A trial that refuses keeps no other from being done, in one process or in several."""

import pytest

from sepwise import zoo
from sepwise.errors import SepwiseError
from sepwise.lab import Folder, Inputs, named, run
from sepwise.sources.weights import save_weights


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_can_be_done_is_done(tmp_path, workers):
    save_weights(zoo.NETWORKS["resnet20"](), tmp_path / "resnet20.safetensors")
    with pytest.raises(
        SepwiseError, match=r"trials of rank_one are not done:\n    (.*\n    )?there is no resnet32"
    ) as e:
        run("rank_one", "smoke", tmp_path / "results", Inputs(weights=str(tmp_path)), workers=workers)
    assert str(e.value).count("there is no resnet32") == 1
    done = {result.arm for result in Folder(tmp_path / "results").results(named("rank_one"), "smoke")}
    assert "resnet20" in done
    assert "resnet32" not in done
