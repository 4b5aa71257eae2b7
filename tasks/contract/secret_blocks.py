"""Secrets that lie in blocks of a service, of which params and worlds hold the names. Who opens a block is handed in from above
(`tasks.engine`): neither a player nor a world knows the service."""

from __future__ import annotations

from collections.abc import Callable

Opener = Callable[[str], str]
"""name of a block -> the secret in it; LookupError with words for people when there is no such block."""
_openers: list[Opener] = []


def opened_by(opener: Opener) -> None:
    """Have blocks opened by this one, in this process."""
    _openers[:] = [opener]


def load(name: str, where: str) -> str:
    """The secret in a block, without white space around it. where: the param that names it, for messages. BadInput when there is none
    of that name, or nobody who opens blocks."""
    from tasks.contract.params import BadInput  # `make setup` comes by here before there are packages

    if not _openers:
        raise BadInput(f"{where}: nobody opens blocks here, so {name!r} cannot be read. Name an environment variable instead.")
    try:
        return _openers[0](name).strip()
    except LookupError as error:
        raise BadInput(f"{where}: {error.args[0]}") from None
