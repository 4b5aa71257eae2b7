"""Engines: token ids in, sampled token ids and their log-probabilities out. What a conversation looks like as text is none of an
engine's business.

An engine is a package in tasks/players/local with `Params`, what a step's params may say to it; `WAYS`, those of them on which no
answer depends, so that no key holds them; `check(params, where)`, which raises BadInput for what cannot be; `check_checkpoint(config,
tensors)`, which does for a checkpoint that it cannot run; `check_forms(params, where, whole, adapters, at_once)`, which does where
steps leave checkpoints of a form, or play them in a way, that it does not take; and `opened(checkpoint, adapters, rows=, most=,
device=, dtype=, params=, place=)`, which gives an `Engine`. `own` decodes in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tasks.contract.servers import no_secrets


@dataclass(frozen=True)
class Place:
    """What an engine may use beside its params. folder: for files that another process is to read; None: one of the engine's own, which
    goes with this process. secrets: an engine's params -> the key of its server."""

    folder: Path | None = None
    secrets: Callable[[Mapping[str, Any]], str] = no_secrets


@dataclass(frozen=True)
class Sampling:
    """How one turn is generated.

    seed: of its noise; the same seed and prompt give the same tokens, whoever else is being served. temperature: 0 is greedy.
    max_tokens: most ids of the turn, at least 1. stop: ids that end it; the one that did is its last. adapter: name of the adapter that
    is added to the base weights, "" for the base alone. top_p: share of the probability that the tokens hold that may be drawn,
    likeliest first; below 1 for the engine `own` alone, behind `cairn serve`.
    """

    seed: int
    temperature: float
    max_tokens: int
    stop: tuple[int, ...]
    adapter: str = ""
    top_p: float = 1.0


@dataclass(frozen=True)
class Generated:
    """One turn. logprobs: natural logarithms, one per id, of the distribution that was sampled from (greedy: that at temperature 1).

    finish: stop (a stop id), length (max_tokens, or the longest conversation) or full (the prompt leaves no room for one token: nothing
    was computed).
    """

    conversation: str
    ids: Sequence[int]
    logprobs: Sequence[float]
    finish: Literal["stop", "length", "full"]


class Engine(Protocol):
    """Generates in many conversations at once; they join and leave at any step, and none waits for another.

    rows: conversations that may be open together. most: ids of the longest conversation, prompt and turn. elsewhere: another process
    holds the weights, so that only a comparison shows whose they are.
    """

    rows: int
    most: int
    elsewhere: bool

    def submit(self, conversation: str, ids: Sequence[int], sampling: Sampling) -> None:
        """Owe a turn after `ids`, the whole conversation as the model is to see it. What of it is known already (the conversation's own
        past, a prompt shared with others) is not computed again.

        Raises RuntimeError when `rows` others are open or this one still owes a turn, LookupError for an adapter that is not loaded."""
        ...

    def poll(self) -> list[Generated]:
        """The turns that are finished, at least one when any is owed; for an engine in this process, in an order that depends on what
        was submitted alone."""
        ...

    def close(self, conversation: str) -> None:
        """The conversation is over, or its turn is not wanted any more; what it alone kept in memory is freed."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """So far: ids `read` (computed from prompts) and `produced`, and what else the engine counts."""
        ...
