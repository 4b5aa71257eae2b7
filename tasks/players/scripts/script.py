"""What scripts of all roles share: a client that plays one role by rule, the blocks of a prompt that it reads, and its noise.

What makes an offline run honest: every systematic error that a script can make stands in a CATALOGUE, and its rate comes from the
role's configuration. A script reads what a model would read (the named JSON blocks of a prompt, the lines of a talk) and answers
in the wanted schema; nobody hands it a blueprint on the side. Noise is keyed by (role's seed, request's seed, what is rolled for),
never by the order of requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Message, Request
from tasks.contract.context import seed_of

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

_BLOCK = re.compile(r"^```json (\w+)\n(.*)\n```$", re.MULTILINE)
_DIGITS = re.compile(r"\d+")


@dataclass
class Scripted:
    """A Client that plays one role by rule. errors: error name -> rate in [0, 1]; world: whose phrases and rules it knows.
    revision: the errors with their rates, the only thing in which two scripts of a role differ."""

    role: str
    world: World | None
    errors: Mapping[str, float]
    seed: int
    play: Callable[[Scripted, Sequence[Request]], list[str]]
    name: str = field(init=False)
    revision: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.revision = f"scripted-{self.role}", rates_of(self.errors)

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message per request, in order."""
        return [{"role": "assistant", "content": text} for text in self.play(self, requests)]

    def rng(self, request: Request, *names: object) -> Random:
        """The noise of one request for one purpose."""
        return Random(seed_of(self.seed, self.role, request.seed, *names))

    def errs(self, request: Request, error: str, *names: object) -> bool:
        """Does this error happen here?"""
        rate = self.errors.get(error, 0.0)
        return rate > 0 and self.rng(request, error, *names).random() < rate


def rates_of(errors: Mapping[str, float]) -> str:
    """Errors with their rates as one word: "vague=0.1", or "no-errors"."""
    return ",".join(f"{error}={rate:g}" for error, rate in sorted(errors.items())) or "no-errors"


def blocks(messages: Sequence[Message], name: str) -> list[Any]:
    """The values of every JSON block called `name` in the messages, in order."""
    found = [match for message in messages for match in _BLOCK.findall(str(message.get("content") or ""))]
    return [json.loads(text) for label, text in found if label == name]


def block(request: Request, name: str) -> Any:
    """The last value of a JSON block of a request; ValueError when it has none."""
    values = blocks(request.messages, name)
    if not values:
        raise ValueError(f"a scripted player needs the JSON block {name!r} in its prompt; found none")
    return values[-1]


def known_world(me: Scripted) -> World:
    """The world that a script was asked for in; LookupError when it was asked for in none."""
    if me.world is None:
        raise LookupError(f"the scripted {me.role} needs a world; ask for role({me.role!r}, world)")
    return me.world


def other_digits(text: str, rng: Random) -> str:
    """The text with its last group of digits replaced by another of the same length."""
    *_, group = _DIGITS.finditer(text)
    digits = group[0]
    changed = "".join(rng.choice([d for d in "0123456789" if d != digit]) for digit in digits)
    return text[: group.start()] + changed + text[group.end() :]
