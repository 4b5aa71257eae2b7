"""Errors as OpenAI's API writes them, so that its clients raise what they raise there."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

UNKNOWN, TOO_LONG = "model_not_found", "context_length_exceeded"
"""Codes that clients tell apart."""


def refused(status: int, message: str, code: str | None = None, param: str | None = None) -> JSONResponse:
    """An answer that is an error. param: the field of the request that it is about."""
    return JSONResponse({"error": error(status, message, code, param)}, status_code=status)


def error(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """What stands in it, also in the middle of a stream."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "param": param, "code": code}


def of_engine(wrong: Exception) -> JSONResponse:
    """An answer in place of a turn that an engine did not make: LookupError is for a model that it does not have."""
    if isinstance(wrong, LookupError):
        return refused(404, str(wrong), UNKNOWN, "model")
    return refused(500, f"{type(wrong).__name__}: {wrong}")


def first_fault(error: Any) -> tuple[str, None, str | None]:
    """(message, no code, field) of the first thing that pydantic finds wrong with a request."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return f"{place or 'the request'}: {first['msg']}", None, place.split(".")[0] or None
