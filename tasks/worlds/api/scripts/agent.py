"""The scripted agent's shared core: it reads a conversation, and a world's *plans* say what to do about each kind of request.

A plan is a function (script, slots) -> report, written as if calls were answered at once: `script.read` returns the answer when the
conversation already holds it and otherwise takes the turn to make the call; `script.write` first asks for a yes where one is needed;
`script.mind` ends the plan with a refusal where a rule forbids. A plan is run anew at every turn and gets one step further, so that the
agent is a pure function of the messages.

Systematic errors are planned too (`script.errs`): whether one happens is decided once per conversation, by a hash of its name, the
first user line that holds a request, and the customer. The request's seed does not enter: the rollout draws a new one every turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tasks.contract.client import Message, Request
from tasks.contract.context import seed_of
from tasks.contract.conventions import Conventions
from tasks.contract.problem import Action
from tasks.worlds.api.scripts.agent_errors import check_errors, with_another_id
from tasks.worlds.api.scripts.introductions import Introduction, introduced
from tasks.worlds.api.scripts.phrases import Phrases, agrees, thing

HELP = "How can I help you?"
UNKNOWN = "I cannot find you."
CLOSING = "Anything else?"
QUESTION = "Yes or no?"

Plan = Callable[["AgentScript", dict[str, str]], str]

VISIBLE = frozenset(
    ("forgets_second_request", "confuses_two_ids", "wrong_total", "ignores_price", "refused_write_attempt", "vague_refusal")
)
"""Those of `tasks.contract.scripts.COMMON_ERRORS` that a verifier of state and outputs can see; it is blind for the others."""


class _Turn(Exception):
    """Carries the turn out of a plan."""

    def __init__(self, message: Message) -> None:
        super().__init__()
        self.message = message


class _Refusal(Exception):
    """Carries what is said of a wish out of its plan."""


@dataclass
class Call:
    """One call in the conversation: when, what, and the parsed answer (None when it was refused)."""

    place: int
    name: str
    arguments: dict[str, Any]
    answer: Any = None
    error: str = ""
    answered: bool = False


@dataclass
class AgentScript:
    """A conversation as the agent reads it. introduced: in which way the customer said who they are; who: the fields of that. wishes:
    (kind, slots, number of the user line). closed: wishes reported on."""

    phrases: Phrases
    writes: frozenset[str]
    errors: Mapping[str, float]
    conventions: Conventions
    introduced: Introduction | None = None
    who: dict[str, str] = field(default_factory=dict)
    wishes: list[tuple[str, dict[str, str], int]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    closed: int = 0
    reply: str = ""
    line: str = ""
    lines: int = 0
    key: str = ""
    _reported: list[Call] = field(default_factory=list)

    # --- reading the conversation --------------------------------------------------------------------------------------------

    def hear(self, place: int, message: Message) -> None:
        """Take in one message."""
        text = str(message.get("content") or "")
        if message["role"] == "user":
            self._hear_user(text)
        elif message["role"] == "tool":
            self._hear_tool(text)
        elif message["role"] == "assistant" and message.get("tool_calls"):
            for call in message["tool_calls"]:
                self.calls.append(Call(place, call["function"]["name"], dict(call["function"]["arguments"])))
        elif message["role"] == "assistant":
            self.reply = text
            if text.endswith(CLOSING):
                self.closed = len(self.wishes)

    def _hear_user(self, text: str) -> None:
        self.line = text
        self.lines += 1
        if told := introduced(self.phrases.introductions, text):
            self.introduced, self.who = told
        found = self.phrases.parse(text)
        for kind, slots in found:
            self._wish(kind, slots)
        if found and not self.key:
            self.key = text
        if not found:
            self._fill(text)

    def _wish(self, kind: str, slots: dict[str, str]) -> None:
        """A new wish, or more about one that was made before."""
        for known, told, _ in self.wishes:
            if known == kind and all(told.get(slot, value) == value for slot, value in slots.items()):
                told.update(slots)
                return
        self.wishes.append((kind, slots, self.lines))

    def _fill(self, text: str) -> None:
        """A line without a wish may tell the missing details of the first wish that lacks some."""
        for kind, told, _ in self.wishes:
            missing = [slot for slot in self.phrases.wishes[kind].slots if slot not in told]
            if missing:
                told.update({slot: value for slot in missing if (value := self.phrases.find(slot, text)) is not None})
                return

    def _hear_tool(self, text: str) -> None:
        call = next((call for call in self.calls if not call.answered), None)
        if call is None:
            return
        call.answered = True
        try:
            call.answer = json.loads(text)
        except json.JSONDecodeError:
            call.error = text
        if not isinstance(call.answer, dict) or set(call.answer) == {"error"}:
            call.answer, call.error = None, text

    # --- errors --------------------------------------------------------------------------------------------------------------

    def errs(self, name: str) -> bool:
        """Whether a systematic error happens in this conversation."""
        rate = self.errors.get(name, 0.0)
        if rate <= 0.0 or not self.key:
            return False
        fields = self.phrases.introductions[0].by.fields if self.phrases.introductions else ()
        who = () if name == "skips_authentication" else tuple(self.who.values()) or ("",) * len(fields)
        return seed_of("error", name, self.key, *who) / 2**63 < rate

    def mind(self, broken: bool, reason: str) -> None:
        """Refuse a wish that a rule forbids, unless this agent does what is forbidden."""
        if broken and not self.errs("refused_write_attempt"):
            self.refuse(reason)

    def refuse(self, reason: str) -> NoReturn:
        """End the plan with a refusal and its reason."""
        raise _Refusal("Sorry, I cannot do that." if self.errs("vague_refusal") else f"Sorry, {reason}.")

    def amount(self, value: float) -> str:
        """An amount as it is told."""
        wrong = value + 1 + seed_of(self.key, "amount") % 7 if self.errs("wrong_total") else value
        return f"{wrong:g}"

    # --- acting --------------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> NoReturn:
        """Take the turn with a reply."""
        raise _Turn({"role": "assistant", "content": text})

    def call(self, name: str, arguments: Mapping[str, Any]) -> NoReturn:
        """Take the turn with a tool call."""
        function = {"name": name, "arguments": dict(arguments)}
        calls = [{"id": f"call_{len(self.calls)}", "type": "function", "function": function}]
        raise _Turn({"role": "assistant", "content": "", "tool_calls": calls})

    def read(self, name: str, /, **arguments: Any) -> Any:
        """The answer of a look-up, None when it was refused. An earlier write about the same id makes an answer stale."""
        ids = set(map(str, arguments.values()))
        after = max((call.place for call in self._reported if ids & set(map(str, call.arguments.values()))), default=-1)
        found = [call for call in self.calls if call.name == name and call.arguments == arguments and call.place > after]
        again = name not in self.conventions.identifying and not self._reported
        if not found or (len(found) == 1 and again and self._reads_twice(name)):
            self.call(name, arguments)
        return found[0].answer

    def _reads_twice(self, name: str) -> bool:
        done = any(call.name in self.writes for call in self.calls)
        first = next(call.name for call in self.calls if call.name not in self.conventions.identifying)
        return not done and name == first and self.errs("needless_reads")

    def user(self) -> dict[str, Any]:
        """What the world answered when the customer was identified; asks for what that takes first."""
        question = self.phrases.introductions[0].question
        if self.introduced is None:
            self.say(question)
        row: dict[str, Any] | None = self.read(self.introduced.by.tool, **self.who)
        if row is None:
            self.say(f"{UNKNOWN} {question}")
        return row

    def person(self) -> str:
        """The customer's id, who is identified first; "" in a world where nobody is."""
        if self.phrases.introductions:
            self.user()
        return self._identified()

    def _identified(self) -> str:
        """The customer's id, once identified; "" before."""
        ways = {way.tool: way for way in self.conventions.identified_by}
        found = [ways[call.name].person(json.dumps(call.answer)) for call in self.calls if call.name in ways and call.answer]
        return found[0] if found else ""

    def slot(self, slots: Mapping[str, str], name: str, question: str) -> str:
        """A detail of the wish; asks for it when it was not told."""
        if name not in slots:
            self.say(question)
        return slots[name]

    def own(self, slots: Mapping[str, str], slot: str, tool: str, owned: bool = True) -> tuple[str, dict[str, Any]]:
        """(id, row) of the row that a wish is about: its id is asked for when it was not told, and looked up with `tool`.

        An unknown id and somebody else's row are refused. Of a row that is owned the answer holds the owner, in the field that the
        conventions name.
        """
        name = thing(slot)
        key = self.slot(slots, slot, f"Which {name} is it?")
        row: dict[str, Any] | None = self.read(tool, **{slot: key})
        if row is None:
            self.refuse(f"I cannot find {name} {key}")
        person = self._identified() if owned else ""
        if person:
            self.mind(str(row[self.conventions.owner]) != person, f"{name} {key} belongs to another account")
        return key, row

    def write(self, name: str, summary: str, /, **arguments: Any) -> Any:
        """Announce a write, wait for a yes, make it. Its answer, None when it was refused."""
        reported = set(map(id, self._reported))
        if made := [call for call in self.calls if call.name == name and id(call) not in reported]:
            self._reported.append(made[0])
            return made[0].answer
        question = f"{summary} {QUESTION}"
        agreed = self.conventions.confirmed_by != "user" or not self.conventions.needs_yes(Action(name, arguments, "write"))
        if not agreed and not (self.reply == question and agrees(self.line)) and not self.errs("skips_confirmation"):
            self.say(question)
        answers = [call.answer for call in self.calls if call.answer is not None]
        self.call(name, with_another_id(arguments, answers) if self.errs("confuses_two_ids") else arguments)

    def hand_over(self, **arguments: Any) -> NoReturn:
        """Hand over to a person, which ends the conversation."""
        self.call(self.conventions.hand_over, arguments)


