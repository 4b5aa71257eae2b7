"""What an agent is told in each world, in MLflow's prompt registry: the world's policy and the system message of its conversations.

A text that some version has gets no new one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.worlds.api.frozen import place_of

LINKED = "mlflow.linkedPrompts"
"""Tag by which MLflow links a trace or a logged model to versions of prompts: a JSON list of {name, version}."""
COMMITTED = "as the conversations of an evaluation had it"


def register(client: Any, worlds: Path, trials: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """World -> its prompts' {name, version}, those that are new registered. worlds: folder of frozen worlds. trials: rows of TRIAL."""
    systems = {row["world"]: one["content"] for row in trials for one in row["messages"][:1] if one["role"] == "system"}
    texts = {
        world: {"policy": (place_of(worlds, world) / "policy.md").read_text("utf-8"), "system": systems[world]} for world in systems
    }
    return {world: list(_registered(client, world, found)) for world, found in texts.items()}


def _registered(client: Any, world: str, texts: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for kind, text in texts.items():
        if text.strip():
            name = re.sub(r"[^A-Za-z0-9._-]", "_", f"cairn.{world}.{kind}")
            yield {"name": name, "version": str(_version(client, name, text))}


def _version(client: Any, name: str, text: str) -> int:
    known = client.search_prompt_versions(name, max_results=1000) if client.get_prompt(name) else ()
    same = (int(one.version) for one in known if one.template == text)
    found = next(same, None)
    return found if found is not None else int(client.register_prompt(name, text, commit_message=COMMITTED).version)


def linked(prompts: Iterable[Iterable[Mapping[str, str]]]) -> str:
    """The value of LINKED for the prompts of some worlds."""
    return json.dumps([dict(one) for some in prompts for one in some])
