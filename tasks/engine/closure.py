"""The code that a stage can reach, compared with the list in dvc.yaml before anything computes.

What a stage reaches and its deps do not name would change unseen; what they name and it does not reach would compute again for nothing
(a test measures that). `make docs` writes the deps from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput
from tasks.engine import methods
from tasks.engine.dvc_yaml import Listed
from tasks.engine.settings import Settings
from tasks.engine.shared_params import Role
from tasks.players.roles import folders, modules
from tasks.worlds.api.imports import reach
from tasks.worlds.api.loading import reached_code

PLUMBING = "tasks.engine"
"""The package whose modules carry results but compute none: they choose what runs, hash it, store it and report it. What they pass into
a method (params, seeds, identities) is in the key by value. A contract of import-linter forbids methods to import it."""
WORLDS = "worlds"
"""The room whose steps leave an artifact that carries the hash of the worlds' code."""


ACTING = "tasks.players.acting"
"""The module of `Context.agent`."""
BACKENDS = ("scripted", "local", "openai_compatible")
"""Whoever may play a role: folders of tasks/players."""


def check_closure(settings: Settings, listed: Listed) -> None:
    """Stop a run whose code is not wholly listed: each module that the stage can reach must be among its deps, or stand in data/worlds.

    Reached are: the method, the room's task and its training loop, the way of acting, the players of its model roles, everything of
    this project they import (lazy imports included), every `module:name` that stands in the params, and the `modules(params)` of a
    method that loads some by other names.
    """
    parts = methods.parts(listed.room, settings.method(listed.stage))
    if parts and not (settings.project / parts).is_dir():
        raise BadInput(
            f"stage {listed.stage!r}: {parts} is not there, which dvc.yaml names among its deps: the folder of what its method alone "
            f"needs. Make {parts}/__init__.py; a line that says what it is will do."
        )
    for path in sorted(closure(settings, listed) - world_code(settings, listed)):
        if not covered(path, listed.code):
            if role := next((role for role, places in _others(settings, listed) if covered(path, places)), ""):
                raise BadInput(
                    f"{settings.source}: {role}: dvc.yaml names the code of a role's first model alone, so a change of {path} would go "
                    f"unseen in stage {listed.stage!r}. Give another role of that stage the same backend, or this role's first model."
                )
            if covered(path, [methods.parts(listed.room, name) for name in methods.names(listed.room)]):
                raise BadInput(
                    f"stage {listed.stage!r} uses {path}, which is a part of another method than {settings.method(listed.stage)}, so "
                    "a change of it would go unseen. What two methods of a room need belongs in its core/: move it to "
                    f"tasks/{listed.room}/core/."
                )
            raise BadInput(
                f"stage {listed.stage!r} uses {path}, which is not among its deps in dvc.yaml, so a change of it would go unseen. "
                f"`make docs` writes the deps; it does not know of modules that params name: add `- {path}` (or its folder) by hand."
            )


def covered(path: str, deps: Iterable[str]) -> bool:
    """Whether a file is one of these paths, or lies in one of them."""
    return any(path == dep or path.startswith(f"{dep}/") for dep in deps)


def closure(settings: Settings, listed: Listed) -> set[str]:
    """Paths of the project's own modules that a stage can reach (package `__init__` files included, plumbing left out)."""
    roots = [*entry(listed.room, settings.method(listed.stage)), *_players(settings, listed)]
    roots += _agents(listed.room)
    roots += [f"tasks.agents.{agents['method']}"] if (agents := settings.agents(listed.stage)) else []
    roots += [f"{methods.ENGINES}.{engine['method']}"] if (engine := settings.engine(listed.stage)) else []
    roots += methods.serving_code(served["method"]) if (served := settings.as_served(listed.stage)) else ()
    roots += [name.partition(":")[0] for name in _module_names(settings.values(listed.stage))]
    named = _named(settings, listed.stage)
    found = set(_reached(settings.project, (*roots, *(named or ()))))
    return found if named is not None else found | _whole(settings, listed.stage)


_seen: dict[tuple[str, ...], tuple[frozenset[str], tuple[tuple[int, int], ...]]] = {}
"""What was looked up in this process, by what was asked: paths, and the state that their files had."""


def _reached(project: Path, roots: Sequence[str]) -> frozenset[str]:
    """Paths that modules reach. A paper's seeds reach the same, step by step: it is looked up again only where one of the files is
    another one now."""
    return _once((str(project), "modules", *roots), project, lambda: reach(project, roots, _is_plumbing))


def _once(lookup: tuple[str, ...], project: Path, look: Callable[[], Mapping[str, Path]]) -> frozenset[str]:
    found, before = _seen.get(lookup, (frozenset[str](), ()))
    if not before or _state(project, found) != before:
        found = frozenset(_paths(project, look()))
        _seen[lookup] = found, _state(project, found)
    return found


