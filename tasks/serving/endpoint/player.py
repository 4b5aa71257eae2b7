"""A checkpoint that plays through the HTTP API of `cairn serve`, on loopback, as a client without any knowledge of it would use it.

Its requests hold what was said and the tools; the system message is the server's, by the agent's card.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.checkpoints import adapters
from tasks.contract.agent import Agent, Turn, World
from tasks.contract.client import Message
from tasks.contract.params import StageFailed
from tasks.players.client_agent import ClientAgent
from tasks.serving.endpoint.app import make
from tasks.serving.endpoint.card import Behaviour, agent_card
from tasks.serving.endpoint.client import ChatClient
from tasks.serving.endpoint.kept import Kept
from tasks.serving.endpoint.opened import ROWS, opened, with_chat, with_own_chat

ENGINE = "own"
"""The engine with which it generates, as `cairn serve` does."""


class ServedAgent:
    """Asks the endpoint for every turn. answers: seed of a turn -> what the server kept of it, whose token ids the turns get."""

    def __init__(self, client: ClientAgent, answers: Mapping[int, Mapping[str, Any]]) -> None:
        self.name, self.capacity = client.name, client.capacity
        self._client, self._answers = client, answers
        self._seeds: dict[str, int] = {}
        self._ids: dict[str, list[int]] = {}

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Hand over the conversation so far; one turn is owed in it from now on."""
        self._seeds[conversation] = seed
        self._client.send(conversation, messages, world, seed)

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Nothing: each request carries the whole conversation."""

    def poll(self) -> list[tuple[str, Turn]]:
        """Every turn that is owed, with the ids that the server read and produced."""
        return [(conversation, self._with_ids(conversation, turn)) for conversation, turn in self._client.poll()]

    def close(self, conversation: str) -> None:
        """Forget the conversation."""
        self._seeds.pop(conversation, None)
        self._ids.pop(conversation, None)
        self._client.close(conversation)

    def _with_ids(self, conversation: str, turn: Turn) -> Turn:
        answer = self._answers.get(self._seeds[conversation])
        if answer is None:  # refused
            return turn
        before, read, made = self._ids.get(conversation, []), answer["prompt_ids"], answer["ids"]
        self._ids[conversation] = [*read, *made]
        goes_on = bool(before) and read[: len(before)] == before
        return replace(turn, prompt_ids=read[len(before) :] if goes_on else read, ids=made, first=not goes_on)


@contextmanager
def playing(
    checkpoint: Path,
    worlds: Path,
    prompt: Mapping[str, str],
    artifacts: Mapping[str, Path],
    way: Callable[[Agent], Agent],
    device: str,
    *,
    name: str,
    temperature: float,
    max_turn_tokens: int,
    max_episode_tokens: int,
    dtype: str,
) -> Iterator[Agent]:
    """Whoever acts with a served checkpoint, while the block runs.

    checkpoint: its folder; of an adapter, whose base is among the artifacts (identity -> folder). worlds: folder of frozen worlds, for
    the agent's card. prompt, way: as it is evaluated. max_turn_tokens, max_episode_tokens, dtype: as of `CheckpointAgent`.
    """
    behaviour = Behaviour(worlds, prompt, "", temperature, max_turn_tokens)
    answers: dict[int, Mapping[str, Any]] = {}
    if adapters.is_adapter(checkpoint):
        base, worn = adapters.find_base(checkpoint, artifacts), {name: checkpoint}
    else:
        base, worn = checkpoint, {}
    served = opened(base, worn, f"{name}-base" if worn else name, device, dtype, max_episode_tokens)
    try:
        kept = Kept(None, lambda line: answers.__setitem__(line["sampling"]["seed"], line))
        if worn:
            with_own_chat(served, name, checkpoint, agent_card(name, checkpoint, behaviour), kept)
        else:
            with_chat(served, lambda: agent_card(name, checkpoint, behaviour), kept)
        with listening(make(served)) as url:
            client = ChatClient(f"{url}/v1", name, ROWS)
            asked = ClientAgent(client, None, name=name, capacity=ROWS, temperature=temperature, max_tokens=max_turn_tokens)
            try:
                yield way(ServedAgent(asked, answers))
            finally:
                client.close()
            if client.refused and not answers:
                raise StageFailed(f"{name} as it is served: not one request was answered. The first was told: {client.refused[0]}")
    finally:
        served.thread.end()


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of an app of ASGI on a free port of loopback, while the block runs."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, name="endpoint", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise OSError("no server could be started on 127.0.0.1")
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
