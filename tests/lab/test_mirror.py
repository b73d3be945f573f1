"""Finished trials copied to MLflow once each."""

import pytest

from sepwise.errors import SepwiseError
from sepwise.lab import Folder
from sepwise.lab.trials import Trial, trials

tracking = pytest.importorskip(
    "mlflow.tracking", reason="the extra mlflow is not installed: pip install 'sepwise[mlflow]'"
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_each_trial_is_copied_once(recipe_of, tmp_path):
    from sepwise.lab.mirror import mirror

    recipe, folder, uri = recipe_of(), Folder(tmp_path / "results"), f"sqlite:///{tmp_path}/mlflow.db"
    wanted: list[Trial] = trials(recipe, "smoke")
    for trial in wanted[:3]:
        folder.finish(trial, {"error": 10.0 + trial.seed, "losses": [2.0, 1.0], "diverged": False})
    assert mirror(recipe, folder, uri) == 3
    folder.finish(wanted[3], {"error": 11.0, "losses": [2.0, 1.0], "diverged": False})
    assert mirror(recipe, folder, uri) == 1
    assert mirror(recipe, folder, uri) == 0
    client = tracking.MlflowClient(uri)
    experiment = client.get_experiment_by_name("sepwise/made_up")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted((r.data.params["arm"], r.data.metrics["error"]) for r in runs) == [
        ("none", 10.0), ("none", 11.0), ("one", 10.0), ("one", 11.0)
    ]  # fmt: skip
    assert [m.value for m in client.get_metric_history(runs[0].info.run_id, "losses")] == [2.0, 1.0]


def test_a_server_that_is_not_there(recipe_of, tmp_path, monkeypatch):
    from sepwise.lab.mirror import mirror

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SepwiseError, match=r"MLflow at http://127\.0\.0\.1:1 refused"):
        mirror(recipe_of(), Folder(tmp_path), "http://127.0.0.1:1")
