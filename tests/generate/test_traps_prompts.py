"""The dossier's table of prompts: what each must contain, what it must return, and what it must never hold.

A refused answer is the test of a schema: for each role an answer that lacks what the table wants is not taken.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tasks.chat.answers import read_json
from tasks.contract.client import Request
from tasks.contract.problem import Setting
from tasks.critique import multicritique
from tasks.engine.preflight.questions import LIMITS
from tasks.engine.shared_params import ROLES, Role
from tasks.generate.parts.apigen_mt import best_of_n, committee, proving, recombine
from tasks.generate.parts.apigen_mt.checks import DRAFT
from tasks.generate.parts.apigen_mt.prompts import render
from tasks.players import scripted
from tasks.players.scripts.script import blocks
from tasks.worlds.api.system_prompt import system_message
from tests.generate.conftest import ERRORS, Make
from tests.generate.test_apigen_mt import IDS, Spy

MADE_BY_MODELS = ("generator", "judge", "feedback", "recombiner", "human", "human_critic", "agent")
GOOD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "generate": (DRAFT, {"thought": "t", "instruction": "i", "actions": [{"name": "n", "arguments": {}}], "outputs": ["o"]}),
    "judge": (committee.schema(), {name: {"score": 1, "reason": ""} for name in committee.CRITERIA}),
    "feedback": (proving.PLAN, {"thought": "t", "summary": "s"}),
    "recombine": (recombine.INSTRUCTION, {"thought": "t", "instruction": "i"}),
    "human_critic": (best_of_n.SCHEMA, {"score": 10}),
}
"""Prompt -> schema of its answer, and an answer that fits."""


@pytest.fixture
def requests_of(make: Make, world: Any) -> dict[str, list[Request]]:
    """Everything that each role was asked in a run with refusals, recombinations and four candidates a line."""
    rates = {**ERRORS, "human": {"wrong_detail": 0.2}}
    spies = {role: Spy(scripted.client(role, world, rates.get(role, {}), 0)) for role in MADE_BY_MODELS}
    make(clients=dict(spies), problems=40, recombine=1.0, user_best_of=4)
    return {role: spy.requests for role, spy in spies.items()}


def _all(requests: list[Request], *names: str) -> None:
    assert requests
    for request in requests:
        for name in names:
            assert blocks(request.messages, name), name


def test_every_prompt_contains_what_the_table_wants(requests_of: dict[str, list[Request]], world: Any) -> None:
    _all(requests_of["generator"], "policies", "tools", "data", "persona", "examples", "walk", "family")
    _all(requests_of["judge"], "task", "trace", "diff", "policies")
    _all(requests_of["feedback"], "task", "failures")
    _all(requests_of["recombiner"], "persona", "tasks")
    _all(requests_of["human_critic"], "description", "history", "candidate")
    assert any(blocks(request.messages, "feedback") for request in requests_of["generator"]), "previous feedback"
    kinds = {tool["name"]: tool["kind"] for tool in blocks(requests_of["generator"][0].messages, "tools")[0]}
    assert kinds == {name: tool.kind for name, tool in world.tools.items()}, "reads and writes are marked"
    for request in requests_of["generator"]:
        assert set(blocks(request.messages, "policies")[0].items()) <= set(world.rules.items())


def test_the_preflight_gives_every_role_the_room_that_it_has_here(requests_of: dict[str, list[Request]]) -> None:
    """With less, a model that thinks first would be refused before it had begun. The param's description names the same numbers."""
    rooms = {role: {request.max_tokens for request in requests} for role, requests in requests_of.items()}
    rooms |= {role: {multicritique.Params().max_tokens} for role in ("critic", "meta_critic", "aggregator")}
    rooms["contender"] = rooms["agent"]  # it acts as an agent does
    assert rooms == {role: {most} for role, most in LIMITS.items()} and {*rooms} == {*ROLES}
    told = str(Role.model_fields["max_tokens"].description).replace("critics", "critic, meta_critic, aggregator")
    named = re.findall(r"((?:\w+, )*\w+) (\d+)", told[told.index("(") : told.index(")")])
    assert {role: int(most) for roles, most in named for role in roles.split(", ")} == LIMITS


def test_every_structured_prompt_has_the_schema_of_its_answer(requests_of: dict[str, list[Request]]) -> None:
    """Human and agent speak freely: they have none. Texts that fit are taken, and what lacks any wanted key is refused by name."""
    wanted = {
        "generator": "generate",
        "judge": "judge",
        "feedback": "feedback",
        "recombiner": "recombine",
        "human_critic": "human_critic",
    }
    for role, prompt in wanted.items():
        assert {json.dumps(request.schema, sort_keys=True) for request in requests_of[role]} == {
            json.dumps(GOOD[prompt][0], sort_keys=True)
        }
    assert {request.schema for role in ("human", "agent") for request in requests_of[role]} == {None}
    for schema, answer in GOOD.values():
        assert read_json({"content": json.dumps(answer)}, schema) == (answer, "")
        for key in schema["required"]:
            less = {name: value for name, value in answer.items() if name != key}
            assert f"lacks {key!r}" in read_json({"content": json.dumps(less)}, schema)[1]


@pytest.mark.parametrize(
    ("prompt", "spoil", "reason"),
    [
        ("generate", {"outputs": [12]}, "outputs[0] should be of type string"),
        ("generate", {"actions": []}, "at least 1 entries"),
        ("generate", {"actions": [{"name": "n", "arguments": "{}"}]}, "arguments should be of type object"),
        ("judge", {"creativity": {"score": 2, "reason": ""}}, "at most 1"),
        ("judge", {"creativity": {"score": 1}}, "lacks 'reason'"),
        ("human_critic", {"score": 10.5}, "of type integer"),
    ],
)
def test_answers_of_another_form_are_refused(prompt: str, spoil: dict[str, Any], reason: str) -> None:
    schema, answer = GOOD[prompt]
    assert reason in read_json({"content": json.dumps({**answer, **spoil})}, schema)[1]


