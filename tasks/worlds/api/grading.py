"""The one grading of a conversation, in four parts (APIGen-MT section 3.1; tau-bench's reward): `grade`.

state:    the conversation left the state that the ground truth leaves (equal hashes, `tasks.worlds.api.state`). 1, with empty hashes,
          in a world whose state nobody reads: there the writes of the ground truth are required calls.
outputs:  every expected output was said to the user.
required: every required call succeeded.
policy:   the share of the world's trajectory predicates that hold, and the names of those that do not.

Departures from tau-bench: 1. both sides of the output check become words in one form (`tasks.contract.wording`), so "5" is not found in
"15", "1,234" equals "1234.0", and "Mänchen" is not "München". 2. The ground truth is replayed on a fresh fork, never on the live world.
3. Required calls and policy predicates are parts of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.contract.problem import Action
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.contract.values import canonical, unfit
from tasks.contract.wording import says

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World


class TruthRefused(ValueError):
    """The world refuses a problem's ground truth, so there is no state that should have been."""


def grade(trajectory: Trajectory, world: World, final_state_hash: str, wanted_state_hash: str) -> Outcome:
    """Grade a conversation that ended in one state and should have ended in the other. A part that changes gets a new version
    in `tasks.contract.trajectory.GRADING`.

    Predicates see calls with arguments that are JSON objects: what is none was refused, and stands there as {}.
    """
    trajectory = readable(trajectory)
    predicates = world.trajectory_predicates
    broken = tuple(rule for rule, breach in predicates.items() if breach(trajectory, world) is not None)
    return Outcome(
        state=int(final_state_hash == wanted_state_hash),
        outputs=int(outputs_stated(trajectory)),
        required=int(required_called(trajectory)),
        policy=(len(predicates) - len(broken)) / len(predicates) if predicates else 1.0,
        broken=broken,
        final_state_hash=final_state_hash,
        wanted_state_hash=wanted_state_hash,
    )


def readable(trajectory: Trajectory) -> Trajectory:
    """The conversation, with {} for the arguments of calls that no world takes: model output can nest without end or hold 1e999."""
    if not any(unfit(action.arguments) for action, _ in trajectory.calls):
        return trajectory
    calls = [(replace(action, arguments=_fit(action.arguments)), result) for action, result in trajectory.calls]
    return replace(trajectory, calls=calls, messages=[_fit_message(message) for message in trajectory.messages])


def _fit(arguments: Any) -> dict[str, Any]:
    return {} if unfit(arguments) else arguments


def _fit_message(message: dict[str, Any]) -> dict[str, Any]:
    if not message.get("tool_calls"):
        return message
    functions = [{**call["function"], "arguments": _fit(call["function"]["arguments"])} for call in message["tool_calls"]]
    calls = [{**call, "function": function} for call, function in zip(message["tool_calls"], functions, strict=True)]
    return {**message, "tool_calls": calls}


def replies_of(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the agent said to the user, who does not hear the words beside a tool call."""
    return [
        str(message.get("content") or "") for message in messages if message["role"] == "assistant" and not message.get("tool_calls")
    ]


def called(calls: Iterable[tuple[Action, Any]], required: Action) -> bool:
    """Whether a call of this name succeeded with at least these arguments (25 equals 25.0)."""
    return any(result.ok and action.name == required.name and _holds(action.arguments, required.arguments) for action, result in calls)


def _holds(arguments: Any, required: Mapping[str, Any]) -> bool:
    if not isinstance(arguments, Mapping) or not all(name in arguments for name in required):
        return False
    return all(canonical(arguments[name]) == canonical(value) for name, value in required.items())


def outputs_stated(trajectory: Trajectory) -> bool:
    """Every expected output appears in some reply of the agent."""
    replies = replies_of(trajectory.messages)
    return all(says(replies, output) for output in trajectory.problem.outputs)


def required_called(trajectory: Trajectory) -> bool:
    """Every required call succeeded."""
    return all(called(trajectory.calls, action) for action in trajectory.problem.required)
