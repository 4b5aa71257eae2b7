"""Models that play a role: generator, judge, feedback, human, human critic, agent, critic ...

A role names a *backend*: `scripted` (deterministic, with a declared catalogue of systematic errors), `local` (a checkpoint
in this process, batched) or `openai_compatible` (a model behind a server). A backend sees messages, tool schemas and the wanted
answer's schema; only the human and the oracle are ever given the blueprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, Any]
"""One chat message in the OpenAI shape: role, content, and where they apply tool_calls, tool_call_id, name; a tool's answer that has
pictures holds them under images (`tasks.contract.problem.Image`), for models that can take them.
`tool_calls` is a list of {"id", "type": "function", "function": {"name", "arguments": dict}}.

A model's answer may also say how it ended, as the OpenAI API does: `finish_reason` is stop, tool_calls, length (cut at the most tokens,
with more room too: not a whole answer), content_filter or error (not a turn that can be read). `lost` says why there is no answer at
all (`tasks.contract.losses.GONE`). A script's answers lack both. They are no part of a conversation. A call that cannot be read
says why under `unreadable`; its arguments then hold what was written."""


@dataclass(frozen=True)
class Request:
    """One question to a model.

    messages: the whole conversation as this role sees it. tools: JSON schemas it may call. schema: JSON schema of the wanted
    answer (None for free text). seed: of the sampling noise and of scripted errors. temperature: 0 is greedy. intent: the wish as data,
    from which a scripted human works; it is no part of the messages, and no model is sent it.
    """

    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]] = ()
    schema: dict[str, Any] | None = None
    seed: int = 0
    temperature: float = 0.0
    max_tokens: int = 256
    intent: Mapping[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """For logs and error messages (problem id, role); a backend must not act on it."""


class CallFailed(RuntimeError):
    """A model gave no answer after every attempt; the message says what was wrong and what to do. Nothing is made up instead."""


class NearlyAllLost(CallFailed):
    """Nearly everything was lost for one reason: what was made until then is thrown away, what was answered is kept."""


class BudgetSpent(RuntimeError):
    """The next call could cost more than the run may spend, so it was not made. What was answered is kept."""


class Client(Protocol):
    """Something that answers requests. `name` and `revision` identify it in rows and in cache keys."""

    name: str
    revision: str

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message per request, in order. A client of a server raises CallFailed and BudgetSpent."""
        ...
