"""A world class out of a source of tools and state: what `tasks.worlds.api.runtime` asks of a world, without decorators or tables.

The class can be subclassed, to give it what only its author knows: PERSONAS, TRAJECTORY_PREDICATES, SCRIPTS (scripted humans and
agents), context and propose (a problem generator).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tasks.contract.conventions import Conventions
from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import SPLITS, Action, Kind
from tasks.worlds.adapters import problem_file
from tasks.worlds.adapters.context import Reader, read
from tasks.worlds.adapters.foreign_state import Calls, ForeignState, Source
from tasks.worlds.adapters.schemas import notes
from tasks.worlds.api.conduct import gated
from tasks.worlds.api.problem_making import BY_WRITES, Excerpt
from tasks.worlds.api.state import Base, State, canonical_json
from tasks.worlds.api.tools import Tool

if TYPE_CHECKING:
    from tasks.contract.problem import Problem
    from tasks.worlds.api.runtime import World


@dataclass(frozen=True)
class Choice:
    """Which of the tools there are are offered, and what they do. tools: None for all. writes, ends: all others only read.
    produces: tool -> types of the ids in its answer (the edges of the API graph). where: how messages call the source."""

    tools: tuple[str, ...] | None
    writes: tuple[str, ...]
    ends: tuple[str, ...]
    produces: Mapping[str, tuple[str, ...]]
    where: str

    def names(self, known: Iterable[str]) -> tuple[str, ...]:
        """The tools that are offered, in their own order. Raises BadInput for a name that is not there."""
        known = tuple(known)
        offered = tuple(name for name in known if self.tools is None or name in self.tools)
        for word, names, among in (
            ("tools", self.tools or (), known),
            ("writes", self.writes, offered),
            ("ends", self.ends, offered),
            ("produces", tuple(self.produces), offered),
        ):
            for name in names:
                if name not in among:
                    raise BadInput(f"{self.where}: {word} names {name!r}.{nearest(name, among)} Tools: {', '.join(among) or 'none'}.")
        if not offered:
            raise BadInput(f"{self.where}: there is no tool to offer.")
        if len(offered) > MOST_TOOLS:
            raise BadInput(
                f"{self.where}: {len(offered)} tools would be offered, and {MOST_TOOLS} are the most, since hosted APIs take no more. "
                f"Name those to offer in tools, of {', '.join(offered[:_SHOWN])} and {len(offered) - _SHOWN} more."
            )
        return offered

    def kind(self, name: str) -> Kind:
        """What a tool does."""
        return "write" if name in self.writes else "end" if name in self.ends else "read"


MOST_TOOLS = 128
"""Tools of one world; ours: what hosted APIs take, and more than a model chooses well from."""
_SHOWN = 12
"""Names of tools that a message lists; ours."""
REPLAYED = 3
"""Given problems whose solutions are played again whenever a frozen world of objects is loaded; ours."""


def digest(text: str) -> str:
    """16 hex digits of a text."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Adapter:
    """What the runtime asks of an adapted world. users: path of the state's table of users, "" for none. lines: given problems.
    mistakes: what is wrong with the other lines of their file. people: the frozen table of those that splits go by."""

    source: Source
    users: str
    lines: tuple[tuple[int, problem_file.Line], ...]
    where: str
    mistakes: tuple[str, ...] = ()
    people: str = "users"
    _cache: dict[str, Any] = field(default_factory=dict)

    def tools(self) -> Mapping[str, Tool]:
        """The tools by name."""
        return self.source.tools()

    def place(self, name: str) -> str:
        """ "file:line" of a tool, or of what stands for it; "" when that is not known."""
        return self.source.place(name)

    def state(self, base: Base) -> ForeignState | State:
        """A state at the start: the source's own, where it keeps one (`tasks.worlds.adapters.tables`)."""
        own = getattr(self.source, "state", None)
        return own(base) if own else ForeignState(self.source, base)

    def tables(self) -> dict[str, Any]:
        """What is frozen: users (as named, or those of the given problems, or the rows that the state is about), given problems, and
        what the source wants kept."""
        kept: dict[str, Any] = self.source.tables()
        problems = problem_file.rows(self.lines)
        users: dict[str, Any] = {row["user"]: {} for row in problems.values()}
        if self.users or not problems:
            users = self.reader(Base(kept)).users
        strangers = {key: row["user"] for key, row in problems.items() if row["user"] not in users}
        self._cache["mistakes"] = [
            *self.mistakes,
            *(
                f"{self.where} line {int(key)}: user {user!r} is not in {self.users}.{nearest(user, users)}"
                for key, user in strangers.items()
            ),
            *problem_file.torn(problems, self.where),
        ]
        if len(users) < len(SPLITS):  # which nobody could split; the lines that are wrong say why
            problem_file.refuse(self._cache["mistakes"])
        return {self.people: users, problem_file.TABLE: {key: row for key, row in problems.items() if key not in strangers}, **kept}

    def splits(self, tables: Mapping[str, Any]) -> dict[str, str]:
        """user -> split, of those whose given problems name one. tables: the frozen ones."""
        return problem_file.splits(tables[problem_file.TABLE])

    def prove(self, world: World) -> None:
        """Tell what is not checked as the tools' schemas say. Raise BadInput for the given problems that do not work, all at once."""
        for name, note in notes(world.tools):
            logging.getLogger(__name__).warning("%s: tool %r: %s.", self.where, name, note)
        problem_file.refuse([*self._cache.get("mistakes", self.mistakes), *problem_file.prove(world, self.where)])

    def behaviour(self, world: World) -> dict[str, dict[str, str]]:
        """What a world does, as digests: of the code of its tools, where it is Python of this process, and of what the solutions of its
        first given problems are answered and leave."""
        codes: Callable[[], dict[str, str]] | None = getattr(self.source, "codes", None)
        if codes is None:
            return {}
        answers = {}
        for key, row in problem_file.rows(self.lines[:REPLAYED]).items():
            replay = world.replay([Action(one["name"], one["arguments"], world.tools[one["name"]].kind) for one in row["actions"]])
            answers[f"line {int(key)}"] = digest(canonical_json([[one.content for one in replay.results], replay.state_hash]))
        return {"tool": codes(), "problem": answers}

    def compare(self, world: World, about: Mapping[str, Any], schemas: Any, folder: Path) -> None:
        """Raise BadInput when what was frozen is not what is there now: the code behind an adapter is not all in the world's hash.
        about: what was frozen."""
        again = "Run the step that froze it again."
        for what, same in (("tools", world.schemas() == schemas), ("start", world.state_hash() == about.get("start"))):
            if not same:
                raise BadInput(f"{folder}: the {what} of {self.where} changed since it was frozen. {again}")
        if "behaviour" in about:
            now = self.behaviour(world)
            for kind, known in about["behaviour"].items():
                if names := [name for name, value in known.items() if now.get(kind, {}).get(name) != value]:
                    does = "the code" if kind == "tool" else "what is answered to the solution, or the state that it leaves,"
                    raise BadInput(
                        f"{folder}: {does} of {kind} {', '.join(names)} of {self.where} changed since it was frozen. {again}"
                    )

    def of_split(self, world: World, split: str) -> list[Problem]:
        """All given problems of a split, in the order of their lines."""
        return problem_file.of_split(world, split)

    def problems(self, world: World, split: str, count: int, seed: int, families: Sequence[str]) -> list[Problem]:
        """Given problems; see `problem_file.draw`."""
        return problem_file.draw(world, split, count, seed, families, self.where)

    def reader(self, base: Base) -> Reader:
        """The state at the start, read once. Raises BadInput when it has no table of users where one is named."""
        text = self.source.start(base).text
        if self._cache.get("text") != text:
            self._cache.update(text=text, reader=read(text, self.users, self.where))
        found: Reader = self._cache["reader"]
        return found

    def context(self, world: World, users: Sequence[str], excerpt: Excerpt, rng: Random) -> tuple[str, dict[str, Any]]:
        """(one of these users, what a generator is given of them): the row, an excerpt of the state around it, the problems given for
        them, and where it is so why this user was chosen and what did not fit."""
        reader, problems = self.reader(world.shared.base), self._problems_of(world.shared.base)
        roots = {user: reader.links.people.get(user, self._about(reader, user, problems)) for user in users}
        user, rows, reason = reader.choose(roots, world.policy, excerpt, rng)
        root = roots[user]
        if root is None and reader.links.people:
            root = reader.links.people[reader.anybody(reader.links.people, rng)]
        shown = reader.show(root, rows, excerpt.tokens, rng)
        more = {"chosen_because": reason, "left_out": dict(shown.left_out)}
        found = {
            "user": shown.user,
            "state": shown.state,
            "given": problems.get(user, []),
            **{name: value for name, value in more.items() if value},
        }
        return user, json.loads(json.dumps(found))

    def _problems_of(self, base: Base) -> dict[str, list[Any]]:
        """User -> the problems given for them, as JSON."""
        if self._cache.get("given of") is not base:
            found: dict[str, list[Any]] = defaultdict(list)
            for row in base.tables.get(problem_file.TABLE, {}).values():
                found[row["user"]].append(json.loads(json.dumps(dict(row))))  # frozen rows hold tuples
            self._cache.update({"given": found, "given of": base, "about": {}})
        known: dict[str, list[Any]] = self._cache["given"]
        return known

    def _about(self, reader: Reader, user: str, problems: Mapping[str, list[Any]]) -> int | None:
        """The root row that a lineage's given problems are about; None for a lineage without any."""
        known: dict[str, int | None] = self._cache["about"]
        if user in problems and user not in known:
            known[user] = reader.about(problems[user])
        return known.get(user)


