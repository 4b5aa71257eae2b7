"""/v1/chat/completions of `cairn serve`, asked by OpenAI's client on loopback."""

from __future__ import annotations

import json
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from flows.cli import main
from flows.serving import source
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.serving.endpoint.app import make
from tasks.serving.endpoint.card import agent_card
from tasks.serving.endpoint.chat_request import of_body
from tasks.serving.endpoint.kept import Kept
from tasks.serving.endpoint.opened import opened, with_chat
from tasks.serving.endpoint.player import listening
from tasks.serving.endpoint.served import Served
from tasks.worlds.api.play import play
from tests.conftest import ROOT
from tests.engine.test_registered import ASK, TOOL, behaviour, checkpoint, frozen
from tests.playing import NO_PROMPT, checkpoint_agent
from tests.rollout import tiny
from tests.rollout.test_rollout import human, jobs, world

__all__ = ["checkpoint"]
CONVERSATIONS = 50
USER: list[Any] = [{"role": "user", "content": ASK}]


@contextmanager
def chatting(
    folder: Path, card: dict[str, Any], kept: Path | None = None, name: str = "agent"
) -> Iterator[tuple[openai.OpenAI, Served]]:
    served = with_chat(opened(folder, {}, name, "cpu", "float32", 600), lambda: card, Kept(kept))
    try:
        with listening(make(served)) as url:
            yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0), served
    finally:
        served.thread.end()


@pytest.fixture(scope="module")
def agent(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    place = tmp_path_factory.mktemp("served")
    card = agent_card("agent", checkpoint, behaviour(frozen(place / "worlds", "retail")))
    with chatting(checkpoint, card, place / "kept") as (client, served):
        yield SimpleNamespace(create=client.chat.completions.create, served=served, kept=place / "kept")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]


