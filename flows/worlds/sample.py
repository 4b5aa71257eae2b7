"""What a world is proven on: problems of two splits, and for each tool some calls with the calls that lead up to them."""

from __future__ import annotations

import re
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from random import Random
from typing import Any

from flows.worlds.fingerprints import Globals, globals_of
from flows.worlds.report import Finding
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem
from tasks.worlds.adapters.context_tables import cleaned, tables_of
from tasks.worlds.api.arguments import arguments_of
from tasks.worlds.api.loading import own_files as files_of
from tasks.worlds.api.places import location, place
from tasks.worlds.api.problem_making import draw_problems, problem_of, propose, user_context
from tasks.worlds.api.runtime import World

Predicate = Callable[..., str | None]
SPLITS = ("train", "test")
"""The splits that are looked at: what test problems alone hold (rules, pairs of writes) must be sound as well."""
PER_TOOL = 8
"""Calls of each tool out of ground truths; ours."""
GUESSED = 4
"""Calls of each tool with other arguments, most of which the tool refuses; ours."""
LONGEST_ROW = 30_000
"""Bytes of the rows of an adapted world's tables, on average; ours: what is longer is looked into."""
DRAFTS = 40
"""Drafts that are looked into when a family gives no problem; ours."""


@dataclass(frozen=True)
class Call:
    """A call and what led up to it. truth: it is part of a ground truth, so it has to succeed."""

    action: Action
    before: tuple[Action, ...]
    truth: bool

    @property
    def words(self) -> str:
        """The call as Python would write it."""
        return f"{self.action.name}({', '.join(f'{name}={value!r}' for name, value in self.action.arguments.items())})"


@dataclass
class Sample:
    """A world with what it is proven on.

    files: the world's own code, by name of file. before: what its modules and classes held before anything was called. findings:
    what keeps it from making problems. crashed: (list, rule) -> the predicates that failed; they count as holding.
    """

    world: World
    files: frozenset[str]
    before: Globals
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    crashed: dict[tuple[str, str], Finding] = field(default_factory=dict)

    @property
    def everything(self) -> list[Problem]:
        """The problems of all splits."""
        return [problem for problems in self.problems.values() for problem in problems]

    def place(self, tool: str) -> str:
        """File and line of a tool, or of what stands for it; "" when that is not known."""
        if self.world.foreign is not None:
            return str(self.world.foreign.place(tool))
        function = getattr(self.world.shared.cls, tool, None)
        return place(function) if callable(function) else ""


def draw(world: World, count: int, seed: int) -> Sample:
    """`count` problems a split, and the calls. What keeps the world from making problems is among the findings."""
    files = own_files(world.shared.address)
    sample = Sample(world, files, globals_of(files))
    world.blueprint_predicates = _guarded(sample, "blueprint", world.blueprint_predicates)
    world.trajectory_predicates = _guarded(sample, "trajectory", world.trajectory_predicates)
    cls = world.shared.cls
    needed = ("FAMILIES", "propose") if world.foreign is not None else ("FAMILIES", "context", "propose")
    lacks = [name for name in needed if not getattr(cls, name, None)]
    if world.foreign is not None and not world.families:
        pass  # `problem_checks.made` says where its problems come from
    elif lacks:
        what = f"it makes no problems: {', '.join(lacks)} {'is' if len(lacks) == 1 else 'are'} missing"
        sample.findings.append(
            Finding("", what, "see tasks/worlds/api/runtime.py, and tasks/worlds/library/library/services.py for an example")
        )
    else:
        for split in (split for split in SPLITS if world.shared.users[split]):  # given problems may name no other
            sample.problems[split] = _problems(sample, split, count, seed)
    pool = Pool(world, [action for problem in sample.everything for action in problem.actions])
    for name in world.tools:
        sample.calls += _calls(sample, name, pool, Random(seed_of("calls", name, seed)))
    return sample


