"""The HTTP API of `cairn serve`: a checkpoint that answers chat requests by its agent's card."""

from __future__ import annotations

from pydantic import Field

from tasks.contract import params as base


class Params(base.Params):
    """How much is played through the API, on loopback, with the tools in every request as a client sends them."""

    problems: int = Field(4, ge=1, le=10_000, description="test problems of each world that the candidate also plays through it")
