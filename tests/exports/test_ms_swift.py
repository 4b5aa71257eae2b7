"""The exported world in ms-swift's own gym scheduler: the stored agents' turns as text, and the rewards that were stored."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.exports import stored

pytestmark = pytest.mark.exports


def text_of(turn: dict[str, Any]) -> str:
    calls = [call["function"] for call in turn.get("tool_calls") or ()]
    return turn["content"] + "".join(f"<tool_call>\n{json.dumps(one)}\n</tool_call>" for one in calls)


class Engine:
    """What stands for vLLM: says the next stored turn of the request's problem."""

    engine = None

    class tokenizer:  # its tokens are letters
        decode = staticmethod(lambda ids, **_: "".join(map(chr, ids)))

    async def infer_async(self, request: Any, config: Any, **_: Any) -> Any:
        from swift.infer_engine.protocol import ChatCompletionResponse, ChatCompletionResponseChoice, ChatMessage, UsageInfo

        place = sum(message["role"] == "assistant" for message in request.messages)
        text = text_of(stored.turns(request.data_dict["env_config"]["problem"])[place])
        said = ChatMessage("assistant", text)
        return ChatCompletionResponse(
            "m", [ChatCompletionResponseChoice(0, said, "stop", token_ids=[ord(letter) for letter in text])], UsageInfo(0, 0, 0)
        )


def test_the_stored_rewards(tmp_path: Path) -> None:
    from swift.infer_engine import RequestConfig
    from swift.infer_engine.protocol import RolloutInferRequest
    from swift.rollout.multi_turn import multi_turns

    out = stored.written("ms_swift", tmp_path)
    spec = importlib.util.spec_from_file_location("exported_for_ms_swift", out / "plugin.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    scheduler = multi_turns["gym_scheduler"](Engine(), gym_env="cairn_retail")
    found = {}
    for line in (out / "train.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        name = row["env_config"]["problem"]
        request = RolloutInferRequest(
            row["messages"], tools=json.loads(row["tools"]), data_dict={"env_config": row["env_config"]}, uuid=name
        )
        played = asyncio.run(scheduler.run(request, RequestConfig()))
        found[name] = played.rollout_infos["total_reward"]
        assert played.messages[1]["content"] == stored.spoken(name)[0]["content"]
    assert found == stored.rewards()
