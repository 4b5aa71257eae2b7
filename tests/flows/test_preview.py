"""`cairn preview generate`: a few blueprints and conversations, shown readably and not recorded.

By hand: a blueprint that the committee refused (votes 1 1 0 1 and 1 1 1 1, mean 3.5), then accepted; its plan, its diff, one
conversation lost on its outputs. And a bill: a preview of 3 problems cost 0.055 for 30 calls, and 6 answers were
known that would have cost 0.005 more, so 1,000 problems cost 20.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows import preview
from flows.preview import Made, bill, lines, make
from flows.preview_text import Page, blueprints, clean
from tasks.contract import schemas, tables
from tasks.contract.params import BadInput
from tasks.engine.job import job_of
from tasks.engine.plan import Plan
from tasks.engine.running import call, context
from tasks.engine.settings import load
from tasks.engine.shards import sharded
from tests.conftest import ROOT, Project


def quiet(*_: object) -> None:
    """Nobody watches."""


def plan_of(state: Path, **overrides: Any) -> Plan:
    return Plan.open(load(ROOT, "smoke", tuple((key.replace("__", "."), value) for key, value in overrides.items())), state)


def test_it_shows_the_blueprints_with_which_the_run_begins(tmp_path: Path) -> None:
    """The same rows, byte for byte as JSON, as the stage makes for its first problems; nothing stays in the state folder but hashes."""
    plan = plan_of(tmp_path / "state")
    made = make(plan, "generate", 5, quiet)
    assert {row["world"] for row in made.blueprints} == {"retail", "airline"}
    assert not (tmp_path / "state" / "keys").exists() and not (tmp_path / "state" / "store").exists()

    worlds = preview.frozen_worlds(plan, "generate", tmp_path / "frozen")
    job = job_of(plan, "generate", {"worlds": plan.store.hashes.path(worlds)})
    (tmp_path / "out").mkdir()
    spec = job.spec(tmp_path / "out", tmp_path / "scratch", {"worlds": worlds})
    call(spec, context(spec, quiet, quiet, sharded(tmp_path / "scratch")))
    whole = blueprints(tables.read_rows(tmp_path / "out/blueprints.parquet", schemas.BLUEPRINT))
    for world, count in (("airline", 3), ("retail", 2)):
        run = [group for group in whole if group[0]["world"] == world][:count]
        assert [group for group in blueprints(made.blueprints) if group[0]["world"] == world] == run
    played = {row["traj_id"]: row for row in tables.read_rows(tmp_path / "out/trajectories.parquet", schemas.TRAJECTORY)}
    assert made.trajectories and all(played[row["traj_id"]] == row for row in made.trajectories)


def test_refusals_are_shown_with_reason_and_plan(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, roles__generator__errors={"tool_talk": 1.0, "invented_id": 0.5}, generate__apigen_mt__walked=0.0)
    made = make(plan, "generate", 6, quiet)
    refused = [row for row in made.blueprints if row["status"] != "accepted"]
    assert refused
    text = " ".join("\n".join(lines(made, Page(width=400))).split())
    for row in refused:
        assert " ".join(clean(row["fail_reason"]).split()) in text and " ".join(row["feedback"].split()) in text
    for row in made.trajectories:
        for message in row["messages"]:
            assert " ".join(message["content"].split()) in text


def test_the_gate_says_who_would_pass(tmp_path: Path) -> None:
    made = make(plan_of(tmp_path), "generate", 2, quiet)
    accepted = [row for row in made.blueprints if row["status"] == "accepted"]
    assert accepted
    for row in accepted:
        assert made.gates[row["problem_id"]] == {"oracle": 1, "do_nothing": 0, "always_refuses": 0, "always_hands_over": 0}


VOTE = {"judge": "j#1", "correctness": 1, "completeness": 1, "satisfaction": 0, "creativity": 1, "reason": "satisfaction: too dear"}
BLUE: dict[str, Any] = {
    "problem_id": "p1", "world": "shop", "split": "train", "family": "one_write", "persona": "curt", "seed": 7, "context_hash": "c",
    "walk": ["get_order", "cancel_order"], "policy_ids": ["R1"], "source_ids": [], "attempt": 0, "status": "failed_committee",
    "instruction": "Cancel W1.", "actions": [{"name": "cancel_order", "arguments_json": '{"order_id": "W1"}', "kind": "write"}],
    "required": [], "outputs": ["12"], "diff_patch": '- orders W1 status: "pending"\n+ orders W1 status: "cancelled"',
    "judge_scores": [VOTE, {**VOTE, "judge": "j#2", "satisfaction": 1, "reason": ""}], "avg_score": 3.5,
    "fail_reason": "satisfaction: too dear", "feedback": "Make it cheaper.",
}  # fmt: skip
TALK: dict[str, Any] = {
    "problem_id": "p1", "agent": "a", "human": "h", "reward": 0, "state": 1, "outputs": 0, "required": 1, "policy": 0.5, "broken": ["R1"],
    "stop": "user_stop", "n_user_turns": 1, "n_agent_steps": 2, "n_tool_calls": 1,
    "messages": [
        {"role": "user", "content": "Cancel \x1b[2JW1.", "tool_calls": []},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "name": "cancel_order", "arguments_json": '{"order_id": "W1"}'}]},
        {"role": "tool", "content": '"cancelled"', "tool_calls": []},
        {"role": "assistant", "content": "Done.", "tool_calls": []},
    ],
}  # fmt: skip


def by_hand() -> Made:
    good = {**BLUE, "attempt": 1, "status": "accepted", "fail_reason": "", "feedback": ""}
    return Made(1, [BLUE, good], [TALK], {"p1": {"oracle": 1, "do_nothing": 0}})


def test_the_page_by_hand() -> None:
    said = list(lines(by_hand(), Page(width=90)))
    assert said[1] == "shop, blueprint 1 of 1: accepted after 2 attempts"
    for line in (
        "  walk       get_order > cancel_order",
        "  attempt 1  format ok  exec ok  policy ok  committee refused",
        "    wish       Cancel W1.",
        '    calls      cancel_order(order_id="W1")',
        '    to be said "12"',
        '    diff       - orders W1 status: "pending"',
        '               + orders W1 status: "cancelled"',
        "               j#1            1             1             0           1",
        "                 satisfaction: too dear",
        "    refused    satisfaction: too dear",
        "    feedback   Make it cheaper.",
        "  attempt 2  format ok  exec ok  policy ok  committee ok  gate ok  duplicate ok",
        "    gate       oracle 1, do_nothing 0",
        "  conversation 1 of 1: lost  (a with h)",
        "    user       Cancel \\x1b[2JW1.",
        '    call       cancel_order(order_id="W1")',
        '    answer     "cancelled"',
        "    agent      Done.",
        "    outcome    state 1, outputs 0, required 1; policy 0.50 (broken: R1)",
        "    stop       user_stop, after 1 lines of the user, 2 agent turns, 1 calls",
        "1 of 1 blueprints accepted in 2 attempts; 0 of 1 conversations won. Nothing was recorded.",
    ):
        assert line in said, line
    assert said.count("    gate       oracle 1, do_nothing 0") == 1, "only where the gate was reached"


def test_colours_only_on_a_terminal_and_never_a_models_own() -> None:
    plain, inked = ("\n".join(lines(by_hand(), Page(width=70, colour=colour))) for colour in (False, True))
    assert "\x1b" not in plain and "\x1b[32m" in inked and "\x1b[2J" not in inked

    class Pipe:
        def isatty(self) -> bool:
            return False

    assert preview.page_of(Pipe()) == Page(width=130, colour=False)


def test_lines_are_wrapped() -> None:
    wide = Made(1, [{**BLUE, "instruction": "word " * 60}])
    assert max(map(len, lines(wide, Page(width=100)))) <= 100


def told(run: str) -> Mapping[str, Mapping[str, float]]:
    """Half of the human's answers were known; what they would have cost is what the paid ones did."""
    return {
        "judge": {"calls": 24, "cached": 0, "tokens_in": 900, "tokens_out": 90, "money": 0.05, "in_flight": 3},
        "human": {"calls": 6, "cached": 6, "tokens_in": 60, "tokens_out": 6, "money": 0.005},
    }


