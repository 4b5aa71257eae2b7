"""The first question to a server: what would lose everything is said with its remedy, what is odd is a note, who answers is written down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.stub import Stub
from tasks.contract.params import BadInput
from tasks.engine.preflight import interview, verdicts
from tasks.engine.preflight.interview import meet
from tasks.engine.preflight.questions import Player, ServerAnswer
from tasks.engine.preflight.verdicts import ServerReport
from tasks.engine.shared_params import Role
from tasks.players.openai_compatible import Setting
from tasks.players.openai_compatible.cache import Cache


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    interview._known.clear()
    yield


def player(stub: Stub | str, name: str = "agent", **more: Any) -> Player:
    url = stub if isinstance(stub, str) else stub.url
    return Player(name, f"params: roles.{name}", Role(**{"backend": "openai_compatible", "base_url": url, "model": "small", **more}))


def reports(tmp_path: Path, *players: Player, **limits: float) -> dict[str, ServerReport]:
    interview._known.clear()
    return meet(players, Setting(tmp_path, "", "run", limits))


def test_a_good_server_is_asked_what_its_roles_will_ask_and_says_who_it_is(stub: Stub, tmp_path: Path) -> None:
    """Two questions for an agent, two for a human, one form for all other roles with the same settings and room; the list tells the
    weights."""
    stub.turn(models={"small": {"root": "/models/small", "owned_by": "vllm", "meta": {"n_params": 7, "odd": "x"}}}, revision="-2026")
    roles = [
        player(stub),
        player(stub, "human"),
        player(stub, "judge"),
        player(stub, "feedback"),
        player(stub, "judge/2", temperature=1.0),
    ]
    found = reports(tmp_path, *roles)
    report = {"asked": "small", "answered": "small-2026", "root": "/models/small", "meta": {"n_params": 7}}
    assert {name: (one.report, one.stop, one.notes) for name, one in found.items()} == {one.name: (report, "", ()) for one in roles}
    assert stub.counts()["paid"] == 2 + 2 + 2
    tokens, _ = Cache(tmp_path).spent("run")
    assert tokens > 0 and Cache(tmp_path).kept() == [], "paid by the run, and not kept as an answer"
    meet(roles, Setting(tmp_path, "", "run", {}))
    assert stub.counts()["paid"] == 6, "once in a process"


@pytest.mark.parametrize(
    ("knobs", "role", "message"),
    [
        (
            {"parser": False},
            "agent",
            r"leaves tool calls as text \('\[TOOL_CALLS\].*Start it with its tool parser: vLLM: --enable-auto-tool",
        ),
        (
            {"parser": False, "models": {"small": {"owned_by": "sglang"}}},
            "agent",
            r"with its tool parser: SGLang: --tool-call-parser NAME\.$",
        ),
        ({"refused": ["tools"]}, "agent", r"takes no tools \(status 400: Unsupported parameter: 'tools'.*llama\.cpp: --jinja"),
        ({"refused": ["seed"]}, "judge", r"'seed'.*Write send_seed: false\."),
        ({"refused": ["max_tokens"]}, "human", r"Write limit_field: max_completion_tokens\."),
        ({"refused": ["temperature"]}, "human", r"Write temperature: 1"),
        ({"refused": ["response_format"]}, "judge", r"Write structured: json_object or prompt\."),
        ({"forms": False}, "judge", r"ignores structured: json_schema \('Reply.*Write structured: prompt\."),
        ({"models": {"smaller": {}, "big": {}}}, "judge", r"has no model 'small'.*Did you mean 'smaller'\? It has smaller, big\.$"),
        ({"key": "right"}, "judge", r"refuses calls without a key; name one by key_env \(status 401"),
        ({"faults": {"500": 1.0}}, "judge", r"does not answer one small question \(status 500"),
    ],
)
def test_what_would_lose_everything_is_said_with_its_remedy(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knobs: dict[str, Any], role: str, message: str
) -> None:
    import re

    monkeypatch.setattr(interview, "PAUSE", 0.01)
    stub.turn(**knobs)
    one = player(stub, role)
    found = reports(tmp_path, one)
    assert re.search(message, found[role].stop), found
    with pytest.raises(BadInput, match=rf"^params: roles\.{role}: "):
        interview.check(found, [one])


def test_a_role_is_asked_only_what_it_needs(stub: Stub, tmp_path: Path) -> None:
    """A server without tool parser may judge, one that ignores schemas may act."""
    stub.turn(parser=False)
    assert not reports(tmp_path, player(stub, "judge"))["judge"].stop
    stub.turn(parser=True, forms=False)
    assert not reports(tmp_path, player(stub, "agent"))["agent"].stop
    assert not reports(tmp_path, player(stub, "judge", structured="prompt"))["judge"].stop


def test_a_server_that_is_not_there_or_is_another_thing(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interview, "PAUSE", 0.01)
    gone = reports(tmp_path, player("http://127.0.0.1:9/v1"))["agent"]
    assert "http://127.0.0.1:9/v1 cannot be reached" in gone.stop and "Is the server running" in gone.stop
    short = reports(tmp_path, player(stub.url.removesuffix("/v1")))["agent"]
    assert "Does base_url end where the API begins, often /v1?" in short.stop


def test_a_key_is_in_no_message(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    stub.turn(key="right")
    stop = reports(tmp_path, player(stub, key_env="SOME_KEY"))["agent"].stop
    assert "refuses the key in SOME_KEY" in stop and "sk-very-secret" not in stop and "<the key>" in stop


def test_a_spent_budget_asks_nothing(stub: Stub, tmp_path: Path) -> None:
    found = reports(tmp_path, player(stub), max_tokens=10)["agent"]
    assert not found.stop and not found.report and "budget.max_tokens = 10" in found.notes[0]
    assert stub.counts()["paid"] == 0


def test_an_error_in_an_answer_of_status_200_is_none(stub: Stub, tmp_path: Path) -> None:
    one = interview._Interview(player(stub), "", Setting(), None)  # type: ignore[arg-type]

    def heard(status: int, said: object) -> ServerAnswer:
        class Response:
            status_code, content, text = status, json.dumps(said).encode(), json.dumps(said)

        return one._read(Response())

    assert heard(200, {"error": {"code": 429, "message": "slow down"}}).status == 429
    assert heard(200, {"error": {"code": 402, "message": "no credit"}}).status == 402
    assert heard(401, {"error": {"message": "who are you", "code": "invalid_api_key"}}).status == 401
    broken = heard(200, {"choices": [{"message": {"content": ""}, "finish_reason": "error"}]})
    assert (
        broken.kept is None
        and "so every conversation of this role would be lost" in verdicts._judged("talk", broken, player(stub), {}, [])[0]
    )


def test_a_server_that_works_is_not_refused(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list of models never comes, one answer in some is garbage, or an error field beside a good answer says that all is well."""
    monkeypatch.setattr(interview, "PAUSE", 0.01)
    send = interview._Interview._send

    async def no_list(one: Any, method: str, *more: Any) -> ServerAnswer:
        heard: ServerAnswer = await send(one, method, *more)
        return heard if method == "POST" else ServerAnswer(0, "gives no answer within 10 s")

    with monkeypatch.context() as patched:
        patched.setattr(interview._Interview, "_send", no_list)
        assert (found := reports(tmp_path, player(stub))["agent"]).report == {"asked": "small", "answered": "small"} and not found.stop
    read, answers = interview._Interview._read, iter([ServerAnswer(200, "garbage")])
    monkeypatch.setattr(interview._Interview, "_read", lambda one, response: next(answers, None) or read(one, response))
    assert not reports(tmp_path, player(stub, "judge"))["judge"].stop

    class Response:
        status_code, content = 200, b'{"choices": [{"message": {"content": "Hi."}}], "error": {"code": 0, "message": "success"}}'

    one = interview._Interview(player(stub), "", Setting(), None)  # type: ignore[arg-type]
    heard = read(one, Response())
    assert heard.kept is not None and heard.status == 200


