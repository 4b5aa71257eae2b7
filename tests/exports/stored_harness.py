"""A harness of verifiers that is no process of its own: asks the model, calls the tools, until the model replies."""

from __future__ import annotations

import json
from typing import Any

import httpx
import verifiers.v1 as vf
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.harnesses.utils.mcp import mcp_client
from verifiers.v1.runtimes import ProgramResult


class StoredHarness(vf.Harness[vf.HarnessConfig]):
    """Every request says which problem it is about, so that the model can look its turn up."""

    APPENDS_SYSTEM_PROMPT = SUPPORTS_MCP = SUPPORTS_RESUME = True
    EXECUTES_CODE = NEEDS_CONTAINER = False

    async def launch(self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, mcp_urls: Any, data: Any, **_: Any) -> Any:
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}, *(message_to_wire(one) for one in prompt)]
        (url,) = mcp_urls.values()
        async with mcp_client({"url": url}) as tools, httpx.AsyncClient(headers={"Authorization": f"Bearer {secret}"}) as model:
            listed = [
                {"type": "function", "function": {"name": one.name, "description": one.description, "parameters": one.input_schema}}
                for one in (await tools.list_tools()).tools
            ]
            while True:
                asked = {"model": ctx.model, "messages": messages, "tools": listed, "metadata": {"problem": data.problem}}
                answer = await model.post(f"{endpoint}/chat/completions", json=asked, timeout=60)
                if answer.status_code != 200:
                    return ProgramResult(1, "", answer.text)
                said = answer.json()["choices"][0]["message"]
                messages.append(said)
                if not said.get("tool_calls"):
                    return ProgramResult(0, "", "")
                for call in said["tool_calls"]:
                    function = call["function"]
                    result = await tools.call_tool(function["name"], json.loads(function["arguments"]))
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": result.content[0].text})


__all__ = ["StoredHarness"]
