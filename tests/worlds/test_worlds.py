"""Both built-in worlds: the gates of every problem, the scripted teacher, its errors, and the policy as tests that can fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tasks.contract.agent import Agent
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.players import scripted
from tasks.players.trivial.constant import do_nothing, hands_over, refuses
from tasks.players.trivial.oracle import Oracle
from tasks.worlds.api.conduct import one_call_per_turn
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tests.worlds.players import NAMES, problems, rewards, talk, world

SPLITS = ("train", "test")


def played_by(name: str, agent: Agent, tasks: tuple[Problem, ...]) -> list[Trajectory]:
    here = world(name)
    return play(here, [(task, 0) for task in tasks], agent, scripted.client("human", here, {}, 0), seed=0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_gates_of_every_problem(name: str, split: str) -> None:
    """The oracle passes; doing nothing, always refusing and always handing over (for either reason) fail. 210 problems each."""
    tasks = problems(name, split)
    assert {task.family for task in tasks} == set(world(name).families)
    assert rewards(played_by(name, Oracle(tasks), tasks)) == [1] * len(tasks)
    for agent in (do_nothing(), refuses(), hands_over(0), hands_over(1)):
        assert rewards(played_by(name, agent, tasks)) == [0] * len(tasks), agent.name


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_every_blueprint_predicate_holds(name: str, split: str) -> None:
    here = world(name)
    for task in problems(name, split):
        replay = here.replay(task.actions)
        assert replay.ok and (replay.diff != "") == (task.n_writes > 0), task
        for rule, holds in here.blueprint_predicates.items():
            assert holds(task, replay, here) is None, (rule, task)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_without_errors(name: str, split: str) -> None:
    """It wins at least 0.97 of all problems and breaks no rule."""
    played = talk(name, problems(name, split))
    assert sum(rewards(played)) >= 0.97 * len(played)
    assert [one.outcome.broken for one in played if one.outcome and one.outcome.broken] == []
    assert max(len(one.messages) for one in played) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_visible_errors_cost_reward_and_invisible_ones_only_policy(name: str) -> None:
    """At rate 1 each visible error loses problems; each invisible one breaks a rule, and loses next to none."""
    tasks = problems(name)
    scripts = world(name).scripts
    assert scripts.visible < set(scripts.ERRORS)
    for error in scripts.ERRORS:
        played = talk(name, tasks, {error: 1.0})
        won = sum(rewards(played)) / len(played)
        broken = sum(bool(one.outcome and one.outcome.broken) for one in played)
        if error in scripts.visible:
            assert won < 0.95, error
        else:
            assert won >= 0.95 and broken > 0.4 * len(played), error


def test_an_error_is_decided_once_per_conversation() -> None:
    """At rate 0.3 some conversations have it and some not, in each of them at every turn; more at 0.6, and those among them."""
    tasks = problems("retail")

    def erring(rate: float) -> set[str]:
        return {one.problem.problem_id for one in talk("retail", tasks, {"needless_reads": rate}) if one.outcome and one.outcome.broken}

    some, more = erring(0.3), erring(0.6)
    assert 0.2 * len(tasks) < len(some) < 0.4 * len(tasks) and some < more


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_conversation(name: str) -> None:
    """The conversation is a function of problem, trial and seed; another trial varies the human's words."""
    tasks = problems(name)[:28]
    one, again, other = talk(name, tasks), talk(name, tasks), talk(name, tasks, trial=1)
    assert [played.messages for played in one] == [played.messages for played in again]
    assert sum(a.messages != b.messages for a, b in zip(one, other, strict=True)) > 14


@pytest.mark.parametrize("name", NAMES)
def test_what_training_never_sees(name: str) -> None:
    """Held-out users, phrasings, pairs of writes and one rule appear in test problems only, and are tagged."""
    train, test = problems(name, "train"), problems(name, "test")
    assert {tag for task in train for tag in task.tags} == set()
    tags = Counter(tag for task in test for tag in task.tags)
    assert tags["unseen_user"] == len(test) and not {task.lineage[0] for task in train} & {task.lineage[0] for task in test}
    assert 0.25 < tags["unseen_phrasing"] / len(test) < 0.75
    assert tags["unseen_composition"] >= 10 and tags["unseen_rule"] >= 10
    here = world(name)
    tagged = next(task for task in test if "unseen_composition" in task.tags)
    moved = replace(tagged, split="train")
    assert "kept for test" in str(here.blueprint_predicates["S1"](moved, here.replay(moved.actions), here))


def outcome_of(name: str, task: Problem, actions: list[Action], confirm: bool = True) -> dict[str, str | None]:
    """The trajectory predicates of a made-up conversation with these calls."""
    here = world(name).fork()
    played = Trajectory(problem=task, trial=0)
    for action in actions:
        if confirm and action.kind == "write":
            shown = " ".join(map(str, action.arguments.values()))
            played.messages += [{"role": "assistant", "content": f"{shown}?"}, {"role": "user", "content": "Yes."}]
        function = {"name": action.name, "arguments": action.arguments}
        played.messages.append({"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": function}]})
        result = here.call(action.name, action.arguments)
        played.calls.append((action, result))
        played.messages.append({"role": "tool", "content": result.content})
    return {rule: holds(played, here) for rule, holds in here.trajectory_predicates.items()}


