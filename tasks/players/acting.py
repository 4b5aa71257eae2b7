"""From a role's player, or a checkpoint at hand, to the agent that acts with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tasks.contract.agent import Agent
from tasks.contract.client import Client


def plain(player: Agent) -> Agent:
    """The player itself acts: asked once a turn."""
    return player


def acting(
    role: Callable[..., Client],
    prompt: Mapping[str, str],
    way: Callable[[Agent], Agent] = plain,
    of_checkpoint: Callable[..., Agent] | None = None,
) -> Callable[..., Agent]:
    """`Context.agent`: agent(world, ...) gives whoever acts there; a new one each time.

    role: as `maker` gives it. prompt: what an agent's system prompt carries (`tasks.worlds.api.system_prompt`). way: the way of acting,
    a method of `tasks/agents` with its params: player -> agent. of_checkpoint: `CheckpointAgent`, for a room whose checkpoints act
    (`engine.methods.of_checkpoint`); not imported here, so that other rooms' results do not depend on the decoder.
    """

    def agent(
        world: str = "",
        *,
        name: str = "",
        role_name: str = "agent",
        checkpoint: tuple[Any, Any] | None = None,
        temperature: float = 0.0,
        **limits: Any,
    ) -> Agent:
        """name: under which its conversations are kept (default: the player's own). checkpoint: (model in eval mode, tokenizer), which
        acts instead of a role's player; limits: its rows, engine and more (`CheckpointAgent`)."""
        if checkpoint is None:
            from tasks.players.client_agent import ClientAgent

            return way(ClientAgent(role(role_name, world), prompt, name=name, temperature=temperature))
        if of_checkpoint is None:
            raise LookupError('a checkpoint was to act, but the room\'s interface does not say PLAYS = "checkpoints"')
        return way(of_checkpoint(*checkpoint, prompt, name=name or "checkpoint", temperature=temperature, **limits))

    return agent
