"""What a dry run and the report say of params: every one in which two runs differ, by its name, in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.differences import Difference, candidate_of, differences, for_report, last_parts, of_plan
from flows.records import Records
from flows.summary_text import step_lines, step_records
from tasks.engine.explain import remember
from tasks.engine.job import job_of
from tasks.engine.key import params_of
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tests.conftest import ROOT


def plan(state: Path, *overrides: tuple[str, Any], experiment: bool = False) -> Plan:
    return Plan.open(load(ROOT, "smoke", overrides), state, experiment=experiment)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A state folder in which merge ran once, on results that stand in the store's records."""
    here = plan(tmp_path)
    for stage, inputs, identity in (("sft", {"worlds": "w", "base": "b", "filter": "f"}, "s"), ("merge", {"sft": "s", "rl": "r"}, "m")):
        job = job_of(here, stage, inputs)
        remember(here, job)
        here.store.record(job.key, identity, {})
    return tmp_path


def test_a_swapped_method_shows_what_came_and_went_and_nothing_else(ran: Path) -> None:
    told = of_plan(now := plan(ran, ("merge.method", "linear")), last_parts(now))
    assert {stage for stage, found in told.items() if found} == {"merge"}, "sft ran too, and nothing of it differs"
    lines = [str(one) for one in told["merge"]]
    assert lines[0] == "merge.method: breadcrumbs -> linear"
    assert "merge.breadcrumbs.alpha: 0.5 -> not set" in lines
    assert all(line.startswith(("merge.method", "merge.breadcrumbs.", "merge.linear.")) for line in lines)


def test_long_values_are_told_in_full(ran: Path) -> None:
    weights = {"rl_airline": 0.12345678901234567, "rl_retail": 0.9876543210987654}
    now = plan(ran, ("merge.breadcrumbs.weights", weights), ("threads", 3))
    lines = [str(one) for one in of_plan(now, last_parts(now))["merge"]]
    assert [line for line in lines if line.startswith("merge.breadcrumbs.weights")] == [
        f"merge.breadcrumbs.weights.{name}: not set -> {value}" for name, value in weights.items()
    ]
    assert "threads: 1 -> 3" in lines


def test_a_loop_has_a_name_of_its_own(ran: Path) -> None:
    now = plan(ran, ("sft.loop.batch_tokens", 77))
    old = load(ROOT, "smoke").loop("sft")
    assert old is not None
    was = old.model_dump()["batch_tokens"]
    assert [str(one) for one in of_plan(now, last_parts(now))["sft"]] == [f"sft.loop.batch_tokens: {was} -> 77"]


def test_the_workspace_goes_before_an_experiment(ran: Path) -> None:
    other = plan(ran, ("merge.breadcrumbs.keep", 0.9), experiment=True)
    remember(other, job_of(other, "merge", {"sft": "s", "rl": "r"}))
    remember(other, job_of(other, "decide", {"merge": "m", "evaluate": "e"}))
    now = plan(ran)
    assert last_parts(now)["merge"]["params"]["keep"] == 0.3
    assert "decide" in last_parts(now), "a stage that ran in an experiment alone is compared with that"


def test_a_run_is_compared_with_the_champion_else_with_the_last_run(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.engine import champion

    now = plan(ran, ("seed", 7))
    told = for_report(now, last_parts(now))
    assert told["with"] == "the workspace's last run"
    assert {"name": "seed", "old": "0", "new": "7", "stages": ["sft", "merge"]} in told["params"], "once, with who reads it"
    assert {*Records(now.store).behind("m")} == {"merge", "sft"}
    monkeypatch.setattr(champion, "read", lambda path: champion.Standing("m", {}))
    told = for_report(now, {}, "another")
    assert told["with"] == "the champion" and told["params"][0]["stages"] == ["sft", "merge"]
    assert for_report(plan(ran), {}, "") == {"with": "", "params": []}
    assert candidate_of({}) == ""


def test_they_stand_under_the_stage_one_a_line(ran: Path) -> None:
    from flows.survey import Outlook

    step = Outlook("merge", None, None, ["its input rl would run"], [Difference("merge.breadcrumbs.keep", "0.3", "0.2")])
    assert list(step_lines([step])) == ["merge     would run  its input rl would run", "            merge.breadcrumbs.keep: 0.3 -> 0.2"]
    assert step_records([step])[0]["params"] == [{"name": "merge.breadcrumbs.keep", "old": "0.3", "new": "0.2"}]


def test_nothing_differs_from_itself(tmp_path: Path) -> None:
    now = plan(tmp_path)
    for stage, about in now.stages.items():
        parts = params_of(now.settings, about)
        assert differences(stage, parts, parts) == []
