"""What differs from run to run, or is secret, in what goes to a server and what comes from it: the seat's path and values of the
environment are filled in on the way there, and replaced by something stable in everything that comes back.

The seat is `{seat}` in the file of a server, and `/cairn-seat` to those who read answers: a model that was told of
`/cairn-seat/notes.txt` can ask for it. A secret has no way back: a model that writes "${SHOP_KEY}" sends these letters.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

SEAT = "/cairn-seat"
"""The seat as it is shown, in place of a temporary folder."""
SHORTEST = 6
"""Characters of a variable's value from which on it is hidden; ours: a shorter one stands in answers by chance."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SHOWN = re.compile(rf"(?<![\w.-]){re.escape(SEAT)}(?![\w.-])")


class NotSet(ValueError):
    """A variable of the environment that a file names is not set. The message says which one."""


def spellings(secret: str) -> list[str]:
    """A secret as a program may repeat it: as it is, in JSON, in a url and in HTML."""
    quoted = [quote(secret, safe=""), quote(secret), quote_plus(secret)]
    lower = [re.sub(r"%..", lambda found: found[0].lower(), one) for one in quoted]
    inside = [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
    slashes = [one.replace("/", r"\/") for one in inside]
    return list(dict.fromkeys((secret, *inside, *slashes, *quoted, *lower, html.escape(secret))))


class Placeholders:
    """The placeholders of one server. seat: its folder. environment: where `${NAME}` is looked up."""

    def __init__(self, seat: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._seat, self._environment = str(seat), environment
        real = os.path.realpath(seat)  # what a server calls it that asks the system
        self._hidden = {place: SEAT for place in sorted({self._seat, real}, key=len, reverse=True)}

    def fill(self, text: str, where: str) -> str:
        """The text with `{seat}` and `${NAME}` filled in, which are hidden from now on. Raises NotSet, which names `where`."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name not in self._environment:
                raise NotSet(f"{where} names ${{{name}}}, which is not set in the environment. Set it where cairn runs.")
            found = self._environment[name]
            if len(found) >= SHORTEST:
                for one in spellings(found):
                    self._hidden.setdefault(one, f"${{{name}}}")
            return found

        return _VARIABLE.sub(value, text.replace("{seat}", self._seat))

    def hide(self, value: Any) -> Any:
        """JSON (or text) as others may see it: the same object where there is nothing to hide."""
        return _mapped(value, self._hide)

    def reveal(self, value: Any) -> Any:
        """JSON (or text) that others wrote, as the server takes it: with its own seat."""
        return _mapped(value, lambda text: _SHOWN.sub(lambda _: self._seat, text) if SEAT in text else text)

    def hide_bytes(self, content: bytes) -> bytes:
        """A file's content without the seat's path; secrets stay, since the server needs them in it."""
        for real, shown in self._hidden.items():
            if shown == SEAT:
                content = content.replace(real.encode(), SEAT.encode())
        return content

    def reveal_bytes(self, content: bytes) -> bytes:
        """The inverse, for this seat."""
        return content.replace(SEAT.encode(), self._seat.encode())

    def _hide(self, text: str) -> str:
        for real, shown in self._hidden.items():
            if real in text:
                text = text.replace(real, shown)
        return text


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key) if isinstance(key, str) else key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value
