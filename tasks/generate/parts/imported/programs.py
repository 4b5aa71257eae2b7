"""The shapes in which particular programs keep conversations: results of tau2-bench, traces of MLflow, and Cairn's own two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.contract.rows import message_of
from tasks.generate.parts.imported.plain import listed, parsed, ratings_of, thumb, tool_names
from tasks.generate.parts.imported.record import Rating, Record, Truth, Unreadable, shaped

Value = Mapping[str, Any]


def apart(results: Value) -> Iterator[Value]:
    """Of a results file of tau2-bench each simulation in a file of its own, with its task."""
    tasks = {str(task.get("id")): task for task in results.get("tasks") or () if isinstance(task, Mapping)}
    for run in results["simulations"]:
        task = tasks.get(str(run.get("task_id"))) if isinstance(run, Mapping) else None
        yield {"info": results.get("info"), "tasks": [task] if task else [], "simulations": [run]}


def tau2(value: Value, longest: int) -> Iterator[Record]:
    """The simulations of a results file, each with what its task wanted done. What the simulated user did with tools of their own is
    left out: no agent sees it."""
    info = value.get("info") or {}
    domain = str((info.get("environment_info") or {}).get("domain_name") or "")
    agent = str((info.get("agent_info") or {}).get("llm") or "")
    for one in apart(value):
        (run,) = one["simulations"]
        messages = [_seen(message) for message in run.get("messages") or () if _requestor(message) != "user"]
        reward = (run.get("reward_info") or {}).get("reward")
        ratings = (Rating("reward", min(1.0, max(0.0, float(reward)))),) if isinstance(reward, (int, float)) else ()
        about = {name: run.get(name) for name in ("task_id", "trial", "id")}
        truth = _task(one["tasks"][0]) if one["tasks"] else None
        yield Record(shaped(messages, longest), (), about, domain, agent, ratings, (), truth)


def _requestor(message: Any) -> Any:
    return message.get("requestor") if isinstance(message, Mapping) else None


def _seen(message: Any) -> Any:
    """A message as the agent sees it: calls of the user's are none."""
    if not isinstance(message, Mapping) or message.get("role") == "assistant":
        return message
    return {key: item for key, item in message.items() if key != "tool_calls"}


def _task(task: Value) -> Truth | None:
    """What a task of tau2-bench wants done."""
    criteria = task.get("evaluation_criteria") or {}
    actions = [one for one in criteria.get("actions") or () if one.get("requestor", "assistant") == "assistant"]
    asked = (task.get("user_scenario") or {}).get("instructions") or ""
    words = asked if isinstance(asked, str) else "\n".join(str(text) for text in asked.values() if isinstance(text, str))
    said = tuple(str(one) for one in criteria.get("communicate_info") or ())
    return Truth(words, [(one["name"], dict(one.get("arguments") or {})) for one in actions], said, (), str(task.get("id") or ""))


def mlflow(value: Value, longest: int) -> Iterator[Record]:
    """The conversation of a trace, with what people assessed."""
    info, spans = value["info"], [one for one in value["data"]["spans"] if isinstance(one, Mapping)]
    if not spans:
        raise Unreadable("a trace without spans")
    messages = _cairn_trace(spans) or _longest_chat(spans)
    if not messages:
        raise Unreadable("no span of the trace holds chat messages")
    ratings = [
        Rating("thumb" if isinstance(given, bool) else "score", score, str(one.get("rationale") or ""))
        for one in info.get("assessments") or ()
        if isinstance(one, Mapping)
        and (score := thumb(given := (one.get("feedback") or {}).get("value"))) is not None
        and (one.get("source") or {}).get("source_type") == "HUMAN"
    ]
    metadata = dict(info.get("trace_metadata") or info.get("request_metadata") or {})
    about = {**{str(key).removeprefix("mlflow.trace."): item for key, item in metadata.items()}, "id": info.get("trace_id")}
    yield Record(shaped(messages, longest), (), about, str(metadata.get("cairn.world", "")), "", tuple(ratings))


def _attribute(span: Value, name: str) -> Any:
    return parsed((span.get("attributes") or {}).get(name))


def _longest_chat(spans: Sequence[Value]) -> list[Any]:
    """Of all spans that hold messages the longest conversation: what the last call to a model read, and its reply."""
    found: list[list[Any]] = []
    for span in spans:
        asked, said = _attribute(span, "mlflow.spanInputs"), _attribute(span, "mlflow.spanOutputs")
        if not isinstance(asked, Mapping) or not isinstance(asked.get("messages"), list):
            continue
        reply = [one["message"] for one in listed(said, "choices")[:1]] if isinstance(said, Mapping) else []
        found.append([*asked["messages"], *reply])
    return max(found, key=len, default=[])


def _cairn_trace(spans: Sequence[Value]) -> list[Any]:
    """The messages of a trace of an evaluation of Cairn's, whose spans are turns."""
    ordered = sorted(spans, key=lambda span: int(span.get("start_time_unix_nano") or 0))
    if not ordered or _attribute(ordered[0], "cairn.problem") is None:
        return []
    messages = []
    for span in ordered[1:]:
        kind, said = _attribute(span, "mlflow.spanType"), _attribute(span, "mlflow.spanOutputs")
        if kind == "AGENT":
            messages.append(said["message"])
        elif kind == "TOOL":
            call = _attribute(span, "cairn.call") or {}
            failed = {"is_error": True} if call.get("ok") is False else {}
            messages.append({"role": "tool", "content": said, "tool_call_id": call.get("id"), "name": span.get("name"), **failed})
        else:
            messages.append({"role": "user" if kind == "HUMAN" else str(kind).lower(), "content": said})
    return messages


def row(value: Value, longest: int) -> Iterator[Record]:
    """A row of TRAJECTORY."""
    messages = [message_of(one) for one in value["messages"]]
    about = {"customer": (value["lineage"] or [None])[0], "id": value["traj_id"]}
    reward = (Rating("reward", float(value["reward"])),) if value.get("reward") is not None else ()
    yield Record(shaped(messages, longest), (), about, value["world"], value["agent"], reward)


def served(value: Value, longest: int) -> Iterator[Record]:
    """The last answer of a conversation that `cairn serve` kept: its messages are the whole of it."""
    about = {key: value[key] for key in ("id", "conversation") if value.get(key)}
    ratings = tuple(ratings_of(value))
    names = tool_names(value.get("tools"))
    yield Record(
        shaped(value["messages"], longest), names, about, str(value.get("world") or ""), str(value.get("model") or ""), ratings
    )
