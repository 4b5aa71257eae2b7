"""The one factory of players: from a role's configuration to the client that plays it, and to the agent that acts with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract.agent import Agent
from tasks.contract.client import Client

if TYPE_CHECKING:
    from tasks.players.openai_compatible import Setting

CRITICS = ("critic", "meta_critic", "aggregator")


def errors(role: str) -> tuple[str, ...]:
    """Names of the systematic errors that the scripted player of a role can be given a rate for."""
    from tasks.players.scripted import critics
    from tasks.players.scripted import people as scripted

    known = critics.CATALOGUE if role in CRITICS else scripted.CATALOGUE
    return tuple(known.get(role, {}))


def _no_secrets(wanted: Mapping[str, Any]) -> str:
    return ""


def maker(
    roles: Mapping[str, Mapping[str, Any]],
    worlds: str | Path | None,
    seed: int,
    secrets: Callable[[Mapping[str, Any]], str] = _no_secrets,
    setting: Setting | None = None,
    device: str = "cpu",
) -> Callable[..., Client]:
    """`Context.role`: role(name, world) gives the client of a role in a world; the same one each time.

    A role that is not configured is scripted without errors. Scripted players read the world's rules and phrases from its module.
    secrets: gives the key of a role behind a server, from its configuration. setting: where calls to servers are kept and counted
    (default: in memory, without a budget). device: where local checkpoints are; their `dtype` is the role's own.
    """

    @cache
    def loaded(world: str) -> Any:
        from tasks.worlds.api import runtime

        if worlds is None:
            raise LookupError(f"a role was asked for in world {world!r}, but this stage has no worlds")
        return runtime.load(Path(worlds) / world)

    def configured(name: str) -> Mapping[str, Any]:
        first, _, number = name.partition("/")
        wanted = roles.get(first, {"backend": "scripted", "errors": {}})
        return _another(first, int(number), wanted) if number else wanted

    @cache
    def role(name: str, world: str = "") -> Client:
        wanted = configured(name)
        if wanted["backend"] == "openai_compatible":
            return endpoint(name)
        if wanted["backend"] == "local":
            return _local(wanted, device)
        return _scripted(name.partition("/")[0], wanted, loaded(world) if world else None, seed)

    @cache
    def endpoint(name: str) -> Client:
        from tasks.players import openai_compatible as servers

        wanted = configured(name)
        return servers.client(name, wanted, cache(lambda: secrets(wanted)), setting or servers.Setting())

    return role


def plain(player: Agent) -> Agent:
    """The player itself acts: asked once a turn."""
    return player


def acting(role: Callable[..., Client], prompt: Mapping[str, str], way: Callable[[Agent], Agent] = plain) -> Callable[..., Agent]:
    """`Context.agent`: agent(world, ...) gives whoever acts there; a new one each time.

    role: as `maker` gives it. prompt: what an agent's system prompt carries (`tasks.worlds.api.system_prompt`). way: the way of acting,
    a method of `tasks/agents` with its params: player -> agent.
    """

    def agent(
        world: str = "",
        *,
        name: str = "",
        role_name: str = "agent",
        checkpoint: tuple[Any, Any] | None = None,
        temperature: float = 0.0,
        **limits: int,
    ) -> Agent:
        """name: under which its conversations are kept (default: the player's own). checkpoint: (model in eval mode, tokenizer), which
        acts instead of a role's player; limits: its rows, max_turn_tokens and max_episode_tokens (`CheckpointAgent`)."""
        if checkpoint is None:
            from tasks.players.client_agent import ClientAgent

            return way(ClientAgent(role(role_name, world), prompt, name=name, temperature=temperature))
        from tasks.players.local.agent import CheckpointAgent

        return way(CheckpointAgent(*checkpoint, prompt, name=name or "checkpoint", temperature=temperature, **limits))

    return agent


def _another(name: str, number: int, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the second, third ... model of a role."""
    others = wanted.get("others") or ()
    if number - 2 >= len(others):
        raise LookupError(f"role {name!r} has {1 + len(others)} models")
    return dict(others[number - 2])


def _scripted(name: str, wanted: Mapping[str, Any], world: Any, seed: int) -> Client:
    from tasks.players.scripted import critics
    from tasks.players.scripted import people as scripted

    module = critics if name in CRITICS else scripted
    client: Client = module.client(name, world, wanted["errors"], seed)
    return client


def _local(wanted: Mapping[str, Any], device: str) -> Client:
    from tasks.players.local import client as local

    own = {name: wanted[name] for name in ("max_tokens", "thinking", "temperature") if name in wanted}
    return local.client(Path(wanted["path"]), wanted["identity"], device, wanted.get("dtype", "float32"), **own)
