"""What a decision can see is said before anything runs, and a run whose decision could only refuse does not start."""

from __future__ import annotations

import pytest
from prefect import State

from flows import ahead, gate_reach, pipeline
from flows.flow_ends import INVALID
from flows.run import open_plan
from tasks.contract.params import BadInput
from tasks.engine import start
from tasks.engine.champion import Standing


def test_the_quickstart_says_that_it_sees_no_fall() -> None:
    ((stage, said),) = gate_reach.check(open_plan("quickstart"), ["evaluate"])
    assert said.startswith("With 7 problems in the smallest of 14 families, no fall is seen, not even to nothing")
    assert stage == "decide" and "728 in all" in said
    assert gate_reach.check(open_plan("quickstart"), ["sft"]) == []


def test_a_champion_is_not_played_against_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_reach, "read", lambda path: Standing("abc.dir"))
    gate_reach.check(open_plan("quickstart"), ["evaluate"])
    with pytest.raises(BadInput, match=r"Raise gate_problems to 364 a world, or write too_few: allow"):
        gate_reach.check(open_plan("quickstart", {"decide.paired_gate.too_few": "refuse"}), ["evaluate"])
    assert gate_reach.check(open_plan("quickstart", {"decide.paired_gate.too_few": "refuse"}), ["evaluate"], decides=False)
    enough = {"decide.paired_gate.too_few": "refuse", "evaluate.pass_k.gate_problems": 364}
    gate_reach.check(open_plan("quickstart", enough), ["evaluate"])


def test_a_run_that_a_schedule_starts_looks_ahead_as_cairn_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flow is all that runs: what would end it after hours of training ends it in its first seconds."""
    for name, nothing in (("reconcile", []), ("settle_alias", ""), ("settle", "")):
        monkeypatch.setattr(pipeline, name, lambda _, nothing=nothing: nothing)
    monkeypatch.setattr(ahead, "read", lambda path: Standing("abc.dir"))
    ended = pipeline.pipeline.fn(profile="smoke")
    assert isinstance(ended, State) and ended.name == INVALID
    assert "the champion abc.dir must play the gate, and its bytes are not in the store" in str(ended.message)
    monkeypatch.setattr(ahead, "check_champion", lambda plan, part, steps: None)
    monkeypatch.setattr(gate_reach, "read", lambda path: Standing("abc.dir"))
    ended = pipeline.pipeline.fn(profile="quickstart", more_overrides="decide.paired_gate.too_few = refuse")
    assert isinstance(ended, State) and ended.name == INVALID and "Raise gate_problems to 364 a world" in str(ended.message)


def test_a_run_that_a_schedule_starts_tells_a_dead_tracking_server_and_who_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "users_variables", lambda: {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    ended = pipeline.pipeline.fn(profile="smoke")
    assert isinstance(ended, State) and ended.name == INVALID
    assert str(ended.message).startswith("MLFLOW_TRACKING_URI=http://127.0.0.1:9 (environment): nobody answers there")
