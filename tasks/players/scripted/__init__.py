"""Backend `scripted`: a role is played by rule, offline, with systematic errors at declared rates."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Client
from tasks.contract.params import BadInput, nearest

if TYPE_CHECKING:
    from tasks.players.roles import Surroundings
    from tasks.worlds.api.runtime import World

KNOWS_WORLDS = True
"""A script speaks a world's phrases, so each world has one of its own."""
_SCRIPTS = {
    **dict.fromkeys(("generator", "judge", "feedback", "recombiner"), "tasks.players.authors.scripted"),
    **dict.fromkeys(("human", "human_critic", "agent", "contender"), "tasks.players.scripts.people"),
    **dict.fromkeys(("critic", "meta_critic", "aggregator"), "tasks.players.critics.scripted"),
}
"""role -> module. Chosen by name, so that an edit of a critic's script is none of a human's."""


def player(name: str, config: Mapping[str, Any], surroundings: Surroundings) -> Client:
    """The player of a role, from its configuration. name: judge, or judge/2."""
    return client(name.partition("/")[0], surroundings.world, config["errors"], surroundings.seed)


def client(role: str, world: World | None, errors: Mapping[str, float], seed: int) -> Client:
    """The script of a role. errors: error name -> rate in [0, 1]; unknown roles, errors and rates are refused by name."""
    if role not in _SCRIPTS:
        raise BadInput(f"role {role!r} has no script.{nearest(role, _SCRIPTS)} Known: {', '.join(_SCRIPTS)}.")
    known = errors_of(role, world)
    for error, rate in errors.items():
        if error not in known:
            raise BadInput(f"roles.{role}.errors: unknown error {error!r}.{nearest(error, known)} Known: {', '.join(known) or 'none'}.")
        if not 0.0 <= rate <= 1.0:
            raise BadInput(f"roles.{role}.errors.{error} = {rate!r}: a rate lies between 0 and 1.")
    made: Client = _script(role).client(role, world, errors, seed)
    return made


def errors_of(role: str, world: World | None = None) -> tuple[str, ...]:
    """Names of the errors that the script of a role may be given a rate for; an agent's include the world's own. None for a role
    without a script."""
    own = world.ERRORS if role in ("agent", "contender") and world is not None else ()
    return tuple({**(_script(role).CATALOGUE[role] if role in _SCRIPTS else {}), **dict.fromkeys(own)})


def modules(role: str) -> tuple[str, ...]:
    """The module that plays a role, which this one imports by its name."""
    return (_SCRIPTS[role],)


def _script(role: str) -> ModuleType:
    return importlib.import_module(*modules(role))
