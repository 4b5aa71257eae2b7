"""The runtime: calls, forks, replay and grading of one world, and the problems that it makes.

Worked by hand on a shop of 4 users (`tests.flows.shop`): cancelling W1000 changes one field, and the diff says so; W1006 was delivered, and
cancelling it is refused and changes nothing. Limit: replaying no action gives the start.
"""

from __future__ import annotations

import json
import time
from random import Random
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.worlds.api.problem_making import api_graph, draw_problems, problem_of, propose, user_context
from tasks.worlds.api.runtime import World, rules_of
from tasks.worlds.api.state import State
from tasks.worlds.api.tools import read, write
from tests.flows.shop import Shop
from tests.worlds.players import NAMES, problems, world


def shop() -> World:
    return World.build(Shop, 4, 0)


def cancel(order_id: str) -> Action:
    return Action("cancel_order", {"order_id": order_id}, "write")


def test_by_hand() -> None:
    here = shop()
    start = here.state_hash()
    assert here.call("cancel_order", {"order_id": "W1000"}) == ToolResult(True, "cancelled")
    assert here.diff() == '- orders W1000 status: "pending"\n+ orders W1000 status: "cancelled"'
    after = here.state_hash()
    refused = here.call("cancel_order", {"order_id": "W1006"})
    assert not refused.ok and json.loads(refused.content) == {"error": "order 'W1006' is not pending"}
    assert here.state_hash() == after != start
    here.reset()
    assert here.state_hash() == start == shop().state_hash() == here.replay([]).state_hash


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("cancel_oder", {}, "no tool 'cancel_oder'. Did you mean 'cancel_order'?"),
        ("cancel_order", {}, "argument 'order_id' is missing"),
        ("cancel_order", {"order_id": "W1000", "why": ""}, "unknown argument 'why'"),
        ("cancel_order", "W1000", "arguments must be a JSON object"),
        (None, {}, "no tool None"),
        ("__init__", {"db": 1}, "no tool '__init__'"),
    ],
)
def test_bad_calls_are_answers(name: Any, arguments: Any, says: str) -> None:
    here = shop()
    result = here.call(name, arguments)
    assert not result.ok and says in json.loads(result.content)["error"] and here.diff() == ""


class Faulty(Shop):
    NAME = "faulty"

    @write()
    def half(self) -> str:
        """Change one row, then fail."""
        self.db.update("orders", "W1000", status="lost")
        raise ZeroDivisionError("a bug of the world")

    @read()
    def sly(self) -> str:
        """A look-up that tries to write."""
        self.db.update("orders", "W1000", status="lost")
        return "done"


def test_a_worlds_own_bug_is_an_answer_and_leaves_no_trace() -> None:
    here = World.build(Faulty, 4, 0)
    for name, says in (("half", "tool failure: ZeroDivisionError: a bug of the world"), ("sly", "tool that is not a write")):
        result = here.call(name, {})
        assert not result.ok and says in result.content and here.diff() == ""
    assert here.call("cancel_order", {"order_id": "W1000"}).ok


def test_forks_are_apart_and_snapshots_travel() -> None:
    one = shop()
    one.call("cancel_order", {"order_id": "W1000"})
    other = one.fork()
    assert other.diff() == "" and one.diff() != ""
    other.restore(one.snapshot())
    assert other.state_hash() == one.state_hash()
    other.reset()
    assert one.diff() != ""


def test_replay_touches_nothing_and_names_what_was_refused() -> None:
    here = shop()
    replay = here.replay([cancel("W1000"), cancel("W1006")])
    assert not replay.ok and replay.errors == ('action 2 cancel_order: {"error": "order \'W1006\' is not pending"}',)
    assert replay.diff.startswith("- orders W1000") and [result.ok for result in replay.results] == [True, False]
    assert here.diff() == ""


def problem(actions: tuple[Action, ...], outputs: tuple[str, ...] = (), required: tuple[Action, ...] = ()) -> Problem:
    return Problem("p", "shop", "train", "one_write", ("u0",), "", "", {}, actions, outputs, required)


def test_grading_by_hand() -> None:
    """State, outputs and required calls are three parts; the reward is their product."""
    here = shop()
    look = Action("get_order", {"order_id": "W1000"})
    wanted = problem((look, cancel("W1000")), ("10",), (look,))
    final = here.fork()
    played = Trajectory(problem=wanted, trial=0, messages=[{"role": "assistant", "content": "It costs 10.0."}])
    outcome = here.grade(played, final)
    assert (outcome.state, outcome.outputs, outcome.required, outcome.reward) == (0, 1, 0, 0)
    for action in (look, Action("get_order", {"order_id": "W1001"}), cancel("W1000")):
        played.calls.append((action, final.call(action.name, action.arguments)))
    outcome = here.grade(played, final)
    assert (outcome.state, outcome.outputs, outcome.required, outcome.reward, outcome.policy) == (1, 1, 1, 1, 1.0)
    played.messages[0]["role"] = "user"
    assert here.grade(played, final).outputs == 0, "what the user says is no output"
    before = final.diff()
    here.grade(played, final)
    assert final.diff() == before, "grading only looks"


