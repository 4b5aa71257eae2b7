"""Arrow schemas of everything that passes between rooms, and the one writer and reader of Parquet.

The writer leaves no clock and no library chatter in the file beyond what pyarrow itself stamps, so that the same rows give the
same bytes under the same versions. Readers check the schema and say which file and column is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import GRADING, Outcome, Trajectory

_ACTION = pa.struct([("name", pa.string()), ("arguments_json", pa.string()), ("kind", pa.string())])
_CALL = pa.struct(
    [
        ("name", pa.string()),
        ("arguments_json", pa.string()),
        ("kind", pa.string()),
        ("ok", pa.bool_()),
        ("content", pa.string()),
    ]
)
_MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("tool_calls", pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments_json", pa.string())]))),
        ("tool_call_id", pa.string()),
        ("name", pa.string()),
    ]
)
_TURN = pa.struct([("prompt_ids", pa.list_(pa.int32())), ("ids", pa.list_(pa.int32())), ("logprobs", pa.list_(pa.float32()))])

PROBLEM = pa.schema(
    [
        ("problem_id", pa.string()),
        ("world", pa.string()),
        ("split", pa.string()),
        ("family", pa.string()),
        ("lineage", pa.list_(pa.string())),
        ("persona", pa.string()),
        ("instruction", pa.string()),
        ("intent_json", pa.string()),
        ("actions", pa.list_(_ACTION)),
        ("outputs", pa.list_(pa.string())),
        ("required", pa.list_(_ACTION)),
        ("tags", pa.list_(pa.string())),
        ("n_writes", pa.int32()),
    ]
)
"""One problem (see `tasks.contract.problem.Problem`)."""

_JUDGEMENT = pa.struct(
    [
        ("judge", pa.string()),
        ("correctness", pa.int8()),
        ("completeness", pa.int8()),
        ("satisfaction", pa.int8()),
        ("creativity", pa.int8()),
        ("reason", pa.string()),
    ]
)
ACCEPTED = "accepted"
BLUEPRINT = pa.schema(
    [
        *PROBLEM,
        ("seed", pa.int64()),
        ("attempt", pa.int32()),
        ("walk", pa.list_(pa.string())),
        ("policy_ids", pa.list_(pa.string())),
        ("context_hash", pa.string()),
        ("source_ids", pa.list_(pa.string())),
        ("diff_patch", pa.string()),
        ("gt_state_hash", pa.string()),
        ("status", pa.string()),
        ("fail_reason", pa.string()),
        ("judge_scores", pa.list_(_JUDGEMENT)),
        ("avg_score", pa.float32()),
        ("feedback", pa.string()),
        ("generator", pa.string()),
    ]
)
"""One attempt at a blueprint, accepted or refused. status: accepted, failed_format, failed_exec, failed_policy,
failed_committee, failed_gate, failed_duplicate; `fail_reason` says why. A refused attempt may lack actions and a problem_id, or share
the problem_id of an accepted one: join on status == ACCEPTED."""

ADDED = ("blame", "blame_reason")
"""Columns of conversations that files written before they were there lack."""

_GRADED = {"grading": json.dumps(GRADING, sort_keys=True)}
"""What a file of graded rows says of itself: the versions of the grading's parts."""

TRAJECTORY = pa.schema(
    [
        ("traj_id", pa.string()),
        ("problem_id", pa.string()),
        ("world", pa.string()),
        ("split", pa.string()),
        ("family", pa.string()),
        ("lineage", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())),
        ("trial", pa.int32()),
        ("messages", pa.list_(_MESSAGE)),
        ("calls", pa.list_(_CALL)),
        ("turns", pa.list_(_TURN)),
        ("n_user_turns", pa.int32()),
        ("n_tool_calls", pa.int32()),
        ("n_agent_steps", pa.int32()),
        ("n_tokens", pa.int32()),
        ("stop", pa.string()),
        ("state", pa.int8()),
        ("outputs", pa.int8()),
        ("required", pa.int8()),
        ("policy", pa.float32()),
        ("broken", pa.list_(pa.string())),
        ("reward", pa.int8()),
        ("final_state_hash", pa.string()),
        ("wanted_state_hash", pa.string()),
        ("blame", pa.string()),
        ("blame_reason", pa.string()),
        ("agent", pa.string()),
        ("human", pa.string()),
        ("seed", pa.int64()),
    ],
    metadata=_GRADED,
)
"""One played conversation with its outcome (see `tasks.contract.trajectory.Trajectory`). n_tokens counts the ids the model produced."""

