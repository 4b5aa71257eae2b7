"""A world whose state nobody reads: graded by required calls and outputs, and nobody is led to believe that a state was compared.

Worked by hand: the ground truth adds n2; a conversation that adds it wins, one that adds nothing or another note loses, though every
state has the same hash. Limit: with a declared read of the notes the same problem is graded by the state, with nothing required.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.report import page
from flows.summary_text import summary_lines
from flows.worlds import state_checks
from flows.worlds.sample import draw
from tasks.contract.problem import Action
from tasks.contract.trajectory import Trajectory
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.problem_making import draw_problems, problem_of
from tasks.worlds.api.runtime import World
from tests.worlds.servers import failing
from tests.worlds.test_adapter_mcp_state import build, serving


@pytest.fixture(scope="module")
def unread() -> World:
    """Notes in memory, with given problems."""
    return World.build(failing.Unread, 1, 0, f"{failing.__name__}:Unread")


def played(world: World, *notes: str) -> tuple[int, str]:
    """(reward, hash after the truth) of a conversation that adds these notes."""
    draft = {"instruction": "Write down: bread.", "actions": [{"name": "add", "arguments": {"id": "n2", "text": "bread"}}]}
    problem = problem_of(world, draft, {"user_id": "u1", "split": "train", "persona": "plain"})
    fork, talk = world.fork(), Trajectory(problem, 0, stop="user_stop")
    for note in notes:
        action = Action("add", {"id": note, "text": "bread"}, "write")
        talk.calls.append((action, fork.call(action.name, action.arguments)))
    outcome = world.grade(talk, fork)
    return outcome.reward, outcome.wanted_state_hash


def test_by_hand(unread: World, tmp_path: Path) -> None:
    assert [played(unread, *notes) for notes in (("n2",), (), ("n9",), ("n2", "n9"))] == [(1, ""), (0, ""), (0, ""), (1, "")]
    read = build(tmp_path, **serving("memory"), reads=["notes"])
    rewards = [played(read, *notes) for notes in (("n2",), (), ("n9",), ("n2", "n9"))]
    assert [reward for reward, _ in rewards] == [1, 0, 0, 0] and all(wanted for _, wanted in rewards)


def test_problems_say_what_must_be_called(unread: World) -> None:
    (problem,) = draw_problems(unread, "train", 1, 0)
    assert problem.required == problem.actions and not problem.passive


def test_the_frozen_world_says_so(unread: World, tmp_path: Path) -> None:
    freeze_world(unread, tmp_path / "unread")
    about = json.loads((tmp_path / "unread" / "world.json").read_text())
    assert about["graded_by"].startswith("its state is not compared: a conversation is graded by required calls")
    assert not load(tmp_path / "unread").compared


def test_the_check_says_so(unread: World) -> None:
    found = state_checks.state_hash(draw(unread, 1, 0))
    assert found.ok and found.summary == "the state is not compared" and "graded by required calls" in found.notes[0]


def test_report_and_summary_say_so() -> None:
    summary = {"stages": {}, "promotion": {"decision": ""}, "not_compared": ["unread"]}
    assert any(line.startswith("unread: its state is not compared") for line in summary_lines(summary, Path("report.html")))
    blind = page({"stages": {}, "promotion": {}, "not_compared": ["unread"]}, {})["blind"]
    assert blind["worlds"] == ["unread"] and "graded by required calls" in blind["words"]


def test_the_check_restores_what_was_written() -> None:
    """The start has no note, so it alone would not show that a restore forgets one."""
    sample = draw(World.build(failing.Forgets, 1, 0, f"{failing.__name__}:Forgets"), 1, 0)
    (finding,) = state_checks.snapshots(sample).findings
    assert finding.what.startswith("what tool add wrote is not there again after it was restored (- n")
    assert finding.where.endswith("forgets.yaml:2")
