"""Format, execution and policy of one draft, and the gate of a problem."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError

from tasks.contract.problem import Action, Setting
from tasks.generate.parts.apigen_mt import prompts
from tasks.generate.parts.apigen_mt.checks import check, undone
from tasks.generate.parts.apigen_mt.trivial_agents import gate
from tasks.worlds.api.problem_making import problem_of, propose, user_context
from tasks.worlds.api.prompts import Prompts
from tasks.worlds.api.runtime import World


@pytest.fixture
def case(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    """(data, draft) of a cancellation that is in order."""
    rng = Random(5)
    while True:
        data = user_context(world, rng, "train")
        draft = deepcopy(propose(world, data, rng, ["cancel_order"]))
        if draft and draft["actions"][-1]["name"] == "cancel_order":
            return data, draft


def test_a_good_draft_by_hand(world: World, case: Any) -> None:
    """find_user, get_order, cancel_order: one write, whose diff turns the order's status from pending to cancelled."""
    data, draft = case
    checked = check(world, draft, data)
    order = draft["actions"][-1]["arguments"]["order_id"]
    assert checked.status == "" and checked.problem is not None and checked.problem.n_writes == 1
    assert f'- orders {order} status: "pending"' in checked.diff and f'+ orders {order} status: "cancelled"' in checked.diff
    assert [step["name"] for step in checked.trace] == ["find_user", "get_order", "cancel_order"]
    assert checked.problem.lineage == (data["user_id"],)
    assert check(world, draft, data, ["parent_1"]).problem.lineage == (data["user_id"], "parent_1")  # type: ignore[union-attr]


def test_trap_4_checking_happens_on_a_copy(world: World, case: Any) -> None:
    data, draft = case
    before = (world.state_hash(), deepcopy(draft))
    check(world, draft, data)
    gate(world, [check(world, draft, data).problem])  # type: ignore[list-item]
    assert (world.state_hash(), draft) == before


def _spoil(draft: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    draft["actions"][-1]["arguments"].update(arguments)
    return draft


@pytest.mark.parametrize(
    ("spoil", "status", "why"),
    [
        (lambda draft: draft.update(instruction="  "), "failed_format", "format: the instruction is empty"),
        (lambda draft: draft["outputs"].append("?!"), "failed_format", "the output '?!' has no word"),
        (lambda draft: draft["actions"][0].update(name="find"), "failed_format", "format: actions 1: no tool is called 'find'"),
        (lambda draft: _spoil(draft, order_id=7), "failed_format", "argument 'order_id' must be a string"),
        (lambda draft: _spoil(draft, reason="boredom"), "failed_format", "argument 'reason' must be one of"),
        (lambda draft: _spoil(draft, force=True), "failed_format", "unknown argument 'force'"),
        (lambda draft: draft.update(required=[{"name": "x", "arguments": {}}]), "failed_format", "required 1: no tool"),
        (lambda draft: _spoil(draft, order_id="W0"), "failed_exec", "execution: action 3 cancel_order"),
        (lambda draft: draft["actions"].append(draft["actions"][-1]), "failed_exec", "execution: action 4 cancel_order"),
        (lambda draft: draft["actions"][1]["arguments"].update(order_id="W0"), "failed_exec", "execution: action 2 get_order"),
        (lambda draft: draft["actions"].pop(0), "failed_policy", "policy R1"),
    ],
)
def test_the_first_failure_ends_the_checks(world: World, case: Any, spoil: Any, status: str, why: str) -> None:
    """Trap 6 among them: an error in a gold call, above all in a write, is never legal."""
    data, draft = case
    spoil(draft)
    checked = check(world, draft, data)
    assert checked.status == status and why in checked.why


def test_the_gate_refuses_what_nobody_or_anybody_passes(world: World, case: Any) -> None:
    """A problem without write, output and required call pays for doing nothing; a required call that is refused can never be made."""
    data, draft = case
    problem = check(world, draft, data).problem
    assert problem is not None
    empty = replace(problem, problem_id="empty", actions=problem.actions[:2])
    impossible = replace(problem, problem_id="impossible", required=(replace(problem.actions[1], arguments={"order_id": "W0"}),))
    over = next(tool for tool in world.tools.values() if tool.kind == "end")
    enum = next(iter(over.parameters["properties"].values()))["enum"]
    handed = [{"name": over.name, "arguments": {name: enum[0] for name in over.parameters["required"]}}]
    handing = problem_of(world, {**draft, "actions": draft["actions"][:2], "required": handed}, data)
    found = gate(world, [problem, empty, impossible, handing])
    assert found[0] == ("", {"oracle": 1, "do_nothing": 0, "always_refuses": 0, "always_hands_over": 0})
    assert found[1][0] == "do_nothing and always_refuses and always_hands_over would pass"
    assert found[2][0] == "its own ground truth does not pass"
    assert found[3][0] == "always_hands_over would pass"
    assert gate(world, []) == []


def test_prompts_are_strict_and_sandboxed(tmp_path: Any) -> None:
    with pytest.raises(UndefinedError, match="failures"):
        prompts.render("feedback", setting=Setting(), task={})
    (tmp_path / "evil.jinja").write_text("{{ task.__class__.__mro__ }}")
    with pytest.raises(SecurityError):
        Prompts(tmp_path)("evil", task={})
    assert prompts.block({"b": "a\n```", "a": 1}, "x") == '```json x\n{"b": "a\\n```", "a": 1}\n```'


def test_a_value_is_never_a_template() -> None:
    text = prompts.render("feedback", setting=Setting(), task={"instruction": "{{ 7 * 7 }}"}, failures=["{% raise %}"])
    assert "{{ 7 * 7 }}" in text and "49" not in text


def test_tasks_that_undo_each_other_by_hand(world: World, case: Any) -> None:
    """Two addresses for one order: the first leaves no trace. An address and a cancellation, or a look-up, leave theirs."""
    order = case[1]["actions"][-1]["arguments"]["order_id"]

    def move(address: str) -> tuple[Action, ...]:
        return (Action("get_order", {"order_id": order}), Action("change_address", {"order_id": order, "address": address}, "write"))

    cancel = (Action("cancel_order", {**case[1]["actions"][-1]["arguments"]}, "write"),)
    assert undone(world, [move("28 Hill Street"), move("71 Hill Street")]) == "what task 1 changes is undone by another"
    assert undone(world, [move("28 Hill Street"), move("28 Hill Street")]), "the same wish twice is one wish"
    assert undone(world, [move("28 Hill Street"), cancel]) == "" == undone(world, [move("28 Hill Street"), move("1 Oak Road")[:1]])
    assert undone(world, []) == ""
