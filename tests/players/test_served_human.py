"""What a human that is a model behind a server is sent: what a person would be told, and nothing that grades the conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tasks.contract.scripts import STOP
from tasks.generate.parts.apigen_mt.best_of_n import BestOfN
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.players.openai_compatible import Dialect, EndpointClient, Setting
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.api.system_prompt import human_system


@contextmanager
def recording() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, everything that was sent): a server that says its name and zip, then hangs up; a critic gets a score."""
    sent: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sent.append(asked)
            said = "Hello, I have a question." if len(asked["messages"]) == 1 else STOP
            if "from 0 to 10" in asked["messages"][0]["content"]:
                said = '{"score": 7}'
            message = {"role": "assistant", "content": said}
            body = {
                "id": "1",
                "object": "chat.completion",
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
            raw = json.dumps({**body, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", sent
    finally:
        server.shutdown()
        server.server_close()


def test_a_served_human_gets_the_instruction_and_nothing_else(tmp_path: Path) -> None:
    world = World.build(world_class("tasks.worlds.library.retail:Retail"), 40, 0)
    problems = draw_problems(world, "train", 12, 0)
    assert all(problem.intent for problem in problems) and any(problem.outputs for problem in problems)
    agent = ClientAgent(scripted.client("agent", world, {}, 0), {"tools": "none", "policy": "none"})
    with recording() as (url, sent):
        players = [
            EndpointClient(role, url, Dialect("m"), setting=Setting(tmp_path, "run", "run", {})) for role in ("human", "human_critic")
        ]
        human = BestOfN(players[0], players[1], 2, setting=world.setting)
        played = play(world, [(problem, 0) for problem in problems], agent, human, seed=0)
    systems = {human_system(problem, world.setting): problem for problem in problems}
    assert {talk.stop for talk in played} == {"user_stop"}
    for asked in (one for one in sent if "from 0 to 10" not in one["messages"][0]["content"]):
        problem = systems[asked["messages"][0]["content"]]
        assert problem.instruction in asked["messages"][0]["content"] and problem.persona in asked["messages"][0]["content"]
        assert not asked.get("tools") and set(asked["messages"][0]) == {"role", "content"}
        assert "intent" not in json.dumps(asked) and problem.problem_id not in json.dumps(asked)
        said = " ".join(one["content"] for one in asked["messages"])
        heard = " ".join(one["content"] for one in asked["messages"][1:])
        given = {str(value) for action in problem.actions for value in action.arguments.values()} | {*problem.outputs}
        private = {value for value in given if re.search(r"\d", value) and value not in problem.instruction and value not in heard}
        assert not [value for value in private if re.search(rf"\b{re.escape(value)}\b", said)]
        assert not [name for name in world.tools if name in said] and "{" not in said
    assert len(sent) > len(problems)


def test_a_scripted_human_still_works_from_the_intent() -> None:
    world = World.build(world_class("tasks.worlds.library.retail:Retail"), 40, 0)
    agent = ClientAgent(scripted.client("agent", world, {}, 0), {"tools": "none", "policy": "none"})
    human = BestOfN(scripted.client("human", world, {}, 0), scripted.client("human_critic", world, {}, 0), 2)
    played = play(world, [(problem, 0) for problem in draw_problems(world, "train", 12, 0)], agent, human, seed=0)
    assert all(talk.outcome and talk.outcome.reward for talk in played)
