"""What a careful reader can find wrong in an agent's conversation: the kinds of flaw, and the conversation as a critic reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tasks.contract.conventions import Conventions
from tasks.contract.problem import Action


@dataclass(frozen=True)
class Kind:
    """A kind of flaw. policy_pattern: what a policy rule that covers it says (regular expression, none if empty); conduct: the rule
    of conduct that covers it where no policy rule does."""

    severity: int
    policy_pattern: str
    conduct: str
    description: str
    suggestion: str


KINDS: dict[str, Kind] = {
    "unidentified_customer": Kind(
        3,
        r"authenticat|identif|verif|find the (customer|user|passenger)",
        "procedure",
        "{what} is called before the customer is identified.",
        "Identify the customer first.",
    ),
    "foreign_account": Kind(
        4,
        r"another account|other (customer|account|passenger)",
        "procedure",
        "{what} changes something of another account.",
        "Refuse, and say that it belongs to another account.",
    ),
    "unconfirmed_write": Kind(
        3,
        r"explicit yes|confirm",
        "procedure",
        "{what} changes something without a yes right before it.",
        "Say what will change and wait for a yes.",
    ),
    "unannounced_id": Kind(
        4,
        "",
        "grounding",
        "{what} is not what the customer was told and said yes to.",
        "Write exactly what was announced.",
    ),
    "foreign_id": Kind(
        3,
        "",
        "grounding",
        "{what} was mentioned by nobody.",
        "Use an id that the customer or a tool gave.",
    ),
    "ungrounded_number": Kind(
        3,
        "",
        "grounding",
        "{what} stands in no tool answer and in no word of the customer.",
        "Say only what a tool answered.",
    ),
    "not_cheapest": Kind(
        3,
        "",
        "completeness",
        "The cheapest was asked for, and {what} is not the least price on the list.",
        "Take the least price that can be had.",
    ),
    "unserved_request": Kind(
        4,
        "",
        "completeness",
        "The customer asked for {what}, and nothing came of it.",
        "Do it, or say why it cannot be done.",
    ),
    "ignored_refusal": Kind(
        3,
        "",
        "recovery",
        "{what} was refused, and the customer is told otherwise.",
        "Say that it was refused, and why.",
    ),
    "unexplained_refusal": Kind(
        2,
        r"\breason\b.*(say|tools|rules)|name the reason|explain",
        "recovery",
        "The customer is refused something without a reason.",
        "Name the rule or the answer that forbids it.",
    ),
    "repeated_read": Kind(
        1,
        "",
        "economy",
        "{what} repeats a call whose answer is known.",
        "Use the answer that is there.",
    ),
    "needless_handover": Kind(
        2,
        r"hand(ed)? over|transfer",
        "completeness",
        "{what} hands over before anything was looked up.",
        "Look into the request first.",
    ),
}
"""Kind -> severity (1 to 4), the rule it breaks, what to say. Severities are ours."""


@dataclass(frozen=True)
class Flaw:
    """A unit as a critic says it. kind is not said."""

    kind: str
    location: int
    criterion: str
    severity: int
    quote: str
    description: str
    suggestion: str

    def remark(self) -> dict[str, Any]:
        """The unit without its kind."""
        return {key: value for key, value in asdict(self).items() if key != "kind"}


@dataclass(frozen=True)
class Call:
    """A call in message `at`. answer: the tool's message, None when there is none."""

    at: int
    name: str
    arguments: dict[str, Any]
    kind: str
    answer: dict[str, Any] | None

    @property
    def ok(self) -> bool:
        """Whether the tool did it."""
        return bool(self.answer and self.answer["ok"])

    @property
    def action(self) -> Action:
        """The call as conventions judge one."""
        return Action(self.name, self.arguments, self.kind)  # type: ignore[arg-type]


class Talk:
    """A conversation as a critic reads it. messages: numbered; tools: name -> kind; criteria: tier -> name -> text; conventions: as the
    world declares them."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.messages: list[dict[str, Any]] = case["conversation"]
        self.tools: dict[str, str] = case["tools"]
        self.criteria: dict[str, dict[str, str]] = case["criteria"]
        self.conventions = Conventions.from_json(case.get("conventions", {}))
        self.calls: list[Call] = list(self._calls())

    def _calls(self) -> Iterator[Call]:
        for at, message in enumerate(self.messages):
            for offset, call in enumerate(message.get("calls", ())):
                place = at + 1 + offset
                found = self.messages[place] if place < len(self.messages) else None
                answer = found if found and found["role"] == "tool" else None
                yield Call(at, call["name"], call["arguments"], self.tools.get(call["name"], ""), answer)

    def replies(self, after: int = -1) -> Iterator[tuple[int, str]]:
        """(number, words) of the agent's replies behind a message."""
        for message in self.messages[after + 1 :]:
            if message["role"] == "assistant" and not message.get("calls"):
                yield message["n"], message.get("content", "")

    def last(self, role: str, before: int) -> str:
        """What a role said last before a message."""
        remark = (m["content"] for m in reversed(self.messages[:before]) if m["role"] == role and m.get("content"))
        return next(remark, "")


def flaw_of(kind: str, at: int, what: str, talk: Talk) -> Flaw:
    """A flaw of a kind at a message, put into words."""
    known = KINDS[kind]
    rules = (
        name for name, text in talk.criteria["policy"].items() if known.policy_pattern and re.search(known.policy_pattern, text.lower())
    )
    criterion = next(rules, known.conduct)
    quote = talk.messages[at].get("content", "")[:80]
    return Flaw(kind, at, criterion, known.severity, quote, known.description.format(what=what), known.suggestion)
