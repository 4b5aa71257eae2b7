"""OpenAI's client for JavaScript (npm's `openai`, in .cairn/npm) gets from `cairn serve` what the one for Python gets."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import openai
import pytest

from tasks.serving.endpoint.card import agent_card
from tests.conftest import ROOT
from tests.engine.test_registered import ASK, TOOL, behaviour, checkpoint, frozen
from tests.flows.test_serve_chat import chatting

pytestmark = pytest.mark.services
__all__ = ["checkpoint"]
INSTALLED = ROOT / ".cairn/npm"


def test_chat_streaming_tools_and_errors(checkpoint: Path, tmp_path: Path) -> None:
    assert (INSTALLED / "node_modules/openai").is_dir(), "make .cairn/npm/.ready puts npm's openai there"
    shutil.copy2(ROOT / "tests/services/npm/chat.js", INSTALLED)
    card = agent_card("agent", checkpoint, behaviour(frozen(tmp_path / "worlds", "retail")))
    with chatting(checkpoint, card) as (client, _):
        command = ["node", "chat.js", str(client.base_url), ASK, json.dumps(TOOL)]
        done = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, encoding="utf-8", check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        ours = client.chat.completions.create(
            model="agent", messages=[{"role": "user", "content": ASK}], tool_choice="none", seed=3, temperature=1, max_tokens=12
        )
    (call,) = found["whole"]["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "get_order", "arguments": '{"order_id": "#W12345"}'}
    assert found["gathered"]["message"]["tool_calls"][0]["function"] == call["function"]
    assert found["gathered"]["finish_reason"] == found["whole"]["choices"][0]["finish_reason"] == "tool_calls"
    assert found["after"]["usage"]["prompt_tokens"] > found["whole"]["usage"]["total_tokens"] and found["models"] == ["agent"]
    assert found["streamed"] == found["words"]["choices"][0]["message"]["content"] == ours.choices[0].message.content
    assert openai.types.CompletionUsage(**found["usage"]) == ours.usage and found["usage"] == found["words"]["usage"]
    unknown, long, wrong = found["unknown"], found["long"], found["wrong"]
    assert (unknown["kind"], unknown["status"], unknown["code"], unknown["param"]) == ("NotFoundError", 404, "model_not_found", "model")
    assert (long["kind"], long["status"], long["code"]) == ("BadRequestError", 400, "context_length_exceeded")
    assert wrong["status"] == 400 and "allowed: auto, none" in wrong["message"]
