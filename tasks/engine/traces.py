"""Conversations of an evaluation as traces in MLflow: one trace each, with spans for agent, human and tools.

A trace's session is its problem, its feedback the parts of the grading, its expectation (`gold`) the problem's ground truth. Ids follow
from the evaluation's identity and the row, so that a run that is told again writes over what is there. Times are in order and say
nothing else: a conversation's file has no clock. Traces are written in bulk by the store's own methods, which are not MLflow's public
interface (`tests/engine/test_traces.py` says what to do when they change); the public one takes up to 0.6 s a trace.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import rows
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import GRADING, Trajectory

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Span, Trace, TraceInfo

GOLD = "gold"
"""Name of the expectation: {actions, outputs, required}, columns of PROBLEM."""
PROBLEM, PLAYED = "cairn.problem", "cairn.conversation"
"""Attributes of a trace's first span: the problem without its gold, and what is known of the conversation beside its messages."""
CALL = "cairn.call"
"""Attribute of a tool's span: the call's kind, whether it succeeded, and the id by which the answer names it."""
GOLD_COLUMNS = ("actions", "outputs", "required")
PLAYED_COLUMNS = ("traj_id", "model", "set", "trial", "stop", "agent", "human", "seed")
BATCH = 50
"""Traces that are written together."""
PREVIEW = 1000
"""Characters of the lines by which MLflow lists a trace."""

Row = Mapping[str, Any]


def write(
    uri: str,
    experiment: str,
    run: str,
    identity: str,
    folder: Path,
    models: Mapping[str, str],
    tags: Mapping[str, Mapping[str, str]],
    at: int,
    trials: Sequence[Row],
) -> None:
    """Write the traces of an evaluation's artifact.

    run: id of the MLflow run that evaluated. identity, folder: of the artifact. models: name -> id of its logged model, where it has
    one. tags: world -> more tags of its traces. at: milliseconds since 1970 that the last conversation gets. trials: those of its
    conversations that become traces, see `chosen`.
    """
    from mlflow.tracing.client import TracingClient

    from tasks.contract import schemas, tables
    from tasks.engine.one_transaction import one_transaction

    store = TracingClient(uri).store
    known = {(row["world"], row["problem_id"]): row for row in tables.read_rows(folder / "problems.parquet", schemas.PROBLEM)}
    for start in range(0, len(trials), BATCH):
        with one_transaction(store) as within:
            waiting: list[Span] = []
            for number, row in enumerate(trials[start : start + BATCH], start):
                trace = trace_id(identity, row)
                time = at - len(trials) + 1 + number
                problem = known[row["world"], row["problem_id"]]
                info = _info(row, problem, trace, time, experiment, run, models.get(row["model"]))
                info.tags.update(tags.get(row["world"], {}))
                within.start_trace(info)
                waiting += spans(row, problem, trace, time)
            within.log_spans(experiment, waiting)


def how_many(written: int, total: int, most: int) -> str:
    """How many conversations of how many became traces. most: as many as were allowed."""
    return f"{written} of {total} conversations" + ("" if written == total else f"; tracking.traces = {most} allows no more")


def chosen(path: Path, most: int) -> tuple[list[dict[str, Any]], int]:
    """(the rows of TRIAL that become traces, how many there are): all, or `most` of them: every player of a set in a world gets as
    many, on the same problems, and those of the set `baseline` come last."""
    import pyarrow.parquet as pq

    from tasks.contract import schemas, tables

    columns = ["set", "model", "world", "trial"]
    met: Counter[tuple[str, ...]] = Counter()
    order = []
    for place, row in enumerate(pq.read_table(path, columns=columns).to_pylist()):
        group = (row["set"], row["model"], row["world"], row["trial"])
        met[group] += 1
        order.append((row["set"] == "baseline", row["trial"], met[group], place))
    places = {place for *_, place in sorted(order)[:most]}
    every = tables.read_rows(path, schemas.TRIAL, group=256)
    return [row for place, row in enumerate(every) if place in places], len(order)


def trace_id(identity: str, row: Row) -> str:
    """Id of a conversation's trace. identity: of the evaluation's artifact."""
    return f"tr-{_digest(identity, row['set'], row['model'], row['world'], row['traj_id'])[:32]}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _info(row: Row, problem: Row, trace: str, at: int, experiment: str, run: str, model: str | None) -> TraceInfo:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    replies = [one["content"] for one in row["messages"] if one["role"] == "assistant" and one["content"]]
    about = {
        "mlflow.trace.session": row["problem_id"],
        "mlflow.sourceRun": run,
        **({"mlflow.modelId": model} if model else {}),
        **{f"cairn.{name}": str(row[name]) for name in ("model", "set", "world", "family", "trial", "stop", "blame")},
    }
    return TraceInfo(
        trace_id=trace,
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=at,
        state=TraceState.OK,
        request_preview=problem["instruction"][:PREVIEW],
        response_preview=(replies or [""])[-1][:PREVIEW],
        execution_duration=0,
        trace_metadata=about,
        tags={"mlflow.traceName": f"{row['model']}: {row['world']}, {row['family']}"},
        assessments=list(_assessments(row, problem, trace, at)),
    )