def adapted(
    source: Source,
    *,
    name: str,
    policy: str,
    users: str,
    problems_file: Path | str | Sequence[problem_file.Line] | None,
    writes: Container[str],
    where: str,
    conventions: Conventions | None = None,
    people: str = "users",
) -> type[Any]:
    """The world class. problems_file: or the problems themselves. people: name of the frozen table of those that splits go by. Raises
    BadInput for a problems file that cannot be read; what is wrong in it is told when the world is built."""
    if isinstance(problems_file, Path | str):
        lines, mistakes = problem_file.read(Path(problems_file))
        where = str(problems_file)
    else:
        lines, mistakes = tuple(enumerate(problems_file or (), 1)), ()
    adapter = Adapter(source, users, lines, where, mistakes, people)
    families = problem_file.families(lines, writes)

    def tables(size: int, seed: int) -> dict[str, Any]:
        """The frozen tables; neither size nor seed enters, since the source has one start."""
        return adapter.tables()

    def propose(context: Mapping[str, Any], rng: Random, walk: Sequence[str] | None, family: str | None) -> dict[str, Any]:
        """A given problem of the user: of the family, or one that holds the walk's last tool; {} when there is none."""
        wanted = [
            row
            for row in context["given"]
            if (family is None or problem_file.family_of(row, writes) == family)
            and (not walk or walk[-1] in [action["name"] for action in row["actions"]])
        ]
        return {"thought": "a given problem", **rng.choice(wanted)} if wanted else {}

    space: dict[str, Any] = {
        "__doc__": f"The adapted world {name}.",
        "__new__": _code,
        "NAME": name,
        "POLICY": policy,
        "USERS": people,
        "FOREIGN": adapter,
        "CONVENTIONS": conventions or Conventions(),
        "FAMILIES": families,
        "WRITE_FAMILIES": tuple(family for family in families or BY_WRITES if family in BY_WRITES[1:]),
        "BLUEPRINT_PREDICATES": {"gated": gated},
        **{function.__name__: staticmethod(function) for function in (tables, propose)},
    }
    return type("".join(word.title() for word in name.split("_")) or "World", (), space)


def _code(cls: type, db: Any) -> Calls:
    return Calls(db)
