"""From "module:Class" to a world's class, under law 9: only the project folder, or packages that params allow by name.

Nothing is imported before its place is known: the place of a top-level package is looked up without running it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from traceback import walk_tb

import tasks
from tasks.contract.params import BadInput, nearest
from tasks.worlds.api.imports import reach
from tasks.worlds.api.places import location

PROJECT = Path(str(tasks.__file__)).resolve().parents[1]
API = "tasks/worlds/api"
"""Folder of what plays every world."""
LIBRARY = "tasks.worlds.library"
"""Package of the worlds that lie with Cairn, each a package in it, and of a project's own: stage `worlds` depends on its folder, so
that a world there needs no word in dvc.yaml."""
BUILT_IN = ("tasks.worlds.library.retail:Retail", "tasks.worlds.library.airline:Airline")
_ADDRESS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SKIPPED = {"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def world_class(address: str, allow: Sequence[str] = ()) -> type:
    """The class behind "package.module:Class". allow: top-level packages outside the project folder that may be loaded.

    Raises BadInput when the address is malformed, lies elsewhere, or names nothing, and when the module cannot be imported: with the
    line of the world's that fails.
    """
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise BadInput(f"world {address!r}: not of the form 'package.module:Class', such as 'my_shop.world:Shop'.")
    module_name, _, class_name = address.partition(":")
    _check_place(address, module_name.partition(".")[0], allow)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        where = _where(error, module_name)
        hint = _changed(error) if where else nearest(address, BUILT_IN)
        raise BadInput(f"world {address!r}: {where}{error}.{hint}") from None
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"world {address!r}: {_where(error, module_name)}{type(error).__name__}: {error}{_changed(error)}") from error
    except SystemExit as error:
        raise BadInput(
            f"world {address!r}: {module_name} ends the program while it is imported (SystemExit: {error}). Put what does that below "
            '`if __name__ == "__main__":`.'
        ) from None
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise BadInput(
            f"world {address!r}: {module_name} has no class {class_name!r}.{nearest(class_name, classes)} "
            f"Classes there: {', '.join(sorted(classes)) or 'none'}."
        )
    return found


def _where(error: Exception, module_name: str) -> str:
    """The innermost line of a world's own package at which its import failed: "it cannot be imported: file:3: "; "" when none ran."""
    depth = LIBRARY.count(".") + 2 if module_name.startswith(f"{LIBRARY}.") else 1
    package = ".".join(module_name.split(".")[:depth])
    frames = [(frame.f_globals.get("__name__", ""), frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    own = [frame for frame in frames if frame[0] != __name__ and f"{frame[0]}.".startswith(f"{package}.")]
    lines = [f"it cannot be imported: {location(file, line)}: " for _, file, line in own]
    return lines[-1] if lines else ""


def _changed(error: Exception) -> str:
    """Where it stands what has another name now, when it is a name of Cairn's that a world does not find; else ""."""
    ours = isinstance(error, ImportError) and str(error.name).startswith("tasks.")
    return f" {API.rpartition('/')[0]}/README.md says what changed for worlds of an earlier version." if ours else ""


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


def own_files(address: str) -> dict[str, Path]:
    """Every file of a world's own: the packages that hold its module and the modules of its base classes, with all that lies below
    them; of a module without a package, the one file. Keys are "package/relative path". Of a base that Cairn brings along (an
    adapter's) its one module. The module must be importable.
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
    package = module.__package__
    if not package:
        return {f"{module_name}.py": Path(str(module.__file__))}
    if package.startswith("tasks.") and not package.startswith(f"{LIBRARY}."):
        return {_key(module_name, Path(str(module.__file__))): Path(str(module.__file__))}
    folders = sorted(Path(place) for place in importlib.import_module(package).__path__)
    return {f"{package}/{path.relative_to(folder).as_posix()}": path for folder in folders for path in _below(folder)}


def _key(module: str, path: Path) -> str:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return f"{package}/{path.name}"


def reached_code(modules: Iterable[str], project: Path = PROJECT) -> dict[str, Path]:
    """module -> file for all code of the project that worlds in these modules are made of and played by: what they reach by imports,
    imports inside functions included, and what the whole of `tasks.worlds.api` reaches (runtime, grading, blame, play, tools, state,
    scripts), since a class is handed to it and need not import it. Nothing is run."""
    api = (path.relative_to(project).with_suffix("").parts for path in (project / API).rglob("*.py"))
    return reach(project, [*modules, *(".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in api)])


def project_code(modules: Iterable[str], project: Path = PROJECT) -> dict[str, Path]:
    """All files of the project that decide how worlds in these modules behave: `reached_code`, what lies beside the api's modules
    (prompts), and whole packages of worlds and of what is not Cairn's, since they may read files that lie in them. Keys are
    "package/relative path": no place on a disk. Nothing is run."""
    reached = reached_code(modules, project)
    found = {_key(module, path): path for module, path in reached.items()}
    folders = {project / API: ".".join(Path(API).parts)}
    for module, path in reached.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        cairns = package.partition(".")[0] in ("tasks", "flows") and not package.startswith(f"{LIBRARY}.")
        if package and not cairns:
            folders[path.parent] = package
    for folder, package in folders.items():
        found.update((f"{package}/{path.relative_to(folder).as_posix()}", path) for path in _below(folder))
    return found


def _below(folder: Path) -> Iterator[Path]:
    """Every file below a folder. BadInput for a folder that is a link: neither this hash nor DVC looks into one."""
    for path in sorted(folder.rglob("*")):
        if _SKIPPED & set(path.relative_to(folder).parts):
            continue
        if path.is_symlink() and path.is_dir():
            raise BadInput(
                f"{path} is a link to a folder, so a change of what lies in it would go unseen. Put the folder itself there."
            )
        if path.is_file():
            yield path


def code_files(address: str) -> dict[str, Path]:
    """Every file that decides how a world behaves: its own files, wherever they lie, and all code of this project that it reaches and
    that plays it (`project_code`). The module must be importable.

    Their hash stands in the world's frozen folder, and with it in the key of every stage that reads the world.
    """
    return {**project_code([address.partition(":")[0]]), **own_files(address)}


def code_hash(address: str) -> str:
    """blake2b of the names and bytes of `code_files`."""
    digest = hashlib.blake2b(digest_size=16)
    for name, path in sorted(code_files(address).items()):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