_UNIT = pa.struct(
    [
        ("unit_id", pa.string()),
        ("critic", pa.string()),
        ("location", pa.int32()),
        ("quote", pa.string()),
        ("description", pa.string()),
        ("suggestion", pa.string()),
        ("criterion", pa.string()),
        ("severity", pa.int8()),
        ("quality_class", pa.int8()),
        ("weight", pa.float32()),
        ("why", pa.string()),
        ("source_ids", pa.list_(pa.string())),
    ]
)
CRITIQUE = pa.schema(
    [
        ("critique_id", pa.string()),
        ("traj_id", pa.string()),
        ("world", pa.string()),
        ("source", pa.string()),
        ("units", pa.list_(_UNIT)),
        ("n_units", pa.int32()),
        ("n_dropped", pa.int32()),
        ("quality", pa.float32()),
        ("score", pa.float32()),
        ("text", pa.string()),
    ]
)
"""One critique of one trajectory. source: a critic's name or "aggregate". location: message index. quality: Q(c), worth of the
critique. score: the trajectory's grade in [0, 1] according to this critique (1 = nothing to criticise)."""

PREFERENCE = pa.schema(
    [
        ("pair_id", pa.string()),
        ("traj_id", pa.string()),
        ("world", pa.string()),
        ("lineage", pa.list_(pa.string())),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_critic", pa.string()),
        ("rejected_critic", pa.string()),
        ("q_chosen", pa.float32()),
        ("q_rejected", pa.float32()),
        ("n_units_chosen", pa.int32()),
        ("n_units_rejected", pa.int32()),
        ("kept", pa.bool_()),
        ("drop_reason", pa.string()),
    ]
)
"""One chosen/rejected pair of critiques of the same trajectory, kept or dropped with a reason."""

DATASET = pa.schema([*TRAJECTORY, ("keep", pa.bool_()), ("score", pa.float32()), ("reason", pa.string())], metadata=_GRADED)
"""Every trajectory, marked: keep, score in [0, 1], reason ("" when kept). Nothing is deleted. `split` is by lineage."""

TRIAL = pa.schema([("model", pa.string()), ("set", pa.string()), *TRAJECTORY], metadata=_GRADED)
"""One trial of one model on one problem. set: "test" (report), "gate" (fresh problems), "baseline" (do-nothing, constant, oracle)."""


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _action_row(action: Action) -> dict[str, Any]:
    return {"name": action.name, "arguments_json": _dump(action.arguments), "kind": action.kind}


def _action(row: Mapping[str, Any]) -> Action:
    return Action(row["name"], json.loads(row["arguments_json"]), row["kind"])


def problem_row(problem: Problem) -> dict[str, Any]:
    """A problem as a row of PROBLEM."""
    return {
        "problem_id": problem.problem_id,
        "world": problem.world,
        "split": problem.split,
        "family": problem.family,
        "lineage": list(problem.lineage),
        "persona": problem.persona,
        "instruction": problem.instruction,
        "intent_json": _dump(problem.intent),
        "actions": [_action_row(action) for action in problem.actions],
        "outputs": list(problem.outputs),
        "required": [_action_row(action) for action in problem.required],
        "tags": list(problem.tags),
        "n_writes": problem.n_writes,
    }


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The inverse of `problem_row`; also reads rows of BLUEPRINT."""
    return Problem(
        problem_id=row["problem_id"],
        world=row["world"],
        split=row["split"],
        family=row["family"],
        lineage=tuple(row["lineage"]),
        persona=row["persona"],
        instruction=row["instruction"],
        intent=json.loads(row["intent_json"]),
        actions=tuple(_action(item) for item in row["actions"]),
        outputs=tuple(row["outputs"]),
        required=tuple(_action(item) for item in row["required"]),
        tags=tuple(row["tags"]),
    )


def message_row(message: Mapping[str, Any]) -> dict[str, Any]:
    """A chat message as a row: arguments become sorted JSON text."""
    return {
        "role": message["role"],
        "content": message.get("content") or "",
        "tool_calls": [
            {
                "id": call["id"],
                "name": call["function"]["name"],
                "arguments_json": _dump(call["function"]["arguments"]),
            }
            for call in message.get("tool_calls") or ()
        ],
        "tool_call_id": message.get("tool_call_id"),
        "name": message.get("name"),
    }


def message_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `message_row`."""
    message: dict[str, Any] = {"role": row["role"], "content": row["content"]}
    if row["tool_calls"]:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.loads(call["arguments_json"])},
            }
            for call in row["tool_calls"]
        ]
    for key in ("tool_call_id", "name"):
        if row[key] is not None:
            message[key] = row[key]
    return message


