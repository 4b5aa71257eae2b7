"""What an API is, as `--from` names it: a Python object, an MCP server, an HTTP service with an OpenAPI description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.own_api.guesses import Guess

FORMS = (
    "a Python object as module:name or path/to/file.py:name, an MCP server's file (mcp.yaml), or an OpenAPI description (openapi.json, "
    ".yaml, or its url)"
)
"""What may stand behind --from, in words."""


@dataclass(frozen=True)
class Wish:
    """How an HTTP service is to be used. url: where it is, "" for where its description says. disposable: it may be changed by every
    run and check. operations: those that become tools, by operationId, "GET /path", "tag:NAME" or pattern; () for all."""

    url: str = ""
    disposable: bool = False
    operations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Api:
    """An API that was looked at. Nothing of it was written yet.

    origin:   what it is, for people.
    guesses:  its tools and what they do.
    files:    place below the project's folder of it -> file that is copied there. texts: the same -> text that is written there.
    imports:  modules of Python's that `call` uses. own: the API's own module, "" for none.
    call:     function of `tasks.worlds.adapters` and its first arguments.
    keywords: further arguments, a line each. listing: whether writes and ends are arguments too (else its own file holds them).
    built:    (name, policy) -> the world class, to see whether it can be one.
    notes:    what a person should know.
    """

    origin: str
    guesses: tuple[Guess, ...]
    files: Mapping[str, Path]
    texts: Mapping[str, str]
    imports: tuple[str, ...]
    own: str
    call: tuple[str, str]
    keywords: tuple[str, ...]
    listing: bool
    built: Callable[[str, str], type[Any]]
    notes: tuple[str, ...] = ()
