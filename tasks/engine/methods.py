"""From a method's name to its module. A name is an address: `merge.method: breadcrumbs` is `tasks/merge/breadcrumbs.py`.

Nothing is registered; a room is listed by looking into its folder.

A room that owns a training loop has `Loop` in its `__init__.py`: the loop's params, which stand once (`<stage>.loop`), for all its
methods. The loop is `tasks/<room>/core/loop.py:run`; a method of such a room states its difference alone, `hooks(params, ctx)`.

A room whose methods share little has a folder `parts/` beside `core/`, and in it a folder for each method with what that one alone
needs: a key holds the folder of the method that is chosen.
"""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasks.contract.params import BadInput, Params, brief, nearest
from tasks.road import ROAD
from tasks.worlds.api.imports import syntax

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasks.contract.agent import Agent
    from tasks.contract.context import AsServed, Context
    from tasks.players.local.generation import Engine, Place

LOOP = "loop"
"""The section of a stage's params that its room's training loop has; no method may be called so."""

AGENTS = "agents"
"""The folder of the ways of acting, and the section of a step's params that chooses one."""
CHECKPOINT_AGENT = "tasks.players.checkpoint_agent"
"""The module of the agent that a checkpoint is."""
ENGINE = "engine"
"""The section of a step's params that chooses the engine with which its checkpoints generate."""
ENGINES = "tasks.players.local"
"""The package of the engines, each a package of its own (`tasks.players.local.generation`)."""
AS_SERVED = "as_served"
"""The section of a step's params that chooses how its candidate is also played as whoever serves it offers it."""
SERVINGS = "tasks.serving"
"""The package of what can be chosen there, each a package of its own."""
HERE = Path(__file__).parents[1]
"""The folder of the rooms."""
_NOT_METHODS = {"__init__", "task"}
GROUNDS = WORLDS, ENVIRONMENTS = "worlds", "environments"
"""What methods work on, told by the method of the step that enters room worlds: `GROUND` in a method's module, WORLDS where it has
none. Of the other rooms, methods without one take whatever they are given."""


@dataclass(frozen=True)
class Header:
    """What the header of a method says, read from its source without importing it."""

    room: str
    name: str
    title: str
    paper: str
    slug: str
    summary: str


@cache
def names(room: str) -> tuple[str, ...]:
    """The methods of a room, sorted: its modules that define TITLE, PAPER, SLUG and Params, and hooks or run."""
    found = (path for path in sorted((HERE / room).glob("*.py")) if path.stem not in _NOT_METHODS)
    return tuple(path.stem for path in found if _is_method(path))


def parts(room: str, method: str) -> str:
    """The folder of what a method alone needs, "" in a room whose methods have none. method: its name, or what DVC fills in."""
    return f"tasks/{room}/parts/{method}" if (HERE / room / "parts/__init__.py").is_file() else ""


def ground(room: str, method: str) -> str:
    """What a method works on: one of GROUNDS."""
    return str(getattr(load(room, method), "GROUND", WORLDS))


def folders(room: str, method: str) -> tuple[str, ...]:
    """The folders that count whole for a method beside what it imports: what params name in them is chosen at run time."""
    return tuple(getattr(load(room, method), "CODE", ()))


