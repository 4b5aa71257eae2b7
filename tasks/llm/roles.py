"""From a role's configuration to the client that plays it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tasks.llm import Client

CRITICS = ("critic", "meta_critic", "aggregator")


def errors(role: str) -> tuple[str, ...]:
    """Names of the systematic errors that the scripted player of a role can be given a rate for."""
    from tasks.llm import critics, scripted

    known = critics.CATALOGUE if role in CRITICS else scripted.CATALOGUE
    return tuple(known.get(role, {}))


def maker(roles: Mapping[str, Mapping[str, Any]], worlds: str | Path | None, seed: int) -> Callable[..., Client]:
    """`Context.role`: role(name, world) gives the client of a role in a world; the same one each time.

    A role that is not configured is scripted without errors. Scripted players read the world's rules and phrases from its module.
    """

    @cache
    def loaded(world: str) -> Any:
        from tasks.worlds import runtime

        if worlds is None:
            raise LookupError(f"a role was asked for in world {world!r}, but this stage has no worlds")
        return runtime.load(Path(worlds) / world)

    @cache
    def role(name: str, world: str = "") -> Client:
        name, _, number = name.partition("/")
        wanted = roles.get(name, {"backend": "scripted", "errors": {}})
        if number:
            wanted = _another(name, int(number), wanted)
        return _BACKENDS[wanted["backend"]](name, wanted, loaded(world) if world else None, seed)

    return role


def _another(name: str, number: int, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the second, third ... model of a role."""
    others = wanted.get("others") or ()
    if number - 2 >= len(others):
        raise LookupError(f"role {name!r} has {1 + len(others)} models")
    found: Mapping[str, Any] = others[number - 2]
    return found


def _scripted(name: str, wanted: Mapping[str, Any], world: Any, seed: int) -> Client:
    from tasks.llm import critics, scripted

    module = critics if name in CRITICS else scripted
    client: Client = module.client(name, world, wanted["errors"], seed)
    return client


def _local(name: str, wanted: Mapping[str, Any], world: Any, seed: int) -> Client:
    from tasks.llm import local

    return local.client(Path(wanted["path"]), wanted["identity"])


_BACKENDS: Mapping[str, Callable[..., Client]] = {"scripted": _scripted, "local": _local}
