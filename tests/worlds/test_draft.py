"""`cairn world draft`: a model writes services as data, a check proves them, what fails goes back to it, and only what holds enters."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from flows.worlds import command
from flows.worlds import draft as drafting
from flows.worlds.check import check
from tasks.contract.client import Message, Request
from tasks.contract.params import BadInput
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.api.scripts import service_file
from tasks.worlds.api.served import served_from
from tests.worlds import tool_shed

HERE = "tests.worlds.tool_shed"


class Model:
    """Answers in turn, and keeps what it was asked."""

    name, revision = "model", "1"

    def __init__(self, *answers: Any) -> None:
        self.answers = [one if isinstance(one, str) else json.dumps(one) for one in answers]
        self.requests: list[Request] = []

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        self.requests += requests
        return [{"role": "assistant", "content": self.answers[len(self.requests) - 1]}]


def changed(change: Callable[[Any], None]) -> Any:
    """The good answer with one thing wrong."""
    made = deepcopy(tool_shed.SERVICES)
    change(made)
    return made


def mend(place: Path, model: Model, tries: int = 4) -> tuple[Path, Any, list[str]]:
    told: list[str] = []
    cls, address = tool_shed.Shed, f"{HERE}:Shed"
    asking = drafting.Asking(model, tries, 0)
    folder, report = drafting.draft(cls, address, asking, place, lambda made, at: check(made, 20, 0, 8, at), told.append)
    return folder, report, told


def test_a_bad_answer_is_told_and_tried_again(tmp_path: Path) -> None:
    """No JSON; a tool that is not there; a rule that never holds, which only the execution shows; then one that holds."""
    strange = changed(lambda made: made["services"]["extend"].update(act="extend"))

    def never(made: Any) -> None:
        made["services"]["extend"]["rules"][0]["forbids"][0]["field"] = "state"

    model = Model("I would rather not.", strange, changed(never), tool_shed.SERVICES)
    folder, report, told = mend(tmp_path, model)
    assert report.ok and folder == tmp_path / "try_4" and len(model.requests) == 4
    faults = [request.messages[-1]["content"] for request in model.requests]
    assert "not the JSON object that was asked for" in faults[1]
    assert "services.extend.act names 'extend', which the world has not. Did you mean 'extend_loan'?" in faults[2]
    assert "BLUEPRINT_PREDICATES['R5'] never fails" in faults[3] and "> it may be always true" in faults[3], "with the remedy"
    assert told[-1].startswith("try 4: every check holds") and len(model.requests[3].messages) == 4, (
        "only the last draft is talked about"
    )
    prompt = model.requests[0].messages[1]["content"]
    assert "extend_loan" in prompt and "R5" in prompt and '"status": "out"' in prompt and "tool shed" in prompt


def test_plain_objects_get_people_too(tmp_path: Path) -> None:
    """An adapted world has scripted people and problems by a file: its tables are read where the state has them."""
    (tmp_path / "services.json").write_text(json.dumps(tool_shed.SERVICES))

    @served_from(tmp_path / "services.json")
    class Made(tool_shed.AdaptedShed):
        """What stands beside the world."""

    world = World.build(Made, 1, 0)
    problems = draw_problems(world, "train", 8, 0)
    assert {problem.family for problem in problems} == {"one_write", "forbidden", "information", "hand_over"}
    agent = ClientAgent(scripted.client("agent", world, {}, 0), {"tools": "none", "policy": "none"})
    played = play(world, [(problem, 0) for problem in problems], agent, scripted.client("human", world, {}, 0), seed=0)
    assert [one.outcome.reward for one in played if one.outcome] == [1] * 8


def test_the_command_and_that_nothing_enters_unproven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package of the user's own: two files appear beside its world, which a second draft leaves alone; no other file changes."""
    package = tmp_path / "my_shed"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "world.py").write_text(f"from {HERE} import Shed as Base\n\n\nclass Shed(Base):\n    pass\n")
    monkeypatch.setattr(command, "STATE", tmp_path / "state")
    monkeypatch.setattr(command, "_model", lambda role, run: Model("{}", tool_shed.SERVICES))
    monkeypatch.setattr(sys, "path", list(sys.path))
    settings = {"size": 20, "seed": 0, "problems": 8, "folder": str(tmp_path), "role": "generator"}
    assert not command.draft_world("my_shed.world:Shed", **settings, tries=1, replace=False)
    assert "nothing was put beside the world" in capsys.readouterr().out and len(list(package.glob("*.py"))) == 2
    assert command.draft_world("my_shed.world:Shed", **settings, tries=2, replace=False)
    out = capsys.readouterr().out
    assert 'R5 forbids extend_loan when status != "out"' in out and 'modules: ["my_shed.world_drafted:Shed"]' in out
    assert json.loads((package / "world_services.json").read_text()) == tool_shed.SERVICES
    assert importlib.import_module("my_shed.world_drafted").Shed.FAMILIES == ("one_write", "forbidden", "information", "hand_over")
    with pytest.raises(BadInput, match=r"world_services.json and .*there already. Give --replace"):
        command.draft_world("my_shed.world:Shed", **settings, tries=1, replace=False)


