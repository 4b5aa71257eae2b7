"""The agent's card, `agent_card.json`: what an agent must be told to act as it was evaluated. It lies beside the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.chat.local import kept
from tasks.checkpoints import folders
from tasks.worlds import UNSEEN
from tasks.worlds.api.folder import read_json
from tasks.worlds.api.system_prompt import system_message

FILE = "agent_card.json"


@dataclass(frozen=True)
class Behaviour:
    """How a candidate was evaluated, which is how it is to act. worlds: folder of frozen worlds. prompt: what the system message
    carries. identity: of the checkpoint's artifact. temperature: 0 is greedy; max_turn_tokens: of one turn; both as a checkpoint plays
    where its evaluate method has no such params."""

    worlds: Path
    prompt: Mapping[str, str]
    identity: str
    temperature: float = 0.0
    max_turn_tokens: int = 96


@dataclass(frozen=True)
class _FrozenWorld:
    """What a system message is made of, from a frozen world's files: no code of the world is loaded."""

    name: str
    policy: str
    tools: Mapping[str, Mapping[str, Any]]

    def schemas(self) -> list[dict[str, Any]]:
        """OpenAI's shape."""
        return [dict(one) for one in self.tools.values()]


def agent_card(name: str, checkpoint: Path, behaviour: Behaviour) -> dict[str, Any]:
    """The card of a checkpoint folder that is registered under a name. Worlds that training never saw are in it too: the agent was
    evaluated in them."""
    frozen = [
        _frozen(place.parent) for pattern in ("*", f"{UNSEEN}/*") for place in sorted(behaviour.worlds.glob(f"{pattern}/world.json"))
    ]
    return {
        "name": name,
        "checkpoint": behaviour.identity,
        "worlds": {one.name: _world(one, behaviour.prompt) for one in frozen},
        "tools_in_prompt": behaviour.prompt["tools"] == "full",
        "chat_format": json.loads(kept.to_json(kept.chat_of(folders.load_tokenizer(checkpoint)))),
        "generation": {"temperature": behaviour.temperature, "max_new_tokens": behaviour.max_turn_tokens},
    }


def policy_hash(policy: str) -> str:
    """By which a card tells whether a world's policy is still the one that the agent was evaluated with; the tools are in it whole."""
    return hashlib.sha256(policy.encode()).hexdigest()


def _world(world: _FrozenWorld, prompt: Mapping[str, str]) -> dict[str, Any]:
    system = system_message(world, prompt)  # type: ignore[arg-type]
    return {"system": system, "tools": world.schemas(), "policy_sha256": policy_hash(world.policy)}


def _frozen(folder: Path) -> _FrozenWorld:
    schemas = read_json(folder / "schemas.json")
    tools = {one["function"]["name"]: one for one in schemas}
    return _FrozenWorld(read_json(folder / "world.json")["name"], (folder / "policy.md").read_text("utf-8"), tools)
