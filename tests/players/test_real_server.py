"""A real OpenAI-compatible server (`transformers serve`) with a tiny checkpoint that learnt one conversation by heart, called by the real
`openai` client and by ours; ours plays the whole conversation, tools and all, with a scripted human.

Traps that this test would show:
1. Chat template. The server renders `tools` by the checkpoint's own template, so a model must be trained on that text: the system
   message of `tasks.worlds.api.system_prompt` with tools "full" has the same words, byte for byte, and the test compares the two.
2. Tool parsing. transformers finds calls by a response template that it derives from the chat template (`<tool_call>` JSON); a checkpoint
   saved without its template is served as one that only chats, and its calls arrive as plain content.
3. Arguments travel as text and come back as text; the template wants them as an object again, and the server parses them for it. Their
   keys keep the order in which the model said them, which for a model of ours is the sorted one of its training text.
4. Ids of calls are the server's own; ours are numbered, so that a conversation is the same whoever served it.
5. `response_format` is silently ignored here: `structured: json_schema` gets free text, which the second round and the schema check meet.
6. The model's name is its folder. GET /v1/models fails offline, so nothing may rest on it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.checkpoints import folders, saving, tiny
from tasks.contract.client import Request
from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.players.openai_compatible import Dialect, EndpointClient, Pace, Setting, stats
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.api.system_prompt import system_message
from tasks.worlds.library.library.world import Library
from tests.chat.talks import render

PROMPT = {"tools": "none", "policy": "none"}
JUDGE = [{"role": "user", "content": "Judge."}, {"role": "assistant", "content": "Well done, I would say."}]
"""A question whose answer is words: transformers 5 ends with status 500 at a call that its limit of tokens cuts."""
SEED = 3
pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("served")]


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(Library, 30, 0, "tasks.worlds.library.library.world:Library")


@pytest.fixture(scope="module")
def taught(world: World) -> Trajectory:
    """The shortest of the teacher's conversations that has a write and was won."""
    problems: list[Problem] = [one for one in draw_problems(world, "train", 20, 1) if one.n_writes]
    agent = ClientAgent(scripted.client("agent", world, {}, 0), PROMPT)
    played = play(world, [(one, 0) for one in problems], agent, scripted.client("human", world, {}, 0), seed=SEED)
    return min((one for one in played if one.outcome and one.outcome.reward == 1), key=lambda one: len(json.dumps(one.messages)))


@pytest.fixture(scope="module")
def checkpoint(world: World, taught: Trajectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers, trained on that conversation, and to answer `JUDGE` with words, until it says every trained token."""
    import torch

    system = system_message(world, PROMPT)
    words = [*tiny.language(system, taught.messages, world.schemas()), JUDGE[0]["content"], JUDGE[1]["content"]]
    tokenizer = tiny.build_tokenizer(words * 3, 700)
    rendered = render(tokenizer, system, taught.messages, world.schemas())
    prompt = tokenizer.apply_chat_template(JUDGE[:1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(JUDGE, tokenize=False)
    assert whole.startswith(prompt)
    judged = torch.tensor([tokenizer(whole).input_ids])
    said = judged.clone()
    said[:, : len(tokenizer(prompt).input_ids)] = -100
    torch.manual_seed(0)
    model = tiny.tiny_qwen3(tokenizer, layers=2, width=64, heads=2).train()
    ids, trained = torch.tensor([rendered.ids]), torch.tensor([rendered.mask]).bool()
    labels = ids.masked_fill(~trained, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels).loss + model(input_ids=judged, labels=said).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.01, "the conversations were not learnt"
    folder = tmp_path_factory.mktemp("served") / "model"
    saving.save(model.eval(), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def url(checkpoint: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("transformers")),
        "serve",
        str(checkpoint),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    with subprocess.Popen([*command, "--device", "cpu"], env=environment, stdin=quiet, stdout=quiet, stderr=quiet) as server:
        try:
            yield _ready(f"http://127.0.0.1:{port}", server)
        finally:
            server.kill()


def _ready(place: str, server: subprocess.Popen[bytes]) -> str:
    for _ in range(480):
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"{place}/health", timeout=1).read()
            return f"{place}/v1"
        except OSError:
            time.sleep(0.25)
    raise AssertionError("the server did not start")


def test_the_server_reads_what_was_trained(world: World, taught: Trajectory, checkpoint: Path) -> None:
    """Trap 1: system message and tools by the template are the trained system message, and every turn after it."""
    tokenizer = folders.load_tokenizer(checkpoint)
    said = json.loads(json.dumps(taught.messages, sort_keys=True))  # as a model says its arguments that was trained by us
    messages = [{"role": "system", "content": system_message(world, PROMPT)}, *said]
    text = tokenizer.apply_chat_template(messages, tools=world.schemas(), tokenize=False)
    trained = render(tokenizer, system_message(world, PROMPT), taught.messages, world.schemas())
    assert tokenizer.decode(trained.ids) == text.rstrip("\n")


def test_the_openai_client_is_answered_with_a_tool_call(world: World, taught: Trajectory, checkpoint: Path, url: str) -> None:
    from openai import OpenAI

    opening: Any = [{"role": "system", "content": system_message(world, PROMPT)}, taught.messages[0]]
    turn = next(place for place, one in enumerate(taught.messages) if one.get("tool_calls"))
    asked: Any = [opening[0], *({"role": one["role"], "content": one["content"]} for one in taught.messages[:turn])]
    with OpenAI(base_url=url, api_key="none") as client:
        answer = client.chat.completions.create(
            model=str(checkpoint), messages=asked, tools=world.schemas(), max_tokens=200, temperature=0
        )  # type: ignore[call-overload]
    function = answer.choices[0].message.tool_calls[0].function
    wanted = taught.messages[turn]["tool_calls"][0]["function"]
    assert (function.name, json.loads(function.arguments)) == (wanted["name"], wanted["arguments"])
    assert answer.choices[0].finish_reason == "tool_calls" and answer.usage.completion_tokens > 5


def test_our_client_plays_the_whole_conversation(world: World, taught: Trajectory, checkpoint: Path, url: str, tmp_path: Path) -> None:
    """The same messages, calls, state and reward as the teacher's, by way of HTTP; and a second time without a call."""

    def again(run: str) -> Trajectory:
        role = EndpointClient("agent", url, Dialect(str(checkpoint)), pace=Pace(4, timeout=60), setting=Setting(tmp_path, run))
        human = scripted.client("human", world, {}, 0)
        return play(world, [(taught.problem, 0)], ClientAgent(role, PROMPT), human, seed=SEED)[0]

    played = again("served")
    assert played.messages == taught.messages and played.outcome == taught.outcome
    figures = stats("served")["agent"]
    assert figures["calls"] == sum(one["role"] == "assistant" for one in taught.messages) >= 3
    assert figures["tokens_in"] > 100 * figures["calls"] and figures["failures"] == figures["truncations"] == 0
    assert again("second").messages == taught.messages and stats("second")["agent"]["calls"] == 0


def test_a_form_that_the_server_ignores_is_counted(checkpoint: Path, url: str) -> None:
    """Trap 5: the words come back as they are after one second round; nothing is made up."""
    role = EndpointClient("judge", url, Dialect(str(checkpoint)), pace=Pace(4, timeout=60), setting=Setting(run="form"))
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
    answer = role.complete([Request(JUDGE[:1], schema=schema, max_tokens=8)])[0]
    assert answer["content"] == JUDGE[1]["content"]
    assert (stats("form")["judge"]["repairs"], stats("form")["judge"]["unreadable"]) == (1, 1)
