"""A tool's call in a conversation that another framework plays, as `tasks.worlds.api.play` takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from tasks.contract.problem import Action, ToolResult
from tasks.worlds.api.calls import error
from tasks.worlds.api.play import TOOL_FAILURE

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World


class Playing(Protocol):
    """A conversation under way. calls: those that were made, with their answers. stop: why it is over, "" while it is not."""

    world: World
    calls: list[tuple[Action, ToolResult]]
    stop: str


def call(played: Playing, name: str, arguments: Any) -> str:
    """The answer of a tool, in the words of `World.call`; once the conversation is over every call is refused, and counts not."""
    if played.stop:
        return error("the conversation has ended").content
    tool = played.world.tools.get(name)
    action = Action(name, arguments, tool.kind if tool else "read")
    result = played.world.call(name, arguments)
    played.calls.append((action, result))
    if action.kind == "end" and result.ok:
        played.stop = "hand_over"
    elif not result.ok and result.content.startswith(TOOL_FAILURE):
        played.stop = "tool_error"
    return result.content
