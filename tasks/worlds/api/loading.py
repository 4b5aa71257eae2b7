"""From "module:Class" to a world's class, under law 9: only the project folder, or packages that params allow by name.

Nothing is imported before its place is known: the place of a top-level package is looked up without running it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import tasks
from tasks.contract.params import BadInput, nearest

PROJECT = Path(str(tasks.__file__)).resolve().parents[1]
BUILT_IN = ("tasks.worlds.library.retail:Retail", "tasks.worlds.library.airline:Airline")
_ADDRESS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SKIPPED = {"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def world_class(address: str, allow: Sequence[str] = ()) -> type:
    """The class behind "package.module:Class". allow: top-level packages outside the project folder that may be loaded.

    Raises BadInput when the address is malformed, lies elsewhere, or names nothing.
    """
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise BadInput(f"world {address!r}: not of the form 'package.module:Class', such as 'my_shop.world:Shop'.")
    module_name, _, class_name = address.partition(":")
    _check_place(address, module_name.partition(".")[0], allow)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BadInput(f"world {address!r}: {error}.{nearest(address, BUILT_IN)}") from None
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise BadInput(
            f"world {address!r}: {module_name} has no class {class_name!r}.{nearest(class_name, classes)} "
            f"Classes there: {', '.join(sorted(classes)) or 'none'}."
        )
    return found


def _check_place(address: str, package: str, allow: Sequence[str]) -> None:
    if package in allow:
        return
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise BadInput(f"world {address!r}: there is no package {package!r} in {PROJECT.name}/.{nearest(address, BUILT_IN)}")
    places = [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
    # A module of the interpreter itself has an origin such as "frozen", which is no place at all.
    if not places or not all(place.is_absolute() and _in_project(place.resolve()) for place in places):
        raise BadInput(
            f"world {address!r}: package {package!r} lies outside the project folder. Move it into the project, or add "
            f"{package!r} to worlds.allow (now: {list(allow)})."
        )


def _in_project(place: Path) -> bool:
    if not place.is_relative_to(PROJECT):
        return False
    parts = place.relative_to(PROJECT).parts
    return "site-packages" not in parts and not any(part.startswith(".") for part in parts)


def code_files(address: str) -> dict[str, Path]:
    """Every file that a world's code consists of: the packages that hold its module and the modules of its base classes, with all
    that lies below them; of a module without a package, the one file. Keys are "package/relative path". The module must be
    importable; other code that it imports is the business of the stage's deps.
    """
    module_name, _, class_name = address.partition(":")
    cls = getattr(importlib.import_module(module_name), class_name)
    modules = {module_name, *(base.__module__ for base in cls.__mro__ if base is not object)}
    found: dict[str, Path] = {}
    for name in sorted(modules):
        found.update(_files_of(name))
    return found


def _files_of(module_name: str) -> dict[str, Path]:
    module = importlib.import_module(module_name)
    if not module.__package__:
        return {f"{module_name}.py": Path(str(module.__file__))}
    folders = sorted(Path(place) for place in importlib.import_module(module.__package__).__path__)
    return {
        f"{module.__package__}/{path.relative_to(folder).as_posix()}": path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _SKIPPED & set(path.relative_to(folder).parts)
    }


def code_hash(address: str) -> str:
    """blake2b of the names and bytes of `code_files`."""
    digest = hashlib.blake2b(digest_size=16)
    for name, path in sorted(code_files(address).items()):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