def _constants(path: Path) -> dict[str, str]:
    return {
        node.targets[0].id: node.value.value
        for node in syntax(path).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _is_method(path: Path) -> bool:
    return {"TITLE", "PAPER", "SLUG"} <= set(_constants(path))


def header(room: str, name: str) -> Header:
    """A method's title, paper and first sentence."""
    path = HERE / room / f"{name}.py"
    said = _constants(path)
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return Header(room, name, said["TITLE"], said["PAPER"], said["SLUG"], doc.split("\n\n")[0].replace("\n", " "))


def everything() -> list[Header]:
    """All methods of all rooms, in the order of the road."""
    return [header(room, name) for room in ROAD.rooms for name in names(check_room(room))]


def check_room(room: str) -> str:
    """The room if there is one, else BadInput with the steps of the road that enter it, the known rooms and the nearest."""
    known = rooms()
    if room not in known:
        steps = " and ".join(f"step {name!r}" for name in ROAD.entering(room)) or "a step"
        raise BadInput(f"tasks/road.py: {steps}: no room {brief(room)}.{nearest(room, known)} Rooms: {', '.join(known)}.")
    return room


@cache
def rooms() -> tuple[str, ...]:
    """The rooms, sorted: the folders of tasks/ in which a stage can be run."""
    return tuple(path.parent.name for path in sorted(HERE.glob("*/task.py")))


def check_name(room: str, name: object, where: str) -> str:
    """The name if the room has it, else BadInput with the known ones and the nearest."""
    known = names(room)
    if name not in known:
        raise BadInput(f"{where}: no method {brief(name)} in room {room!r}.{nearest(str(name), known)} Known: {', '.join(known)}.")
    return str(name)


def load(room: str, name: str) -> ModuleType:
    """Import a method's module (cheap: heavy libraries are imported when it runs)."""
    return importlib.import_module(f"tasks.{room}.{check_name(room, name, room)}")


def check(module: ModuleType, params: Params, where: str) -> None:
    """What a room or a method says against its params, if it has a `check(params)`: BadInput whose lines begin with the place where
    they stand. A module does not know which step's section that is, so its own words name the key alone."""
    if not hasattr(module, "check"):
        return
    try:
        module.check(params)
    except BadInput as mistake:
        raise BadInput("\n".join(f"{where}: {line}" for line in str(mistake).splitlines())) from None


def way(chosen: Mapping[str, Any] | None) -> Callable[[Agent], Agent]:
    """How players act in a step, from what `Settings.agents` says: player -> agent. The player itself where nothing is said."""
    if chosen is None:
        return lambda player: player
    module = load(AGENTS, chosen["method"])
    params = module.Params.model_validate(chosen["params"])
    return lambda player: module.agent(player, params)


def plays(room: str) -> str:
    """Who acts in a room's methods, as its interface says: "roles" (their players), "checkpoints" (these too), or "" for nobody."""
    return str(getattr(interface(room), "PLAYS", ""))


def reads_unseen(room: str) -> bool:
    """Whether a room's steps get the worlds that no training sees, as its interface says (READS_UNSEEN)."""
    return bool(getattr(interface(room), "READS_UNSEEN", False))


def of_checkpoint(room: str, opened: Callable[..., Engine]) -> Callable[..., Agent] | None:
    """What makes an agent of a checkpoint, for a room whose checkpoints act. opened: opens the engine it generates with (`engine`)."""
    if plays(room) != "checkpoints":
        return None
    return lambda *positional, **named: importlib.import_module(CHECKPOINT_AGENT).CheckpointAgent(*positional, engine=opened, **named)


@cache
def engines() -> tuple[str, ...]:
    """The engines, sorted: the packages within the package of engines."""
    return tuple(sorted(path.parent.name for path in (HERE / "players" / "local").glob("*/__init__.py")))


def engine_module(name: str) -> ModuleType:
    """Import an engine's package (cheap: heavy libraries are imported when it opens)."""
    return importlib.import_module(f"{ENGINES}.{name}")


def engine(chosen: Mapping[str, Any] | None, place: Place) -> Callable[..., Engine]:
    """What opens the engine of a step, from what `Settings.engine` says; nothing is imported before it is called."""

    def opened(*positional: Any, **named: Any) -> Engine:
        if chosen is None:
            raise LookupError("this step's params choose no engine, since no checkpoint plays in it")
        module = engine_module(chosen["method"])
        made: Engine = module.opened(*positional, params=module.Params.model_validate(chosen["params"]), place=place, **named)
        return made

    return opened


def plays_as_served(room: str) -> bool:
    """Whether a room's methods also play a checkpoint as it is served, as its interface says (AS_SERVED)."""
    return bool(getattr(interface(room), "AS_SERVED", False))


@cache
def servings() -> tuple[str, ...]:
    """What can be chosen for a checkpoint to be played as it is served, sorted."""
    return tuple(sorted(path.parent.name for path in (HERE / "serving").glob("*/__init__.py")))


def serving_module(name: str) -> ModuleType:
    """Import the package of one of them (cheap: it states its params alone)."""
    return importlib.import_module(f"{SERVINGS}.{name}")


def serving_code(name: str) -> tuple[str, ...]:
    """The modules by which one of them is entered."""
    return f"{SERVINGS}.{name}", *([f"{SERVINGS}.{name}.player"] if (HERE / "serving" / name / "player.py").is_file() else [])


def as_served(
    chosen: Mapping[str, Any] | None, engine: str, worlds: Path, prompt: Mapping[str, str], way: Callable[[Agent], Agent], **more: Any
) -> AsServed | None:
    """`Context.as_served`, from what `Settings.as_served` says; None where nothing is played so. engine: with which the step's
    checkpoints generate. more: artifacts and device."""
    from tasks.contract.context import AsServed

    if chosen is None or len(code := serving_code(chosen["method"])) == 1:
        return None
    player = importlib.import_module(code[-1])
    params = serving_module(chosen["method"]).Params.model_validate(chosen["params"])

    def agent(checkpoint: Path, **limits: Any) -> Any:
        return player.playing(checkpoint, worlds, prompt, way=way, **more, **limits)

    return AsServed(params.problems, engine == player.ENGINE and more["device"] == "cpu", agent)


def interface(room: str) -> ModuleType:
    """Import a room's interface. BadInput when there is no such room."""
    return importlib.import_module(f"tasks.{check_room(room)}")


def loop(room: str) -> type[Params] | None:
    """The params of a room's training loop; None for a room without one."""
    found: type[Params] | None = getattr(interface(room), "Loop", None)
    return found


def prepares(room: str, name: str) -> bool:
    """Whether a method of a room with a training loop prepares the model by itself (`Hooks.prepare`), by which it may get layers, or an
    adapter, of which the params say nothing."""
    classes = (found for found in vars(load(room, name)).values() if isinstance(found, type))
    neutral = f"tasks.{room}.core.hooks"
    return any("prepare" in vars(one) for found in classes for one in found.__mro__ if one.__module__ != neutral)


def run(room: str, name: str, inputs: Mapping[str, Any], params: Params, loop: Params | None, ctx: Context) -> dict[str, Any]:
    """Run a method on the inputs of its room; returns its figures. Where the room owns a training loop (`loop`: its params), that is
    what runs, with the method's hooks in it."""
    module = load(room, name)
    figures: dict[str, Any]
    if loop is None:
        figures = module.run(module.Inputs(**inputs), params, ctx)
    else:
        trainer = importlib.import_module(f"tasks.{room}.core.loop")
        figures = trainer.run(interface(room).Inputs(**inputs), loop, module.hooks(params, ctx), ctx)
    return figures
