"""What a `Context` needs for a method that plays: `Context(0, out, scratch, **playing(role))`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tasks.contract.agent import Agent
from tasks.contract.client import Client
from tasks.players.acting import acting, plain
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local import own

NO_PROMPT = {"tools": "none", "policy": "none"}
checkpoint_agent = partial(CheckpointAgent, engine=own.opened)
"""A checkpoint that acts, with the engine of this process."""


def playing(
    role: Callable[..., Client], way: Callable[[Agent], Agent] = plain, of_checkpoint: Callable[..., Agent] = checkpoint_agent
) -> dict[str, Any]:
    """role: gives the client of a role; way: how its agents act; of_checkpoint: makes an agent of a checkpoint."""
    return {"role": role, "agent": acting(role, NO_PROMPT, way, of_checkpoint)}
