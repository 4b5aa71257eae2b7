"""Scripted people: what a world's class gives as SCRIPTS and a player asks it for, the errors that every built-in agent knows, and the
word that ends a conversation. `tasks.worlds.api.scripts` is what they are written with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.contract.client import Message, Request

STOP = "###STOP###"
"""What a human says when its goal is met or nothing remains to say (tau-bench's word)."""

COMMON_ERRORS: Mapping[str, str] = {
    "forgets_second_request": "deals with the first of several requests that were made in one line, and closes",
    "confuses_two_ids": "writes with another id of the same kind than the one it announced",
    "wrong_total": "tells an amount that is too high by a few",
    "ignores_price": "takes the first variant or flight on the list where the cheapest was asked for",
    "refused_write_attempt": "does what the policy forbids when asked, instead of refusing",
    "vague_refusal": "refuses without the reason",
    "skips_authentication": "does not ask who the customer is; shows only where the request is about another account",
    "skips_confirmation": "writes without asking for a yes",
    "needless_reads": "looks up the same row twice",
}
"""The errors that the agent of every built-in world knows: name -> what happens."""


@dataclass(frozen=True)
class Scripts:
    """A world's scripted people. human(request); agent(request, errors): errors maps names of ERRORS to rates in [0, 1].
    ERRORS: name -> what happens. visible: the errors that a verifier of state and outputs can see."""

    human: Callable[[Request], Message]
    agent: Callable[[Request, Mapping[str, float]], Message]
    ERRORS: Mapping[str, str]
    visible: frozenset[str]
