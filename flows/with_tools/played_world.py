"""The world of one conversation as the loop that plays it sees it (`tasks.worlds.api.play`): its calls are made on what is real."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flows.with_tools import guard
from flows.with_tools.backend import Backend, BackendLost, Calls, Late
from tasks.contract.problem import Action, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.contract.values import unfit
from tasks.worlds.api import calls
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Refused, Tool


@dataclass
class Called:
    """What came of a call that could be made. made: whether it was. blocked_by: rule -> why not, of a write. unknown: whether it took
    effect nobody knows."""

    tool: str
    kind: str
    made: bool = False
    ok: bool = False
    blocked_by: dict[str, str] = field(default_factory=dict)
    unknown: bool = False
    seconds: float = 0.0


class PlayedWorld:
    """most: calls a turn of the human's; more are answered by an error."""

    copies, waits = False, False

    def __init__(self, world: World, backend: Calls, played: Trajectory, most: int) -> None:
        self._world, self._calls, self.played, self._most = world, backend, played, most
        self.name, self.policy, self.setting, self.tools = world.name, world.policy, world.setting, world.tools
        self.conventions = world.conventions
        self._past = guard.Past()
        self.called: dict[int, Called] = {}
        self.left = most

    def schemas(self) -> list[dict[str, Any]]:
        """The tools as OpenAI's API has them."""
        return self._world.schemas()

    def fork(self) -> PlayedWorld:
        """Itself: there is one."""
        return self

    def grade(self, played: Trajectory, final: Any) -> None:
        """None: nobody knows what should have come of it. `cairn regrade` grades where the problem is known."""

    def call(self, name: str, arguments: Any) -> ToolResult:
        """Make a call that the policy allows; a write that it forbids is answered with the rules. Raises BackendLost."""
        tool = self.tools.get(name) if type(name) is str else None
        if self.left <= 0:
            return calls.error(f"at most {self._most} tool calls are made before you answer the user; answer now")
        self.left -= 1
        if tool is None:
            return calls.unknown(name, self.tools)
        try:
            if mistake := unfit(arguments):
                raise Refused(mistake)
            tool.validate(arguments)
        except Refused as refusal:  # it changes nothing and breaks no rule
            return calls.error(str(refusal))
        return self._made(tool, Action(name, arguments, tool.kind))

    def _made(self, tool: Tool, action: Action) -> ToolResult:
        number, began = len(self.played.calls), time.monotonic()
        record = self.called[number] = Called(action.name, action.kind, unknown=True)
        before: list[Any] = []
        writes = action.kind == "write"
        try:
            result, record.blocked_by = self._calls.run(action.name, functools.partial(self._checked, tool, action, before))
            record.unknown, record.made = False, not record.blocked_by
        except Late as late:
            result, record.made = calls.error(str(late)), late.begun
            record.unknown = late.begun and writes
        finally:
            record.seconds = round(time.monotonic() - began, 3)
        record.ok = result.ok
        if writes and before:
            self._past.writes.append(guard.Write(action, self._calls.backend.packed(before[0]), result))
        return result

    def _checked(
        self, tool: Tool, action: Action, before: list[Any], backend: Backend, begin: Callable[[], None]
    ) -> tuple[ToolResult, dict[str, str]]:
        """In the backend's thread, where nothing comes between check and call. A look-up is made anyway; what it broke is noted."""
        number, judge = len(self.played.calls), functools.partial(guard.broken, self._world, backend, self._past, self.played)
        if action.kind == "write":
            state = _read(backend)
            if broken := judge((action, guard.NONE), lambda: _usable(state)):
                told = "; ".join(f"{rule}: {why}" for rule, why in broken.items())
                return calls.error(f"the policy forbids it, and nothing was changed. {told}"), broken
            begin()
            before.append(state)
            self._past.made[number] = frozenset()
            return backend.call(tool, action.arguments), {}
        begin()
        result = backend.call(tool, action.arguments)
        self._past.made[number] = frozenset(judge((action, result), backend.state))
        return result, {}


def _read(backend: Backend) -> Any:
    """The present state, or the error that keeps it from being read: a predicate that does not look at it needs none."""
    try:
        return backend.state()
    except BackendLost:
        raise
    except Exception as error:  # told by whichever predicate looks
        return error


def _usable(state: Any) -> Any:
    if isinstance(state, Exception):
        raise state
    return state
