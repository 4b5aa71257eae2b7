"""An HTTP service as an API: its OpenAPI description. Nothing is sent to it here but, for a url, the request for the description."""

from __future__ import annotations

import json
from typing import Any

from flows.own_api.api import Api, Wish
from flows.own_api.guesses import Guess, guess
from tasks.contract.params import BadInput
from tasks.worlds.adapters import from_openapi, openapi_spec

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

    def built(world: str, policy: str, operations: tuple[str, ...] | None = None) -> type[Any]:
        return from_openapi(spec.document, url, name=world, policy=policy, operations=operations, disposable=wish.disposable)

    kinds = {name: tool.kind for name, tool in built("api", "...").FOREIGN.tools().items()}
    guesses = tuple(_guessed(name, kind) for name, kind in kinds.items() if wish.disposable or kind == "read")
    if not guesses:
        raise BadInput(
            f"--from {origin}: no operation only reads, and the service was not declared disposable, so nothing could be called. Point "
            "--url to a copy that may be changed, and add --disposable."
        )
    reading = None if wish.disposable else tuple(one.name for one in guesses)
    chosen = (
        "disposable=True,  # every run and check may change it" if reading is None else f"operations={reading!r},  # those that read"
    )
    return Api(
        origin=f"the HTTP service at {url}",
        guesses=guesses,
        files={},
        texts={FILE: json.dumps(spec.document, indent=1, ensure_ascii=False) + "\n"},
        imports=(),
        own="",
        call=("from_openapi", f'HERE / "api" / "{FILE}", {url!r}'),
        keywords=(chosen,),
        listing=False,
        built=lambda world, policy: built(world, policy, reading),
        notes=() if wish.disposable else (NOT_DISPOSABLE,),
    )


def _guessed(name: str, kind: Any) -> Guess:
    """By its verb; a name that hands over is told by the name."""
    by_name = guess(name)
    return by_name if by_name.kind == "end" else Guess(name, kind, "by its HTTP verb")
