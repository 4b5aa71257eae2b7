"""Problems that a user gives for a world that makes none: a file of JSON lines, one blueprint a line.

    {"instruction": "Cancel order W1.", "actions": [{"name": "cancel_order", "arguments": {"order_id": "W1"}}],
     "outputs": ["refunded"], "user": "u17"}

Splits go by `user`: problems of one user are never in two splits. A line without a user is a lineage of its own. Where a
benchmark has splits of its own, its lines name them (`"split": "test"`). A call that has to be refused says so (`"refused": true`), and
counts as a look-up, since it changes nothing. A problem that doing nothing solves, also one without actions, is tagged as passive
(`tasks.contract.problem.PASSIVE`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tasks.contract.context import seed_of
from tasks.contract.params import MISTAKES, BadInput, Params, validate
from tasks.contract.problem import PASSIVE
from tasks.worlds.api.problem_making import BY_WRITES, in_turn, problem_of

if TYPE_CHECKING:
    from tasks.contract.problem import Problem
    from tasks.worlds.api.runtime import World

TABLE = "problems"


class Call(Params):
    """A tool call."""

    name: str = Field(min_length=1, description="a tool")
    arguments: dict[str, Any] = Field({}, description="its arguments")


class Step(Call):
    """One ground truth call."""

    refused: bool = Field(False, description="whether the world has to refuse it, so that it changes nothing")


class Line(Params):
    """One given problem."""

    instruction: str = Field(min_length=1, description="what the human wants, in prose")
    actions: tuple[Step, ...] = Field(description="ground truth calls, in an order that works; [] for none")
    outputs: tuple[str, ...] = Field((), description="what must be told")
    required: tuple[Call, ...] = Field((), description="calls that must have succeeded")
    user: str = Field("", description="whom it is about; the lineage that splits go by")
    split: Literal["", "train", "validation", "test"] = Field("", description="that of its user; by default drawn")
    family: str = Field("", description="its kind; by default the number of writes")
    persona: str = Field("", description="how the human talks")
    intent: dict[str, Any] = Field({}, description="what a scripted human of your own works from")


def read(path: Path) -> tuple[tuple[tuple[int, Line], ...], tuple[str, ...]]:
    """((line number, problem) of every line that can be read, what is wrong with each other one); empty lines do not count. Raises
    BadInput for a file that cannot be read or holds nothing."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"problems_file {path}: cannot be read ({error}).") from None
    found, wrong = list[tuple[int, Line]](), list[str]()
    for number, text in enumerate(texts, 1):
        if text.strip():
            try:
                found.append((number, _line(text, f"{path} line {number}")))
            except BadInput as mistake:
                wrong.append(str(mistake))
    if not found and not wrong:
        raise BadInput(f"problems_file {path}: holds no problem. One JSON object a line: instruction, actions, outputs.")
    return tuple(found), tuple(wrong)


def refuse(mistakes: Sequence[str]) -> None:
    """Raise BadInput with what is wrong with each line, if anything is."""
    if more := len(mistakes) - MISTAKES:
        mistakes = [*mistakes[:MISTAKES], *([f"and {more} more lines"] if more > 0 else [])]
    if mistakes:
        raise BadInput("\n".join(mistakes))


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
    return {f"{number:06d}": _row(line, f"line{number:06d}") for number, line in lines}


def _row(line: Line, lineage: str) -> dict[str, Any]:
    """A problem as it is kept; a call says `refused` only where it is, and it names a split only where the line does."""
    row = line.model_dump(mode="json")
    actions = [{key: value for key, value in call.items() if key != "refused" or value} for call in row["actions"]]
    kept = {key: value for key, value in row.items() if key != "split" or value}
    return {**kept, "actions": actions, "user": line.user or lineage}


def families(lines: Sequence[tuple[int, Line]], writes: Container[str]) -> tuple[str, ...]:
    """Families of the problems, those that count writes first."""
    found = {family_of(line.model_dump(), writes) for _, line in lines}
    return tuple(sorted(found, key=lambda name: (BY_WRITES.index(name) if name in BY_WRITES else len(BY_WRITES), name)))


def family_of(row: Any, writes: Container[str]) -> str:
    """A problem's family: its own word, or its number of writes."""
    count = sum(action["name"] in writes and not action.get("refused") for action in row["actions"])
    return str(row["family"]) or BY_WRITES[min(count, len(BY_WRITES) - 1)]


