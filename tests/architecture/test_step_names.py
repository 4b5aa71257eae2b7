"""A step's name stands in tasks/road.py and in params: whoever writes it elsewhere forgets the steps that are called otherwise.

Rooms are named freely (`road.entering("sft")`, `job.of("worlds")`, `step.room == "rl"`); so are keys of a figure or of a method's
inputs that happen to be spelled as a step. What is looked for is a name where only a step's can stand: what a road, the settings or a
run's folders and artifacts are asked for, a folder of data/, a place in the params, a value that an option may take, a message's "run the
worlds stage".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tasks.road import ROAD
from tests.conftest import ROOT

STEPS = {*ROAD.names, *(step.checkpoint() for step in ROAD)}
ASKED_BY_STEP = {
    *("params", "method", "loop", "agents", "seed", "room", "parts", "values", "index", "part", "after", "input"),
    *("job_of", "check_stage", "one_of"),
}
"""Functions whose first argument, or one of whose values, is a step's name."""
KEPT_BY_STEP = {
    "ROAD",
    "road",
    "folders",
    "inputs",
    "there",
    "done",
    "stages",
    "steps",
    "records",
    "tree",
    "found",
    "params",
    "sections",
}
"""Names of what holds one thing a step."""
WRITTEN = re.compile(rf"(?<![\w/])(?:(?:data|\.\.)/({'|'.join(ROAD.names)})/|({'|'.join(ROAD.names)})\.(?:loop|method|agents)\.)\w")
"""A file of a step's result, or a param of its section."""
SAID = re.compile(
    rf"^(?:{'|'.join(ROAD.names)})\.\w+: |\b(?:the|[Rr]un) (?:{'|'.join(ROAD.names)})(?: and (?:{'|'.join(ROAD.names)}))? stages?\b"
)
"""A message that begins with a section of the params, or sends people to a stage, by a name that theirs may not have."""
EXAMPLES = ("flows/cli", "flows/run.py", "tasks/engine/dotted.py", "tasks/engine/settings.py")
"""Where a param or a file is named to show how one is written."""


def by_hand(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every step's name that stands where only a step's can."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _last(node.value) in KEPT_BY_STEP:
            yield from _names(node.slice)
        elif isinstance(node, ast.Call) and node.args:
            if _last(node.func) in ASKED_BY_STEP:
                yield from _names(*node.args[: 2 if _last(node.func) == "job_of" else 1])
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "get" and _last(node.func.value) in KEPT_BY_STEP:
                yield from _names(node.args[0])
        elif isinstance(node, ast.Compare):
            sides, container = [node.left, *node.comparators], isinstance(node.ops[-1], ast.In | ast.NotIn)
            if not any("room" in _last(side) for side in sides) and (not container or _last(sides[-1]) in KEPT_BY_STEP):
                yield from _names(*sides)
        elif isinstance(node, ast.arguments):
            yield from _names(*node.defaults, *(one for one in node.kw_defaults if one))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield from ((node.lineno, found[0]) for how in (WRITTEN, SAID) for found in how.finditer(node.value))


def _last(node: ast.AST) -> str:
    """The last part of a dotted name; of a call, that of its function."""
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _names(*nodes: ast.AST) -> Iterator[tuple[int, str]]:
    """Constants that are steps' names, among these or in tuples of these."""
    for node in nodes:
        inner = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
        yield from ((one.lineno, one.value) for one in inner if isinstance(one, ast.Constant) and one.value in STEPS)


def test_no_step_is_named_by_hand() -> None:
    found = []
    for path in sorted(path for top in ("flows", "tasks") for path in (ROOT / top).rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        if file.startswith(("flows/recipes/", "flows/templates/")) or file in ("tasks/road.py", "tasks/engine/layout.py"):
            continue
        found += [
            f"{file}:{line} {name}"
            for line, name in by_hand(ast.parse(path.read_text()))
            if "." not in name or not file.startswith(EXAMPLES)
        ]
    assert not found, "\n".join(found)
