"""Validation, step by step, as APIGen-MT section 4.1 has it: who is asked about what, in which order, and what a refusal leads to."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tasks.contract.rows import problem_of
from tasks.generate.parts.apigen_mt.committee import CRITERIA, count
from tasks.players import scripted
from tasks.players.scripts.script import blocks
from tests.generate.conftest import ERRORS, Make
from tests.generate.test_apigen_mt import Says, Spy

STAGE_1 = ("failed_format", "failed_exec", "failed_policy")


def _client(role: str, world: Any, **errors: float) -> Any:
    return scripted.client(role, world, errors, 0)


def test_judges_are_asked_only_about_what_passed_stage_1(make: Make, world: Any) -> None:
    """Three votes for every attempt that held format, execution and policy; none for the others (the first failure ends)."""
    spy = Spy(_client("judge", world))
    made = make(ERRORS, clients={"judge": spy}, problems=60)
    held = [row for row in made.blueprints if row["status"] not in STAGE_1]
    assert len(spy.requests) == 3 * len(held) and len(held) < len(made.blueprints)
    for row in made.blueprints:
        assert len(row["judge_scores"]) == (0 if row["status"] in STAGE_1 else 3)
        assert (row["avg_score"] is None) == (row["status"] in STAGE_1)


def test_a_judge_reads_task_diff_trace_and_every_rule(make: Make, world: Any) -> None:
    """And the diff and the trace are those of the calls on a fresh copy."""
    spy = Spy(_client("judge", world))
    make(clients={"judge": spy}, problems=6, recombine=0)
    for request in spy.requests:
        (task,), (trace,), (diff,), (rules,) = (blocks(request.messages, name) for name in ("task", "trace", "diff", "policies"))
        replay = world.replay([problem_action(world, one) for one in task["actions"]])
        assert diff == replay.diff and [step["answer"] for step in trace] == [result.content for result in replay.results]
        assert rules == dict(world.rules) and task["instruction"] and request.schema is not None


def problem_action(world: Any, one: dict[str, Any]) -> Any:
    from tasks.contract.problem import Action

    return Action(one["name"], one["arguments"], world.tools[one["name"]].kind)


def test_the_feedback_is_about_all_reasons_and_reaches_the_next_attempt(make: Make, world: Any) -> None:
    """A plan is asked for each refused attempt but the last one; it is given every failure text, and the author hears its words."""
    feedback, author = Spy(_client("feedback", world)), Spy(_client("generator", world, **ERRORS["generator"]))
    made = make(ERRORS, clients={"feedback": feedback, "generator": author}, problems=40, round_size=40, recombine=0)
    told = Counter("; ".join(map(str, blocks(request.messages, "failures")[0])) for request in feedback.requests)
    assert told == Counter(row["fail_reason"] for row in made.blueprints if row["feedback"])
    last = {row["seed"]: row["attempt"] for row in made.blueprints}
    for row in made.blueprints:
        assert bool(row["feedback"]) == (row["attempt"] < last[row["seed"]])
    plans = {request.messages[-1]["content"] for request in author.requests if len(request.messages) > 2}
    wanted = {row["feedback"] for row in made.blueprints if row["feedback"]}
    assert wanted and all(any(json.dumps(plan, ensure_ascii=False) in text for text in plans) for plan in wanted)


def test_no_more_attempts_than_allowed(make: Make) -> None:
    hopeless = Says(lambda request: "{}")
    for reflections in (0, 1, 5):
        made = make(clients={"generator": hopeless}, problems=3, max_reflections=reflections, min_accepted=0)
        assert Counter(row["attempt"] for row in made.blueprints) == dict.fromkeys(range(1 + reflections), 3)


def test_an_even_committee_needs_more_than_half() -> None:
    """Two votes of four are no majority."""

    def vote(good: bool) -> tuple[dict[str, Any], str]:
        return {name: {"score": int(good), "reason": "" if good else "no"} for name in CRITERIA}, ""

    quiet = [dict.fromkeys(CRITERIA, False)] * 4
    assert set(count([vote(True), vote(True), vote(False), vote(False)], quiet, ("a", "b", "c", "d")).majority.values()) == {0}
    assert set(count([vote(True), vote(True), vote(True), vote(False)], quiet, ("a", "b", "c", "d")).majority.values()) == {1}


@pytest.mark.parametrize(("threshold", "every", "accepted"), [(3.0, True, 0), (3.0, False, 0), (2.9, False, 12), (2.9, True, 0)])
def test_the_final_review_is_strict(make: Make, threshold: float, every: bool, accepted: int) -> None:
    """All judges give 3 of 4 and refuse creativity: 3.0 is not above 3.0; above 2.9 it is, but a criterion is lost."""
    vote = {name: {"score": int(name != "creativity"), "reason": "dull"} for name in CRITERIA}
    judge = Says(lambda request: json.dumps(vote))
    made = make(
        clients={"judge": judge},
        problems=12,
        max_reflections=0,
        recombine=0,
        threshold=threshold,
        every_criterion=every,
        walked=0.0,
        min_accepted=0,
    )
    assert made.figures["base"]["accepted"] + made.figures["base"]["failed_duplicate"] == accepted
    assert {row["avg_score"] for row in made.blueprints if row["avg_score"] is not None} == {3.0}


def test_a_recombination_is_validated_anew_as_a_whole(make: Make, world: Any) -> None:
    """Of one customer; asked of a model as one instruction; its own replay, votes and gate; look-ups of both made once."""
    recombiner = Spy(_client("recombiner", world))
    made = make(clients={"recombiner": recombiner}, problems=60, recombine=1.0, parts=3)
    joined = [row for row in made.accepted.values() if row["source_ids"]]
    assert len(joined) > 10 and {len(row["source_ids"]) for row in joined} == {2, 3}
    for row in joined:
        parts = [made.accepted[one] for one in row["source_ids"]]
        assert len({part["lineage"][0] for part in parts} | {row["lineage"][0]}) == 1
        replay = world.replay(problem_of(row).actions)
        assert replay.ok and row["diff_patch"] == replay.diff and row["gt_state_hash"] == replay.state_hash
        assert len(row["judge_scores"]) == 3
        calls = [(call["name"], call["arguments_json"]) for call in row["actions"] if call["kind"] == "read"]
        assert {call for call in calls} == {
            (call["name"], call["arguments_json"]) for part in parts for call in part["actions"] if call["kind"] == "read"
        }
    for request in recombiner.requests:
        assert len(blocks(request.messages, "tasks")[0]) >= 2 and blocks(request.messages, "persona")[0]
