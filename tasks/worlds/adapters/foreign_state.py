"""State that a world does not keep in tables: what an adapter must offer, and the state of one fork of it.

A source is used as if it were a function: `call(saved, tool, arguments)` gives the answer and the state after it, and `saved` stays
what it was. So fork, reset, snapshot and restore are assignments, however the source holds its things, and a call that fails has
changed nothing. Objects and servers behind a source are brought to the wanted state when a call needs them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.contract.problem import Kind
from tasks.worlds.adapters.context_tables import rows_at
from tasks.worlds.adapters.state_content import Content, text_diff
from tasks.worlds.api.state import Base
from tasks.worlds.api.tools import Tool, Unreachable

DIFF_LINES = 4
"""Lines of a difference in a message; ours."""


@dataclass(frozen=True, eq=False)
class Saved:
    """A state. token: what the source restores it from, its own matter. content: what counts of it, hashed, compared and shown."""

    token: Any
    content: Content

    @property
    def text(self) -> str:
        """What counts of it, as canonical JSON."""
        return self.content.text


class SourceFailed(RuntimeError):
    """A tool could not run, or broke what its world says of it: nothing the agent did. The message names tool and remedy."""


class SourceDown(SourceFailed, Unreachable):
    """A source that no call of any conversation reaches, until a person has done something about it."""


def down(failure: SourceFailed) -> SourceDown:
    """The same failure, of which it is known that every other call would meet it."""
    found = SourceDown(*failure.args)
    for note in getattr(failure, "__notes__", ()):
        found.add_note(note)
    return found


class Source(Protocol):
    """Something with tools and a state of its own."""

    def tools(self) -> Mapping[str, Tool]:
        """Every tool by name. Raises BadInput for tools that cannot be offered."""

    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What is frozen of it with the world, as tables; {} when the code makes its start."""

    def start(self, base: Base) -> Saved:
        """The state that every fork starts from. base: the frozen tables. Raises BadInput when there is none."""

    def place(self, name: str) -> str:
        """ "file:line" of a tool, or of what stands for it; "" when that is not known."""

    def call(self, saved: Saved, name: str, arguments: dict[str, Any], kind: Kind | None) -> tuple[Any, Saved]:
        """Run a tool in a state; its answer (text or JSON) and the state after it. Raises Refused, SourceFailed, or
        SourceDown."""

    def protected(self, name: str) -> str:
        """Why play must not call this tool, which is no read: what stands behind it was not declared disposable; "" when it may."""

    def unmet(self) -> dict[str, tuple[str, ...]]:
        """The patterns of what does not count that nothing in any state has fitted so far, by where they are declared."""

    def kept_apart(self) -> str:
        """What to declare for conversations that see each other's changes."""

    def real(self) -> Real:
        """What `cairn serve --with-tools` calls, opened now. Raises BadInput when there is none that has all of the tools."""


class Real(Protocol):
    """The thing itself, called and never set back.

    where: what it is, for people. lost: why it can be called no more, "" while it can; it is set when a call fails for that reason.
    """

    where: str
    lost: str

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """What a tool answers: text or JSON. Raises Refused when it says no, SourceFailed when it or its server fails. What it has
        changed by then stays changed."""

    def state(self) -> Saved:
        """What it holds now; the token is None. Raises SourceFailed when that cannot be read."""

    def close(self) -> None:
        """End what was started for it."""


class ForeignState:
    """The state of one fork of an adapted world; `tasks.worlds.api.state.State` for tables."""

    __slots__ = ("_before", "_kind", "_source", "_start", "base", "saved")

    def __init__(self, source: Source, base: Base) -> None:
        self.base = base
        self.saved = self._start = self._before = source.start(base)
        self._source = source
        self._kind: Kind | None = None

    @property
    def value(self) -> Any:
        """What counts of the state, as JSON."""
        return json.loads(self.saved.text)

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run a tool. Raises SourceFailed for one that could change what was not declared disposable, and when one that is no write
        changed the state.
        """
        if self._kind != "read" and (why := self._source.protected(name)):
            raise SourceFailed(f"tool {name!r} was not called: {why}")
        answer, after = self._source.call(self.saved, name, arguments, self._kind)
        if self._kind not in (None, "write") and not after.content.same(self.saved.content):
            changed = text_diff(self.saved.content, after.content, DIFF_LINES).replace("\n", "; ")
            raise SourceFailed(
                f"tool {name!r} is not declared to write and changed the state ({changed}). Name it in 'writes', or name what it "
                "changed in 'leave_out'."
            )
        self.saved = after
        return answer

    def begin(self, kind: Kind) -> None:
        """A tool of this kind runs until `finish`."""
        self._kind, self._before = kind, self.saved

    def finish(self, keep: bool) -> None:
        """The tool has ended; keep what it changed, or take it back."""
        self._kind = None
        if not keep:
            self.saved = self._before

    def reset(self) -> None:
        """Back to the start."""
        self.saved = self._start

    def snapshot(self) -> Saved:
        """An immutable value that `restore` takes, in any fork."""
        return self.saved

    def restore(self, snapshot: Saved) -> None:
        """Back to a snapshot."""
        self.saved = snapshot

    def rows(self, table: str) -> list[tuple[str, Any]]:
        """All rows of the table at a dotted path, by key; [] when there is none."""
        return list(_rows(self.saved.content, table).items())

    def get(self, table: str, key: str) -> Any:
        """A row, None when there is none."""
        return _rows(self.saved.content, table).get(key)

    def find(self, table: str, **fields: Any) -> list[str]:
        """Keys of the rows with these fields. A key is text, so that 7 in a field means the row "7"."""
        rows = [(key, row) for key, row in self.rows(table) if isinstance(row, dict)]
        return [key for key, row in rows if all(str(row.get(name)) == str(value) for name, value in fields.items())]

    def hash(self) -> str:
        """The canonical hash, 64 hex digits, over the frozen tables and the state."""
        content = f"{self.base.total():064x}{self.saved.content.number:064x}"
        return hashlib.blake2b(content.encode(), digest_size=32).hexdigest()

    def diff(self) -> str:
        """The changes as text, one line per place: '- ' the start, '+ ' now."""
        return text_diff(self._start.content, self.saved.content)


@functools.lru_cache(maxsize=64)
def _rows(content: Content, table: str) -> dict[str, Any]:
    path = tuple(table.split("."))
    wanted = {path: content.tables[path].keys()} if path in content.tables else None
    return rows_at(content.value(wanted), path)


class Calls:
    """What the runtime takes for a world's code: every name is a tool of the source, but Python's own."""

    __slots__ = ("_state",)

    def __init__(self, state: ForeignState) -> None:
        object.__setattr__(self, "_state", state)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            return object.__getattribute__(self, name)
        state: ForeignState = object.__getattribute__(self, "_state")
        return lambda **arguments: state.call(name, arguments)
