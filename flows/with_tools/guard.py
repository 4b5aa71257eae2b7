"""The policy's predicates before each write, over the conversation so far with the write in it, and the state as it is.

In training a world's predicates judge a whole conversation afterwards, from the state it began in. Here each write is judged by itself:

- Each write that was made before is shown with the state in which it was really made (`AsItIs`), and the one that is to be made with
  the present one, whatever others have written meanwhile.
- A rule is asked about the calls that were made, without those that broke it: a call that was refused or blocked changed nothing, and
  a look-up that broke a rule is past. So a rule speaks about this write, and one mistake does not forbid all that follows.
- A predicate that fails blocks: nobody knows then whether its rule holds.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flows.with_tools.backend import Backend, BackendLost
from tasks.contract.problem import Action, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.worlds.api.grading import readable
from tasks.worlds.api.runtime import World

Call = tuple[Action, ToolResult]
NONE = ToolResult(True, "")
"""In place of the answer of a call that was not made."""
OF_THE_FROZEN = ("call", "replay", "grade", "reset", "restore", "snapshot", "state_hash", "diff")
"""What a predicate may not ask of its world: it would speak of the tables that were frozen, or of a real thing's beginning."""


@dataclass(frozen=True)
class Write:
    """One that was made. before: the state before it, packed."""

    action: Action
    before: Any
    result: ToolResult


@dataclass
class Past:
    """What a conversation's writes are judged by. made: places of the calls that reached the backend -> the rules that they broke."""

    writes: list[Write] = field(default_factory=list)
    made: dict[int, frozenset[str]] = field(default_factory=dict)


def broken(world: World, backend: Backend, past: Past, played: Trajectory, call: Call, now: Callable[[], Any]) -> dict[str, str]:
    """The rules that a call breaks: rule -> why. played: the conversation up to the call, which stands in its last message. call: with
    its answer, of a write that is to be made NONE. now: gives the present state. Raises BackendLost."""
    seen = AsItIs(world, backend, past.writes, call[0], functools.cache(now))
    calls = [*played.calls, call]
    found = {}
    shown: dict[frozenset[int], Trajectory] = {}
    for rule, predicate in world.trajectory_predicates.items():
        left_out = frozenset(place for place in range(len(played.calls)) if rule in past.made.get(place, frozenset({rule})))
        judged = readable(without(replace(played, calls=calls), left_out))
        if shown.get(left_out) != judged:  # what a predicate does to it is done to no call that is to be made, and seen by no other
            shown[left_out] = copy.deepcopy(judged)
        try:
            reason = predicate(shown[left_out], seen)  # type: ignore[arg-type]
        except BackendLost:
            raise
        except Exception as error:  # code of the world's author
            reason = f"whether it holds is not known, since its predicate failed: {type(error).__name__}: {error}"
        if reason is not None:
            found[rule] = reason
    return found


def without(played: Trajectory, left_out: Collection[int]) -> Trajectory:
    """A conversation without some of its calls and their answers."""
    if not left_out:
        return played
    messages: list[dict[str, Any]] = []
    called, answered = itertools.count(), itertools.count()
    for message in played.messages:
        if message["role"] == "tool":
            messages += [message] if next(answered) not in left_out else []
        elif message.get("tool_calls"):
            kept = [call for call in message["tool_calls"] if next(called) not in left_out]
            messages += [{**message, "tool_calls": kept}] if kept else []
        else:
            messages.append(message)
    return replace(played, messages=messages, calls=[one for place, one in enumerate(played.calls) if place not in left_out])


class AsItIs:
    """A world as its predicates see it: what they fork is at the state before this conversation's first write, and gets along by the
    writes that were made."""

    def __init__(self, world: World, backend: Backend, writes: Sequence[Write], pending: Action, now: Callable[[], Any]) -> None:
        self._world, self._backend, self._writes, self._pending, self._now = world, backend, tuple(writes), pending, now

    def __getattr__(self, name: str) -> Any:
        if name in OF_THE_FROZEN:
            raise LookupError(
                f"a predicate has used world.{name}, which knows nothing of what is real; world.state and world.fork() do"
            )
        return getattr(self._world, name)

    @property
    def state(self) -> Any:
        """At the beginning."""
        return self.fork().state

    def fork(self) -> Forked:
        """At the beginning."""
        return Forked(self._backend, self._writes, self._pending, self._now)


class Forked:
    """What a predicate forked off."""

    def __init__(self, backend: Backend, writes: Sequence[Write], pending: Action, now: Callable[[], Any]) -> None:
        self._backend, self._writes, self._pending, self._now, self._made = backend, writes, pending, now, 0
        self._tried: World | None = None

    @property
    def state(self) -> Any:
        """As it was before the write that comes next, in the end as it is."""
        return self._tried.state if self._tried is not None else self._backend.seen(self._at())

    def _at(self) -> Any:
        return self._writes[self._made].before if self._made < len(self._writes) else self._now()

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """The answer that a write had. Of any other call, in a world of tables, what it would be."""
        if self._tried is None and self._made < len(self._writes):
            made = self._writes[self._made]
            if (made.action.name, made.action.arguments) == (name, arguments):
                self._made += 1
                return made.result
        if self._tried is None:
            self._tried = self._backend.copy(self._at())
        if self._tried is not None:
            return self._tried.call(name, arguments)
        if (name, arguments) == (self._pending.name, self._pending.arguments):
            return NONE
        raise LookupError(f"a predicate has called {name}, which is for the agent alone: what is real is not tried out")
