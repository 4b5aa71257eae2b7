"""Given problems: an adapted world is proven, split, played, graded and enlarged from a file, with models in the roles.

Worked by hand on `kiosk.jsonl`: six customers with a cancellation and a question each; 70 / 10 / 20 % of the customers are 4, 1 and 1, so
test holds two problems.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flows.worlds.sample import draw as draw_sample
from tasks.contract.client import Message, Request
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.contract.problem import PASSIVE, SPLITS, Problem
from tasks.contract.schemas import BLUEPRINT, TRAJECTORY
from tasks.contract.scripts import STOP
from tasks.contract.tables import read_rows
from tasks.generate import Inputs, apigen_mt
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.players.scripts.script import blocks
from tasks.players.trivial.oracle import Oracle
from tasks.worlds.adapters import problem_file
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import api_graph, draw_problems, propose, user_context
from tasks.worlds.api.runtime import World
from tests.playing import playing
from tests.worlds.kiosk import HERE, Adapted, adapted

LOOK = {"name": "get_order", "arguments": {"order_id": "W1"}}
CANCEL = {"name": "cancel_order", "arguments": {"order_id": "W1"}}
NONE = {"name": "get_order", "arguments": {"order_id": "W99"}}


def world() -> World:
    return World.build(Adapted, 1, 0, "tests.worlds.kiosk:Adapted")


def test_splits_by_hand() -> None:
    here = world()
    assert [len(here.shared.users[split]) for split in SPLITS] == [4, 1, 1]
    assert here.families == ("one_write", "lookup") and here.write_families == ("one_write",)
    test = draw_problems(here, "test", 2, 0)
    assert [problem.family for problem in test] == ["one_write", "lookup"]
    assert {problem.lineage for problem in test} == {here.shared.users["test"]}
    assert [problem.persona for problem in test] == ["plain", "curt"]


def test_the_first_do_not_depend_on_how_many() -> None:
    here = world()
    some = draw_problems(here, "train", 8, 3)
    assert draw_problems(here, "train", 5, 3) == some[:5] and len({problem.problem_id for problem in some}) == 8
    assert any(draw_problems(here, "train", 8, seed) != some for seed in range(5))
    assert {problem.family for problem in draw_problems(here, "train", 4, 3, ["lookup"])} == {"lookup"}
    with pytest.raises(BadInput, match=r"9 problems of split 'train' are wanted, .*kiosk.jsonl holds 8 \(4 one_write, 4 lookup\)"):
        draw_problems(here, "train", 9, 3)


@dataclass
class Model:
    """A model in a role, as far as the engine can tell."""

    answer: Callable[[Request], Message | str]
    name: str = "model"
    revision: str = "1"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        answers = [self.answer(request) for request in requests]
        return [{"role": "assistant", "content": one} if isinstance(one, str) else one for one in answers]


def person(request: Request) -> str:
    """Reads its own instruction aloud, then stops."""
    told = next(str(message["content"]) for message in request.messages if message["role"] == "system")
    begun = any(message["role"] == "assistant" for message in request.messages)
    return STOP if begun else told.split("Instruction: ")[1].split("\n")[0]


def clerk(request: Request) -> Message | str:
    """Looks up, cancels what is to be cancelled, and tells the total."""
    wish = next(str(message["content"]) for message in request.messages if message["role"] == "user")
    order = re.findall(r"W\d+", wish)[0]
    answers = [message for message in request.messages if message["role"] == "tool"]
    wants = [("get_order", {"order_id": order})]
    if "ancel" in wish:
        wants.append(("cancel_order", {"order_id": order, "reason": "late"}))
    if len(answers) < len(wants):
        name, arguments = wants[len(answers)]
        call = {"id": f"c{len(answers)}", "type": "function", "function": {"name": name, "arguments": arguments}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    return f"It costs {json.loads(str(answers[0]['content']))['total']}."


def talk(here: World, problems: Sequence[Problem], agent: Callable[[Request], Message | str]) -> list[Any]:
    desk = ClientAgent(Model(agent), {"tools": "none", "policy": "none"})
    return play(here, [(problem, 0) for problem in problems], desk, Model(person), seed=1)


def test_played_and_graded() -> None:
    here = world()
    problems = draw_problems(here, "train", 8, 0)
    assert [one.outcome.reward for one in talk(here, problems, clerk)] == [1] * 8
    assert [one.outcome.reward for one in talk(here, problems, lambda request: "No.")] == [0] * 8
    lost = talk(here, problems[:1], lambda request: {**call_of("sly"), "content": ""})
    assert lost[0].stop == "tool_error", "a method that breaks what is said of it is no failure of the agent's"
    assert here.diff() == ""


def call_of(name: str) -> Message:
    return {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": name, "arguments": {}}}]}


def test_there_is_no_scripted_human() -> None:
    here = world()
    for role in ("human", "agent"):
        with pytest.raises(BadInput, match=rf"roles.{role}.backend = scripted: world 'kiosk' has no scripted {role}.*backend: local"):
            scripted.client(role, here, {}, 0)


def test_generate_with_models_in_the_roles(tmp_path: Path) -> None:
    """The generator sees a customer and a sample of the state, and writes problems that nobody gave."""
    freeze_world(world(), tmp_path / "worlds" / "kiosk")
    fine = {name: {"score": 1, "reason": "fine"} for name in ("correctness", "completeness", "satisfaction", "creativity")}

    def draft(request: Request) -> str:
        data = blocks(request.messages, "data")[-1]
        order = data["user"]["orders"][0]
        assert data["state"] == {"_orders": {order[1:]: data["state"]["_orders"][order[1:]]}}, "the customer's order, and no other"
        return json.dumps(
            {
                "thought": "",
                "instruction": f"Please cancel {order} for me now, number {request.seed}.",
                "actions": [{"name": "cancel_order", "arguments": {"order_id": order}}],
                "outputs": [],
            }
        )

    roles: dict[str, Model] = {
        "generator": Model(draft),
        "judge": Model(lambda request: json.dumps(fine)),
        "feedback": Model(lambda request: json.dumps({"summary": "again"})),
        "recombiner": Model(lambda request: json.dumps({"instruction": " ".join(map(str, blocks(request.messages, "tasks")[0]))})),
        "human": Model(person),
        "human_critic": Model(lambda request: json.dumps({"score": 5})),
        "agent": Model(clerk),
    }
    (tmp_path / "out").mkdir()
    ctx = Context(0, tmp_path / "out", tmp_path, **playing(lambda name, world="": roles[name]))
    params = apigen_mt.Params(problems=6, attempts=1, recombine=0)
    apigen_mt.run(Inputs(tmp_path / "worlds"), params, ctx)
    made = [row for row in read_rows(tmp_path / "out" / "blueprints.parquet", BLUEPRINT) if row["status"] == "accepted"]
    assert made and all(row["instruction"].startswith("Please cancel W") for row in made)
    assert len(list(read_rows(tmp_path / "out" / "trajectories.parquet", TRAJECTORY))) == len(made)


def test_a_scripted_generator_hands_the_given_ones_out() -> None:
    here = world()
    rng = Random(0)
    context = user_context(here, rng, "train")
    assert set(context["state"]) == {"_orders"} and context["user"] == {"orders": [f"W{context['user_id'][1]}"]}
    drafts = {family: propose(here, context, rng, family=family) for family in here.families}
    assert {family: draft["family"] or "one_write" for family, draft in drafts.items()} == {
        "one_write": "one_write",
        "lookup": "lookup",
    }
    assert propose(here, context, rng, walk=["get_order", "cancel_order"])["actions"][-1]["name"] == "cancel_order"
    assert propose(here, context, rng, walk=["tag"]) == {} and api_graph(here)["get_order"] == ("cancel_order", "tag", "move")
    assert json.loads(json.dumps(context)) == context


def test_a_check_looks_at_given_problems() -> None:
    sample = draw_sample(world(), 8, 0)
    assert {split: bool(problems) for split, problems in sample.problems.items()} == {"train": True, "test": True}
    assert not any("it makes no problems" in finding.what for finding in sample.findings)


def test_a_world_without_problems_says_so() -> None:
    here = World.build(adapted(), 1, 0)
    with pytest.raises(BadInput, match=r"makes no problems of its own .*an adapted world a problems_file"):
        draw_problems(here, "train", 1, 0)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["{"], "line 1: not JSON"),
        (["", "[1]"], "line 2: must be a JSON object with instruction, actions and outputs, got '[1]'"),
        ([{"instruction": "x", "actions": 3}], "line 1: actions = 3"),
        ([{"instruction": "x", "actions": [LOOK], "output": []}], "line 1: unknown key 'output'. Did you mean 'outputs'?"),
        ([], "holds no problem"),
        ([{"instruction": "x", "actions": [LOOK], "user": "u9"}], "line 1: user 'u9' is not in _users"),
        ([{"instruction": "x", "actions": [{"name": "cancel"}]}] * 3, "line 1: its ground truth does not work: action 1 cancel: "),
        (
            [{"instruction": "x", "actions": [CANCEL]}] * 2 + [{"instruction": "x", "actions": [{**CANCEL, "arguments": {}}]}],
            'line 3: its ground truth does not work: action 1 cancel_order: {"error": "argument \'order_id\' is missing"}',
        ),
        ([{"instruction": "x", "actions": [NONE]}] * 3, 'line 1: its ground truth does not work: action 1 get_order: {"error": '),
        ([{"instruction": "x", "actions": [NONE]}] * 3, '(write "refused": true there if it has to be)'),
        (
            [{"instruction": "x", "actions": [{**LOOK, "refused": True}]}] * 3,
            "line 1: its ground truth does not work: action 1 get_order is to be refused, and the world answers it",
        ),
        (
            [{"instruction": "x", "actions": [{**CANCEL, "refused": True}]}] * 3,
            "cancel_order is to be refused, and the world answers it",
        ),
        ([{"instruction": "x", "actions": [CANCEL]}] * 2, "a world needs at least 3 users, one for each split; it has 2"),
    ],
)
def test_bad_files_are_named_by_line(lines: list[Any], says: str, tmp_path: Path) -> None:
    file = written(tmp_path, lines)
    users = "_users" if "_users" in says else ""
    with pytest.raises(BadInput) as caught:
        World.build(adapted(problems_file=file, users=users), 1, 0)
    assert says in str(caught.value)


def test_all_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    """Whatever is wrong with a line: its JSON, its keys, its user, its ground truth."""
    lines = ["{", {"instruction": "x", "action": []}, {"instruction": "x", "actions": [CANCEL], "user": "u9"}]
    fine = [{"instruction": "x", "actions": [CANCEL], "user": f"u{number}"} for number in range(3)]
    file = written(tmp_path, [*lines, {"instruction": "x", "actions": [NONE], "user": "u1"}, *fine])
    with pytest.raises(BadInput) as caught:
        World.build(adapted(problems_file=file, users="_users"), 1, 0)
    said = [line.partition(f"{file} ")[2] for line in str(caught.value).splitlines()]
    begun = [
        "line 1: not JSON",
        "line 2: actions is missing",
        "line 2: unknown key 'action'",
        "line 3: user 'u9'",
        "line 4: its ground",
    ]
    assert [line[: len(start)] for line, start in zip(said, begun, strict=True)] == begun


def test_refused_look_ups_and_no_actions_are_problems(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A look-up that has to be refused is ground truth; what doing nothing solves is passive, and said to be."""
    lines = [
        {"instruction": "x", "actions": [{**NONE, "refused": True}, {**CANCEL, "arguments": {"order_id": f"W{n}"}}]} for n in (1, 2, 3)
    ]
    lines += [{"instruction": "Never mind.", "actions": []}, {"instruction": "Look.", "actions": [LOOK]}]
    here = World.build(adapted(problems_file=written(tmp_path, lines), users=""), 1, 0)
    assert "doing nothing solves the problems of 2 lines (4, 5)" in caplog.text
    problems = [problem_file.row_problem(here, row) for row in here.shared.base.tables["problems"].values()]
    assert [one.passive for one in problems] == [False, False, False, True, True] and problems[3].tags[-1:] == (PASSIVE,)
    assert [[action.name for action in one.actions] for one in problems[2:4]] == [["get_order", "cancel_order"], []]
    ended = [one.outcome.reward for one in talk(here, problems, lambda request: "No.")]
    assert ended == [0, 0, 0, 1, 1], "graded as any other"
    gold = play(here, [(problem, 0) for problem in problems], Oracle(problems), Model(person), seed=0)
    assert [one.outcome.reward for one in gold if one.outcome] == [1] * 5, "a refused look-up is no fault of the oracle's"


def written(folder: Path, lines: Sequence[Any]) -> Path:
    file = folder / "problems.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return file


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"problems_file .*none.jsonl: cannot be read"):
        adapted(problems_file=tmp_path / "none.jsonl")
    assert len(problem_file.read(HERE / "kiosk.jsonl")[0]) == 12
