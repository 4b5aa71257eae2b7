"""Models behind OpenAI-compatible servers: `client` plays a role with one, `stats` says how it goes.

    client    a batch of requests -> answers: second rounds, salvage, errors in words
    calling   one call: cache, budget, pace, attempts
    wire      requests and answers as JSON
    refusals  what a server means when it does not answer
    rate_limit  how many calls are in flight, pauses, the circuit breaker
    budget    tokens, money, the hard stop
    cache     paid answers and the ledger, in SQLite
    connections  one transport of httpx for each call under way
    shared    the background event loop and what clients share
    figures   live counts

A failed attempt (a time-out, a broken connection) is not counted as paid: the server names no price for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from tasks.players.openai_compatible.budget import Prices
from tasks.players.openai_compatible.client import EndpointClient, Setting
from tasks.players.openai_compatible.figures import stats
from tasks.players.openai_compatible.rate_limit import Pace
from tasks.players.openai_compatible.wire import Dialect

__all__ = ["Dialect", "EndpointClient", "Pace", "Prices", "Setting", "client", "stats"]


def client(role: str, wanted: Mapping[str, Any], secret: Callable[[], str], setting: Setting) -> EndpointClient:
    """The client of a role as the params have it (`tasks.engine.settings.Role` as a mapping), with what its server said of the model:
    `reported`, and the `revision` that follows from it."""
    return EndpointClient(
        role,
        wanted["base_url"],
        Dialect(**{field.name: wanted[field.name] for field in fields(Dialect)}),
        pace=Pace(wanted["max_in_flight"], wanted["timeout_seconds"], wanted["retries"]),
        prices=Prices(wanted["price_in"], wanted["price_out"]),
        secret=secret,
        setting=setting,
        revision=wanted.get("revision") or wanted["identity"] or "unpinned",
        identity=wanted["identity"],
        reported=wanted.get("reported", ""),
    )