def test_a_role_without_a_model_is_refused() -> None:
    with pytest.raises(BadInput, match=r"roles.generator.backend = scripted: a draft is written by a model"):
        command._model("generator", "draft")
    with pytest.raises(BadInput, match=r"--role generater: no such role .* Did you mean 'generator'"):
        command._model("generater", "draft")


def test_a_world_with_scripts_of_its_own_is_left_alone(tmp_path: Path) -> None:
    from tasks.worlds.library.library.world import Library

    asking = drafting.Asking(Model(), 1, 0)
    with pytest.raises(BadInput, match="has FAMILIES, SCRIPTS, TRAJECTORY_PREDICATES of its own"):
        drafting.draft(Library, "tasks.worlds.library.library.world:Library", asking, tmp_path, check, print)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda made: made.update(code="print(1)"), "code"),
        (lambda made: made["services"]["extend"].update(summary="{loan_id.__class__}"), "braces hold the name of a field or slot"),
        (lambda made: made["services"]["extend"]["rules"][0].update(reason="{0[x]}"), "braces hold the name of a field or slot"),
        (lambda made: made["patterns"].update(loan_id="(L+)+"), "no groups"),
        (lambda made: made["patterns"].update(loan_id="[A-"), "no groups"),
        (lambda made: made["patterns"].update(loan_id="L+L+L+L+"), "at most 3 of them"),
        (lambda made: made["people"][0]["fields"]["zip"].update(called="{zip.__init__}"), "without braces or marks"),
        (lambda made: made["services"]["extend"]["rules"][0]["forbids"][0].update(compare="matches"), "compare"),
        (lambda made: made["services"]["extend"]["wish"].update(reserved=["Extend {loan_id}."]), r"must hold {days}, {loan_id}"),
        (lambda made: made.update(patterns={}), "needs an entry in patterns"),
        (lambda made: made.update(services={}), "services"),
    ],
)
def test_what_a_file_may_not_say(change: Callable[[Any], None], says: str) -> None:
    """No code, no attributes in templates, no patterns that take for ever: each is refused when the file is read."""
    with pytest.raises(BadInput, match=says):
        service_file.parse(changed(change), "here")


@pytest.mark.parametrize(
    ("compare", "value", "row", "expected"),
    [
        ("=", "out", {"x": "out"}, True),
        ("!=", "out", {"x": "out"}, False),
        ("=", 5, {"x": "5"}, True),
        ("<", 3, {"x": 2.5}, True),
        (">=", 3, {"x": "many"}, False),
        ("in", ["a", "b"], {"x": "b"}, True),
        ("not in", ["a", "b"], {"x": "c"}, True),
        ("=", True, {"x": True}, True),
        ("=", 1, {"x": True}, False),
        ("=", "out", {"y": "out"}, False),
        ("!=", "out", {}, False),
    ],
)
def test_comparisons(compare: Any, value: Any, row: dict[str, Any], expected: bool) -> None:
    assert service_file.Comparison(field="x", compare=compare, value=value).holds(row, {}) is expected
    assert service_file.Comparison(field="a.x", compare=compare, value=value).holds({"a": row}, {}) is expected
