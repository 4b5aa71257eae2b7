"""A request to /v1/chat/completions: the fields of OpenAI's API that are answered here, and the values that the others may have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tasks.contract.params import BadInput
from tasks.serving.endpoint.plain_fields import SAMPLING, Allowed, refusal

PLAIN: Allowed = {
    "n": (1, None),
    **SAMPLING,
    "logit_bias": ({}, None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "parallel_tool_calls": (True, None),
    "response_format": ({"type": "text"}, None),
    "store": (False, None),
}
"""Fields that would change what is answered, with the values that leave it as it is."""


class Function(BaseModel):
    """Of a call: arguments is JSON text."""

    name: str
    arguments: str = "{}"

    @field_validator("arguments")
    @classmethod
    def _is_object(cls, text: str) -> str:
        if not isinstance(found := json.loads(text), dict):
            raise ValueError("expected the JSON text of an object")
        json.dumps(found, ensure_ascii=False).encode()  # ValueError for half a character
        return text


class Call(BaseModel):
    """Of an assistant's message."""

    id: str = ""
    type: Literal["function"] = "function"
    function: Function


class ChatMessage(BaseModel):
    """OpenAI's message; contents are text, alone or in parts."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[Call] | None = None

    @field_validator("role")
    @classmethod
    def _system(cls, role: str) -> str:
        return "system" if role == "developer" else role

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        if other := next((one for one in content if not isinstance(one, dict) or not isinstance(one.get("text"), str)), None):
            raise ValueError(f"a part that is no text: {str(other)[:60]}")
        return "".join(one["text"] for one in content)


class ToolFunction(BaseModel):
    """What a tool is called; the rest of its schema is read by the model alone."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1)


class Tool(BaseModel):
    """A tool as OpenAI's API has it: a function with a JSON schema."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: ToolFunction


class ChatRequest(BaseModel):
    """temperature and the limit of tokens are the agent card's where none is given; seed: a random one."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[Tool] | None = None
    tool_choice: Any = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: list[str] = Field([], max_length=4)
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    custom_inputs: dict[str, str] | None = None
    user: str | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _listed(cls, stop: Any) -> Any:
        return [] if stop is None else [stop] if isinstance(stop, str) else stop

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, stop: list[str]) -> list[str]:
        if "" in stop:
            raise ValueError("an empty text would end every answer")
        return stop


def of_body(text: bytes) -> ChatRequest:
    """A request as it came; BadInput or ValueError for one that cannot be read, or not answered."""
    try:
        body = json.loads(text)
        json.dumps(body, ensure_ascii=False).encode()
        return read(body)
    except RecursionError:
        raise BadInput("the request: it nests too deep") from None
    except UnicodeEncodeError:
        raise BadInput("the request: a text in it holds half a character (a lone surrogate)") from None


def read(body: Any) -> ChatRequest:
    """A request, checked; BadInput with the field that cannot be answered and what is allowed."""
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInput(f"{'.'.join(map(str, first['loc'])) or 'the request'}: {first['msg']}") from None
    if wrong := refusal(request.model_extra, PLAIN):
        raise BadInput(wrong)
    if request.tool_choice not in (None, "auto", "none"):
        wanted = request.tool_choice["type"] if isinstance(request.tool_choice, Mapping) and "type" in request.tool_choice else ""
        raise BadInput(
            f"tool_choice = {wanted or request.tool_choice!r}: the agent decides itself which tools it calls; allowed: auto, none"
        )
    if unknown := set(request.custom_inputs or ()) - {"world"}:
        raise BadInput(f"custom_inputs: unknown {', '.join(sorted(unknown))}; allowed: world")
    return request
