"""Where a function of a world stands: "my_shop/world.py:57", for messages that somebody has to act on."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any


def location(file: str, line: int) -> str:
    """A file and a line as people read them: relative to the current folder when it lies below it."""
    path = Path(file)
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"


def place(function: Callable[..., Any], argument: str = "") -> str:
    """File and line of a function's `def`, or of one of its arguments; "" for what was not written in Python."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return location(code.co_filename, line_of(function, argument)) if code else ""


def line_of(function: Callable[..., Any], argument: str = "") -> int:
    """The line of a function's `def` (not of its decorators), or of one of its arguments; 0 for what was not written in Python."""
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        return 0
    start: int = code.co_firstlineno
    node = _definition(function)
    if node is None:
        return start
    all_arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    line = next((one.lineno for one in all_arguments if one.arg == argument), node.lineno)
    return start + line - 1


def _definition(function: Callable[..., Any]) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The function's own node, whose first line is its first decorator's; None without a source, and for a lambda."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    node = tree.body[0] if tree.body else None
    return node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