def _state(project: Path, paths: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """When each file was last changed, and its size; zeros for one that is gone."""
    about = [path.stat() if path.exists() else None for path in (project / name for name in sorted(paths))]
    return tuple((one.st_mtime_ns, one.st_size) if one else (0, 0) for one in about)


def _named(settings: Settings, step: str) -> list[str] | None:
    """The modules that a step's method loads by names in its params; None where it does not say which."""
    method = methods.load(settings.room(step), settings.method(step))
    return list(method.modules(settings.params(step))) if hasattr(method, "modules") else None


def _whole(settings: Settings, step: str) -> set[str]:
    """Paths of the Python files in the folders that count whole for a step's method."""
    project, folders = settings.project, methods.folders(settings.room(step), settings.method(step))
    return {path.relative_to(project).as_posix() for folder in folders for path in (project / folder).rglob("*.py")}


def world_code(settings: Settings, listed: Listed) -> set[str]:
    """Paths of the modules whose hash stands in data/worlds, for a stage that reads it: what its worlds are made of and played by."""
    steps = [name for name in listed.inputs if settings.room(name) == WORLDS]
    if not steps:
        return set()
    worlds = [name.partition(":")[0] for step in steps for name in _module_names(settings.values(step))]
    return set(_of_worlds(settings.project, tuple(worlds))).union(*(_whole(settings, step) for step in steps))


def _of_worlds(project: Path, worlds: Sequence[str]) -> frozenset[str]:
    """Paths of the code that worlds in these modules are made of and played by."""
    return _once((str(project), "worlds", *worlds), project, lambda: reached_code(worlds, project))


def entry(room: str, method: str) -> list[str]:
    """The modules by which a method is entered: its own, the room's task, and the training loop of a room that owns one."""
    return [f"tasks.{room}.{method}", f"tasks.{room}.task", *([f"tasks.{room}.core.loop"] if methods.loop(room) else [])]


def to_list(project: Path, room: str, roles: Sequence[str], worlds: bool) -> list[str]:
    """The files that a stage's deps have to name beside what they name by `${...}` (the method and its parts, the way of acting, the
    engine, the way of serving, the folders of backends): what the room's methods and the players of these roles reach, whichever are
    chosen; methods on environments apart, whose own code is `${...}` or stands in data/worlds. worlds: the stage reads data/worlds."""
    listed_methods = [name for name in methods.names(room) if methods.ground(room, name) == methods.WORLDS]
    roots = [root for name in listed_methods for root in entry(room, name)]
    ways = [f"tasks.agents.{name}" for name in methods.names("agents")] if methods.plays(room) else []
    engines = [f"{methods.ENGINES}.{name}" for name in methods.engines()] if methods.plays(room) == "checkpoints" else []
    servings = [f"{methods.SERVINGS}.{name}" for name in methods.servings()] if methods.plays_as_served(room) else []
    served = [module for name in methods.servings() for module in methods.serving_code(name)] if servings else []
    found = _paths(project, reach(project, [*roots, *ways, *_agents(room), *engines], _is_plumbing))
    found = {path for path in found if not covered(path, [engine.replace(".", "/") for engine in engines])}
    found |= _paths(project, reach(project, served, _is_plumbing))  # with the engine that serves, whichever plays
    found = {path for path in found if not covered(path, [serving.replace(".", "/") for serving in servings])}
    for role in roles:
        for backend in BACKENDS:
            reached = _paths(project, reach(project, modules(role, backend), _is_plumbing))
            found |= {path for path in reached if not covered(path, folders(role, backend))}
    own = {f"tasks/{room}/{name}.py" for name in methods.names(room)} | {f"{way.replace('.', '/')}.py" for way in ways}
    parts = [folder for name in methods.names(room) if (folder := methods.parts(room, name))]
    found = {path for path in found if not covered(path, parts)}
    return sorted(found - own - (_paths(project, reached_code((), project)) if worlds else set()))


def _agents(room: str) -> list[str]:
    """The modules from which whoever acts in a room comes."""
    return {"": [], "roles": [ACTING], "checkpoints": [ACTING, methods.CHECKPOINT_AGENT]}[methods.plays(room)]


def _paths(project: Path, reached: Mapping[str, Path]) -> set[str]:
    return {path.relative_to(project).as_posix() for path in reached.values()}


def players_of(settings: Settings, listed: Listed) -> Iterator[tuple[str, str, Role]]:
    """(name, dotted key, configuration) of everybody who plays a role of a stage, as `Shared.players` gives them for the whole road."""
    for name, key, role in settings.shared.players():
        if f"roles.{name.partition('/')[0]}" in listed.settings:
            yield name, key, role


def _players(settings: Settings, listed: Listed) -> Iterator[str]:
    """The modules that play a stage's roles: the factory, and of the backends those that are chosen."""
    for name, _, role in players_of(settings, listed):
        yield from modules(name.partition("/")[0], role.backend)


def _others(settings: Settings, listed: Listed) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(dotted key, folders of its backend) of the second, third ... models of a stage's roles."""
    for name, key, role in players_of(settings, listed):
        if "/" in name:
            yield key, folders(name.partition("/")[0], role.backend)


def _is_plumbing(module: str) -> bool:
    return module == PLUMBING or module.startswith(f"{PLUMBING}.")


def _module_names(value: Any) -> Iterator[str]:
    """Every text of the form module:name in a value."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _module_names(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _module_names(item)
    elif isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        yield value
