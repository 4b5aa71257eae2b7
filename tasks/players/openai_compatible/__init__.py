"""Models behind OpenAI-compatible servers: `player` plays a role with one, `stats` says how it goes.

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

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.players.openai_compatible.budget import Prices
from tasks.players.openai_compatible.client import EndpointClient, Setting
from tasks.players.openai_compatible.figures import stats
from tasks.players.openai_compatible.rate_limit import Pace
from tasks.players.openai_compatible.wire import Dialect

if TYPE_CHECKING:
    from tasks.players.roles import Surroundings

__all__ = ["Dialect", "EndpointClient", "Pace", "Prices", "Setting", "player", "stats"]


KNOWS_WORLDS = False
"""A server is asked for a role, whatever the world."""


def player(name: str, config: Mapping[str, Any], surroundings: Surroundings) -> EndpointClient:
    """The client of a role as the params have it (a mapping of `tasks.engine.shared_params.Role`), with what its server said of it:
    `reported`, and the `revision` that follows from it."""
    return EndpointClient(
        name,
        config["base_url"],
        Dialect(**{field.name: config[field.name] for field in fields(Dialect)}),
        pace=Pace(config["max_in_flight"], config["timeout_seconds"], config["retries"]),
        prices=Prices(config["price_in"], config["price_out"]),
        secret=lru_cache(lambda: surroundings.secrets(config)),
        setting=surroundings.setting or Setting(),
        revision=config.get("revision") or config["identity"] or "unpinned",
        identity=config["identity"],
        reported=config.get("reported", ""),
    )
