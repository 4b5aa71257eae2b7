"""The shapes of logs: which of them a value is, and the conversations in it.

`SHAPES` is the list: a name, whether a value looks like it, and what reads it. One more shape is one more entry.

| name | a line (or a whole file) is |
|---|---|
| openai | {"messages": [...]}, also below "request" and "response" or "body"; fine-tuning pairs with "preferred_output" |
| sharegpt | {"conversations": [{"from", "value"}], "system", "tools"} |
| xlam | {"query", "answers", "tools"}: one user's line and the calls to it |
| tau2 | a results file of tau2-bench: {"tasks": [...], "simulations": [...]} |
| mlflow | a trace as MLflow writes it: {"info", "data": {"spans"}} |
| cairn | a row of TRAJECTORY (Parquet) |

What `cairn serve` keeps (`.cairn/served`) has its turns in lines of their own; `tasks.generate.parts.imported.kept_answers` joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from tasks.generate.parts.imported import programs
from tasks.generate.parts.imported.plain import listed, parsed, ratings_of, tool_names
from tasks.generate.parts.imported.record import Choice, Message, Record, Unreadable, shaped

Value = Mapping[str, Any]


class Shape(NamedTuple):
    """One shape of logs. fits(value): whether a value is of it. read(value, longest): its conversations; raises Unreadable."""

    name: str
    fits: Callable[[Value], bool]
    read: Callable[[Value, int], Iterator[Record]]


def records(value: Any, longest: int, shape: str = "") -> Iterator[Record]:
    """The conversations of a value. shape: its name, "" to find out. longest: characters of a message. Raises Unreadable."""
    if not isinstance(value, Mapping):
        raise Unreadable(f"{type(value).__name__}, not an object")
    for one in SHAPES:
        if one.name == shape or (not shape and one.fits(value)):
            yield from one.read(value, longest)
            return
    known = ", ".join(list(value)[:8])
    raise Unreadable(f"no known shape of a conversation; its keys: {known}")


# --- openai ------------------------------------------------------------------------------------------------------------------------


def _inside(value: Value) -> tuple[Value, Value]:
    """The request and the response in a line: stored completions and batch files keep both."""
    request: Any = next((value[key] for key in ("request", "body", "input") if isinstance(parsed(value.get(key)), Mapping)), value)
    response: Any = next((value[key] for key in ("response", "output") if isinstance(parsed(value.get(key)), Mapping)), {})
    request, response = parsed(request), parsed(response)
    body = response.get("body")
    return request.get("body", request) if isinstance(request.get("body"), Mapping) else request, body or response


def _openai(value: Value, longest: int) -> Iterator[Record]:
    request, response = _inside(value)
    messages = parsed(request.get("messages"))
    if not isinstance(messages, list):
        raise Unreadable("messages is no list")
    said = [choice["message"] for choice in listed(response, "choices")[:1] if isinstance(choice, Mapping) and "message" in choice]
    preferred, other = value.get("preferred_output"), value.get("non_preferred_output")
    choices = []
    if isinstance(preferred, list) and isinstance(other, list):
        choices, said = [Choice(*(_end(messages, end, longest) for end in (preferred, other)))], preferred
    about = {key: item for key, item in {**request, **value}.items() if key not in ("messages", "tools", "request", "response", "body")}
    yield Record(
        shaped([*messages, *said], longest),
        tool_names(request.get("tools", request.get("functions", value.get("tools")))),
        about,
        str(about.get("world") or about.get("domain") or ""),
        str(request.get("model") or response.get("model") or ""),
        tuple(ratings_of(value)),
        tuple(choices),
    )


def _end(messages: Sequence[Any], end: Sequence[Any], longest: int) -> list[Message]:
    """The messages of one of two ends of the same conversation, without what both begin with."""
    begun = len(shaped([*messages, {"role": "assistant", "content": ""}], longest)) - 1
    return shaped([*messages, *end], longest)[begun:]


# --- sharegpt, xlam ----------------------------------------------------------------------------------------------------------------


def _sharegpt(value: Value, longest: int) -> Iterator[Record]:
    turns = parsed(value["conversations"])
    if not isinstance(turns, list):
        raise Unreadable("conversations is no list")
    messages: list[Message] = [{"role": "system", "content": value["system"]}] if value.get("system") else []
    for is_answer, group in groupby(turns, key=lambda turn: isinstance(turn, Mapping) and turn.get("from") == "observation"):
        for turn in group:
            messages += _answers(turn) if is_answer else [_turn(turn)]
    about = {key: item for key, item in value.items() if key not in ("conversations", "system", "tools")}
    yield Record(
        shaped(messages, longest), tool_names(value.get("tools")), about, str(value.get("world") or ""), "", tuple(ratings_of(value))
    )


def _turn(turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        raise Unreadable(f"a turn is {type(turn).__name__}, not an object")
    if turn.get("from") != "function_call":
        return {"role": turn.get("from", turn.get("role")), "content": turn.get("value", turn.get("content"))}
    beside = parsed(turn.get("about") or "{}")
    made = parsed(turn.get("value"))
    calls = made if isinstance(made, list) else [made]
    names = beside.get("ids", []) if isinstance(beside, Mapping) else []
    labelled = [
        {**call, **({"id": names[at]} if at < len(names) else {})} for at, call in enumerate(calls) if isinstance(call, Mapping)
    ]
    if len(labelled) < len(calls):
        raise Unreadable("a function_call holds no call")
    return {"role": "assistant", "content": beside.get("content", "") if isinstance(beside, Mapping) else "", "tool_calls": labelled}


def _answers(turn: Value) -> list[Message]:
    labels = parsed(turn.get("about") or "[]")
    if isinstance(labels, list) and len(labels) > 1 and isinstance(said := parsed(turn.get("value")), list):
        return [{"role": "tool", **label, "content": one} for label, one in zip(labels, said, strict=False)]
    label = labels[0] if isinstance(labels, list) and labels else {}
    return [{"role": "tool", **label, "content": turn.get("value")}]


def _xlam(value: Value, longest: int) -> Iterator[Record]:
    made = parsed(value["answers"])
    if not isinstance(made, list):
        raise Unreadable("answers is no list of calls")
    reply = {"role": "assistant", "content": "", "tool_calls": made} if made else {"role": "assistant", "content": "I cannot do that."}
    about = {key: item for key, item in value.items() if key not in ("query", "answers", "tools")}
    messages = shaped([{"role": "user", "content": value["query"]}, reply], longest)
    yield Record(messages, tool_names(value.get("tools")), about, without_answers=True)


SHAPES = (
    Shape("cairn", lambda value: "traj_id" in value and "messages" in value, programs.row),
    Shape("served", lambda value: {"id", "created", "messages", "prompt_ids", "finish"} <= set(value), programs.served),
    Shape("tau2", lambda value: isinstance(value.get("simulations"), list), programs.tau2),
    Shape("mlflow", lambda value: isinstance(value.get("info"), Mapping) and "spans" in (value.get("data") or {}), programs.mlflow),
    Shape("sharegpt", lambda value: "conversations" in value, _sharegpt),
    Shape("xlam", lambda value: {"query", "answers"} <= set(value), _xlam),
    Shape("openai", lambda value: any("messages" in one for one in _inside(value)[:1]), _openai),
)
"""In the order in which a value is held against them."""
NAMES = tuple(one.name for one in SHAPES)
