"""Worlds out of HTTP services that have an OpenAPI description (3.0 or 3.1): their operations are the tools.

    class Shop(from_openapi(Path(__file__).with_name("openapi.json"), "http://127.0.0.1:8000", name="shop", policy=POLICY)):
        ...

That is enough for a look: reads are called, all else is offered and not called, since nothing says that the service may be changed.
For conversations it is declared disposable, with what sets it back and what its state is:

    class Shop(
        from_openapi(
            Path(__file__).with_name("openapi.yaml"),          # or a dict, or a url: read when the world is built, frozen with it
            "http://127.0.0.1:8000",
            name="shop",
            policy=POLICY,
            operations=("tag:orders", "get_*", "POST /refunds"),    # by name, operationId, "VERB /path", tag or pattern
            names={"cancelOrderV2": "cancel_order"},
            auth={"bearer": "SHOP_TOKEN"},                          # an environment variable, or "prefect:NAME" of a Secret block
            local_ends={"call_a_person": "Hand the conversation over to a person."},
            disposable=True,
            reset="POST /admin/reset",
            state={"orders": "GET /admin/orders", "users": "GET /admin/users"},
            users="users",
        )
    ): ...

GET and HEAD only read, all else writes, until `reads`, `writes` or `ends` say otherwise. Properties of a JSON or form body are
arguments beside the parameters; a body that is no plain object is the argument `body`. What pages its answers is left to the model.

A service holds one state at a time. Conversations take turns by a lock of this machine, and a service that another one has used is
set back and brought to the own state by the calls that made it: with `conversations="one_at_a_time"`, or a `command`, that falls away.
Costs: a request for each call, with `state` one more for each part after a write; `reset` and the writes so far where conversations
take turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tasks.contract.conventions import Conventions
from tasks.contract.params import BadInput
from tasks.worlds.adapters import openapi_spec
from tasks.worlds.adapters.adapted import adapted
from tasks.worlds.adapters.openapi_choice import Choosing
from tasks.worlds.adapters.openapi_http import Credentials, Service
from tasks.worlds.adapters.openapi_processes import Command, Processes
from tasks.worlds.adapters.openapi_source import Operations
from tasks.worlds.adapters.openapi_state import Database, Step, Turns, Ways, parts_of, step
from tasks.worlds.adapters.plain_data import View, steps_of
from tasks.worlds.adapters.server_file import without_secrets

_SECRET = re.compile(r"auth|cookie|token|secret|password|credential|api-?key", re.IGNORECASE)
"""Names of headers that hold secrets."""


def from_openapi(
    spec: Path | str | Mapping[str, Any],
    base_url: str,
    *,
    name: str,
    policy: str,
    operations: Iterable[str] | None = None,
    names: Mapping[str, str] | None = None,
    reads: Iterable[str] = (),
    writes: Iterable[str] = (),
    ends: Iterable[str] = (),
    local_ends: Mapping[str, str] | None = None,
    allow: Iterable[str] = (),
    dangerous: Iterable[str] = (),
    produces: Mapping[str, Iterable[str]] | None = None,
    auth: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    command: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    services: int = 8,
    start_seconds: float = 60.0,
    disposable: bool = False,
    conversations: Literal["side_by_side", "one_at_a_time"] = "side_by_side",
    reset: str = "",
    fixture: Mapping[str, Path | str] | None = None,
    database: Database | None = None,
    state: str | Iterable[str] | Mapping[str, str] = (),
    leave_out: Iterable[str] = (),
    rounded: Mapping[str, float] | None = None,
    users: str = "",
    problems_file: Path | str | None = None,
    conventions: Conventions | None = None,
    call_seconds: float = 30.0,
    real_url: str = "",
    real_auth: Mapping[str, str] | None = None,
) -> type[Any]:
    """A world class over the HTTP service at `base_url` that `spec` describes.

    spec:      path of a JSON or YAML file, the description itself, or its url. Nothing is fetched before the world is built.
    base_url:  where the service is, with the part of the path that all operations have before theirs; without secrets.
    operations: those that become tools, None for all (at most 128): tool names, operationIds, "VERB /path", "tag:NAME", or patterns of
               these (`get_*`).
    names:     operation -> the tool's name; by default its operationId, else verb and path.
    reads, writes, ends: operations that do so, whatever their verb says (GET and HEAD read, others write). ends end the conversation.
    local_ends: name -> description of tools that the service does not have and that end the conversation, such as a hand-over.
    allow:     dangerous operations that are offered all the same, each by its name. Dangerous are DELETE, what the description marks
               with `x-dangerous: true`, and what `dangerous` names or fits with a pattern, for whatever reason it is to be off.
    produces:  tool -> types of the ids in its answer (edges of the API graph); by default the properties of its answer's schema.
    auth:      where a secret goes -> where it is kept: {"bearer": "SHOP_TOKEN", "header X-Api-Key": "prefect:shop-key"}; bearer,
               basic (of "user:password"), "header NAME", "query NAME" or "cookie NAME"; an environment variable, or prefect: and the
               name of a Secret block. No tool has an argument for it, and no file, row or message holds it.
    headers:   sent with every request; no place for secrets.
    command:   words that start a service of the world's own, in the folder of the project: "{port}" and "{seat}", an empty folder, are
               filled in, `python` is the one that runs Cairn. base_url then holds "{port}", and spec may. Up to `services` run at once,
               and without reset, fixture and database one is started anew to set it back. env: its environment besides PATH and HOME;
               "${NAME}" is filled in. start_seconds: until it takes connections.
    disposable: the service may be changed by every run and check. Without it only reads are ever sent, also by the stage `worlds`.
    conversations: "one_at_a_time" plays one after the other, so that the service is set back once for each: for one that is slow to
               set back. "side_by_side" has their calls take turns.
    reset:     the request that brings the start back: "POST /admin/reset".
    fixture:   "PUT /admin/state" -> JSON file that is sent there, after `reset`; in their order.
    database:  a `SqliteDatabase` or `PostgresDatabase` (`tasks.worlds.adapters.openapi_database`) that is set back before `reset`.
    state:     the GET that answers the state ("GET /admin/state"), or several by name. It must answer all of it at once; a list of
               rows with an `id` each counts as a table, in any order. By default the tables of `database`.
    leave_out: patterns of keys of the state that do not count (clocks, versions).
    rounded:   pattern -> step, for numbers with noise: they count as the nearest multiple of the step ({"accounts.*.balance": 0.01}).
    users:     dotted path of the state's table of users, "" for none.
    problems_file: problems as JSON lines (`tasks.worlds.adapters.problem_file`). There are no scripted humans: the role needs a model.
    conventions: how a person is identified, which tool hands over, what looks up, who confirms (`tasks.contract.conventions`).
    call_seconds: longest that a request may take, with the tries that follow it.
    real_url, real_auth: the service that `cairn serve --with-tools` calls, which is never set back; by default the one above.

    Raises BadInput for what can be seen at once; building the world raises it for a description that cannot be read or used.
    """
    where = f"world {name}"
    texts = {
        word: _texts(where, word, entries)
        for word, entries in (("reads", reads), ("writes", writes), ("ends", ends), ("allow", allow), ("dangerous", dangerous))
    }
    chosen = None if operations is None else _texts(where, "operations", operations)
    credentials = Credentials(auth or {}, where)
    if database is not None:
        database.check(where)
    parts: dict[str, Step | Database] = {**parts_of(state, where)}
    ways = Ways(
        reset=(
            *((database,) if database is not None else ()),
            *((step(reset, f"{where}: reset"),) if reset else ()),
            *(step(text, f"{where}: fixture", Path(file)) for text, file in (fixture or {}).items()),
        ),
        parts={"": database} if database is not None and not parts else parts,
    )
    if conversations not in ("side_by_side", "one_at_a_time"):
        raise BadInput(f"{where}: conversations = {conversations!r}: must be 'side_by_side' or 'one_at_a_time'.")
    words = _texts(where, "command", command)
    if ways.reset and not (disposable or words):
        raise BadInput(f"{where}: reset, fixture and database change the service; say that it may be changed: disposable=True.")
    if bool(words) != ("{port}" in str(base_url)):
        raise BadInput(
            f"{where}: command and '{{port}}' in base_url go together: 'http://127.0.0.1:{{port}}'. Got base_url = {base_url!r}."
        )
    sent = _headers(where, headers or {})
    address = _address(where, "base_url", base_url, spec)

    def started(port: int, seat: Path) -> Service:
        return Service(address.replace("{port}", str(port)), credentials, sent, call_seconds, seat)

    real = Service(
        _address(where, "real_url", real_url or base_url, spec),
        credentials if real_auth is None else Credentials(real_auth, f"{where}: real"),
        sent,
        call_seconds,
    )
    source = Operations(
        where=where,
        spec=spec,
        choosing=Choosing(where=where, operations=chosen, names=dict(names or {}), **texts),
        local_ends=dict(local_ends or {}),
        produces={tool: tuple(kinds) for tool, kinds in (produces or {}).items()},
        credentials=credentials,
        places=Processes(Command(words, dict(env or {}), services, start_seconds, service=started))
        if words
        else Turns(Service(address, credentials, sent, call_seconds), f"{where} {ways}"),
        ways=ways,
        view=View(tuple(_texts(where, "leave_out", leave_out)), rounded=steps_of(where, rounded or {})),
        disposable=disposable or bool(words),
        real=None if words and not real_url else real,
    )
    made = adapted(
        source,
        name=name,
        policy=policy,
        users=users,
        problems_file=problems_file,
        writes=source,
        where=where,
        conventions=conventions,
    )
    made.SIDE_BY_SIDE = int(conversations == "one_at_a_time")
    made.WAITS, made.COPIES = True, bool(ways.reset or words) or not disposable
    made.COMPARED = bool(ways.parts) and made.COPIES  # where nothing brings a state about, it tells nothing of one conversation
    return made


def _texts(where: str, word: str, entries: Any) -> tuple[str, ...]:
    if isinstance(entries, str):
        raise BadInput(f"{where}: {word} = {entries!r} is one text; write ({entries!r},).")
    return tuple(entries)


def _address(where: str, word: str, url: str, spec: Any) -> str:
    """A url without secrets. BadInput for what is none; the servers that a description names are told, never taken."""
    parts = urlsplit(url if isinstance(url, str) else "")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        named_there = ""
        if isinstance(spec, Mapping):
            found = openapi_spec.servers(openapi_spec.Spec(spec, where, ""))
            named_there = f" The description names {', '.join(found)}." if found else ""
        raise BadInput(f"{where}: {word} = {url!r}: write where the service is, such as http://127.0.0.1:8000.{named_there}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise BadInput(
            f"{where}: {word} = {without_secrets(url)!r} and more: a user, a password or a query do not belong there. Use auth."
        )
    return url


def _headers(where: str, headers: Mapping[str, str]) -> dict[str, str]:
    for key in headers:
        if _SECRET.search(key):
            raise BadInput(
                f"{where}: headers[{key!r}] holds a secret in code. Say where it is kept: auth={{'header {key}': 'VARIABLE'}}."
            )
    return dict(headers)
