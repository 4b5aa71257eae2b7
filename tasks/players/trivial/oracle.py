"""`Oracle`: plays a problem's ground truth. The gate that every problem must pass, and the upper line of every benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.contract.agent import Turn, World
from tasks.contract.client import Message
from tasks.contract.problem import Action, Problem


class Oracle:
    """Says the outputs, makes the calls of the ground truth one a turn, and closes. It alone among agents sees the problems.

    problems: in the order of the jobs that are played; `tasks.worlds.api.play.play` names a conversation by its place in that
    order. The outputs come first, because a hand-over ends the conversation.
    """

    name = "oracle"
    capacity = 256

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._problems = problems
        self._owed: dict[str, Turn] = {}

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Owe the next turn: which one follows from the turns in `messages`."""
        self._owed[conversation] = Turn(_turn(self._problems[int(conversation)], messages))

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Nothing: what is next stands in the messages."""

    def poll(self) -> list[tuple[str, Turn]]:
        """Every turn that is owed, in the order in which they were sent."""
        owed, self._owed = self._owed, {}
        return list(owed.items())

    def close(self, conversation: str) -> None:
        """Forget the conversation."""
        self._owed.pop(conversation, None)


def script(problem: Problem) -> list[Action]:
    """The ground truth and the required calls that it lacks; a call that ends the conversation last."""
    calls = list(problem.actions)
    calls += [action for action in problem.required if action not in calls]
    return sorted(calls, key=lambda action: action.kind == "end")


def _turn(problem: Problem, messages: Sequence[Message]) -> Message:
    calls = script(problem)
    done = sum(message["role"] == "assistant" for message in messages)
    outputs = ". ".join(problem.outputs)
    if outputs and done == 0:
        return {"role": "assistant", "content": f"{outputs}. One moment."}
    done -= bool(outputs)
    if done >= len(calls):
        return {"role": "assistant", "content": "Done. Anything else?"}
    function = {"name": calls[done].name, "arguments": dict(calls[done].arguments)}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": f"call_{done}", "type": "function", "function": function}]}