def broken(reasons: dict[str, str | None]) -> set[str]:
    return {rule for rule, reason in reasons.items() if reason is not None}


@pytest.mark.parametrize("name", NAMES)
def test_conduct_predicates_pass_and_fail(name: str) -> None:
    task = next(task for task in problems(name) if task.family == "one_write" and len(task.actions) == 3)
    find, look, write = task.actions
    assert broken(outcome_of(name, task, [find, look, write])) == set()
    assert "R1" in broken(outcome_of(name, task, [look, find, write]))
    assert broken(outcome_of(name, task, [find, look, write], confirm=False)) == {"R3"}
    lean = {"retail": "R13", "airline": "R15"}[name]
    assert broken(outcome_of(name, task, [find, look, look])) == {lean}
    assert broken(outcome_of(name, task, [find, look, write, look])) == set(), "looking again after a change is fine"
    reason = {"retail": "lost", "airline": "lost_bag"}[name]
    assert broken(outcome_of(name, task, [find, Action("transfer_to_human", {"reason": reason}, "end")])) == {"R11"}


def test_one_call_per_turn() -> None:
    task = problems("retail")[0]
    call = {"id": "c", "function": {"name": "get_order", "arguments": {}}}
    both = Trajectory(task, 0, [{"role": "assistant", "content": "", "tool_calls": [call, call]}])
    chatty = Trajectory(task, 0, [{"role": "assistant", "content": "One moment.", "tool_calls": [call]}])
    assert one_call_per_turn(both, world("retail")) == "2 calls in one turn"
    assert one_call_per_turn(chatty, world("retail")) == "a call and a reply in one turn"


def attempts(name: str, task: Problem) -> list[Action]:
    """The write that a forbidden wish asks for, made by an agent that minds no rule."""
    played = talk(name, [task], {"refused_write_attempt": 1.0})[0]
    return [action for action, _ in played.calls]


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_can_be_broken_and_the_airlines_api_minds_none(name: str) -> None:
    """For each rule that forbids something there is a problem in which doing it breaks exactly this rule."""
    here = world(name)
    seen: set[str] = set()
    for task in draw_problems(here, "test", 120, 2, ["forbidden"]):
        rule = task.intent["rule"]
        actions = attempts(name, task)
        writes = [action for action in actions if action.kind == "write"]
        if not writes:
            continue  # the booking's own rules were broken before it came to a write
        seen.add(rule)
        assert rule in broken(outcome_of(name, task, actions)), task
        made = replace(task, actions=tuple(actions))
        replay = here.replay(actions)
        assert here.blueprint_predicates[rule](made, replay, here) is not None, task
        assert replay.ok or name == "retail", "the airline's API enforces no rule"
    enforced = {
        "retail": {"R2", "R5", "R6", "R7", "R8", "R9", "R10"},
        "airline": {"R2", "R5", "R6", "R7", "R8", "R9", "R10", "R12", "R13"},
    }
    assert seen == enforced[name]


@pytest.mark.parametrize("name", NAMES)
def test_blueprint_predicates_fail_on_what_is_not_a_problem(name: str) -> None:
    here = world(name)
    task = next(task for task in problems(name) if task.family == "one_write")

    def reason(rule: str, **changes: Any) -> str | None:
        made = replace(task, **changes)
        return here.blueprint_predicates[rule](made, here.replay(made.actions), here)

    assert "before the customer was found" in str(reason("R1", actions=task.actions[1:]))
    assert reason("R1", lineage=("other",)) == f"the customer found is {task.lineage[0]}, not other"
    assert "does nothing would pass" in str(reason("G1", actions=task.actions[:1], outputs=()))
    over = Action("transfer_to_human", {"reason": {"retail": "lost", "airline": "lost_bag"}[name]}, "end")
    assert "handed over without" in str(reason("R11", actions=(task.actions[0], over)))


def test_generated_ids_do_not_depend_on_the_order_of_writes() -> None:
    here = world("airline")
    users = list(here.splits)[:2]
    flight = next(iter(here.shared.base.tables["flights"]))
    books = [Action("book_flight", {"user_id": user, "flight_id": flight, "cabin": "basic"}, "write") for user in users]
    forward, backward = here.replay(books), here.replay(books[::-1])
    assert forward.ok and forward.state_hash == backward.state_hash
    twice = here.replay([books[0], books[0]])
    assert twice.ok and len(twice.diff.splitlines()) == 2 * len(here.replay(books[:1]).diff.splitlines())


def test_results_are_short_lines() -> None:
    """One line of JSON, at most 200 characters: a tiny model reads it whole."""
    for name in NAMES:
        for played in talk(name, problems(name)):
            for _, result in played.calls:
                assert isinstance(result, ToolResult) and "\n" not in result.content and len(result.content) <= 200
