"""What all shapes of logs have in common: JSON that stands as text, names of tools, and what people thought of a conversation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.generate.parts.imported.record import Rating, json_of

GOOD = ("up", "thumbs_up", "thumbs up", "good", "like", "liked", "positive", "yes", "true", "accepted", "👍")
BAD = ("down", "thumbs_down", "thumbs down", "bad", "dislike", "disliked", "negative", "no", "false", "rejected", "👎")


def parsed(value: Any) -> Any:
    """What a text of JSON says, in a column or an attribute; any other value itself."""
    if not isinstance(value, str):
        return value
    try:
        return json_of(value)
    except (ValueError, RecursionError):
        return value


def tool_names(tools: Any) -> tuple[str, ...]:
    """Names of the tools that a log says were offered."""
    found = parsed(tools)
    named = found if isinstance(found, list) else []
    functions = [one.get("function", one) for one in named if isinstance(one, Mapping)]
    return tuple(str(one["name"]) for one in functions if isinstance(one, Mapping) and one.get("name"))


def listed(value: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key, [] where there is none."""
    found = value.get(key)
    return found if isinstance(found, list) else []


def ratings_of(value: Mapping[str, Any]) -> Iterator[Rating]:
    """Thumbs, scores and comments that stand beside a conversation, in the fields in which programs keep them."""
    given = value.get("feedback", value.get("rating", value.get("thumb", value.get("label"))))
    words = ""
    if isinstance(given, Mapping):
        words = str(given.get("comment") or given.get("text") or "")
        given = next((given[key] for key in ("thumb", "rating", "score", "value") if key in given), None)
    if (score := thumb(given)) is not None:
        yield Rating("thumb", score, words)
    if isinstance(reward := value.get("reward"), (int, float)) and reward == reward:  # NaN is no reward
        yield Rating("reward", min(1.0, max(0.0, float(reward))))


def thumb(value: Any) -> float | None:
    """1 for what says good, 0 for what says bad, None for what says neither; numbers from 0 to 1 themselves, -1 is bad."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, (int, float)):
        if math.isnan(value):
            return None
        return 0.0 if value < 0 else float(value) if value <= 1 else None
    word = str(value).strip().lower()
    return 1.0 if word in GOOD else 0.0 if word in BAD else None
