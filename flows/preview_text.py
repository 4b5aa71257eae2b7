"""Blueprints and conversations as text that a person reads: every attempt with its checks, votes, plan and diff, then the talk.

It reads the rows that every method of the generate room leaves (`schemas.BLUEPRINT`, `schemas.TRAJECTORY`) and nothing of the method.
What a model wrote is data: control characters and such that turn a line round are shown as escapes, never sent to a terminal.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tasks.contract.problem import ACCEPTED
from tasks.generate.parts.apigen_mt.checks import FAILURES
from tasks.generate.parts.apigen_mt.committee import CRITERIA

Row = Mapping[str, Any]

CHECKS = tuple(name.removeprefix("failed_") for name in FAILURES)
"""What an attempt passes through, in order: format, exec, policy, committee, gate, duplicate."""
NAMES = 10
"""Columns of a line's name; ours."""
COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "cyan": "36"}


@dataclass(frozen=True)
class Page:
    """How lines are set. width: characters. colour: whether escape codes may be used (a terminal)."""

    width: int = 130
    colour: bool = False

    def ink(self, text: str, colour: str) -> str:
        """The text in a colour of COLOURS, where colours are used."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.colour else text

    def line(self, name: str, text: str, indent: int, colour: str = "") -> Iterator[str]:
        """A named text, wrapped; its own line breaks are kept."""
        head = " " * indent + f"{name:<{NAMES}} "
        parts = clean(text).splitlines() or [""]
        for number, part in enumerate(parts):
            first = head if number == 0 else " " * len(head)
            room = max(20, self.width - len(head))
            for place, piece in enumerate(textwrap.wrap(part, room, break_on_hyphens=False) or [""]):
                lead = first if place == 0 else " " * len(head)
                yield (lead + (self.ink(piece, colour) if colour else piece)).rstrip()


def clean(text: str) -> str:
    """Text with everything that is not printable as an escape; line breaks stay.

    >>> clean("red \\x1b[31m")
    'red \\\\x1b[31m'
    """
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def call_text(name: str, arguments_json: str) -> str:
    """A call as a programmer would write it: get_order(order_id="W12"). Arguments that are no object stand as they are."""
    arguments = json.loads(arguments_json)
    if not isinstance(arguments, dict):
        return f"{name}({json.dumps(arguments, ensure_ascii=False)})"
    return f"{name}({', '.join(f'{key}={json.dumps(value, ensure_ascii=False)}' for key, value in arguments.items())})"


def blueprints(rows: Iterable[Row]) -> list[list[Row]]:
    """The attempts at each blueprint together; a method writes them one after another."""
    return [list(attempts) for _, attempts in groupby(rows, key=lambda row: (row["world"], row["seed"], row["context_hash"]))]


def blueprint(attempts: Sequence[Row], title: str, gates: Mapping[str, Mapping[str, int]], page: Page) -> Iterator[str]:
    """One blueprint. attempts: its rows in order. gates: problem_id -> agent -> whether it passes, for those that came so far."""
    last = attempts[-1]
    done = last["status"] == ACCEPTED
    verdict = page.ink("accepted", "green") if done else page.ink("refused", "red")
    yield f"{page.ink(title, 'bold')}: {verdict} after {len(attempts)} attempt{'s' if len(attempts) > 1 else ''}"
    family = next((row["family"] for row in reversed(attempts) if row["family"]), "")
    if last["walk"]:
        yield from page.line("walk", " > ".join(last["walk"]), 2)
    for name, text in (("family", family), ("split", last["split"]), ("rules", ", ".join(last["policy_ids"]) or "none")):
        yield from page.line(name, text, 2) if text else ()
    yield from page.line("persona", last["persona"], 2)
    if last["source_ids"]:
        yield from page.line("made of", ", ".join(last["source_ids"]), 2)
    for row in attempts:
        yield ""
        yield from _attempt(row, gates, page)


def _attempt(row: Row, gates: Mapping[str, Mapping[str, int]], page: Page) -> Iterator[str]:
    status, number = row["status"], row["attempt"] + 1
    yield f"  {page.ink(f'attempt {number}', 'bold')}  {_passed(status, page)}"
    yield from page.line("wish", row["instruction"], 4)
    for name, calls in (("calls", row["actions"]), ("required", row["required"])):
        for place, call in enumerate(calls):
            yield from page.line("" if place else name, call_text(call["name"], call["arguments_json"]), 4, "cyan")
    if row["outputs"]:
        yield from page.line("to be said", ", ".join(json.dumps(output, ensure_ascii=False) for output in row["outputs"]), 4)
    for place, change in enumerate(row["diff_patch"].splitlines()):
        colour = "green" if change.startswith("+") else "red" if change.startswith("-") else ""
        yield from page.line("" if place else "diff", change, 4, colour)
    if row["judge_scores"]:
        yield from _votes(row, page)
    if row["problem_id"] in gates and status in (ACCEPTED, "failed_gate"):
        told = ", ".join(f"{agent} {score}" for agent, score in gates[row["problem_id"]].items())
        yield from page.line("gate", told, 4)
    if status != ACCEPTED:
        yield from page.line("refused", row["fail_reason"], 4, "red")
    if row["feedback"]:
        yield from page.line("feedback", row["feedback"], 4)


def _passed(status: str, page: Page) -> str:
    """The checks in order, up to the one that failed."""
    if status == ACCEPTED:
        return "  ".join(page.ink(f"{name} ok", "green") for name in CHECKS)
    failed = status.removeprefix("failed_")
    if failed not in CHECKS:
        return page.ink(status, "red")
    before = [page.ink(f"{name} ok", "green") for name in CHECKS[: CHECKS.index(failed)]]
    return "  ".join([*before, page.ink(f"{failed} refused", "red")])


def _votes(row: Row, page: Page) -> Iterator[str]:
    width = max(len(vote["judge"]) for vote in row["judge_scores"])
    asked = [name for name in CRITERIA if any(vote[name] is not None for vote in row["judge_scores"])]
    yield from page.line("votes", f"{'':<{width}}  {'  '.join(asked)}  (mean total {row['avg_score']:.2f} of {len(CRITERIA)})", 4)
    for vote in row["judge_scores"]:
        marks = "  ".join(f"{vote[name]:>{len(name)}}" for name in asked)
        yield " " * (4 + NAMES + 1) + f"{clean(vote['judge']):<{width}}  {marks}"
        if vote["reason"]:
            yield from page.line("", vote["reason"], 4 + 2, "dim")


def conversation(row: Row, title: str, page: Page) -> Iterator[str]:
    """One row of TRAJECTORY, turn by turn, with its outcome."""
    won = page.ink("won", "green") if row["reward"] else page.ink("lost", "red")
    yield f"  {page.ink(title, 'bold')}: {won}  ({row['agent']} with {row['human']})"
    for message in row["messages"]:
        yield from _message(message, page)
    parts = [f"{name} {row[name]}" for name in ("state", "outputs", "required")]
    broken = f" (broken: {', '.join(row['broken'])})" if row["broken"] else ""
    yield from page.line("outcome", f"{', '.join(parts)}; policy {row['policy']:.2f}{broken}", 4)
    counts = f"{row['n_user_turns']} lines of the user, {row['n_agent_steps']} agent turns, {row['n_tool_calls']} calls"
    yield from page.line("stop", f"{row['stop']}, after {counts}", 4)


def _message(message: Row, page: Page) -> Iterator[str]:
    role = {"assistant": "agent", "tool": "answer"}.get(str(message["role"]), str(message["role"]))
    if message["content"] or not message["tool_calls"]:
        yield from page.line(role, message["content"], 4, "dim" if role == "answer" else "")
    for call in message["tool_calls"]:
        yield from page.line("call", call_text(call["name"], call["arguments_json"]), 4, "cyan")
