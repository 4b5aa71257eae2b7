"""What a server means when it does not answer: a status, a code, words, or an error object inside an answer of status 200. Pure.

Servers spell one thing in many ways, and gateways hand on the spelling of whoever is behind them; so codes and words are looked at
before the status. Unknown ones are told by their status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.contract.values import whole_text
from tasks.players.openai_compatible.rate_limit import LONGEST_PAUSE

LONGEST = 300
"""Characters of a server's words that are kept."""
_STRICT = {400: "does not accept the request", 413: "finds the request too long", 422: "does not accept the request"}
_CLOSED = {
    401: ("refuses the key", "Check the key that key_env or key_block names, and that it is this server's"),
    402: ("wants to be paid first", "Top up the account, or ask another server"),
    403: ("refuses the key for this model", "Check the rights of the key that key_env or key_block names"),
    404: ("does not know the model, or base_url does not end where its API begins (often /v1)", "Check model and base_url"),
}
"""Status -> (what the server does, what to do about it)."""
_CONTEXT = re.compile(
    r"context.?(length|window|size)|(maximum|max)\W+(model|context|input|sequence)\W*(length|len|tokens)|max_model_len"
    r"|too many (input )?tokens"
    r"|(prompt|input|request|message)s?( \w+)? (is|are|was) too (long|large)|request too large|longer than the (model|maximum)"
    r"|reduce the length|string_above_max_length|exceed\w* (the )?(maximum|max|available|limit of)[^.]{0,40}(tokens|context|length)",
    re.IGNORECASE,
)
_FILTER = re.compile(
    r"content[ _-]?(filter|policy|management|moderation)|responsible.?ai|prohibited.?content|data_inspection_failed|guardrail"
    r"|safety (system|filter|policy|setting|reason)|flagged (as|by|for|input)|moderation"
    r"|blocked (by|due to|for|because of) (the |our )?(\w+ )?(safety|content|filter|polic)",
    re.IGNORECASE,
)
_UNPAID = re.compile(
    r"insufficient[ _](quota|credit|balance|fund)|exceeded your current quota|credit balance|billing|payment required|out of credits",
    re.IGNORECASE,
)
_NAMES = (
    (402, r"payment"),
    (429, r"rate.?limit|too.?many.?request|resource.?exhausted|throttl"),
    (529, r"overload|server.?busy|engine.?busy"),
    (503, r"unavailable"),
    (401, r"authenticat|unauthorized|unauthenticated|api.?key"),
    (403, r"permission|forbidden"),
    (404, r"not.?found"),
    (400, r"invalid|bad.?request|validation"),
)
"""Status -> names of the same thing, for errors that come without a number."""


@dataclass(frozen=True)
class Verdict:
    """What it means. kind: busy (later, after `wait` seconds if the server said so); ill (it may pass); strict (this request is not
    taken, for `reason`); closed (nobody's is). reason: one of `tasks.contract.losses.REMEDIES`."""

    kind: Literal["busy", "ill", "strict", "closed"]
    text: str
    reason: str = ""
    wait: float = 0.0


def of_status(status: int, body: str, wait: float) -> Verdict:
    """What a status other than 200 means. wait: seconds of its Retry-After, 0 without one."""
    try:
        error = _error_in(json.loads(body))
    except (ValueError, RecursionError):
        error = {"message": body.strip()[:100]}
    return _verdict(status, error, wait)


def inside(answer: Any, wait: float) -> Verdict | None:
    """What an error object in an answer of status 200 means; None when there is none. answer: the whole one, as JSON."""
    if not isinstance(answer, dict):
        return None
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    found = answer.get("error") or choice.get("error") or (not choice and ("message" in answer or "detail" in answer) and answer)
    if not found:
        return None
    error = _error_in({"error": found})
    return _verdict(_status_of(error), error, wait or _seconds(error))


def _error_in(body: Any) -> dict[str, Any]:
    """The error object of a body, wherever it stands."""
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error") or body if isinstance(body, dict) else body
    return error if isinstance(error, dict) else {"message": error}


def _status_of(error: Mapping[str, Any]) -> int:
    """The status that an error stands for; 500 when it does not say."""
    for name in ("code", "status", "status_code", "http_status"):
        text = str(error.get(name)) if isinstance(error.get(name), (int, str)) else ""
        if re.fullmatch(r"[45]\d\d", text):
            return int(text)
    names = " ".join(str(error.get(name) or "") for name in ("code", "type", "status"))
    return next((status for status, spelled in _NAMES if re.search(spelled, names, re.IGNORECASE)), 500)


def _seconds(error: Mapping[str, Any]) -> float:
    """A pause that stands in the error itself."""
    for place in (error, error.get("metadata")):
        found = place.get("retry_after", place.get("retry-after")) if isinstance(place, dict) else None
        if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found <= 1e9:
            return float(found)
    return 0.0


def _words(error: Mapping[str, Any]) -> str:
    """What the error says, and what a gateway quotes of the one behind it."""
    text = error.get("message") or error.get("detail") or ""
    behind = error.get("metadata")
    quoted = behind.get("raw") if isinstance(behind, dict) else None
    try:
        return whole_text(f"{text} {quoted or ''}".strip())[:LONGEST]
    except (ValueError, RecursionError):
        return ""


def _verdict(status: int, error: Mapping[str, Any], wait: float) -> Verdict:
    words = _words(error)
    names = " ".join(str(error.get(name))[:LONGEST] for name in ("code", "type") if isinstance(error.get(name), str))
    searched = f"{names} {words}"
    detail = f"status {status}{f' ({words or names})' if words or names else ''}"
    if _UNPAID.search(searched) and status not in (401, 404):
        return Verdict("closed", f"the server says that the quota is used up or nothing is paid: {detail}. {_CLOSED[402][1]}")
    if status in (429, 503, 529) and not re.search("request too large", searched, re.IGNORECASE):
        if wait > LONGEST_PAUSE:
            return Verdict("closed", f"the server wants no calls for {wait:.0f} s: {detail}. Run again after that")
        return Verdict("busy", f"the server is too busy: {detail}", wait=wait)
    if _CONTEXT.search(searched) and status not in (401, 402, 403, 404):
        return Verdict("strict", f"the request is too long for the model: {detail}", "context_length")
    if status == 451 or (_FILTER.search(searched) and status not in (401, 402, 404)):  # 451: not for legal reasons
        return Verdict("strict", f"a filter declines the request: {detail}", "content_filter")
    if status == 413:
        return Verdict("strict", f"the server {_STRICT[status]}: {detail}", "context_length")
    if status in _CLOSED:
        does, remedy = _CLOSED[status]
        return Verdict("closed", f"the server {does}: {detail}. {remedy}")
    if 300 <= status < 400:
        return Verdict("closed", f"base_url leads elsewhere ({detail}); name the place itself, a key is not sent on")
    if 400 <= status < 500 and status not in (408, 409, 425):
        return Verdict("strict", f"the server {_STRICT.get(status, _STRICT[400])}: {detail}", "not_accepted")
    return Verdict("ill", f"the server failed: {detail}")