def test_the_bill_by_hand() -> None:
    said = [line.split() for line in bill(told(""), 3)]
    assert ["judge", "24", "0", "900", "90", "0.0500", "so", "far"] in said
    assert ["all", "30", "6", "960", "96", "0.0550", "so", "far"] in said
    assert ["human", "4,000", "0", "40,000", "4,000", "3.3333"] in [line[:6] for line in said]
    assert ["all", "12,000", "0", "340,000", "34,000", "20.0000"] in [line[:6] for line in said]
    known = list(bill({"judge": {"calls": 0, "cached": 9}}, 3))
    assert known[-1] == "All answers of judge came from the cache, so their price is not known here."


def test_what_endpoints_cost_is_added_up_over_worlds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preview, "STATS", (__name__, "told"))
    made = make(plan_of(tmp_path), "generate", 2, quiet)
    assert made.spent["judge"] == {"calls": 48, "cached": 0, "tokens_in": 1800, "tokens_out": 180, "money": pytest.approx(0.1)}
    monkeypatch.setattr(preview, "STATS", ("tasks.players.no_such_module", "stats"))
    assert preview.stats("x") == {}


def test_scripts_cost_nothing() -> None:
    assert list(bill({}, 3)) == ["Every role is a script or a checkpoint in this process: there is nothing to pay."]


@pytest.mark.parametrize("count", [0, -1, 101])
def test_a_count_out_of_range_is_refused(count: int, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"-n {count}: a preview shows 1 to 100"):
        make(plan_of(tmp_path), "generate", count, quiet)


def test_params_that_leave_nothing_to_preview_are_named(tmp_path: Path) -> None:
    class Job:
        method, stage = "other", "generate"

        class params:
            @staticmethod
            def model_dump(mode: str) -> dict[str, Any]:
                return {"seeds": 5}

    with pytest.raises(BadInput, match="method 'other' has no param `problems`"):
        preview._small(Job(), 3)


def test_the_command_prints_and_leaves_nothing(project: Project) -> None:
    answer = project.cairn("preview", "generate", "-n", "1", "--set", "generate.apigen_mt.attempts=2")
    assert "blueprint 1 of 1" in answer.stdout and "Nothing was recorded." in answer.stdout and "\x1b" not in answer.stdout
    assert project.git("status", "--porcelain").stdout == "" and not (project.folder / "data").exists()
    wrong = project.cairn("preview", "generate", "--set", "generate.apigen_mt.attemps=2", check=False)
    assert wrong.returncode == 2 and "Did you mean 'attempts'?" in wrong.stderr and "Traceback" not in wrong.stderr


def test_the_rows_of_the_page_are_those_of_the_schema() -> None:
    """What the page reads exists in the schemas, so that the hand-made rows above are no invention."""
    assert set(BLUE) <= set(schemas.BLUEPRINT.names) and set(TALK) <= set(schemas.TRAJECTORY.names)
    json.dumps([BLUE, TALK])
