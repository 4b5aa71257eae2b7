"""Fields of a request that this server answers with one value alone: one that would change what is sampled from is refused, and so is
one that is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Allowed = Mapping[str, tuple[Any, ...]]
"""Field -> the values that it may have."""
SAMPLING: Allowed = {
    "top_k": (0, -1, None),
    "min_p": (0, None),
    "repetition_penalty": (1, None),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
}
"""Of every request."""


def refusal(extra: Mapping[str, Any] | None, allowed: Allowed) -> str:
    """What is said of the first field that may not be so; "" when all may. extra: the fields that a request has beside its own."""
    for key, value in (extra or {}).items():
        if key not in allowed or value not in allowed[key]:
            return f"{key} = {value!r}: " + (
                f"allowed: {', '.join(map(str, allowed[key]))}" if key in allowed else "it is not known here"
            )
    return ""
