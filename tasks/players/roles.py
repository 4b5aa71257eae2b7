"""The one factory of players: from a role's configuration to the client that plays it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Client
from tasks.contract.servers import no_secrets

if TYPE_CHECKING:
    from tasks.players.openai_compatible import Setting
    from tasks.worlds.api.runtime import World


KINDS = {
    "authors": ("generator", "judge", "feedback", "recombiner"),
    "critics": ("critic", "meta_critic", "aggregator"),
}
"""Folders of tasks/players with what a backend needs on top, in a folder or file of the backend's name, to play these roles."""


@dataclass(frozen=True)
class Surroundings:
    """What a player is given beside its configuration. world: in which it is asked, for a backend that KNOWS_WORLDS. seed: the run's.
    device: where local checkpoints are. secrets: configuration -> key of its server. setting: where calls to servers are kept and
    counted; None: in memory, without a budget. artifacts: identity -> folder of those at hand, for the base of a local adapter."""

    world: World | None
    seed: int
    device: str = "cpu"
    secrets: Callable[[Mapping[str, Any]], str] = no_secrets
    setting: Setting | None = None
    artifacts: Mapping[str, Path] = field(default_factory=dict)


def backend(name: str) -> ModuleType:
    """The package of a backend, whose name it has: `player(role, config, surroundings)` makes a client; KNOWS_WORLDS says whether each
    world gets one of its own. Imported by name, so that a run depends on the code of the backends that it uses."""
    return importlib.import_module(f"tasks.players.{name}")


def folders(role: str, backend_name: str) -> tuple[str, ...]:
    """Where code lies that only this backend's players of a role need. backend_name: also a name that DVC fills in."""
    kinds = [kind for kind, roles in KINDS.items() if role in roles]
    return f"tasks/players/{backend_name}", f"tasks/chat/{backend_name}", *(f"tasks/players/{kind}/{backend_name}" for kind in kinds)


def modules(role: str, backend_name: str) -> tuple[str, ...]:
    """The modules that play a role, by name; what they import comes on top."""
    interface = backend(backend_name)
    more = interface.modules(role) if hasattr(interface, "modules") else ()
    return __name__, interface.__name__, *more


def maker(
    roles: Mapping[str, Mapping[str, Any]],
    worlds: str | Path | None,
    seed: int,
    secrets: Callable[[Mapping[str, Any]], str] = no_secrets,
    setting: Setting | None = None,
    device: str = "cpu",
    artifacts: Mapping[str, Path] | None = None,
) -> Callable[..., Client]:
    """`Context.role`: role(name, world) gives the client of a role in a world; the same one each time.

    A role that is not configured is scripted without errors. Scripted players read the world's rules and phrases from its module.
    worlds: folder of frozen worlds. For the rest see `Surroundings`; a local checkpoint's `dtype` is the role's own.
    """

    @cache
    def loaded(world: str) -> World:
        from tasks.worlds.api.frozen import load, place_of

        if worlds is None:
            raise LookupError(f"a role was asked for in world {world!r}, but this stage has no worlds")
        return load(place_of(Path(worlds), world))

    def configured(name: str) -> Mapping[str, Any]:
        first, _, number = name.partition("/")
        config = roles.get(first, {"backend": "scripted", "errors": {}})
        return _another(first, int(number), config) if number else config

    def role(name: str, world: str = "") -> Client:
        known = backend(configured(name)["backend"]).KNOWS_WORLDS
        return made(name, world if known else "")

    @cache
    def made(name: str, world: str) -> Client:
        config = configured(name)
        surroundings = Surroundings(loaded(world) if world else None, seed, device, secrets, setting, artifacts or {})
        client: Client = backend(config["backend"]).player(name, config, surroundings)
        return client

    return role


def _another(name: str, number: int, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the second, third ... model of a role."""
    others = config.get("others") or ()
    if number - 2 >= len(others):
        raise LookupError(f"role {name!r} has {1 + len(others)} models")
    return dict(others[number - 2])
