"""Why a stage would run is said from the key of its last result."""

from __future__ import annotations

from pathlib import Path

from tasks.engine.explain import LOST, remember, why
from tasks.engine.job import job_of
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tests.conftest import ROOT


def test_a_stage_that_ran_in_an_experiment_alone_is_not_said_to_have_never_run(tmp_path: Path) -> None:
    settings = load(ROOT, "smoke")
    other = load(ROOT, "smoke", (("worlds.freeze.size", 61),))
    workspace = Plan.open(settings, tmp_path)
    experiment = Plan.open(other, tmp_path, experiment=True)
    assert why(workspace, job_of(workspace, "worlds", {})) == ["never ran here"]
    remember(experiment, job_of(experiment, "worlds", {}))
    assert why(workspace, job_of(workspace, "worlds", {})) == ["ran in an experiment alone, with params: size 61 -> 60"]
    remember(workspace, job_of(workspace, "worlds", {}))
    assert why(workspace, job_of(workspace, "worlds", {})) == [LOST], "the workspace's own last run is what counts then"
    assert why(experiment, job_of(experiment, "worlds", {})) == [LOST]
