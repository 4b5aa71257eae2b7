"""The objects of a world, each brought to the state in which a call needs it.

A keeper holds as many objects as there are calls side by side, or more where that saves work. Which object a conversation meets does
not matter to it: what it finds is its own state."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tasks.contract.params import BadInput
from tasks.worlds.adapters.copies import Copier, Kept, Live
from tasks.worlds.adapters.foreign_state import DIFF_LINES, Saved, SourceFailed
from tasks.worlds.adapters.plain_data import NotPlain, View
from tasks.worlds.adapters.state_content import Content, text_diff
from tasks.worlds.adapters.state_rows import StatesByRow

LIVE = 256
"""Objects that are kept at the state in which a call left them, where bringing one to another state costs as much as a new one; ours:
conversations in play at a time."""
_HELP = "Name it in leave_out=(...), or give snapshot= and restore=."


class Held(Protocol):
    """An object in a state, for one call. root: the object."""

    root: Any

    def after(self) -> Saved:
        """The state in which the call has left it. Raises BadInput for one that cannot be kept."""


class Keeper(Protocol):
    """Brings objects to states."""

    def first(self, root: Any) -> Saved:
        """The state of an object that was made just now. Raises BadInput for one that cannot be kept."""

    def at(self, saved: Saved, restored: bool) -> contextlib.AbstractContextManager[Held]:
        """An object in a state. Without `after` the call has left nothing. restored: False to leave what the object reaches alone."""

    def content(self, root: Any) -> Content:
        """What counts of an object's state; nothing is copied. Raises BadInput for what is no data."""

    def copied(self, start: Saved) -> str:
        """How a state is copied, in words."""


@contextlib.contextmanager
def _telling(where: str) -> Iterator[None]:
    try:
        yield
    except (NotPlain, ValueError) as error:  # the second: a number beyond what can be written
        raise BadInput(f"{where}: {error}. {_HELP}") from None
    except Exception as error:  # pickling runs code of the object's
        raise BadInput(
            f"{where}: its state cannot be copied ({error}). Keep connections, locks and local functions out of the object, or give "
            "snapshot= and restore=."
        ) from None


class Copies:
    """Objects that are copied by pickling them, row by row."""

    def __init__(self, where: str, view: View, parts: Callable[[Any], dict[str, Any]], by_row: bool = True) -> None:
        self._where, self._copier = where, Copier(view, by_row, parts)
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._free: list[Live] = []
        self._taking = threading.Lock()

    def first(self, root: Any) -> Saved:
        """Copied whole, once."""
        with _telling(self._where):
            kept = self._copier.start(root)
        return Saved(kept, kept.content)

    @contextlib.contextmanager
    def at(self, saved: Saved, restored: bool) -> Iterator[Held]:
        """One that is in the state already, or is brought to it, or a new one."""
        live = self._taken(saved.token)
        try:
            yield _Copy(self, live, saved)
        finally:
            with self._taking:
                self._free.append(live)

    def _taken(self, kept: Kept) -> Live:
        with self._taking:
            best = next((live for live in reversed(self._free) if live.at is kept and live.clean), None)
            if best is None and (kept.mostly_rows or len(self._free) >= LIVE):
                best = next(iter(self._free), None)
            if best is not None:
                self._free.remove(best)
        if best is None:
            return Live(kept)
        best.bring(kept)
        return best

    def after(self, live: Live, saved: Saved) -> Saved:
        """The state in which a call has left an object. Raises BadInput for one that cannot be kept."""
        with _telling(self._where):
            kept = self._copier.after(live)
        return saved if kept is saved.token else Saved(kept, kept.content)

    def copied(self, start: Saved) -> str:
        """How much row by row, and how much with every call."""
        kept: Kept = start.token
        rows, tied = sum(len(table.base) for table in kept.tables), len(kept.with_rest)
        found = f"{rows} rows of {len(kept.tables)} tables one by one" if kept.tables else "no large dict near the top"
        shared = f", {tied} rows that share objects with others and" if tied else ","
        return f"{found}{shared} {len(kept.rest):,} bytes of all else with every call"

    def content(self, root: Any) -> Content:
        """Looked at as a whole."""
        with _telling(self._where):
            return self._copier.whole(root)


class _Copy:
    def __init__(self, keeper: Copies, live: Live, saved: Saved) -> None:
        self._keeper, self._live, self._saved, self.root = keeper, live, saved, live.root
        live.clean = False

    def after(self) -> Saved:
        return self._keeper.after(self._live, self._saved)


class ByHand:
    """Objects whose state `snapshot` dumps and `restore` brings back."""

    def __init__(
        self,
        where: str,
        view: View,
        made: Callable[[], Any],
        snapshot: Callable[[Any], Any],
        restore: Callable[[Any, Any], None],
    ) -> None:
        self._where, self._states, self._made, self._snapshot, self._restore = where, StatesByRow(view), made, snapshot, restore
        self._live: dict[str, Any] = {}  # each step on it is atomic, so threads need no lock

    def first(self, root: Any) -> Saved:
        """As it is dumped."""
        return self.saved(self.dumped(root))

    def saved(self, token: str) -> Saved:
        """A state that was dumped."""
        with _telling(self._where):
            return Saved(token, self._states.content(json.loads(token)))

    def dumped(self, root: Any) -> str:
        """The state of an object."""
        try:
            return json.dumps(self._snapshot(root), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{self._where}: snapshot() must give JSON: {error}.") from None

    def copied(self, start: Saved) -> str:
        """As a whole: what snapshot gives is text."""
        return f"{len(start.token):,} characters that snapshot() gives, with every call"

    def content(self, root: Any) -> Content:
        """As it is dumped."""
        return self.first(root).content

    @contextlib.contextmanager
    def at(self, saved: Saved, restored: bool) -> Iterator[Held]:
        """One that a call left in the state, or a new one."""
        root = self._live.pop(saved.token, None)
        if root is None:
            root = self._made()
            if restored:
                self.bring(root, saved)
        elif restored:
            self.prove(root, saved, "another conversation has changed it, so objects share what stands behind them")
        yield _Restored(self, root, saved)

    def bring(self, root: Any, saved: Saved) -> None:
        """Restore a state in an object. Raises SourceFailed when it is in another one then."""
        self._restore(root, json.loads(saved.token))
        self.prove(root, saved, "restore() does not bring back all that snapshot() gave, or objects share what stands behind them")

    def prove(self, root: Any, saved: Saved, why: str) -> None:
        """Raise SourceFailed for an object that is not in the state of its conversation."""
        token = self.dumped(root)
        if token != saved.token and not (now := self.saved(token).content).same(saved.content):
            changed = text_diff(saved.content, now, DIFF_LINES).replace("\n", "; ")
            raise SourceFailed(
                f"{self._where}: an object is not in the state of the conversation that calls it ({changed}): {why}. Pass "
                "conversations='one_at_a_time', or 'own_process' when that is in globals of this process."
            )

    def keep(self, saved: Saved, root: Any) -> None:
        """An object is in this state."""
        self._live[saved.token] = root
        if len(self._live) > LIVE:
            self._live.pop(next(iter(self._live)), None)


class _Restored:
    def __init__(self, keeper: ByHand, root: Any, saved: Saved) -> None:
        self._keeper, self._saved, self.root = keeper, saved, root

    def after(self) -> Saved:
        token = self._keeper.dumped(self.root)
        after = self._saved if token == self._saved.token else self._keeper.saved(token)
        self._keeper.keep(after, self.root)
        return after
