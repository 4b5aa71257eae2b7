"""Which files of an API come along into its project: the modules that its code imports from beside it, and files that the code names.

A commit of the project then says exactly what made a model; what is installed as a package stays where it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.contract.params import BadInput

LARGEST = 50_000_000
"""Bytes of all of them; ours: they are committed to git."""
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}


def modules(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Files of modules below a folder, and of all that they import from it: place in that folder -> file.

    root: what stands on sys.path. names: dotted names, those that do not lie there are left out. A package comes whole. Raises BadInput
    for more than LARGEST bytes, and for a file that is no Python.
    """
    found: dict[str, Path] = {}
    left = [name.partition(".")[0] for name in names]
    while left:
        top = left.pop()
        package, file = root / top, root / f"{top}.py"
        new = [file] if file.is_file() else list(_below(package)) if package.is_dir() else []
        for path in new:
            place = path.relative_to(root).as_posix()
            if place not in found:
                found[place] = path
                if path.suffix == ".py":
                    imported, named = _read(path)
                    left += [name.partition(".")[0] for name in imported]
                    found.update((one.relative_to(root).as_posix(), one) for one in named if one.is_relative_to(root))
    check_size(found.values())
    return found


def check_size(paths: Iterable[Path]) -> None:
    """Raise BadInput for files that are too large to be committed."""
    sizes = {path: path.stat().st_size for path in paths}
    if sum(sizes.values()) > LARGEST:
        largest = max(sizes, key=lambda path: sizes[path])
        raise BadInput(
            f"the API's files have {sum(sizes.values()) / 1e6:.0f} MB ({largest}: {sizes[largest] / 1e6:.0f} MB), and they are copied "
            f"into the project and committed: at most {LARGEST / 1e6:.0f} MB. Install the API as a package."
        )


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part in _SKIPPED or part.startswith(".") for part in parts):
            yield path


def _read(path: Path) -> tuple[set[str], set[Path]]:
    """(modules that a file imports by absolute names, files beside it that it names in a text)."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as Python ({error}).") from None
    imported: set[str] = set()
    named: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 200 and "\0" not in node.value:
            beside = path.parent / node.value
            if beside.is_file() and beside.suffix and beside.resolve().is_relative_to(path.parent.resolve()):
                named.add(beside)
    return imported, named