def _assessments(row: Row, problem: Row, trace: str, at: int) -> Iterator[Assessment]:
    from mlflow.entities import AssessmentSource, Expectation, Feedback

    source = AssessmentSource("CODE", "cairn")
    why = {"policy": ", ".join(row["broken"]), "reward": " ".join(filter(None, (row["blame"], row["blame_reason"])))}
    given: list[Assessment] = [
        Feedback(name=part, value=row[part], source=source, rationale=why.get(part) or None, metadata=_version(part))
        for part in (*GRADING, "reward")
    ]
    gold = {name: problem[name] for name in GOLD_COLUMNS}
    for one in (*given, Expectation(name=GOLD, value=gold, source=source)):
        one.assessment_id, one.trace_id = f"a-{_digest(trace, one.name)[:32]}", trace
        one.create_time_ms = one.last_update_time_ms = at
        yield one


def _version(part: str) -> dict[str, str]:
    return {"grading": str(GRADING[part])} if part in GRADING else {}


# --- spans ---------------------------------------------------------------------------------------------------------------------


def spans(row: Row, problem: Row, trace: str, at: int) -> list[Span]:
    """The spans of a conversation: the first is the whole of it, its children are the turns in order. at: milliseconds since 1970."""
    about = {name: row[name] for name in PLAYED_COLUMNS}
    asked = {name: value for name, value in problem.items() if name not in GOLD_COLUMNS}
    more = {PROBLEM: asked, PLAYED: about}
    turns = list(_turns(row))
    told = {"instruction": problem["instruction"]}
    became = {"outcome": "solved" if row["reward"] else "not solved", "ended by": row["stop"]}
    found = [_span(trace, 0, len(turns), at, row["world"], "CHAIN", told, became, more)]
    for number, turn in enumerate(turns, 1):
        found.append(_span(trace, number, number, at, *turn))
    return found


def _turns(row: Row) -> Iterator[tuple[str, str, Any, Any, dict[str, Any]]]:
    """(name, type, inputs, outputs, attributes) of each message, the agent's with what it read since its last turn."""
    calls = iter(row["calls"])
    read: list[dict[str, Any]] = []
    for stored in row["messages"]:
        message = rows.message_of(stored)
        if message["role"] == "assistant":
            yield "agent", "AGENT", {"messages": read}, {"message": message}, {}
            read = []
            continue
        read.append(message)
        if message["role"] == "tool":
            call = next(calls)
            kept = {name: call[name] for name in ("kind", "ok")} | {"id": message.get("tool_call_id")}
            yield call["name"], "TOOL", json.loads(call["arguments_json"]), message["content"], {CALL: kept}
        else:
            kind = "human" if message["role"] == "user" else message["role"]
            yield kind, kind.upper(), {}, message["content"], {}


def _span(trace: str, first: int, last: int, at: int, name: str, kind: str, inputs: Any, outputs: Any, more: Mapping[str, Any]) -> Span:
    from mlflow.entities import Span
    from mlflow.tracing.utils import build_otel_context
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Status, StatusCode

    number = int(trace.removeprefix("tr-"), 16)
    about = {
        "mlflow.traceRequestId": trace,
        "mlflow.spanType": kind,
        "mlflow.spanInputs": inputs,
        "mlflow.spanOutputs": outputs,
        **more,
    }
    failed = CALL in more and not more[CALL]["ok"]
    return Span(
        ReadableSpan(
            name=name,
            context=build_otel_context(number, first + 1),
            parent=build_otel_context(number, 1) if first else None,
            attributes={key: json.dumps(value, ensure_ascii=False) for key, value in about.items()},
            start_time=at * 1_000_000 + first,
            end_time=at * 1_000_000 + last,
            status=Status(StatusCode.ERROR if failed else StatusCode.OK),
            resource=Resource.get_empty(),  # else what the environment says of this host becomes a tag
        )
    )


# --- and back ------------------------------------------------------------------------------------------------------------------


def conversation_of(trace: Trace) -> Trajectory:
    """The conversation of a stored trace, without its outcome; the gold is that of the trace's expectation, as it is now.

    Raises LookupError for a trace that is none of an evaluation.
    """
    first, *turns = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    asked, about = first.get_attribute(PROBLEM), first.get_attribute(PLAYED)
    golds: Iterable[Any] = (one.expectation.value for one in trace.info.assessments if one.name == GOLD and one.expectation)
    gold = next(iter(golds), None)
    if asked is None or about is None or gold is None:
        raise LookupError(
            f"trace {trace.info.trace_id} holds no conversation of an evaluation, or its expectation {GOLD!r} was removed"
        )
    problem: Problem = rows.problem_of({**asked, **gold})
    return Trajectory(
        problem=problem,
        trial=about["trial"],
        messages=[_message(span) for span in turns],
        calls=[_call(span) for span in turns if span.span_type == "TOOL"],
        stop=about["stop"],
        agent=about["agent"],
        human=about["human"],
        seed=about["seed"],
    )


def _message(span: Span) -> dict[str, Any]:
    if span.span_type == "AGENT":
        return dict(span.outputs["message"])
    if span.span_type == "TOOL":
        return {"role": "tool", "content": span.outputs, "tool_call_id": span.get_attribute(CALL)["id"], "name": span.name}
    return {"role": "user" if span.span_type == "HUMAN" else span.span_type.lower(), "content": span.outputs}


def _call(span: Span) -> tuple[Action, ToolResult]:
    about = span.get_attribute(CALL)
    return Action(span.name, span.inputs, about["kind"]), ToolResult(about["ok"], span.outputs)


def models_of(found: Sequence[Any]) -> dict[str, str]:
    """name -> id of the logged models, the newest of each name."""
    return {model.name: model.model_id for model in sorted(found, key=lambda model: model.creation_timestamp)}
