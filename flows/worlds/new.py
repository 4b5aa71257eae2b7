"""`cairn world new`: a small world that works, under the user's names, with its tests.

It is a copy of the world `library` that lies with Cairn, which is checked, typed and played by the tests like all other code: its text
with the names replaced.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import keyword
import re
import sys
from pathlib import Path

from flows import templates
from tasks.contract.params import BadInput
from tasks.worlds import library
from tasks.worlds.api.loading import BUILT_IN, LIBRARY

CLASS, NAME = "Library", "library"
PACKAGE = f"{LIBRARY}.{NAME}"
"""What stands in the copied world for the user's names."""
WORLD = Path(str(library.__file__)).with_name(NAME)
TEST = Path(str(templates.__file__)).with_name("test_world.py")


def address(package: str, cls: str, parent: str = LIBRARY) -> str:
    """A world's address in params. parent: the package that its own lies in; "" for none."""
    return f"{parent}.{package}.world:{cls}".lstrip(".")


def place(address: str) -> str:
    """The folder of the package behind a world's address, from the project's root."""
    return address.partition(":")[0].rpartition(".")[0].replace(".", "/")


def write(package: str, cls: str, folder: Path, parent: str = "") -> list[Path]:
    """Write the world's package and tests/test_`package`.py into a folder; returns the files.

    cls: "" for one after the package. parent: the package that it lies in (LIBRARY), "" for none. Raises BadInput, and writes nothing,
    for names that cannot be used and files that exist.
    """
    cls = cls or class_name(package)
    check_names(package, cls, parent=parent)
    module = address(package, cls, parent).partition(".world:")[0]
    home = folder / module.replace(".", "/")
    texts = {home / path.name: _named(path, package, module, cls) for path in sorted(WORLD.iterdir()) if path.is_file()}
    texts[folder / "tests" / f"test_{package}.py"] = _named(TEST, package, module, cls)
    for path in (home, *texts):
        if path.exists():
            raise BadInput(f"{path} exists already. Take another name, or another --folder.")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


def class_name(package: str) -> str:
    """A class after a package: my_shop -> Shop, bike_rental -> BikeRental."""
    words = [word for word in package.split("_") if word]
    return "".join(word.capitalize() for word in (words[1:] if len(words) > 1 and words[0] == "my" else words))


def _named(path: Path, package: str, module: str, cls: str) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    text = text.replace(PACKAGE, module).replace(f'"{NAME}"', f'"{package}"')
    return re.sub(rf"\b{CLASS}\b", cls, text)


def check_names(package: str, cls: str, option: str = "world ", parent: str = "") -> None:
    """Raise BadInput for a package or a class that cannot be called so. option: how messages begin. parent: as in `write`."""
    _check_package(package, f"{option}{package!r}", parent)
    _check_class(cls)


def _check_package(name: str, where: str, parent: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        better = re.sub(r"\W+", "_", name).strip("_").lower()
        hint = f" Did you mean {better!r}?" if better.isidentifier() and not keyword.iskeyword(better) else ""
        raise BadInput(f"{where}: not a name for a Python package (letters, digits and underscores).{hint}")
    if name in [address.partition(":")[0].rpartition(".")[2] for address in BUILT_IN]:
        raise BadInput(f"{where}: a built-in world has this name, and worlds of one run need different ones.")
    module = f"{parent}.{name}" if parent else name
    try:
        found = (not parent and name in sys.stdlib_module_names) or importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        found = True
    if found and parent:
        raise BadInput(f"{where}: {parent.replace('.', '/')}/ holds a module of this name already. Take another name.")
    if found:
        raise BadInput(
            f"{where}: a module of this name is installed or lies in the project already; importing it would be a matter of luck."
        )


def _check_class(name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadInput(f"--class {name!r}: not a name for a Python class, such as Shop.")
    taken = set(vars(importlib.import_module(f"{PACKAGE}.world"))) - {CLASS}
    if name in taken or hasattr(builtins, name):
        raise BadInput(f"--class {name!r}: world.py uses this name for something else. Take another one, such as {name}World.")
