"""The door to models that play a role: generator, judge, feedback, human, human critic, agent, critic ...

A role names a *backend*: `scripted` (deterministic, with a declared catalogue of systematic errors) or `local` (a checkpoint
in this process, batched). A backend sees messages, tool schemas and the wanted answer's schema; only the human and the
oracle are ever given the blueprint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, Any]
"""One chat message in the OpenAI shape: role, content, and where they apply tool_calls, tool_call_id, name.
`tool_calls` is a list of {"id", "type": "function", "function": {"name", "arguments": dict}}."""


@dataclass(frozen=True)
class Request:
    """One question to a model.

    messages: the whole conversation as this role sees it. tools: JSON schemas it may call. schema: JSON schema of the wanted
    answer (None for free text). seed: of the sampling noise and of scripted errors. temperature: 0 is greedy.
    """

    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]] = ()
    schema: dict[str, Any] | None = None
    seed: int = 0
    temperature: float = 0.0
    max_tokens: int = 256
    labels: dict[str, str] = field(default_factory=dict)
    """For logs and error messages (problem id, role); a backend must not act on it."""


class Client(Protocol):
    """Something that answers requests. `name` and `revision` identify it in rows and in cache keys."""

    name: str
    revision: str

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message per request, in order."""
        ...
