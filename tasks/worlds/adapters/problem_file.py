"""Problems that a user gives for a world that makes none: a file of JSON lines, one blueprint a line.

    {"instruction": "Cancel order W1.", "actions": [{"name": "cancel_order", "arguments": {"order_id": "W1"}}],
     "outputs": ["refunded"], "user": "u17"}

Splits go by `user`: problems of one user are never in two splits. A line without a user is a lineage of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput, Params, validate
from tasks.worlds.api.problem_making import problem_of

if TYPE_CHECKING:
    from tasks.contract.problem import Problem
    from tasks.worlds.api.runtime import World

TABLE = "problems"
FAMILIES = ("information", "one_write", "two_writes", "three_writes")


class Call(Params):
    """One ground truth call."""

    name: str = Field(min_length=1, description="a tool")
    arguments: dict[str, Any] = Field({}, description="its arguments")


class Line(Params):
    """One given problem."""

    instruction: str = Field(min_length=1, description="what the human wants, in prose")
    actions: tuple[Call, ...] = Field(min_length=1, description="ground truth calls, in an order that works")
    outputs: tuple[str, ...] = Field((), description="what must be told")
    required: tuple[Call, ...] = Field((), description="calls that must have succeeded")
    user: str = Field("", description="whom it is about; the lineage that splits go by")
    family: str = Field("", description="its kind; by default the number of writes")
    persona: str = Field("", description="how the human talks")
    intent: dict[str, Any] = Field({}, description="what a scripted human of your own works from")


def read(path: Path) -> tuple[tuple[int, Line], ...]:
    """(line number, problem) of every line that is not empty. Raises BadInput with file and line."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"problems_file {path}: cannot be read ({error}).") from None
    found = [(number, _line(text, f"{path} line {number}")) for number, text in enumerate(texts, 1) if text.strip()]
    if not found:
        raise BadInput(f"problems_file {path}: holds no problem. One JSON object a line: instruction, actions, outputs.")
    return tuple(found)


def _line(text: str, where: str) -> Line:
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise BadInput(f"{where}: must be a JSON object with instruction, actions and outputs, got {text[:80]!r}.")
    return validate(Line, values, where)


def rows(lines: Sequence[tuple[int, Line]]) -> dict[str, dict[str, Any]]:
    """The given problems as a table; the key holds the line."""
    return {f"{number:06d}": {**line.model_dump(mode="json"), "user": line.user or f"line{number:06d}"} for number, line in lines}


def families(lines: Sequence[tuple[int, Line]], writes: Sequence[str]) -> tuple[str, ...]:
    """Families of the problems, those that count writes first."""
    found = {family_of(line.model_dump(), writes) for _, line in lines}
    return tuple(sorted(found, key=lambda name: (FAMILIES.index(name) if name in FAMILIES else len(FAMILIES), name)))


def family_of(row: Any, writes: Sequence[str]) -> str:
    """A problem's family: its own word, or its number of writes."""
    count = sum(action["name"] in writes for action in row["actions"])
    return str(row["family"]) or FAMILIES[min(count, len(FAMILIES) - 1)]


def row_problem(world: World, row: Any) -> Problem:
    """A row as a problem of the world."""
    row = json.loads(json.dumps(row))  # frozen rows hold tuples, arguments are lists
    context = {"user_id": row["user"], "split": world.splits[row["user"]], "persona": row["persona"] or world.personas[0]}
    return problem_of(world, {key: row[key] for key in ("instruction", "actions", "outputs", "required", "family", "intent")}, context)


def prove(world: World, where: str) -> None:
    """Replay every given problem. Raises BadInput, with the line, for one whose ground truth is refused or that nothing would solve."""
    for key, row in world.shared.base.tables.get(TABLE, {}).items():
        problem = row_problem(world, row)
        replay = world.replay(problem.actions)
        if not replay.ok:
            raise BadInput(f"{where} line {int(key)}: its ground truth does not work: {'; '.join(replay.errors)}")
        for rule, holds in world.blueprint_predicates.items():
            if broken := holds(problem, replay, world):
                raise BadInput(f"{where} line {int(key)}: {rule}: {broken}")


def draw(world: World, split: str, count: int, seed: int, chosen: Sequence[str], where: str) -> list[Problem]:
    """`count` problems of a split, families in turn, in an order that the seed gives; the first n do not depend on `count`."""
    found = [row_problem(world, row) for row in world.shared.base.tables.get(TABLE, {}).values() if world.splits[row["user"]] == split]
    piles = {family: [problem for problem in found if problem.family == family] for family in chosen}
    for family, pile in piles.items():
        Random(seed_of(world.name, split, seed, family, "given")).shuffle(pile)
    turns = max((len(pile) for pile in piles.values()), default=0)
    drawn = [pile[turn] for turn in range(turns) for pile in piles.values() if turn < len(pile)]
    if count > len(drawn):
        held = ", ".join(f"{len(pile)} {family}" for family, pile in piles.items())
        raise BadInput(
            f"world {world.name}: {count} problems of split {split!r} are wanted, {where} holds {len(drawn)} ({held or 'none'}). "
            "Add lines, or ask for fewer."
        )
    return drawn[:count]
