"""From a world's name, as people type it, to its address."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.contract.params import BadInput, nearest
from tasks.worlds.api.loading import LIBRARY, PROJECT, world_class

if TYPE_CHECKING:
    from tasks.engine.settings import Settings


def address_of(text: str, settings: Settings) -> str:
    """ "module:Class" as it is; a name is that of a world of the params, or of one in the library. Raises BadInput for any other."""
    if ":" in text:
        return text
    known: dict[str, str] = {}
    for stage in settings.road.entering("worlds"):
        params: Any = settings.params(stage)
        for address in (*params.modules, *params.unseen):
            known[str(getattr(world_class(address, params.allow), "NAME", ""))] = address
    if text in known:
        return known[text]
    library = PROJECT / LIBRARY.replace(".", "/")
    names = sorted(path.parent.name for path in library.glob("*/__init__.py"))
    if text not in names:
        everything = sorted({*known, *names})
        raise BadInput(
            f"--world {text}: no world of this name.{nearest(text, everything)} Known: {', '.join(everything)}; or MODULE:CLASS."
        )
    return _in_library(text)


def _in_library(name: str) -> str:
    """The address of the world that a package of the library holds. BadInput for a package without one of its name."""
    import importlib

    for module in (f"{LIBRARY}.{name}", f"{LIBRARY}.{name}.world"):
        with suppress(ModuleNotFoundError):
            for key, value in vars(importlib.import_module(module)).items():
                if isinstance(value, type) and getattr(value, "NAME", "") == name:
                    return f"{module}:{key}"
    raise BadInput(f"--world {name}: {LIBRARY}.{name} holds no world of that name. Name it as MODULE:CLASS.")