def test_a_call_its_result_and_what_is_kept(agent: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's system message is put in front, and the second request renders what is new alone."""
    first = agent.create(model="agent", messages=USER, tools=[TOOL], tool_choice="auto", metadata={"problem": "p1"})
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None and first.id.startswith("chatcmpl-")
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_order", {"order_id": "#W12345"})
    monkeypatch.setattr(agent.served.chat.prompting, "ids", lambda prompt: pytest.fail("rendered again"))
    result = {"role": "tool", "tool_call_id": call.id, "content": "{}"}
    second = agent.create(model="agent", messages=[*USER, choice.message, result], tools=[TOOL], max_tokens=3)
    one, two = lines(agent.kept)[-2:]
    assert [stat.S_IMODE(path.stat().st_mode) for path in agent.kept.iterdir()] == [0o600], "customers' words are no other user's"
    assert (one["id"], one["problem"], one["world"], two["problem"]) == (first.id, "p1", "retail", "")
    assert (one["checkpoint"], one["adapter"]) == (agent.served.chat.prompting.card["checkpoint"], "")
    assert one["messages"][0] == {"role": "system", "content": "You are the retail agent."}
    assert two["prompt_ids"][: first.usage.total_tokens] == one["prompt_ids"] + one["ids"]
    assert second.usage.prompt_tokens == len(two["prompt_ids"]) and second.usage.completion_tokens == len(two["ids"]) <= 3


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_of_the_callers_takes_the_place_of_the_worlds(agent: SimpleNamespace, role: str) -> None:
    own = {"role": role, "content": "You are the order desk."}
    agent.create(model="agent", messages=[own, *USER], max_tokens=2)
    kept = lines(agent.kept)[-1]
    assert [one["content"] for one in kept["messages"] if one["role"] == "system"] == [own["content"]]
    read = agent.served.tokenizer.decode(kept["prompt_ids"])
    assert own["content"] in read and "You are the retail agent." not in read


@pytest.mark.parametrize("more", [{}, {"tool_choice": "none"}, {"stop": ["get_"]}, {"max_completion_tokens": 4}])
def test_what_is_streamed_is_what_is_answered(agent: SimpleNamespace, more: dict[str, Any]) -> None:
    whole = agent.create(model="agent", messages=USER, **more)
    content, calls, finish, usage = "", [], "", None
    for chunk in agent.create(model="agent", messages=USER, stream=True, stream_options={"include_usage": True}, **more):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            content, finish = content + (choice.delta.content or ""), choice.finish_reason or finish
            calls += choice.delta.tool_calls or ()
    message = whole.choices[0].message
    assert (content, finish, usage) == (message.content or "", whole.choices[0].finish_reason, whole.usage)
    wanted = [call.function.model_dump() for call in message.tool_calls or ()]
    assert [call.function.model_dump() for call in calls] == wanted
    assert finish == {"max_completion_tokens": "length", "": "tool_calls"}.get(next(iter(more), ""), "stop")
    assert bool(message.tool_calls) == (finish == "tool_calls") and "get_" not in content * ("stop" in more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tool_choice": "required"}, "allowed: auto, none"),
        ({"tool_choice": {"type": "function", "function": {"name": "get_order"}}}, "allowed: auto, none"),
        ({"n": 2}, "n = 2: allowed: 1"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "a part that is no text"),
        ({"temperature": 3}, "temperature"),
        ({"model": "other"}, "does not exist. There are: agent"),
        ({"extra_body": {"custom_inputs": {"world": "moon"}}}, "this agent knows retail"),
        ({"extra_body": {"wings": 2}}, "it is not known here"),
    ],
)
def test_what_cannot_be_answered_is_refused_as_openai_does(agent: SimpleNamespace, more: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        agent.create(**{"model": "agent", "messages": USER, **more})
    body: Any = caught.value.body
    assert said in body["message"] and body["type"] == "invalid_request_error" and caught.value.status_code in (400, 404)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 100_000, "it nests too deep"),
        (b'{"model": "agent", "messages": [{"role": "user", "content": "\\ud800"}]}', "half a character"),
        (
            b'{"model": "agent", "messages": [{"role": "assistant", "tool_calls": '
            b'[{"function": {"name": "x", "arguments": "{\\"a\\": \\"\\\\ud800\\"}"}}]}]}',
            "surrogates not allowed",
        ),
    ],
)
def test_a_text_that_no_tokenizer_takes_is_the_callers_mistake(text: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        of_body(text)


def test_an_answer_that_cannot_be_kept_is_told(agent: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(kept: Kept, line: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Kept, "write", full)
    with pytest.raises(openai.InternalServerError, match="No space left on device"):
        agent.create(model="agent", messages=USER, max_tokens=2)
    with pytest.raises(openai.APIError, match="No space left on device"):
        list(agent.create(model="agent", messages=USER, max_tokens=2, stream=True))


def test_clients_can_tell_an_unknown_model_from_a_conversation_that_is_too_long(agent: SimpleNamespace) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        agent.create(model="other", messages=USER)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match=r"the conversation's \d+ tokens fill the context of 600") as long:
        agent.create(model="agent", messages=[{"role": "user", "content": "order " * 700}])
    assert (long.value.code, long.value.param, long.value.type) == ("context_length_exceeded", "messages", "invalid_request_error")


def test_a_tool_with_which_it_was_never_evaluated_is_logged_once(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the prompt carries tools it may be called; else the agent could not know it, and the request is refused."""
    tool = json.loads(json.dumps(TOOL).replace("get_order", "fly"))
    for tools, codes in (("full", (None, None)), ("none", ("", ""))):
        card = agent_card("agent", checkpoint, behaviour(frozen(tmp_path / tools, "retail"), tools=tools))
        with chatting(checkpoint, card) as (client, _):
            for code in codes:
                if code is None:
                    assert client.chat.completions.create(model="agent", messages=USER, tools=[TOOL, tool], max_tokens=2).choices
                else:
                    with pytest.raises(openai.BadRequestError, match="tools: fly: this agent was trained without tools in its prompt"):
                        client.chat.completions.create(model="agent", messages=USER, tools=[TOOL, tool], max_tokens=2)
    (record,) = caplog.records
    assert "a request brought tools with which agent was never evaluated: fly" in record.getMessage()


def test_the_example_of_the_readme_runs_as_it_stands(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With another address, an agent of two worlds, and nobody to say which is meant but the example."""
    readme = (ROOT / "flows/README.md").read_text("utf-8")
    example, _ = re.findall(r"```python\n(from openai.*?)```", readme, re.DOTALL)  # the other one is for --with-tools
    card = agent_card("champion", checkpoint, behaviour(frozen(tmp_path / "worlds", "retail", "airline")))
    with chatting(checkpoint, card, name="champion") as (client, _):
        exec(example.replace("http://127.0.0.1:8000/v1", str(client.base_url)), {})
    assert "ChatCompletionMessage(" in capsys.readouterr().out


def test_a_seed_gives_the_same_answer_and_top_p_takes_the_likeliest(agent: SimpleNamespace) -> None:
    def ids(**how: Any) -> list[int]:
        agent.create(model="agent", messages=[{"role": "user", "content": "order"}], max_tokens=8, **how)
        return list(lines(agent.kept)[-1]["ids"])

    assert ids(temperature=2, seed=1) == ids(temperature=2, seed=1) != ids(temperature=2, seed=2)
    assert ids(temperature=2, seed=2, top_p=1e-9) == ids(temperature=0)


def _last(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*.jsonl")
    found: dict[str, Any] = json.loads(file.read_text("utf-8").splitlines()[-1])
    return found


def test_what_is_served_is_what_was_evaluated_token_for_token(tmp_path: Path) -> None:
    """Each turn of conversations that were played, asked again through the client with the seed of its turn."""
    folder = tiny.saved(tmp_path / "model", seed=3, end=3.0)
    limits = {"temperature": 0.7, "max_turn_tokens": 24}
    player = checkpoint_agent(tiny.model(seed=3, end=3.0), tiny.tokenizer(), NO_PROMPT, max_episode_tokens=600, **limits)
    played = play(world(), jobs(4)[:CONVERSATIONS], player, human(), seed=5, max_steps=3)
    assert len(played) == CONVERSATIONS
    card = agent_card("agent", folder, behaviour(frozen(tmp_path / "worlds", "retail")))
    card["generation"] = {"temperature": 0.7, "max_new_tokens": 24}
    turns = 0
    with chatting(folder, card, tmp_path / "kept") as (client, _):
        for one in played:
            spoken = [index for index, message in enumerate(one.messages) if message["role"] == "assistant"]
            read: list[int] = []
            for number, (at, turn) in enumerate(zip(spoken, one.turns, strict=False)):
                seed = seed_of(5, one.problem.problem_id, one.trial, number, "agent")
                client.chat.completions.create(model="agent", messages=one.messages[:at], seed=seed)
                kept = _last(tmp_path / "kept")
                read += turn["prompt_ids"]
                assert kept["ids"] == list(turn["ids"]) and kept["prompt_ids"] == read
                read += turn["ids"]
                turns += 1
    assert turns > len(played), "some conversations had more than one turn"


def test_a_port_in_use_and_a_champion_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["serve", str(tmp_path), "--port", port]) == 2
        assert "another program listens there" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert main(["serve", "--port", port]) == 2
    assert "there is no champion of" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--keep", "maybe"]) == 2


def test_the_card_of_a_version_is_that_which_was_registered(tmp_path: Path, mlflow_uri: str) -> None:
    """Out of the logged model that the version is made of."""
    import mlflow

    client: Any = mlflow.MlflowClient()
    logged = client.create_logged_model(client.create_experiment("e", artifact_location=str(tmp_path / "files")), "agent")
    (tmp_path / "version").mkdir()
    (tmp_path / "version/agent_card.json").write_text('{"name": "x"}')
    client.log_model_artifacts(logged.model_id, str(tmp_path / "version"))
    client.finalize_logged_model(logged.model_id, "READY")
    client.create_registered_model("x")
    client.create_model_version("x", source=f"models:/{logged.model_id}", model_id=logged.model_id)
    assert source.card_of(source.Named(tmp_path, "x", "models:/x/1")) == {"name": "x"}