def own_files(address: str) -> frozenset[str]:
    """The Python files of a world, named as its modules are: the package that holds the class, and those of its base classes."""
    files = {str(path) for path in files_of(address).values() if path.suffix == ".py"}
    loaded = {str(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    return frozenset(files | {name for name in loaded if str(Path(name).resolve()) in files})


def _guarded(sample: Sample, kind: str, predicates: Mapping[str, Predicate]) -> dict[str, Predicate]:
    """Predicates whose own failures are kept in the sample: one that fails must not end what is graded with it."""

    def guarded(rule: str, predicate: Predicate) -> Predicate:
        @wraps(predicate)
        def ask(*arguments: Any) -> str | None:
            try:
                return predicate(*arguments)
            except Exception as error:  # the user's code
                where, what = failure(error, sample.files)
                told = "It must answer for every conversation, also one with malformed calls or rows that do not exist."
                sample.crashed.setdefault((kind, rule), Finding(where, f"the {kind} predicate {rule} fails: {what}", told))
                return None

        return ask

    return {rule: guarded(rule, predicate) for rule, predicate in predicates.items()}


# --- problems ---


def _problems(sample: Sample, split: str, count: int, seed: int) -> list[Problem]:
    """Problems of all families in equal shares. A family that gives none is looked into."""
    world, share = sample.world, -(-count // len(sample.world.families))
    found: list[Problem] = []
    for family in world.families:
        for wanted in (share, share // 2, share // 4, 1):  # a world may have fewer problems than are asked for
            try:
                found += draw_problems(world, split, wanted, seed, [family])
                break
            except BadInput:
                if wanted == 1:
                    sample.findings.append(_why_none(world, split, family, seed))
            except Exception as error:
                where, what = failure(error, sample.files)
                sample.findings.append(Finding(where, f"no problem of family {family!r} in split {split!r}: {what}", "mend that line"))
                break
    return found


def _why_none(world: World, split: str, family: str, seed: int) -> Finding:
    """What happens to drafts of a family that gives no problem."""
    reasons: dict[str, int] = defaultdict(int)
    rng = Random(seed_of("drafts", split, family, seed))
    for _ in range(DRAFTS):
        context = user_context(world, rng, split)
        draft = propose(world, context, rng, family=family)
        replay = world.replay(problem_of(world, draft, context).actions) if draft else None
        reasons["the rows of the user drawn allow none" if replay is None else "; ".join(replay.errors)] += 1
    most = max(reasons, key=lambda reason: reasons[reason])
    what = f"no problem of family {family!r} in split {split!r}; of {DRAFTS} drafts {reasons[most]}: {most}"
    return Finding(place(world.shared.cls.propose), what, "let propose draw what the tables allow, or let tables() make such rows")


def failure(error: BaseException, files: Iterable[str]) -> tuple[str, str]:
    """(file:line of the world's innermost line on the way to an exception, what was raised)."""
    known = frozenset(files)
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if step.filename in known] or steps[-1:]
    where = location(own[-1].filename, own[-1].lineno or 0) if own else ""
    return where, f"{type(error).__name__}: {error}"


# --- calls ---


def _calls(sample: Sample, name: str, pool: Pool, rng: Random) -> list[Call]:
    """Calls of one tool: out of ground truths, spread over the problems, and guessed ones."""
    tool = sample.world.tools[name]
    truths = [
        Call(action, problem.actions[:place], True)
        for problem in sample.everything
        for place, action in enumerate(problem.actions)
        if action.name == name
    ]
    found = rng.sample(truths, min(PER_TOOL, len(truths)))
    for _ in range(GUESSED if truths else PER_TOOL):
        arguments = {key: pool.draw(name, key, schema, rng) for key, schema in arguments_of(tool.parameters).items()}
        before = rng.choice(truths).before if truths else ()
        found.append(Call(Action(name, arguments, tool.kind), before, False))
    return found


FORMATS = {
    "date": "2026-01-05",
    "date-time": "2026-01-05T10:00:00Z",
    "time": "10:00:00Z",
    "email": "a@example.org",
    "uri": "https://example.org/a",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
"""An example of each format that schemas name."""
_DATE, _TIME = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?"
_WRITTEN = {
    "date": re.compile(_DATE),
    "date-time": re.compile(f"{_DATE}[T ]{_TIME}"),
    "time": re.compile(_TIME),
    "email": re.compile(r"[^@\s]+@[^@\s]+"),
    "uri": re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+"),
    "uuid": re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
}
"""How texts of these formats look."""


def of_format(texts: Iterable[str], name: str) -> list[str]:
    """The texts that are of a schema's format, all of them for one that is not known; a moment gives its day. With none, an example."""
    if name not in _WRITTEN:
        return list(texts)
    parts = [text[:10] if name == "date" and _WRITTEN["date-time"].fullmatch(text) else text for text in texts]
    return list(dict.fromkeys(part for part in parts if _WRITTEN[name].fullmatch(part))) or [FORMATS[name]]


class Pool:
    """Values for arguments: those that ground truths and tables hold under the argument's name."""

    def __init__(self, world: World, actions: Sequence[Action]) -> None:
        self._seen: dict[str, dict[str, Any]] = defaultdict(dict)
        for action in actions:
            for name, value in action.arguments.items():
                self._seen[name][repr(value)] = value
        self._tables = _tables(world)
        self._texts: dict[str, list[str]] = {}

    def draw(self, tool: str, name: str, schema: Mapping[str, Any], rng: Random) -> Any:
        """One value that fits the schema of argument `name` of `tool`, as far as names and tables tell."""
        if "enum" in schema:
            return rng.choice(list(schema["enum"]))
        if "const" in schema:
            return schema["const"]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self.draw(tool, name, rng.choice(list(schema[key])), rng)
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind == "array":
            return [self.draw(tool, name, schema.get("items", {}), rng)]
        if kind in ("integer", "number"):
            return rng.choice([*range(8), 20, 100])
        if kind == "string":
            return rng.choice(of_format(self.texts(name), str(schema.get("format", ""))) or ["x"])
        return {"boolean": rng.random() < 0.5, "object": {}}.get(str(kind))

    def texts(self, name: str) -> list[str]:
        """Texts known under an argument's name: in ground truths, as keys of a table so called, as fields of rows; else any key."""
        if name not in self._texts:
            self._texts[name] = self._known(name)
        return self._texts[name]

    def _known(self, name: str) -> list[str]:
        found = dict.fromkeys(value for value in self._seen[name].values() if isinstance(value, str))
        stem = name.removesuffix("_id")
        for table, rows in self._tables.items():
            if table.startswith(stem):
                found.update(dict.fromkeys(rows))
            found.update({row[name]: None for row in rows.values() if isinstance(row.get(name), str)})
        return list(found) or [key for rows in self._tables.values() for key in rows]


def _tables(world: World) -> Mapping[str, Mapping[str, Any]]:
    """The rows of a world by table; of an adapted one those that its state holds, found by how they look."""
    if world.foreign is None:
        return world.shared.base.tables
    users = world.shared.base.tables.get("users", {})
    found, _ = tables_of(cleaned(world.fork().state.value), LONGEST_ROW)
    rows = {table.path[-1]: {key: row for key, row in table.rows.items() if isinstance(row, Mapping)} for table in found if table.path}
    return {"users": users, **rows}


@dataclass(frozen=True)
class Attempt:
    """What one call did: whether it was answered, the answer, the state hash after it; and what it has changed by then."""

    ok: bool
    content: str
    state_hash: str
    diff: str


def attempt(world: World, call: Call) -> Attempt:
    """The call on a fresh fork, after what led up to it."""
    fork = led_up(world, call)
    result = fork.call(call.action.name, call.action.arguments)
    return Attempt(result.ok, result.content, fork.state_hash(), fork.diff())


def led_up(world: World, call: Call) -> World:
    """A fresh fork after what led up to the call."""
    fork = world.fork()
    for action in call.before:
        fork.call(action.name, action.arguments)
    return fork
