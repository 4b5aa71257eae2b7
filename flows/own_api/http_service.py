"""An HTTP service as an API: its OpenAPI description. Nothing is sent to it here but, for a url, the request for the description."""

from __future__ import annotations

import json
from typing import Any

from flows.own_api.api import Api, Wish
from flows.own_api.guesses import Guess, guess
from flows.own_api.source_text import INDENT, argument, quoted
from tasks.contract.params import BadInput
from tasks.worlds.adapters import from_openapi, openapi_spec
from tasks.worlds.adapters.openapi_survey import survey

FILE = "openapi.json"
NOT_DISPOSABLE = (
    "Nobody said that the service may be changed (--disposable), so only operations that read are offered. With a copy that may be: "
    "disposable=True, reset=... and state=... in world.py; tasks/worlds/adapters/openapi.py says how."
)


def look(origin: str, wish: Wish) -> Api:
    """The API that a description describes. Raises BadInput for what is no description, and where it names no url of a service."""
    spec = openapi_spec.read(origin, "--from")
    known = openapi_spec.servers(spec, origin if origin.startswith(("http://", "https://")) else "")
    url = wish.url or (known[0] if known else "")
    if not url:
        raise BadInput(
            f"--from {origin}: the description names no absolute url of the service. Say where it is: --url http://127.0.0.1:8000"
        )

    found = survey(spec, wish.operations or None, reads_only=not wish.disposable)
    guesses = tuple(_guessed(name, kind) for name, kind in found.kinds.items())
    ends = tuple(one.name for one in guesses if one.kind == "end")

    def built(world: str, policy: str) -> type[Any]:
        return from_openapi(
            spec.document, url, name=world, policy=policy, operations=found.operations, ends=ends, disposable=wish.disposable
        )

    keywords: list[str] = []
    if found.operations is not None:
        keywords += argument("operations", found.operations, INDENT, "" if wish.disposable or wish.operations else "those that read")
    if ends:
        keywords += argument("ends", ends, INDENT, "by their names")
    if wish.disposable:
        keywords.append("disposable=True,  # every run and check may change it")
    return Api(
        origin=f"the HTTP service at {url}",
        guesses=guesses,
        files={},
        texts={FILE: json.dumps(spec.document, indent=1, ensure_ascii=False) + "\n"},
        imports=(),
        own="",
        call=("from_openapi", f'HERE / "api" / "{FILE}",\n        {quoted(url)}'),
        keywords=tuple(keywords),
        listing=False,
        built=built,
        notes=(*(() if wish.disposable else (NOT_DISPOSABLE,)), *(f"left out: {call}: {why}" for call, why in found.left_out.items())),
    )


def _guessed(name: str, kind: Any) -> Guess:
    """By its verb; a name that hands over is told by the name."""
    by_name = guess(name)
    return by_name if by_name.kind == "end" else Guess(name, kind, "by its HTTP verb")
