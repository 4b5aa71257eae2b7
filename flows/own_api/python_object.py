"""A Python object as an API: a class, a function that makes one, or an object that is there, in a module of the user's own.

One that cannot be pickled (it holds a connection) says itself how it is set back: `snapshot()` gives its state as JSON,
`restore(state)` brings a fresh one there. These two are no tools.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import inspect
import json
import operator
import sys
import types
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.own_api import brought
from flows.own_api.api import FORMS, Api
from flows.own_api.guesses import Guess, guess
from flows.own_api.source_text import INDENT, argument
from flows.worlds.sample import failure
from flows.worlds.sharing_checks import holds_anything, kept_outside
from tasks.contract.params import BadInput, nearest
from tasks.worlds.adapters import from_object
from tasks.worlds.api.state import Base

NO_STATE = "there is no state that it could change"


def look(origin: str) -> Api:
    """The API behind "module:name" or "path/to/file.py:name". Raises BadInput for what cannot be imported, made, copied or called."""
    place, _, name = origin.rpartition(":")
    root, module = _place(origin, place)
    if not name.isidentifier():
        raise BadInput(f"--from {origin}: {name!r} is no name of an object in {place}. Give {FORMS}.")
    found = _named(origin, root, module, name)
    factory, line = _factory(origin, found, module, name)
    files = brought.modules(root, [module]) if root else {}
    by_hand = _by_hand(origin, factory)
    guesses = _guesses(origin, factory, by_hand)
    offered = tuple(one.name for one in guesses) if by_hand else None
    kinds = {kind: tuple(one.name for one in guesses if one.kind == kind) for kind in ("write", "end")}

    def built(world: str, policy: str) -> type[Any]:
        return from_object(factory, name=world, policy=policy, writes=kinds["write"], ends=kinds["end"], tools=offered, **by_hand)

    instance = line != f"{module}.{name}"
    return Api(
        origin=f"{module}:{name}, {'an object' if instance else 'a class' if isinstance(found, type) else 'a function'}",
        guesses=guesses,
        files=files,
        texts={},
        imports=(*(("copy", "functools") if instance else ()), *(("operator",) if by_hand else ())),
        own=module,
        call=("from_object", line),
        keywords=(*argument("tools", offered, INDENT), *_BY_HAND) if offered else (),
        listing=True,
        built=built,
        notes=tuple(_notes(guesses, "" if root else module)),
    )


def _notes(guesses: tuple[Guess, ...], installed: str) -> Iterator[str]:
    """What a person should know. installed: the API's module where it is not copied, else ""."""
    if installed:
        yield f"{installed} is an installed package and is not copied: install it into the project's .venv too."
    if quiet := [one.name for one in guesses if one.why == NO_STATE]:
        yield (
            f"The object holds nothing, so these tools count as look-ups, whatever their names say: {', '.join(quiet)}. If they change "
            "something (a service, a file), give the object methods snapshot() and restore(state) that reach it."
        )


def _place(origin: str, place: str) -> tuple[Path | None, str]:
    """(folder that stands on sys.path, or None for an installed package; the module's dotted name)."""
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise BadInput(f"--from {origin}: there is no file {path}.")
        root, parts = path.parent, [path.stem]
        while (root / "__init__.py").is_file():  # a module of a package: relative imports need the whole of it
            root, parts = root.parent, [root.name, *parts]
        module = ".".join(parts)
    else:
        root, module = Path.cwd(), place
    top = module.partition(".")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        raise BadInput(f"--from {origin}: {module!r} is no module's name. Give {FORMS}.")
    if (root / f"{top}.py").is_file() or (root / top).is_dir():
        _check_free(origin, root, top)
        return root, module
    sys.path.insert(0, str(root))
    if importlib.util.find_spec(top) is None:
        raise BadInput(f"--from {origin}: there is no module {top!r} in {root}, and none is installed. Give {FORMS}.")
    return None, module


def _check_free(origin: str, root: Path, top: str) -> None:
    """The project puts the module's folder last on sys.path, so its name must be free there."""
    here = Path(__file__).resolve().parents[2]
    if root.resolve().is_relative_to(here) and not root.resolve().is_relative_to(here / ".cairn"):
        raise BadInput(f"--from {origin}: it lies in Cairn's own checkout. Put the API's files into a folder of their own.")
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root.resolve()]
    importlib.invalidate_caches()
    taken = sys.modules.get(top)
    at_hand = taken is not None and str(root) not in str(getattr(taken, "__file__", None) or getattr(taken, "__path__", ""))
    if top in sys.stdlib_module_names or at_hand or (taken is None and importlib.util.find_spec(top) is not None):
        raise BadInput(
            f"--from {origin}: a module {top!r} is installed already, or is Cairn's, so yours would not be found. Rename it."
        )
    sys.path.append(str(root))
    importlib.invalidate_caches()