def test_8_nothing_of_the_ground_truth_is_in_what_a_human_or_its_critic_reads(
    requests_of: dict[str, list[Request]], world: Any
) -> None:
    """Tools, calls, diffs and rows are not there, and no id is that neither the instruction nor the desk has said."""
    tools = [name for name in world.tools if "_" in name]
    for role in ("human", "human_critic"):
        for request in requests_of[role]:
            text = "\n".join(str(message["content"]) for message in request.messages)
            assert not any(name in text for name in tools) and not request.tools
            assert '"actions"' not in text and '"arguments"' not in text and "diff" not in text
    for request in requests_of["human"]:
        system, *talk = request.messages
        instruction = _line(str(system["content"]), "Instruction: ")
        said = " ".join(str(message["content"]) for message in talk if message["role"] == "user")
        assert set(IDS.findall(str(system["content"]))) <= set(IDS.findall(instruction)), "the intent holds no further id"
        told = [str(message["content"]) for message in talk if message["role"] == "assistant"]
        invented = set(IDS.findall(" ".join(told))) - set(IDS.findall(instruction)) - set(IDS.findall(said))
        assert all(any(len(one) == len(known) for known in IDS.findall(instruction)) for one in invented), "planted wrong digits alone"


def _line(text: str, start: str) -> str:
    return next(line.removeprefix(start) for line in text.splitlines() if line.startswith(start))


def test_the_agent_reads_policy_and_tools_and_not_the_wish(make: Make, world: Any) -> None:
    """What it sees: its system message as `prompt` says, the schemas, the talk. The intent never."""
    spy = Spy(scripted.client("agent", world, {}, 0))
    make(clients={"agent": spy}, problems=6)
    for request in spy.requests:
        assert request.messages[0]["content"] == system_message(world, {"tools": "none", "policy": "none"})
        assert list(request.tools) == world.schemas()
        assert "json intent" not in json.dumps(request.messages)


def test_the_human_is_told_the_rules_of_its_role(requests_of: dict[str, list[Request]]) -> None:
    rules = {_line(str(request.messages[0]["content"]), "Rules: ") for request in requests_of["human"]}
    (text,) = rules
    for rule in ("One|one short line", "Tell only what", "Never invent", "Do not repeat the instruction", "###STOP###"):
        assert re.search(rule, text), rule


@cache
def _files() -> list[Path]:
    from tasks.generate.parts.apigen_mt import prompts

    return sorted(Path(prompts.__file__).parent.glob("*.jinja"))


def test_prompts_are_files_of_the_stages_key() -> None:
    """Each is in a folder that dvc.yaml lists for the stage, so that another word is another key."""
    from tasks.engine.dvc_yaml import listed
    from tasks.engine.settings import load
    from tests.conftest import ROOT

    code = listed(load(ROOT))["generate"].code
    assert {path.stem for path in _files()} == {
        "feedback", "generate", "generate_system", "human_critic", "judge", "recombine", "revise",
    }  # fmt: skip
    for path in _files():
        assert any(path.is_relative_to(ROOT / one) for one in code), path


NOT_OF_EVERY_WORLD = re.compile(r"customer|service|support|desk|\bshop|passenger|client", re.IGNORECASE)
"""What a world may be, and no prompt may presume."""


def test_every_prompt_holds_the_policys_whole_text_but_the_humans(requests_of: dict[str, list[Request]], world: Any) -> None:
    told = f"<policy>\n{world.policy.strip()}\n</policy>"
    for role in ("generator", "judge", "feedback", "human_critic"):
        for request in requests_of[role]:
            text = "\n".join(str(message["content"]) for message in request.messages)
            assert told in text and world.setting.about in text, role
    for request in requests_of["human"]:
        text = str(request.messages[0]["content"])
        assert world.setting.about in text and "policy" not in text and not any(rule in text for rule in world.rules.values())


def test_a_policy_in_prose_reaches_the_generator_and_the_judge() -> None:
    """Without numbered rules there is nothing to name, and the text is told all the same; without a text nothing is promised."""
    told = Setting("kiosk", "", "Never cancel what was sent.\nBe brief.")
    for setting, holds in ((told, True), (Setting("kiosk"), False)):
        given: dict[str, Any] = {"setting": setting, "policies": {}}
        texts = [
            render("generate", tools=[], walk=[], family="x", data={}, persona="p", examples=[], **given),
            render("judge", number=1, criteria=committee.CRITERIA, task={}, trace=[], diff="", **given),
            render("human_critic", setting=setting, stop="x", description="d", history=[], candidate="c"),
        ]
        assert all(("Never cancel what was sent.\nBe brief." in text) is holds for text in texts)
        assert all(("<policy>" in text) is holds for text in texts)


def test_no_prompt_presumes_what_a_world_is() -> None:
    """Neither the files of the prompts nor the texts of critics, meta-critic and aggregator; the world says it in ABOUT."""
    from tasks.critique.core import prompts as critique
    from tasks.worlds.api import prompts as worlds

    texts = {path.name: path.read_text() for path in (*_files(), *Path(worlds.__file__).parent.glob("*.jinja"))}
    texts |= {name: str(value) for name, value in vars(critique).items() if name.isupper() and isinstance(value, str | dict)}
    assert len(texts) >= 15
    assert not {name: found[0] for name, text in texts.items() if (found := NOT_OF_EVERY_WORLD.search(text))}
