"""Worlds out of an API whose state is tables of rows, table -> key -> row, as the databases of benchmarks are: `from_tables`.

The rows are frozen with the world. A fork keeps the rows that changed, as a world of Cairn's own does (`tasks.worlds.api.state`): fork,
reset, snapshot and hash cost the changed rows and a call what the tool looks at, however large the tables are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, MutableMapping, Sequence, ValuesView
from pathlib import Path
from typing import Any, NoReturn

from tasks.contract.conventions import Conventions
from tasks.contract.params import BadInput
from tasks.contract.problem import Kind
from tasks.worlds.adapters.adapted import Choice, adapted
from tasks.worlds.adapters.foreign_state import Real, Saved
from tasks.worlds.adapters.problem_file import Line
from tasks.worlds.adapters.schemas import tool_of_schema
from tasks.worlds.adapters.state_content import Content
from tasks.worlds.api.places import place
from tasks.worlds.api.state import Base, State, canonical_json
from tasks.worlds.api.tools import Refused, Tool

LINEAGES = "lineages"
"""The table of whom the given problems are about, which splits go by: the API may well have a table of users of its own."""

Call = Callable[[Mapping[str, Any], str, dict[str, Any]], Any]
"""call(tables, tool, arguments) -> the answer, text or JSON; what it raises is a refusal."""


def from_tables(
    tables: Callable[[], Mapping[str, Mapping[str, Mapping[str, Any]]]],
    call: Call,
    listed: Sequence[Mapping[str, Any]],
    *,
    name: str,
    policy: str,
    tools: Iterable[str] | None = None,
    writes: Iterable[str] = (),
    ends: Iterable[str] = (),
    produces: Mapping[str, Iterable[str]] | None = None,
    problems: Sequence[Line] | Path | str = (),
    conventions: Conventions | None = None,
) -> type[Any]:
    """A world class over functions that are given tables.

    tables:   gives the rows that every conversation starts from, as JSON values.
    call:     runs a tool. It gets copies of the rows that it looks up; one that writes may change them in place, add and delete
              rows. Where a tool that only reads walks through a whole table (`values`, `items`), rows cannot be changed, and have
              tuples for arrays.
    listed:   the tools as an MCP server lists them: name, description, inputSchema.
    tools, writes, ends, produces, conventions: as for `from_object`.
    problems: given problems (`tasks.worlds.adapters.problem_file`), or the file that holds them.

    Raises BadInput for tools that cannot be offered, here or when the world is built.
    """
    made = {tool: tuple(kinds) for tool, kinds in (produces or {}).items()}
    choice = Choice(None if tools is None else tuple(tools), tuple(writes), tuple(ends), made, f"world {name}")
    source = Tables(tables, call, {str(tool["name"]): tool for tool in listed}, choice)
    cls = adapted(
        source,
        name=name,
        policy=policy,
        users="",
        problems_file=problems,
        writes=choice.writes,
        where=choice.where,
        conventions=conventions,
        people=LINEAGES,
    )
    cls.__new__ = lambda _, db: Tools(source, db)  # type: ignore[assignment]
    return cls


class Tables:
    """A `Source` whose state is the runtime's own."""

    def __init__(self, tables: Callable[[], Any], call: Call, listed: Mapping[str, Mapping[str, Any]], choice: Choice) -> None:
        self._tables, self._call, self._listed, self._choice = tables, call, listed, choice

    @functools.cached_property
    def rows(self) -> Mapping[str, Any]:
        """The rows that every conversation starts from."""
        return self._tables()

    def tools(self) -> Mapping[str, Tool]:
        """The tools that are offered, by name. Raises BadInput for those that cannot be."""
        return self._made

    @functools.cached_property
    def _made(self) -> Mapping[str, Tool]:
        choice = self._choice
        return {
            name: tool_of_schema(
                name,
                self._listed[name]["description"],
                self._listed[name]["inputSchema"],
                choice.kind(name),
                choice.produces.get(name, ()),
                f"tool {name!r} of {choice.where}",
            )
            for name in choice.names(self._listed)
        }

    def place(self, name: str) -> str:
        """Where the function stands that runs the tools."""
        return place(self._call)

    def protected(self, name: str) -> str:
        """Nothing is protected: a tool gets copies."""
        return ""

    def tables(self) -> dict[str, Any]:
        """The rows, which are frozen with the world."""
        return dict(self.rows)

    def start(self, base: Base) -> Saved:
        """The rows as JSON, for what shows the state; play never asks."""
        return self._start

    @functools.cached_property
    def _start(self) -> Saved:
        return Saved(None, Content(canonical_json(self.rows)))

    def state(self, base: Base) -> State:
        """A state at the start."""
        return State(base)

    def call(self, saved: Saved, name: str, arguments: dict[str, Any], kind: Kind | None) -> NoReturn:
        """Never called: `run` works on the runtime's own state."""
        raise NotImplementedError

    def run(self, state: State, name: str, arguments: dict[str, Any]) -> Any:
        """What a tool answers; what it changed is in the state afterwards. Raises Refused with what it raised."""
        view = View(state, self.rows, self._choice.kind(name) == "write")
        try:
            answer = self._call(view, name, arguments)
        except Exception as error:  # the edge to the API's own code: what it raises is its answer
            raise Refused(str(error) or type(error).__name__) from None
        view.keep()
        return answer

    def unmet(self) -> dict[str, tuple[str, ...]]:
        """Nothing is declared."""
        return {}

    def kept_apart(self) -> str:
        """Nothing is to be declared: conversations have rows of their own."""
        return ""

    def real(self) -> Real:
        """Raises BadInput: the tables are all there is."""
        raise BadInput(f"{self._choice.where} is made of tables: nothing real stands behind its tools that could be served.")


