"""`ClientAgent`: any client of `tasks.contract.client` (scripted, a local checkpoint, a server) acts as an agent.

What the client answers is data: an answer that is neither a reply nor well-formed calls ends the conversation as a
parse_error, one that was cut as max_tokens, one that no server gave under the reason for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contract.agent import Turn, World
from tasks.contract.client import Client, Message, Request
from tasks.worlds.api.system_prompt import system_message


class ClientAgent:
    """Asks `client` for every turn, all owed turns as one batch.

    prompt: what the system message carries of the policy, None for no system message; the tools travel as schemas in the request.
    capacity: conversations open at once, that is, the largest batch. temperature: 0 is greedy. max_tokens: of one turn.
    """

    def __init__(
        self,
        client: Client,
        prompt: Mapping[str, str] | None,
        *,
        name: str = "",
        capacity: int = 64,
        temperature: float = 0.0,
        max_tokens: int = 256,
    ) -> None:
        self.name = name or client.name
        self.capacity = capacity
        self._client, self._prompt = client, prompt
        self._temperature, self._max_tokens = temperature, max_tokens
        self._owed: dict[str, Request] = {}
        self._frames: dict[str, tuple[list[Message], list[dict[str, Any]]]] = {}

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Hand over the conversation so far; one turn is owed in it from now on."""
        if world.name not in self._frames:
            prompt = self._prompt and {**self._prompt, "tools": "none"}
            system = [{"role": "system", "content": system_message(world, prompt)}] if prompt else []
            self._frames[world.name] = (system, world.schemas())
        system, tools = self._frames[world.name]
        self._owed[conversation] = Request(
            messages=[*system, *messages],
            tools=tools,
            seed=seed,
            temperature=self._temperature,
            max_tokens=self._max_tokens,
            labels={"role": "agent", "conversation": conversation},
        )

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Nothing: each request carries the whole conversation."""

    def poll(self) -> list[tuple[str, Turn]]:
        """Every turn that is owed, in the order in which they were sent."""
        owed, self._owed = self._owed, {}
        answers = self._client.complete(list(owed.values()))
        return [(key, _turn(answer)) for key, answer in zip(owed, answers, strict=True)]

    def close(self, conversation: str) -> None:
        """Forget the conversation."""
        self._owed.pop(conversation, None)


def _turn(answer: Message) -> Turn:
    """The answer as a turn: calls when it has calls, else a reply. A malformed one keeps its words and says parse_error, one that was
    cut at its most tokens says max_tokens, one that there is not says why: half a turn is none."""
    content = answer.get("content") or ""
    calls = answer.get("tool_calls") or ()
    if lost := answer.get("lost"):
        return Turn({"role": "assistant", "content": ""}, error=lost)
    if error := {"length": "max_tokens", "error": "parse_error"}.get(answer.get("finish_reason") or ""):
        return Turn({"role": "assistant", "content": str(content)}, error=error)
    if not isinstance(content, str) or not all(_well_formed(call) for call in calls):
        return Turn({"role": "assistant", "content": str(content)}, error="parse_error")
    if calls:
        return Turn({"role": "assistant", "content": content, "tool_calls": list(calls)})
    if not content.strip():
        return Turn({"role": "assistant", "content": content}, error="parse_error")
    return Turn({"role": "assistant", "content": content})


def _well_formed(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return (
        isinstance(function, dict)
        and isinstance(call.get("id"), str)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), dict)
    )
