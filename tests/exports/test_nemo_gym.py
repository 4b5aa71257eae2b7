"""The exported world between NeMo Gym's own agent server and a model that says the stored turns: the rewards that were stored."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.exports import stored

pytestmark = pytest.mark.exports


class Answer:
    """An answer of httpx as NeMo Gym's helpers read those of aiohttp."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer, self.ok, self.cookies = answer, answer.is_success, dict(answer.cookies)

    async def read(self) -> bytes:
        return self.answer.content


def model_answer(problem: str, place: int) -> dict[str, Any]:
    """A stored turn as the Responses API says it."""
    turn = stored.turns(problem)[place]
    output: list[dict[str, Any]] = [
        {
            "type": "function_call",
            "call_id": f"{place}-{call['id']}",
            "name": call["function"]["name"],
            "arguments": json.dumps(call["function"]["arguments"]),
        }
        for call in turn.get("tool_calls") or ()
    ]
    if turn["content"] or not output:
        text = {"type": "output_text", "text": turn["content"], "annotations": []}
        output.insert(0, {"type": "message", "id": f"m{place}", "role": "assistant", "status": "completed", "content": [text]})
    about = {"id": f"r{place}", "created_at": 0, "model": "m", "object": "response", "status": "completed"}
    return {**about, "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}


class Between:
    """What NeMo Gym's ServerClient is: the resources server in this process, and the model."""

    def __init__(self, app: Any) -> None:
        self.app, self.problem, self.place = app, "", 0

    async def post(self, server_name: str, url_path: str, json: Any, cookies: Any = None) -> Answer:
        if server_name == "policy_model":
            said = model_answer(self.problem, self.place)
            self.place += 1
            return Answer(httpx.Response(200, json=said, request=httpx.Request("POST", "http://model")))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://gym", cookies=cookies) as client:
            return Answer(await client.post(url_path, json=json))


def test_the_stored_rewards(tmp_path: Path) -> None:
    import yaml
    from responses_api_agents.gymnasium_agent.app import GymnasiumAgent, GymnasiumAgentConfig, GymnasiumAgentRunRequest

    out = stored.written("nemo_gym", tmp_path)
    config = yaml.safe_load((out / "configs" / "cairn_retail.yaml").read_text("utf-8"))
    seat = config["cairn_retail_agent"]["responses_api_agents"]["gymnasium_agent"]
    spec = importlib.util.spec_from_file_location("exported_for_nemo_gym", out / "app.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from nemo_gym.base_resources_server import BaseResourcesServerConfig

    own = config["cairn_retail"]["resources_servers"]["cairn_retail"]
    server = module.RetailServer.model_construct(
        config=BaseResourcesServerConfig(name="cairn_retail", host="127.0.0.1", port=0, **own), session_state={}, server_client=None
    )
    between = Between(server.setup_webserver())
    agent = GymnasiumAgent.model_construct(
        config=GymnasiumAgentConfig(name="agent", host="127.0.0.1", port=0, **seat), server_client=between
    )

    class Asked:
        cookies: dict[str, str] = {}

    async def all_of_them() -> dict[str, float]:
        found = {}
        for line in (out / "data" / "train.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            between.problem, between.place = row["problem"], 0
            answer = await agent.run(Asked(), GymnasiumAgentRunRequest.model_validate(row))
            found[row["problem"]] = answer.reward
            assert between.place == len(stored.turns(row["problem"]))
        return found

    assert asyncio.run(all_of_them()) == stored.rewards()
    assert not server.session_state
