"""A method of the tests for the room filter: won conversations count by how short they are, and only turns that call tools are learned. (EEF and
AgentRefine mask turns, RISE weighs rows.)"""

from __future__ import annotations

from typing import Any

from tasks.contract import params as base
from tasks.contract.context import Context
from tasks.filter import Check, Inputs, Marks, Offered
from tasks.filter.core.room import mark_rows


class Params(base.Params):
    """It has none."""


def calling(row: dict[str, Any]) -> list[bool]:
    """For each assistant turn: whether it calls a tool."""
    return [bool(message["tool_calls"]) for message in row["messages"] if message["role"] == "assistant"]


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    def marker(offered: Offered) -> Marks:
        rows = list(offered.read("reward", "messages"))
        lost = {place for place, row in enumerate(rows) if not row["reward"]}
        turns = [calling(row) for row in rows]
        return Marks(
            [Check("verifier", "lost", lost.intersection)], weights=[1 / max(1, len(one)) for one in turns], trained_turns=turns
        )

    return mark_rows(inputs, marker, ctx, "nothing to ease")