def kept(message: dict[str, Any], finish: str = "stop", tokens: Any = (1, 1)) -> ServerAnswer:
    return ServerAnswer(
        200, kept={"message": message, "finish_reason": finish, "tokens": list(tokens), "by": []}, body={"model": "small"}
    )


@pytest.mark.parametrize(
    ("name", "answer", "stop", "note"),
    [
        ("call", kept({"content": "It is green, I think."}), "", "asked to call a tool it called none"),
        ("call", kept({"content": '{"name": "look_up_item", "parameters": {"item_id": "A7"}}'}), "tool calls as text", ""),
        ("call", kept({"content": "[TOOL_CALLS] [...]"}), "tool calls as text", ""),
        ("call", kept({"content": 'look_up_item(item_id="A7")'}), "tool calls as text", ""),
        (
            "call",
            replace(kept({"content": '<tool_call>{"name": "look_up_item", "arguments": {"item_id": "A7"}}</tool_call>'}), offered=True),
            "",
            "tool calls as text, which Cairn reads; better is the server's own setting (vLLM: --enable-auto-tool",
        ),
        ("talk", kept({"content": "<think>hm</think>Hello."}), "", "its thoughts stand in its answers"),
        ("talk", kept({"content": "<think>hm and hm"}, "length"), "thinking: 4000", "thoughts"),
        ("talk", kept({}, "length"), "says nothing within 256 tokens", ""),
        ("talk", kept({"content": "Hello."}, tokens=(None, None)), "", "does not count tokens"),
        (
            "opening",
            ServerAnswer(400, "roles must alternate user/assistant"),
            "begins with a system message alone (status 400: roles must",
            "",
        ),
        ("after a call", ServerAnswer(400, "content must not be null"), "Write content_beside_calls: absent or empty.", ""),
        ("after a call", ServerAnswer(400, "I do not like it"), "a tool call beside which nothing is said", ""),
        ("call", ServerAnswer(500, "tools param requires --jinja flag"), "Start it with its tool parser", ""),
        ("form", ServerAnswer(400, "This model's maximum context length is 200 tokens"), "lower max_tokens and thinking", ""),
        ("form", ServerAnswer(200, "with room", kept({"content": '{"score": 7}'}).kept), "", "each answer is paid for twice"),
        ("form", ServerAnswer(429, "slow down"), "Run again when it does", ""),
        ("form", ServerAnswer(408, "too slow"), "Run again when it does", ""),
        ("talk", ServerAnswer(308, "https://host/v1"), "base_url leads elsewhere (status 308: https://host/v1). Name the place", ""),
        ("talk", ServerAnswer(200, "its answer is not a chat completion: '<html>'"), "Does base_url end where such an API begins", ""),
        ("call", kept({"content": ""}, "content_filter"), "", "or a filter in front of it, declines"),
        ("call", kept({"tool_calls": [{"function": {"name": "", "arguments": None}}]}), "", "its tool calls cannot be read"),
    ],
)
def test_what_servers_say_is_understood(name: str, answer: ServerAnswer, stop: str, note: str) -> None:
    found, notes = verdicts._judged(name, answer, player("http://host/v1"), {}, [])
    assert (stop in found) == bool(stop or not found) and bool(found) == bool(stop), found
    assert note in "".join(notes) and bool(notes) == bool(note), notes


def test_odd_words_in_a_list_of_models_are_data() -> None:
    entry = {"id": "small", "root": "a\ud83d\x00b" * 200, "meta": "no", "parent": None}
    report = verdicts._report("small", "", entry)
    assert report == {"asked": "small", "root": ("a??b" * 200)[:200]} and json.dumps(report)
    assert verdicts._entries(ServerAnswer(200, body={"data": [{"id": "x"}, "y", {}]})) == {"x": {"id": "x"}}
