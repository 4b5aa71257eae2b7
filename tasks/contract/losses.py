"""What can be lost of model calls, by reason and with its remedy; and when so much is lost for one reason that a stage stops.

A call that a server refuses for good, or an answer that is none, loses its conversation or item and nothing else; each is counted
under one of the reasons here. A dataset that is small or empty because a server was started without its tool parser looks like any
other, so a stage that loses nearly everything for one reason ends with that reason instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.contract.client import NearlyAllLost
from tasks.contract.context import Losses

FROM_TEXT, KEPT_UNUSABLE = "calls_from_text", "kept_unusable"
HARMLESS = (FROM_TEXT, KEPT_UNUSABLE)
"""Oddities that lose nothing."""
_PARSERS = "vLLM --enable-auto-tool-choice --tool-call-parser NAME, SGLang --tool-call-parser NAME, llama.cpp --jinja"
REMEDIES: dict[str, str] = {
    "context_length": "the request is longer than the model reads. Serve it with more context (vLLM --max-model-len, SGLang "
    "--context-length, llama.cpp --ctx-size), or let prompts carry less (prompt.tools, prompt.policy)",
    "content_filter": "a filter in front of the model declines. Take another model or provider, or loosen the filter there",
    "refusal": "the model declines to answer. Take another model",
    "not_accepted": "the server does not take the request. What changes how it is asked: temperature, send_seed, structured, "
    "limit_field and content_beside_calls of roles.{role}",
    "unusable": "the server's answers are none (see its own log)",
    "unanswered": "no answer came, however often it was asked; losses.unanswered is the share of a role's calls that may go so",
    "calls_as_text": "answers hold tool calls in plain text: the server does not read them out. Start it with its tool parser: "
    + _PARSERS,
    FROM_TEXT: f"answers held tool calls in plain text, which were read out of it. Safer is the server's own tool parser: {_PARSERS}",
    KEPT_UNUSABLE: "answers that an earlier version kept are none; they were forgotten, and asked anew",
    "bad_call": "the arguments of tool calls are no JSON object. The server's tool parser may be that of another model",
    "cut": "answers are cut at their most tokens. Raise roles.{role}.max_tokens, or roles.{role}.thinking for one that thinks first",
    "empty": "answers are empty. A model that thinks first may need roles.{role}.thinking",
    "unreadable": "answers do not fit the wanted form. Try another way to ask for it: roles.{role}.structured",
    "parse_error": "turns can be read neither as a reply nor as calls",
    "max_tokens": "turns are cut at their most tokens. Raise roles.{role}.max_tokens",
    "max_steps": "conversations come to no end within the method's max_steps",
    "human_error": "the simulated human said nothing, half a line, or hung up at once: look at roles.human",
    "tool_error": "the code of a tool failed: `cairn world check` finds it",
    "none_won": "not one conversation was won, so nothing is left to train on. Read some with `cairn preview generate`: is the agent's "
    "model strong enough, and does the human say what it wants?",
}
"""Reason -> what it is and what to do; {role} stands for the role's name."""

FEW = 10
"""Calls without a single answer after which the rest need not be asked."""
GONE = ("context_length", "content_filter", "not_accepted", "unusable", "unanswered")
"""Reasons for which there is no answer at all."""


def remedy(reason: str, role: str = "NAME") -> str:
    """What a reason is and what to do about it; "" for a reason that says it itself."""
    return REMEDIES.get(reason, "").replace("{role}", role.partition("/")[0])


@dataclass(frozen=True)
class Lost:
    """What was lost so far. what: of whom, such as "role 'judge' (model 'm'): calls". counts: reason -> how many of `total`. examples:
    reason -> what was said of the first one. role: whose params the remedy names. model: whose answers are kept, and have to be
    forgotten when its server is mended; "" for none."""

    what: str
    counts: Mapping[str, int]
    total: int
    examples: Mapping[str, str] = field(default_factory=dict)
    role: str = "agent"
    model: str = ""

    def message(self, reason: str) -> str:
        """How much was lost for a reason, what that is, and what to do."""
        role = "human" if reason.startswith("human_") else self.role
        advice = remedy(reason if reason in REMEDIES else reason.removeprefix("human_"), role)
        kept = self.model and reason not in GONE
        parts = (
            f"{self.what}: {self.counts[reason]} of {self.total} were lost for one reason, {reason}{f': {advice}' if advice else ''}.",
            f"The first: {self.examples[reason]}." if reason in self.examples else "",
            f"Mended at the server, its answers have to be forgotten: `cairn calls --forget {self.model}`." if kept else "",
            "Every answer is kept: after mending, run again.",
        )
        return " ".join(part for part in parts if part)


def stop_when_nearly_all(losses: Losses, lost: Lost) -> None:
    """Raise NearlyAllLost when nearly everything was lost for one reason."""
    if reason := losses.too_many(lost.counts, lost.total):
        raise NearlyAllLost(
            f"{lost.message(reason)} The stage stopped because of losses.share = {losses.share:g} and losses.least = {losses.least}."
        )


def stop_when_nothing_came(losses: Losses, lost: Lost) -> None:
    """Raise NearlyAllLost when not one of at least FEW calls was answered, whatever else may be lost."""
    gone = {reason: lost.counts.get(reason, 0) for reason in GONE}
    if losses.least and lost.total >= FEW and sum(gone.values()) == lost.total:
        raise NearlyAllLost(f"{lost.message(max(gone, key=lambda reason: gone[reason]))} Not one call was answered.")