def test_a_ground_truth_that_is_refused_is_no_ground_truth() -> None:
    here = shop()
    with pytest.raises(ValueError, match=r"problem p: its ground truth is refused: action 1 cancel_order"):
        here.grade(Trajectory(problem=problem((cancel("W1006"),)), trial=0), here.fork())
    flagged = problem((Action("get_order", {"order_id": "W9"}), cancel("W1000")))
    assert here.grade(Trajectory(problem=flagged, trial=0), here.fork()).state == 0, "a look-up may fail"


def test_what_a_world_needs_is_named() -> None:
    with pytest.raises(BadInput, match=r"world Row: NAME is missing"):
        World.build(type("Row", (), {}), 4, 0)
    with pytest.raises(BadInput, match=r"at least 3 users"):
        World.build(Shop, 2, 0)


def test_rules_are_the_numbered_lines() -> None:
    policy = "# Desk\n\nR1. One\n  and a half.\nR2. Two.\n\nNot a rule.\n"
    assert rules_of(policy) == {"R1": "One and a half.", "R2": "Two."}


def test_bad_questions_for_problems() -> None:
    here = world("retail")
    with pytest.raises(BadInput, match=r"split 'tset': allowed are train, validation, test. Did you mean 'test'?"):
        draw_problems(here, "tset", 1, 0)
    with pytest.raises(BadInput, match=r"no family 'lookups'. Did you mean 'lookup'?"):
        draw_problems(here, "train", 1, 0, ["lookups"])
    with pytest.raises(BadInput, match=r"Make the world larger"):
        draw_problems(World.build(here.shared.cls, 3, 0), "test", 200, 0, ["hand_over"])


@pytest.mark.parametrize("name", NAMES)
def test_problems_are_a_function_of_the_seed(name: str) -> None:
    here = world(name)
    some = draw_problems(here, "train", 21, 4)
    assert draw_problems(here, "train", 35, 4)[:21] == some, "the first n do not depend on how many"
    assert draw_problems(here, "train", 21, 5) != some
    assert draw_problems(World.build(here.shared.cls, 100, 7), "train", 21, 4) == some
    assert len({one.problem_id for one in some}) == 21
    assert {one.family for one in draw_problems(here, "test", 4, 0, ["lookup", "forbidden"])} == {"lookup", "forbidden"}


@pytest.mark.parametrize("name", NAMES)
def test_walks_lead_to_their_writes(name: str) -> None:
    here = world(name)
    rng = Random(0)
    graph = api_graph(here)
    assert set(graph) == set(here.tools) and all(after in here.tools for follow in graph.values() for after in follow)
    for tool in here.tools.values():
        reached = [first for first, follow in graph.items() if tool.name in follow]
        drafts = [propose(here, user_context(here, rng, "train"), rng, walk=[*reached[:1], tool.name]) for _ in range(20)]
        made = [draft for draft in drafts if draft]
        assert made, f"{name}: no user allows {tool.name}"
        if tool.kind != "read":
            assert all(tool.name in {action["name"] for action in draft["actions"]} for draft in made)


def test_a_context_is_json_and_a_problem_holds_its_lineage() -> None:
    here = world("airline")
    rng = Random(3)
    context = user_context(here, rng, "validation")
    assert json.loads(json.dumps(context)) and context["split"] == "validation"
    draft = propose(here, json.loads(json.dumps(context)), rng, family="information")
    made = problem_of(here, draft, context, lineage=("parent", context["user_id"]))
    assert made.lineage == (context["user_id"], "parent") and made.split == "validation"
    assert here.splits[context["user_id"]] == "validation" and made.tags == ("unseen_user",)
    bare = {key: draft[key] for key in ("instruction", "actions", "outputs")}
    assert problem_of(here, bare, context).family == "information", "a draft of a model may lack everything else"


def test_calls_and_forks_are_cheap() -> None:
    """A call adds at most 50 microseconds to the tool, a fork with a snapshot costs at most 50; best of several, on a busy machine."""
    here = world("retail")
    order_id = problems("retail", "train", 7)[0].intent["requests"][0]["slots"]["order_id"]
    bare = here.shared.cls(State(here.shared.base))

    def best(work: Any) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(50):
                work()
            times.append((time.perf_counter() - start) / 50)
        return min(times)

    through = best(lambda: here.call("get_order", {"order_id": order_id}))
    alone = best(lambda: json.dumps(bare.get_order(order_id)))
    assert through - alone < 50e-6
    assert best(lambda: here.fork().snapshot()) < 50e-6
