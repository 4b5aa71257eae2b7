"""What an HTTP service answered, as an agent reads it: a value, a refusal, or a failure that is nobody's in the conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from tasks.contract.values import whole_text
from tasks.worlds.adapters.answers import clear
from tasks.worlds.adapters.foreign_state import SourceFailed
from tasks.worlds.adapters.openapi_http import Reply
from tasks.worlds.api.tools import Refused

TEXTS = ("text/", "application/xml", "application/javascript", "application/x-www-form-urlencoded", "application/yaml")
_WORDS = ("detail", "message", "error_description", "error", "title", "errors", "reason", "description")
"""Keys under which services say what is wrong (RFC 9457, FastAPI, OAuth and many others), the most telling first."""


def answer_of(reply: Reply, where: str, credentials: str) -> Any:
    """Text, or the JSON value. where: verb and path, for messages. credentials: which were sent. Raises Refused for what the service
    says no to, SourceFailed for what it failed at."""
    if reply.status >= 500 or reply.status in (407, 408, 425, 429):
        raise SourceFailed(f"{where}: {_status(reply)}: {_reason_in(reply)}. Look into the service's log.")
    if reply.status == 401:
        raise SourceFailed(f"{where}: {_status(reply)}: {_reason_in(reply)}. The credentials were not taken: {credentials}.")
    if reply.status in (405, 415, 406, 501):
        raise SourceFailed(f"{where}: {_status(reply)}: the service is not as its description says, or base_url leads elsewhere.")
    if reply.status >= 400:
        raise Refused(f"{_status(reply)}: {_reason_in(reply)}")
    return _read(reply)


def _status(reply: Reply) -> str:
    try:
        return f"{reply.status} {HTTPStatus(reply.status).phrase}"
    except ValueError:
        return str(reply.status)


def _read(reply: Reply) -> Any:
    if not reply.content:
        return f"done ({_status(reply)}, no content)"
    if value := _json(reply):
        return value[0]
    if reply.kind.startswith(TEXTS) or (not reply.kind and _is_text(reply.content)) or _is_json_kind(reply.kind):
        text = whole_text(reply.text())
        return text if reply.whole else f"{text}\n[the answer was longer than {len(reply.content):,} bytes; ask for less]"
    size = f"{len(reply.content):,}" if reply.whole else f"more than {len(reply.content):,}"
    return f"[file: {reply.kind or 'of no named type'}, {size} bytes]"


def _json(reply: Reply) -> tuple[Any] | None:
    """The value of JSON in a tuple; None for what is none."""
    if not reply.whole or not (_is_json_kind(reply.kind) or not reply.kind):
        return None
    try:
        return (clear(json.loads(reply.text())),)
    except (ValueError, RecursionError):
        return None


def _is_json_kind(kind: str) -> bool:
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def _is_text(content: bytes) -> bool:
    return b"\x00" not in content[:1000]


def _reason_in(reply: Reply) -> str:
    """What a service says is wrong, on one line."""
    if value := _json(reply):
        return words_of(value[0]) or "it does not say why"
    text = whole_text(reply.text()) if reply.kind.startswith(TEXTS) or not reply.kind else ""
    if "html" in reply.kind or text.lstrip().lower().startswith(("<!doctype", "<html")):
        text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return " ".join(text.split())[:400].rstrip(".") or "it does not say why"


def words_of(value: Any) -> str:
    """The words in an error's body: of a problem its title and detail, of a list of mistakes each with its place.

    >>> words_of({"detail": [{"loc": ["body", "amount"], "msg": "Input should be greater than 0"}]})
    'amount: Input should be greater than 0'
    >>> words_of({"title": "No such order", "detail": "W9 is unknown", "type": "about:blank"})
    'No such order: W9 is unknown'
    """
    if isinstance(value, str):
        return " ".join(value.split()).rstrip(".")
    if isinstance(value, list):
        return "; ".join(words for one in value[:10] if (words := words_of(one)))
    if not isinstance(value, Mapping):
        return "" if value is None else json.dumps(value)
    message = value.get("msg") or value.get("message")
    place = value.get("loc") or value.get("pointer") or value.get("field") or value.get("path")
    if message and place:
        return f"{_place(place)}: {words_of(message)}"
    found = {key: words_of(value[key]) for key in _WORDS if value.get(key)}
    if not found:
        return json.dumps(value, ensure_ascii=False)
    title, detail = found.pop("title", ""), next((found[key] for key in _WORDS if key in found), "")
    mistakes = found.get("errors", "") if value.get("errors") and detail != found.get("errors") else ""
    return ": ".join(dict.fromkeys(part for part in (title, detail, mistakes) if part))


def _place(place: Any) -> str:
    parts = [str(part) for part in place] if isinstance(place, list) else [str(place)]
    if len(parts) > 1 and parts[0] in ("body", "query", "path", "header", "cookie"):
        parts = parts[1:]
    return ".".join(parts)
