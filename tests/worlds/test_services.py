"""Worlds whose people are scripted by services alone: a clinic (name and birth date, or a card) and a help desk (badge number).

Worked by hand: a loan for five weeks is forbidden by R7 alone, one that is overdue by R5; the tool's default of two weeks is left out of
a ground truth. Limit: the world library, which is made of services, is what it was when its scripts were written by hand.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import pytest

from flows.worlds.check import check
from tasks import critique, generate
from tasks.contract.client import Request
from tasks.contract.context import Context
from tasks.contract.problem import Action
from tasks.contract.schemas import BLUEPRINT, CRITIQUE, TRAJECTORY
from tasks.contract.tables import read_rows
from tasks.critique import multicritique
from tasks.generate import apigen_mt
from tasks.players import roles, scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems, propose, user_context
from tasks.worlds.api.runtime import World
from tasks.worlds.api.scripts.agent import QUESTION
from tasks.worlds.api.state import State
from tasks.worlds.library.library.services import SERVICES as LENDING
from tests.playing import playing
from tests.worlds.whole.alarms import Clock as Alarms
from tests.worlds.whole.clinic import BY_BIRTH, BY_CARD, Clinic
from tests.worlds.whole.clinic import SERVICES as CARE
from tests.worlds.whole.help_desk import HelpDesk
from tests.worlds.whole.parcels import Parcels

WORLDS: tuple[type, ...] = (Clinic, HelpDesk)
MOST_LINES = 250


@cache
def world(cls: type) -> World:
    return World.build(cls, 40, 0, f"{cls.__module__}:{cls.__qualname__}")


@pytest.mark.parametrize("cls", WORLDS)
def test_a_whole_world_is_short(cls: type) -> None:
    """Tools, policy, predicates, problems and scripts, in the one file that there is."""
    path = Path(__file__).parents[2] / f"{cls.__module__.replace('.', '/')}.py"
    assert len(path.read_text().splitlines()) < MOST_LINES


@pytest.mark.parametrize("cls", [*WORLDS, Alarms])
def test_the_world_is_sound(cls: type) -> None:
    """Every check: among them the oracle at 1, doing nothing at 0, and the scripted teacher with the scripted human."""
    report = check(cls, size=30, count=30)
    assert report.ok, report.text()


def test_it_goes_through_generate_and_critique(tmp_path: Path) -> None:
    worlds, out, judged = tmp_path / "worlds", tmp_path / "generate", tmp_path / "critique"
    freeze_world(world(Clinic), worlds / "clinic")
    for folder in (out, judged):
        folder.mkdir()
    played = playing(roles.maker({}, worlds, 0))
    ctx = Context(seed=0, out=out, scratch=tmp_path / "a", **played)
    apigen_mt.run(generate.Inputs(worlds), apigen_mt.Params(problems=16, round_size=8, shard_size=8), ctx)
    blueprints = [row for row in read_rows(out / "blueprints.parquet", BLUEPRINT) if row["status"] == "accepted"]
    rows = list(read_rows(out / "trajectories.parquet", TRAJECTORY))
    assert len(blueprints) >= 12 and sum(row["reward"] for row in rows) >= 0.9 * len(rows) > 0
    ctx = Context(seed=0, out=judged, scratch=tmp_path / "b", **played)
    multicritique.run(critique.Inputs(worlds, out), multicritique.Params(min_pairs=0), ctx)
    assert {row["traj_id"] for row in read_rows(judged / "critiques.parquet", CRITIQUE)} == {row["traj_id"] for row in rows}


def test_people_are_identified_in_several_ways() -> None:
    there = world(Clinic)
    first = Counter(problem.actions[0].name for problem in draw_problems(there, "train", 60, 0))
    assert set(first) == {BY_BIRTH.tool, BY_CARD.tool} and min(first.values()) > 5
    card = next(one for one in draw_problems(there, "train", 60, 0) if one.actions[0].name == BY_CARD.tool)
    assert card.instruction.startswith(f"Your card number is {card.intent['card']}. You want to ") and "name" not in card.intent
    assert there.scripts is not None
    asked = {"role": "user", "content": CARE.introductions[0].question}
    line = there.scripts.human(Request([{"role": "assistant", "content": "x"}, asked], seed=1, intent=card.intent))["content"]
    assert CARE.introductions[1].find(line) == {"card": card.intent["card"]}, "who is asked for a birth date may have a card"
    agent = there.scripts.agent(Request([{"role": "user", "content": line}]), {})
    assert agent["tool_calls"][0]["function"] == {"name": "read_card", "arguments": {"card": card.intent["card"]}}


def test_only_what_needs_a_yes_is_asked_for() -> None:
    there, jobs = world(Clinic), [(problem, 0) for problem in draw_problems(world(Clinic), "train", 60, 0, ["one_write"])]
    agent = ClientAgent(scripted.client("agent", there, {}, 0), {"tools": "none", "policy": "none"})
    needing = Counter[tuple[str, bool]]()
    for played in play(there, jobs, agent, scripted.client("human", there, {}, 0), seed=0):
        written = next(action.name for action, _ in played.calls if action.kind == "write")
        needing[written, any(QUESTION in str(message.get("content")) for message in played.messages)] += 1
    assert set(needing) == {("cancel_appointment", True), ("move_appointment", True), ("refill", False)}


def test_nobody_says_who_they_are_to_an_anonymous_api() -> None:
    there = world(Alarms)
    drafts = [propose(there, user_context(there, Random(seed), "train"), Random(seed)) for seed in range(20)]
    assert all(draft["instruction"].startswith("You want to ") and draft["actions"][0]["name"] == "alarm" for draft in drafts)
    assert "skips_authentication" not in there.ERRORS and there.shared.cls.GUARDS == {"ring": ("R2", "R1")}


def test_rules_by_hand() -> None:
    renew = LENDING.services["renew"]
    out, overdue = {"status": "out", "renewals": 0}, {"status": "overdue", "renewals": 2}
    assert [rule.name for rule in renew.forbidden_by(out, {"weeks": "5"})] == ["R7"] and not renew.forbidden_by(out, {"weeks": "3"})
    assert [rule.name for rule in renew.forbidden_by(overdue, {"weeks": "1"})] == ["R5", "R6"]
    state = State(world(Clinic).shared.base)
    appointment, row = next((key, row) for key, row in state.rows("appointments") if row["status"] == "booked" and row["in_days"] == 0)
    move = Action("move_appointment", {"appointment_id": appointment, "day": "Friday"}, "write")
    assert set(CARE.check(state, move, row["patient_id"])) == {"R6"} and set(CARE.check(state, move, "P0")) == {"R2", "R6"}
    assert CARE.check(state, Action("move_appointment", {"appointment_id": "A0", "day": "Friday"}, "write"), "P0") == {}


def test_ground_truths_leave_out_what_the_tool_means_anyway() -> None:
    from tasks.worlds.library.library.world import Library

    problems = draw_problems(World.build(Library, 40, 0), "train", 60, 0, ["one_write"])
    renewals = [action.arguments for one in problems for action in one.actions if action.name == "renew_loan"]
    assert {arguments.get("weeks") for arguments in renewals} == {None, 1, 3}
    assert json.dumps(renewals)  # JSON values alone


# --- an API that exists already ---


def test_an_adapted_api_gets_scripted_people() -> None:
    report = check(Parcels, size=30, count=24)
    assert report.ok, report.text()
    assert next(one for one in report.checks if one.name == "teacher").summary.startswith("score 1.00")