def agent(
    phrases: Phrases,
    plans: Mapping[str, Plan],
    writes: Sequence[str],
    known: Mapping[str, str],
    conventions: Conventions = Conventions(),
) -> Callable[[Request, Mapping[str, float]], Message]:
    """The scripted agent of a world. writes: names of the tools that write. known: its catalogue of errors.
    conventions: the world's."""

    def complete(request: Request, errors: Mapping[str, float]) -> Message:
        check_errors(errors, known)
        script = AgentScript(phrases, frozenset(writes), errors, conventions)
        for place, message in enumerate(request.messages):
            script.hear(place, message)
        try:
            return _reply(script, plans)
        except _Turn as turn:
            return turn.message

    return complete


def _reply(script: AgentScript, plans: Mapping[str, Plan]) -> Message:
    """Identify, then deal with the wishes one after another, then report."""
    if script.phrases.introductions and not script.errs("skips_authentication"):
        script.user()
    if not script.wishes:
        script.say(HELP)
    reports = []
    for number, (kind, slots, line) in enumerate(script.wishes):
        follows = number > 0 and script.wishes[number - 1][2] == line
        if follows and script.errs("forgets_second_request"):
            continue
        try:
            report = plans[kind](script, slots)
        except _Refusal as refusal:
            report = str(refusal)
        reports.append((number, report))
    new = [report for number, report in reports if number >= script.closed] or [reports[-1][1]]  # asked again, say it again
    return {"role": "assistant", "content": " ".join([*dict.fromkeys(new), CLOSING])}