def row_problem(world: World, row: Any) -> Problem:
    """A row as a problem of the world."""
    problem = _untagged(world, row)
    return replace(problem, tags=(*problem.tags, PASSIVE)) if world.solved_by_nothing(problem) else problem


def _untagged(world: World, row: Any) -> Problem:
    row = json.loads(json.dumps(row))  # frozen rows hold tuples, arguments are lists
    context = {"user_id": row["user"], "split": world.splits[row["user"]], "persona": row["persona"] or world.personas[0]}
    writes = [name for name, tool in world.tools.items() if tool.kind == "write"]
    draft = {key: row[key] for key in ("instruction", "actions", "outputs", "required", "intent")}
    problem = problem_of(world, {**draft, "family": family_of(row, writes)}, context)
    pairs = zip(row["actions"], problem.actions, strict=True)
    return replace(problem, actions=tuple(replace(one, kind="read") if call.get("refused") else one for call, one in pairs))


def splits(table: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """user -> split, of those whose problems name one."""
    return {row["user"]: row["split"] for row in table.values() if row.get("split")}


def torn(table: Mapping[str, Mapping[str, Any]], where: str) -> Iterator[str]:
    """What is wrong with each problem that names another split than one of the same user before it."""
    first: dict[str, tuple[str, str]] = {}
    for key, row in table.items():
        if split := row.get("split"):
            line, known = first.setdefault(row["user"], (key, split))
            if known != split:
                yield f"{where} line {int(key)}: split {split!r}, and user {row['user']!r} is in {known!r} by line {int(line)}"


def prove(world: World, where: str) -> Iterator[str]:
    """What is wrong with each given problem whose ground truth does not work as it says. Tells which ones are passive."""
    passive = []
    for key, row in world.shared.base.tables.get(TABLE, {}).items():
        if wrong := _wrong(world, row):
            yield f"{where} line {int(key)}: {wrong}"
        elif row_problem(world, row).passive:
            passive.append(str(int(key)))
    if passive:
        logging.getLogger(__name__).warning(
            "%s: doing nothing solves the problems of %d lines (%s): they are counted apart, no model is trained or chosen by them.",
            *(where, len(passive), ", ".join(passive[:MISTAKES]) + (" ..." if len(passive) > MISTAKES else "")),
        )


def _wrong(world: World, row: Mapping[str, Any]) -> str:
    """Why a given problem cannot be used; "" when it can."""
    problem = _untagged(world, row)
    replay, errors = world.replay(problem.actions), list[str]()
    for place, (call, action, result) in enumerate(zip(row["actions"], problem.actions, replay.results, strict=True), 1):
        wanted = call.get("refused", False)
        if wanted and result.ok:
            errors.append(f"action {place} {action.name} is to be refused, and the world answers it")
        elif not wanted and not result.ok:
            hint = ' (write "refused": true there if it has to be)' if action.kind == "read" and action.name in world.tools else ""
            errors.append(f"action {place} {action.name}: {result.content}{hint}")
    if errors:
        return f"its ground truth does not work: {'; '.join(errors)}"
    if world.solved_by_nothing(problem):
        return ""
    broken = ((rule, holds(problem, replay, world)) for rule, holds in world.blueprint_predicates.items())
    return next((f"{rule}: {why}" for rule, why in broken if why), "")


def of_split(world: World, split: str) -> list[Problem]:
    """The given problems of a split, in the order of their lines."""
    return [row_problem(world, row) for row in world.shared.base.tables.get(TABLE, {}).values() if world.splits[row["user"]] == split]


def draw(world: World, split: str, count: int, seed: int, chosen: Sequence[str], where: str) -> list[Problem]:
    """`count` problems of a split, families in turn, in an order that the seed gives; the first n do not depend on `count`."""
    found = of_split(world, split)
    drawn = in_turn(found, chosen, lambda family: Random(seed_of(world.name, split, seed, family, "given")))
    if count > len(drawn):
        held = ", ".join(f"{sum(one.family == family for one in found)} {family}" for family in chosen)
        raise BadInput(
            f"world {world.name}: {count} problems of split {split!r} are wanted, {where} holds {len(drawn)} ({held or 'none'}). "
            "Add lines, or ask for fewer."
        )
    return drawn[:count]