def trajectory_row(played: Trajectory) -> dict[str, Any]:
    """A graded trajectory as a row of TRAJECTORY."""
    outcome = played.outcome
    if outcome is None:
        raise ValueError(f"trajectory of problem {played.problem.problem_id} has not been graded")
    roles = [message["role"] for message in played.messages]
    return {
        "traj_id": f"{played.problem.problem_id}-{played.agent}-{played.trial}",
        "problem_id": played.problem.problem_id,
        "world": played.problem.world,
        "split": played.problem.split,
        "family": played.problem.family,
        "lineage": list(played.problem.lineage),
        "tags": list(played.problem.tags),
        "trial": played.trial,
        "messages": [message_row(message) for message in played.messages],
        "calls": [{**_action_row(action), "ok": result.ok, "content": result.content} for action, result in played.calls],
        "turns": played.turns,
        "n_user_turns": roles.count("user"),
        "n_tool_calls": len(played.calls),
        "n_agent_steps": roles.count("assistant"),
        "n_tokens": sum(len(turn["ids"]) for turn in played.turns),
        "stop": played.stop,
        "state": outcome.state,
        "outputs": outcome.outputs,
        "required": outcome.required,
        "policy": outcome.policy,
        "broken": list(outcome.broken),
        "reward": outcome.reward,
        "final_state_hash": outcome.final_state_hash,
        "wanted_state_hash": outcome.wanted_state_hash,
        "blame": outcome.blame,
        "blame_reason": outcome.blame_reason,
        "agent": played.agent,
        "human": played.human,
        "seed": played.seed,
    }


def trajectory_of(row: Mapping[str, Any], problem: Problem) -> Trajectory:
    """The inverse of `trajectory_row`, given the problem that was played."""
    return Trajectory(
        problem=problem,
        trial=row["trial"],
        messages=[message_of(message) for message in row["messages"]],
        calls=[(_action(call), ToolResult(call["ok"], call["content"])) for call in row["calls"]],
        turns=list(row["turns"]),
        stop=row["stop"],
        outcome=Outcome(
            state=row["state"],
            outputs=row["outputs"],
            required=row["required"],
            policy=row["policy"],
            broken=tuple(row["broken"]),
            final_state_hash=row["final_state_hash"],
            wanted_state_hash=row["wanted_state_hash"],
            blame=row.get("blame") or "",
            blame_reason=row.get("blame_reason") or "",
        ),
        agent=row["agent"],
        human=row["human"],
        seed=row["seed"],
    )


class Sink:
    """A Parquet file that rows are added to one by one, `group` of them in memory; a context manager. Missing columns become null.

    A row with a column that the schema does not know is refused by name.
    """

    def __init__(self, path: Path, schema: pa.Schema, group: int = 4096) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._schema, self._group = path, schema, group
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_statistics=False)
        self._waiting: list[Mapping[str, Any]] = []
        self.count = 0

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row."""
        if unknown := set(row) - set(self._schema.names):
            raise ValueError(f"{self._path.name}: a row has unknown columns {sorted(unknown)}; known: {self._schema.names}")
        self._waiting.append(row)
        self.count += 1
        if len(self._waiting) == self._group:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], group: int = 4096) -> int:
    """Stream rows into a Parquet file (`Sink`); returns how many."""
    with Sink(path, schema, group) as sink:
        for row in rows:
            sink.add(row)
    return sink.count


def _check(path: Path, schema: pa.Schema) -> None:
    try:
        found = pq.read_schema(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: not a readable Parquet file ({error}). Remove it and run its stage again.") from None
    for name in schema.names:
        if name not in found.names:
            raise BadInput(f"{path}: column {name!r} is missing; it has {found.names}. Was it written by another program?")
        if found.field(name).type != schema.field(name).type:
            raise BadInput(f"{path}: column {name!r} has type {found.field(name).type}, expected {schema.field(name).type}.")


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a Parquet file whole, after checking that it is one of ours."""
    _check(path, schema)
    return pq.read_table(path, columns=schema.names)


def read_rows(path: Path, schema: pa.Schema, group: int = 1024) -> Iterator[dict[str, Any]]:
    """Read rows one by one, `group` of them in memory at a time, after checking that the file is one of ours."""
    _check(path, schema)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=group, columns=schema.names):
            yield from batch.to_pylist()
