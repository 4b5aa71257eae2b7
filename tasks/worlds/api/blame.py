"""Whose failure a lost conversation is: the tool's, the simulated human's, or the agent's.

A lost conversation says something about the agent only when everybody else did their part, so training takes no lesson from the
others (law 6). The checks compare what the human revealed with the blueprint, and need nobody's opinion:

    tool    a tool's own code failed on arguments none of whose identifiers was made up by the agent
    human   said nothing at all, or hung up before the agent had a turn
    human   gave another value than its description for an argument of the ground truth, and the agent used it in a call
    human   hung up on an agent that had made no mistake yet, and owed it something: the yes to a right change that was put to it
            for the first time, a value of its description that was asked for, or a wish, when all told so far had been done

In doubt it is the agent's. To end with a question is no excuse: it must be seen that the human could have answered it and had not
yet. So the agent's failure is what asks for something that the ground truth does not need or that was told before, what asks again,
and what closes without having done anything about the last line; and giving up on an agent that said nothing, repeated itself, was
refused by a tool, broke a rule of the policy or made a wrong change. What the checks cannot see is told as the agent's as well: a
request in words that no call takes over, a No to a summary that was right, a value that was asked for in other words (or in another
language) than the tool's name for the argument.

The four kinds of fault of tau-bench's error analysis (who: user, agent, environment) come from a model there; here they are computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tasks.contract.problem import Action
from tasks.contract.trajectory import Party, Trajectory
from tasks.contract.values import canonical
from tasks.contract.wording import says, words
from tasks.worlds.api.scripts.phrases import CLOSING_QUESTION, OPEN_QUESTION

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

Details = Sequence[tuple[str, str]]
"""(argument, value) of a call, for values that only the human knows."""


def blame(trajectory: Trajectory, world: World, broken: Sequence[str]) -> tuple[Party, str]:
    """(who, why) of a conversation that was lost. broken: the trajectory predicates that do not hold."""
    if trajectory.stop == "tool_error":
        name = trajectory.calls[-1][0].name if trajectory.calls else "?"
        if made_up := _made_up(trajectory, world):
            return "agent", f"called {name} with {made_up!r}, which nobody had given, and its code failed"
        return "tool", f"the code of {name} failed"
    if _says_nothing(trajectory):
        return "agent", "said nothing"
    if trajectory.stop == "human_error":
        return "human", "said nothing, or hung up before it had asked for anything"
    if trajectory.stop.startswith("human_"):
        return "human", f"its model gave no line: {trajectory.stop.removeprefix('human_')}"
    if invented := _invented(trajectory):
        return "human", f"said {invented!r}, which its description does not hold, and the agent used it"
    mistake = _mistake(trajectory, broken)
    if trajectory.stop == "user_stop" and not mistake and (owed := _owed(trajectory, world)):
        return "human", owed
    return "agent", mistake or f"ended by {trajectory.stop} without the wanted end"


def _says_nothing(trajectory: Trajectory) -> bool:
    """Whether the agent's last turn is neither a call nor words."""
    last = trajectory.messages[-1] if trajectory.messages else {"role": "user"}
    return last["role"] == "assistant" and not last.get("tool_calls") and not str(last.get("content") or "").strip()


def _made_up(trajectory: Trajectory, world: World) -> str:
    """The first identifier in the last call that neither human nor tool nor ground truth had given, and no schema offers; "" for none.
    Words and small numbers an agent may choose itself."""
    if not trajectory.calls:
        return ""
    action = trajectory.calls[-1][0]
    given = [str(message.get("content") or "") for message in trajectory.messages if message["role"] != "assistant"]
    known = _as_words([*given[:-1], *_description_and_truth(trajectory)])  # the last message is the tool's own
    properties = world.tools[action.name].parameters.get("properties", {}) if action.name in world.tools else {}
    for name, value in action.arguments.items():
        schema = properties.get(name)
        if "enum" not in str(schema) and not (isinstance(schema, dict) and schema.get("default", ...) == value):
            for leaf in leaves(value):
                if _IDENTIFIER.search(leaf) and _as_words([leaf]) not in known:
                    return leaf
    return ""


_IDENTIFIER = re.compile(r"(?=.*\d)\w{3}|@")


def _description_and_truth(trajectory: Trajectory) -> list[str]:
    """Everything that the human's description holds, and the values of the ground truth."""
    problem = trajectory.problem
    wanted = [value for action in (*problem.actions, *problem.required) for value in leaves(action.arguments)]
    return [problem.instruction, problem.persona, *leaves(problem.intent), *wanted, *problem.outputs]


def _invented(trajectory: Trajectory) -> str:
    """The first value of a call that the human had brought up and that its description does not hold, for an argument that the ground
    truth has too; "" for none. Whoever asks for what is not needed must live with the answer."""
    known = _as_words(_description_and_truth(trajectory))
    needed = {name for action in (*trajectory.problem.actions, *trajectory.problem.required) for name in action.arguments}
    lines: list[tuple[str, str]] = []
    for message in trajectory.messages:
        if message["role"] == "user":
            lines.append((_as_words([message["content"]]), known))  # what the agent said before it the human may repeat
        elif message["role"] == "assistant":
            arguments = [item for call in message.get("tool_calls") or () for item in call["function"]["arguments"].items()]
            for value in (value for name, given in arguments if name in needed for value in leaves(given)):
                if (said := _as_words([value])) and any(said in line and said not in before for line, before in lines):
                    return value
            known += "\n" + _as_words([message.get("content") or ""])
    return ""