class Tools:
    """What the runtime takes for the world's code: every name is a tool, but Python's own."""

    __slots__ = ("_source", "_state")

    def __init__(self, source: Tables, state: State) -> None:
        self._source, self._state = source, state

    def __getattr__(self, name: str) -> Any:
        return lambda **arguments: self._source.run(self._state, name, arguments)


class View(Mapping[str, Any]):
    """The tables as one call sees them. names: of the API's tables. writes: whether what the call does to rows is kept."""

    def __init__(self, state: State, names: Iterable[str], writes: bool) -> None:
        self._tables = {name: _Table(state, name, writes) for name in names}

    def __getitem__(self, name: str) -> MutableMapping[str, Any]:
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def keep(self) -> None:
        """Take over what was changed."""
        for table in self._tables.values():
            table.keep()


class _Table(MutableMapping[str, Any]):
    """One table in one call; see `View`. For a tool that writes a row is copied once, and what becomes of the copy is kept."""

    def __init__(self, state: State, name: str, writes: bool) -> None:
        self._state, self._name, self._writes = state, name, writes
        self._copies: dict[str, Any] = {}
        self._gone: set[str] = set()

    def __contains__(self, key: object) -> bool:
        if type(key) is not str or key in self._gone:
            return False
        return key in self._copies or self._state.get(self._name, key) is not None

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(key)
        if key in self._copies:
            return self._copies[key]
        copied = thawed(self._state.get(self._name, key))
        if self._writes:
            self._copies[key] = copied
        return copied

    def __setitem__(self, key: str, row: Any) -> None:
        self._copies[key] = row
        self._gone.discard(key)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._copies.pop(key, None)
        self._gone.add(key)

    def items(self) -> ItemsView[str, Any]:
        """All (key, row) pairs."""
        return super().items() if self._writes else dict(self._state.rows(self._name)).items()

    def values(self) -> ValuesView[Any]:
        """All rows."""
        return super().values() if self._writes else dict(self._state.rows(self._name)).values()

    def __iter__(self) -> Iterator[str]:
        known = [key for key, _ in self._state.rows(self._name) if key not in self._gone]
        return iter(dict.fromkeys([*known, *self._copies]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def keep(self) -> None:
        """Put copies and new rows into the state; delete what was deleted. PermissionError for a tool that only reads and did."""
        for key, row in self._copies.items():
            self._state.put(self._name, key, row)
        for key in self._gone:
            self._state.remove(self._name, key)


def thawed(value: Any) -> Any:
    """A frozen value as JSON that may be changed."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    return [thawed(item) for item in value] if type(value) is tuple else value
