"""What a `Context` needs for a method that plays: `Context(0, out, scratch, **playing(role))`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.contract.agent import Agent
from tasks.contract.client import Client
from tasks.players.acting import acting, plain
from tasks.players.checkpoint_agent import CheckpointAgent

NO_PROMPT = {"tools": "none", "policy": "none"}


def playing(role: Callable[..., Client], way: Callable[[Agent], Agent] = plain) -> dict[str, Any]:
    """role: gives the client of a role; way: how its agents act."""
    return {"role": role, "agent": acting(role, NO_PROMPT, way, CheckpointAgent)}
