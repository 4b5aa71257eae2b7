"""Which modules of this project a module reaches: read from the source, imports inside functions included, nothing is run."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock

from tasks.contract.params import BadInput

_parsing = Lock()


def syntax(path: Path) -> ast.Module:
    """A Python file as a tree; BadInput that names file and line when it is none. Its encoding is the one that it declares. One at a
    time: in several threads at once `ast.parse` can raise SystemError (CPython gh-106905)."""
    try:
        with _parsing:
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:  # ValueError: a NUL byte
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        why = error.msg if isinstance(error, SyntaxError) else error
        raise BadInput(f"{path}{line}: not valid Python ({why}), so nobody can tell what it imports.") from None


def reach(project: Path, roots: Iterable[str], left_out: Callable[[str], bool] = lambda module: False) -> dict[str, Path]:
    """module -> file for every module of the project that `roots` reach by imports, packages' `__init__` files included.

    Names under `if TYPE_CHECKING` are for checkers and do not count, nor does a module that is chosen by its name at run time.
    left_out: modules that are not looked at, nor what they alone import. Modules that lie elsewhere are left out too.
    """
    found: dict[str, Path] = {}
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in found or left_out(name) or (path := file_of(project, name)) is None:
            continue
        found[name] = path
        todo += [name.rpartition(".")[0]] if "." in name else []
        todo += imports(path, name)
    return found


def file_of(project: Path, module: str) -> Path | None:
    """The file of a module of the project; None when it has none."""
    base = project.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def imports(path: Path, module: str) -> tuple[str, ...]:
    """Every name that a file may import as a module, at the top or inside a function. Files that stay the same are read once."""
    seen = path.stat()
    return _imports(os.fspath(path), module, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=4096)
def _imports(file: str, module: str, modified: int, size: int) -> tuple[str, ...]:
    path = Path(file)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in _nodes_that_run(syntax(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(names))


def _nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _for_checkers(node.test):
            for other in node.orelse:
                yield from _nodes_that_run(other)
            continue
        yield node
        yield from _nodes_that_run(node)


def _for_checkers(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))