def _owed(trajectory: Trajectory, world: World) -> str:
    """What the human owed the agent when it hung up; "" for nothing."""
    talk = [(str(message["role"]), str(message.get("content") or "")) for message in trajectory.messages]
    if not talk or talk[-1][0] != "assistant":
        return ""
    replies = [text for role, text in talk if role == "assistant"]
    last, lower = replies[-1], replies[-1].lower()
    said = _as_words(text for role, text in talk if role in ("user", "assistant"))
    details = [(action, _only_the_humans(action, trajectory, world)) for action in trajectory.problem.actions]
    untold = [(name, value) for _, own in details for name, value in own if _as_words([value]) not in said]
    if CLOSING_QUESTION.search(lower) or not asks(last):
        free = _served(trajectory) and not _left(trajectory, details, untold)
    elif OPEN_QUESTION.search(lower):
        free = not _left(trajectory, details, untold)
    elif any(_puts(last, action, own) and not _put_before(replies, action) for action, own in details):
        return f"hung up on a question: {last[-80:]!r}"
    else:
        asked = [name for name, _ in untold if _asks_for(last, name) and not any(_asks_for(one, name) for one in replies[:-1])]
        free, untold = True, [(name, value) for name, value in untold if name in asked]
    return f"hung up without saying {untold[0][1]!r}" if free and untold else ""


def _served(trajectory: Trajectory) -> bool:
    """Whether the agent did something wanted since the human last spoke: made a change of the ground truth, or said an output."""
    spoke = max(place for place, message in enumerate(trajectory.messages) if message["role"] == "user")
    since = sum(message["role"] == "tool" for message in trajectory.messages[spoke:])
    truth = [_form(action) for action in (*trajectory.problem.actions, *trajectory.problem.required) if action.kind != "read"]
    made = [_form(action) for action, result in trajectory.calls[len(trajectory.calls) - since :] if result.ok]
    last = str(trajectory.messages[-1].get("content") or "")
    return any(call in truth for call in made) or any(says([last], output) for output in trajectory.problem.outputs)


def _left(trajectory: Trajectory, details: Sequence[tuple[Action, Details]], untold: Details) -> bool:
    """Whether the human has told all that it knows of some call that the agent has not made. What other calls took tells nothing."""
    made = [_form(action) for action, result in trajectory.calls if result.ok]
    used = {leaf for action, result in trajectory.calls if result.ok for leaf in leaves(action.arguments)}
    fresh = [{value for _, value in own} - used for action, own in details if _form(action) not in made]
    return any(values and not values & {value for _, value in untold} for values in fresh)


def asks(reply: str) -> bool:
    """Whether a reply asks the human for something: a question mark of any script, or a request in English."""
    return bool(_QUESTION.search(reply))


_QUESTION = re.compile(
    r"[?\uff1f\u061f\u037e\u055e\u1367]|\b(tell|give|send|show) me\b|\blet me know\b|\bprovide (me|your|the)\b"
    r"|\b(please|kindly) (provide|share|enter|specify|state|confirm)\b|\bi (still |also )?need (to know )?(your|the)\b",
    re.IGNORECASE,
)


def _puts(reply: str, action: Action, own: Details) -> bool:
    """Whether a reply puts a change to the human: a question with all that the human told of it, or else with some value of it."""
    if action.kind == "read" or not asks(reply):
        return False
    shown = _as_words([reply])
    return all(_as_words([value]) in shown for _, value in own) if own else bool(_values_in(reply, action))


def _put_before(replies: Sequence[str], action: Action) -> bool:
    """Whether an earlier question showed as much of a change as the last reply does."""
    return any(asks(reply) and _values_in(replies[-1], action) <= _values_in(reply, action) for reply in replies[:-1])


def _values_in(reply: str, action: Action) -> set[str]:
    heard = _as_words([reply])
    return {leaf for leaf in leaves(action.arguments) if len(leaf) > 1 and _as_words([leaf]) in heard}


def _asks_for(question: str, argument: str) -> bool:
    """Whether a reply asks and names an argument: "order_id" in "Which order is it?", "zipCode" in "Your zip?"."""
    parts = [part.lower() for part in re.findall(r"[A-Za-z][a-z]*|[^\W\d_a-zA-Z]+", argument) if part.lower() != "id"]
    return asks(question) and bool({*parts} & {*words(question)})


def _only_the_humans(action: Action, trajectory: Trajectory, world: World) -> Details:
    """The values of a ground truth call that stand in the instruction, without those of enumerations, which people put otherwise."""
    told = _as_words([trajectory.problem.instruction])
    properties = world.tools[action.name].parameters.get("properties", {}) if action.name in world.tools else {}
    return [
        (name, text)
        for name, value in action.arguments.items()
        if "enum" not in str(properties.get(name))
        for text in leaves(value)
        if len(text) > 1 and _as_words([text]) and _as_words([text]) in told
    ]


def _as_words(texts: Iterable[str]) -> str:
    """The words of texts in canonical form, with a space on either side; a search in it finds whole words in a row of one text."""
    return "\n".join(f" {' '.join(found)} " for text in texts if (found := words(str(text))))


def _mistake(trajectory: Trajectory, broken: Sequence[str]) -> str:
    """The agent's first mistake that shows; "" for none."""
    if trajectory.stop not in ("user_stop", "hand_over"):
        return f"stopped by {trajectory.stop}"
    replies = [str(message.get("content") or "") for message in trajectory.messages if message["role"] == "assistant"]
    turns = [words(reply) for reply in replies]
    if any(one and one == other for one, other in pairwise(turns)):  # with a call in between, "Done." twice is no repetition
        return "said the same twice"
    questions = [reply for reply in replies if asks(reply) and not CLOSING_QUESTION.search(reply.lower())]
    if len({tuple(words(reply)) for reply in questions}) < len(questions):
        return "asked the same twice"
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
