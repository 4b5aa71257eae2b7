"""The pyfunc flavor of a registered version: MLflow runs this file when it loads one (models from code).

A request is OpenAI's chat completion: messages, tools, temperature, max_tokens, and `custom_inputs: {"world": NAME}` for an agent of
several worlds. MLflow puts temperature 1.0 where a caller names none, so 1.0 means the agent card's temperature here; whoever wants
exactly that says `custom_inputs: {"temperature": 1.0}`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mlflow
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage, ChatParams, TokenUsageStats

from tasks.engine.registered.agent import Agent
from tasks.engine.registered.on_base import on_base

UNSUPPORTED = {"stop": (None,), "n": (1,), "stream": (False,), "top_p": (None, 1.0), "top_k": (None,)} | {
    name: (None, 0.0) for name in ("frequency_penalty", "presence_penalty")
}
"""Fields of a request that would change what is sampled, and the values that they may have."""


class RegisteredAgent(mlflow.pyfunc.ChatModel):
    """Answers with `tool_calls` where the model calls tools."""

    def load_context(self, context: Any) -> None:
        """Load model, tokenizer and card from the version's files; of an adapter, onto the base whose folder `model_config` names."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        files = context.artifacts
        if "adapter" in files:
            model = on_base(Path(files["adapter"]), (context.model_config or {}).get("base") or "")
        else:
            model = AutoModelForCausalLM.from_pretrained(files["model"], local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(files["tokenizer"], local_files_only=True)
        self.agent = Agent(model, tokenizer, json.loads(Path(files["card"]).read_text("utf-8")))

    def predict(self, context: Any, messages: list[ChatMessage], params: ChatParams) -> ChatCompletionResponse:
        """The agent's next turn. ValueError for what it cannot be asked."""
        for name, allowed in UNSUPPORTED.items():
            if getattr(params, name) not in allowed:
                raise ValueError(f"{name} = {getattr(params, name)!r}: allowed are {', '.join(map(repr, allowed))}.")
        more = dict(params.custom_inputs or {})
        wish = {"world": more.pop("world", ""), "temperature": more.pop("temperature", None)}
        if more:
            raise ValueError(f"custom_inputs: unknown {', '.join(more)}; allowed are world and temperature.")
        if wish["temperature"] is None and params.temperature != 1.0:
            wish["temperature"] = params.temperature
        reply = self.agent.reply(
            [message.to_dict() for message in messages],
            tools=[tool.to_dict() for tool in params.tools or ()],
            max_tokens=params.max_tokens,
            **wish,
        )
        usage = TokenUsageStats(reply.read, reply.produced, reply.read + reply.produced)
        choice = ChatChoice(ChatMessage.from_dict(reply.message), finish_reason=reply.finish)
        custom = {"error": reply.error} if reply.error else None
        return ChatCompletionResponse([choice], usage, model=self.agent.card["name"], custom_outputs=custom)


with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", FutureWarning
    )  # another interface is recommended, whose answers have no `tool_calls`; mlflow is pinned
    mlflow.models.set_model(RegisteredAgent())
