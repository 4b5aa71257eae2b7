"""Whose failure a lost conversation is: the tool's, the simulated human's, or the agent's.

A lost conversation says something about the agent only when everybody else did their part, so training takes no lesson from the
others (law 6). The checks compare what the human revealed with the blueprint, and need nobody's opinion:

    tool    a tool's own code failed
    human   said nothing at all, or hung up before the agent had a turn
    human   said a value that its description does not hold, and the agent used it in a call
    human   hung up, while the agent had made no mistake yet, with a value of the ground truth untold or a question unanswered

In doubt it is the agent's: a human that gives up on an agent which repeats itself, was refused by a tool, broke a rule of the policy or
made a wrong change has hung up for a reason. What the checks cannot see is told as the agent's as well: a request in words that no
call takes over, a No to a summary that was right.

The four kinds of fault of tau-bench's error analysis (who: user, agent, environment) come from a model there; here they are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tasks.worlds import Action, Party, Trajectory
from tasks.worlds.phrases import CLOSING_QUESTION
from tasks.worlds.said import words
from tasks.worlds.values import canonical

if TYPE_CHECKING:
    from tasks.worlds.runtime import World


def blame(trajectory: Trajectory, world: World, broken: Sequence[str]) -> tuple[Party, str]:
    """(who, why) of a conversation that was lost. broken: the trajectory predicates that do not hold."""
    if trajectory.stop == "tool_error":
        name = trajectory.calls[-1][0].name if trajectory.calls else "?"
        return "tool", f"the code of {name} failed"
    if trajectory.stop == "human_error":
        return "human", "said nothing, or hung up before it had asked for anything"
    if invented := _invented(trajectory):
        return "human", f"said {invented!r}, which its description does not hold, and the agent used it"
    if trajectory.stop == "user_stop" and (owed := _owed(trajectory, world)) and not _mistake(trajectory, broken):
        return "human", owed
    return "agent", _mistake(trajectory, broken) or f"ended by {trajectory.stop} without the wanted end"


def _told(trajectory: Trajectory) -> list[str]:
    """Everything that the human's description holds, and the values of the ground truth."""
    problem = trajectory.problem
    wanted = [value for action in (*problem.actions, *problem.required) for value in leaves(action.arguments)]
    return [problem.instruction, problem.persona, *leaves(problem.intent), *wanted, *problem.outputs]


def _invented(trajectory: Trajectory) -> str:
    """The first value of a call that the human had brought up, and that its description does not hold; "" for none."""
    known = _heard(_told(trajectory))
    lines: list[tuple[str, str]] = []
    for message in trajectory.messages:
        if message["role"] == "user":
            lines.append((_heard([message["content"]]), known))  # what the agent said before it the human may repeat
        elif message["role"] == "assistant":
            for value in (value for call in message.get("tool_calls") or () for value in leaves(call["function"]["arguments"])):
                if (said := _heard([value])) and any(said in line and said not in before for line, before in lines):
                    return value
            known += "\n" + _heard([message.get("content") or ""])
    return ""


def _owed(trajectory: Trajectory, world: World) -> str:
    """What the human left out when it hung up: a value of the ground truth that its description holds and nobody said, or the answer
    to the agent's last question; "" for nothing."""
    talk = [str(message.get("content") or "") for message in trajectory.messages if message["role"] in ("user", "assistant")]
    said = _heard(talk)
    for value in _only_the_humans(trajectory, world):
        if _heard([value]) not in said:
            return f"hung up without saying {value!r}"
    last = talk[-1] if talk and trajectory.messages[-1]["role"] == "assistant" else ""
    if last.rstrip().endswith("?") and not CLOSING_QUESTION.search(last.lower()):
        return f"hung up on a question: {last[-80:]!r}"
    return ""


def _only_the_humans(trajectory: Trajectory, world: World) -> Iterator[str]:
    """Values of ground truth calls that stand in the instruction, without those of enumerations, which people put in other words."""
    told = _heard([trajectory.problem.instruction])
    for action in trajectory.problem.actions:
        properties = world.tools[action.name].parameters.get("properties", {}) if action.name in world.tools else {}
        for name, value in action.arguments.items():
            if "enum" not in str(properties.get(name)):
                yield from (text for text in leaves(value) if len(text) > 1 and _heard([text]) and _heard([text]) in told)


def _heard(texts: Iterable[str]) -> str:
    """The words of texts in canonical form, with a space on either side; a search in it finds whole words in a row of one text."""
    return "\n".join(f" {' '.join(found)} " for text in texts if (found := words(str(text))))


def _mistake(trajectory: Trajectory, broken: Sequence[str]) -> str:
    """The agent's first mistake that shows; "" for none."""
    if trajectory.stop not in ("user_stop", "hand_over"):
        return f"stopped by {trajectory.stop}"
    turns = [words(str(message.get("content") or "")) for message in trajectory.messages if message["role"] == "assistant"]
    if any(one and one == other for one, other in pairwise(turns)):  # with a call in between, "Done." twice is no repetition
        return "said the same twice"
    refused = next((action.name for action, result in trajectory.calls if not result.ok), "")
    if refused:
        return f"a call of {refused} was refused"
    if broken:
        return f"broke {', '.join(broken)}"
    truth = [_form(action) for action in (*trajectory.problem.actions, *trajectory.problem.required)]
    wrong = next((action.name for action, _ in trajectory.calls if action.kind != "read" and _form(action) not in truth), "")
    return f"called {wrong}, which nobody wanted so" if wrong else ""


def _form(action: Action) -> tuple[str, Any]:
    return action.name, {name: canonical(value) for name, value in action.arguments.items()}


def leaves(value: Any) -> list[str]:
    """The texts and numbers in a JSON value, as text."""
    if isinstance(value, dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        return [leaf for item in items for leaf in leaves(item)]
    return [] if isinstance(value, bool) or value is None else [str(value)]