def _named(origin: str, root: Path | None, module: str, name: str) -> Any:
    try:
        space = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the user's module, while it is imported: a script may end itself
        files = [str(path) for path in brought.modules(root, [module]).values()] if root else ()
        where, what = failure(error, files)
        more = ""
        if isinstance(error, ModuleNotFoundError):
            more = f" Install it beside Cairn ({Path(sys.prefix).name}/bin/pip install ...), or put it into {root}."
        raise BadInput(f"--from {origin}: {module} cannot be imported: {where}: {what}.{more}") from None
    if not hasattr(space, name):
        known = [
            one
            for one, value in vars(space).items()
            if not one.startswith("_") and not isinstance(value, types.ModuleType) and getattr(value, "__module__", module) == module
        ]
        raise BadInput(f"--from {origin}: {module} has no {name!r}.{nearest(name, known)} It has: {', '.join(known) or 'nothing'}.")
    return getattr(space, name)


def _factory(origin: str, found: Any, module: str, name: str) -> tuple[Callable[[], Any], str]:
    """(what makes the object anew, how world.py says so)."""
    if isinstance(found, types.ModuleType):
        raise BadInput(f"--from {origin}: {name} is a module. Name a class, a function that makes an object, or an object in it.")
    if hasattr(found, "openapi") and hasattr(found, "routes"):
        raise BadInput(f"--from {origin}: {name} is an HTTP application. Start it, and give the url of its openapi.json.")
    if not isinstance(found, type) and not inspect.isroutine(found):
        return functools.partial(copy.deepcopy, found), f"functools.partial(copy.deepcopy, {module}.{name})"
    if inspect.iscoroutinefunction(found):
        raise BadInput(f"--from {origin}: {name} is asynchronous. Give a plain function that makes the object.")
    try:
        needed = [
            one.name
            for one in inspect.signature(found).parameters.values()
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]
    except ValueError:
        needed = []
    if needed:
        raise BadInput(
            f"--from {origin}: {name} needs {', '.join(needed)}. Write a function without arguments that makes the object, "
            f"such as `def make(): return {name}(...)`, and name that."
        )
    return found, f"{module}.{name}"


_BY_HAND = (
    'snapshot=operator.methodcaller("snapshot"),',
    "restore=lambda live, state: live.restore(state),",
)
"""What world.py says of an object that is set back by its own methods."""


def _by_hand(origin: str, factory: Callable[[], Any]) -> dict[str, Any]:
    """The arguments that say how such an object is set back; none for any other."""
    try:
        live = factory()
    except (Exception, SystemExit) as error:  # the user's code
        raise BadInput(f"--from {origin}: it cannot be made: {type(error).__name__}: {error}") from None
    if not all(callable(getattr(live, name, None)) for name in ("snapshot", "restore")):
        return {}
    return {"snapshot": operator.methodcaller("snapshot"), "restore": lambda one, state: one.restore(state)}


def _guesses(origin: str, factory: Callable[[], Any], by_hand: dict[str, Any]) -> tuple[Guess, ...]:
    """What the methods do; where there is no state, none can change it. Raises BadInput for an object that cannot be made or kept."""
    adapter = from_object(factory, name="api", policy="...", **by_hand).FOREIGN
    try:
        names, start = list(adapter.tools()), adapter.source.start(Base(adapter.source.tables()))
    except BadInput as error:
        told = (
            str(error)
            .replace("world api: ", "")
            .replace("give snapshot= and restore=", "give it methods snapshot() and restore(state)")
        )
        raise BadInput(f"--from {origin}: {told}") from None
    guessed = [guess(name) for name in names if name not in by_hand]
    if not holds_anything(json.loads(start.text)):
        _refuse_elsewhere(origin, {one.name for one in guessed if one.kind == "write"}, adapter.source.code_by_tool())
        return tuple(Guess(one.name, "read", NO_STATE) if one.kind == "write" else one for one in guessed)
    return tuple(guessed)


def _refuse_elsewhere(origin: str, writes: Container[str], code: Mapping[str, Callable[..., Any]]) -> None:
    """BadInput where an object holds nothing and what writes by its name uses what their class or module holds."""
    found = {name: None for tool, function in code.items() if tool in writes for name in kept_outside(function)}
    if found:
        raise BadInput(
            f"--from {origin}: the object holds nothing, and its methods use {', '.join(found)}, which all conversations would share. "
            "Let each object have its own (self.rows = copy.deepcopy(ROWS), in __init__), or give it methods snapshot() and "
            "restore(state) that reach it."
        )
