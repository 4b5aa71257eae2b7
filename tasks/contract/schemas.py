"""Arrow schemas of everything that passes between rooms."""

from __future__ import annotations

import json

import pyarrow as pa

from tasks.contract.trajectory import GRADING


def some(schema: pa.Schema, *names: str) -> pa.Schema:
    """These columns of a schema."""
    return pa.schema([schema.field(name) for name in names])


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
ADDED_MARKS = ("weight", "trained_turns")
"""The same of marked conversations (DATASET)."""

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

DATASET = pa.schema(
    [
        *TRAJECTORY,
        ("keep", pa.bool_()),
        ("score", pa.float32()),
        ("reason", pa.string()),
        ("weight", pa.float32()),
        ("trained_turns", pa.list_(pa.bool_())),
    ],
    metadata=_GRADED,
)
"""Every trajectory, marked: keep, score in [0, 1], reason ("" when kept). Nothing is deleted. `split` is by lineage.

weight: >= 0, of the row in a loss (1 by default). trained_turns: which of the assistant's turns are learned, one value a turn in their
order; null is all of them."""

TRIAL = pa.schema([("model", pa.string()), ("set", pa.string()), *TRAJECTORY], metadata=_GRADED)
"""One trial of one model on one problem. set: "test" (report), "gate" (fresh problems), "baseline" (do-nothing, constant, oracle),
"as_served" (through what `cairn serve` offers), "unseen" (worlds that no training saw)."""

FEEDBACK = pa.schema(
    [
        ("traj_id", pa.string()),
        ("world", pa.string()),
        ("kind", pa.string()),
        ("value", pa.float32()),
        ("text", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
    ]
)
"""What people said of a recorded conversation. kind: thumb, score, reward (value in [0, 1], text: their words), or preference (chosen,
rejected: JSON lists of messages that follow the conversation's own up to there)."""

LEFT_OUT = pa.schema([("place", pa.string()), ("reason", pa.string())])
"""A recorded conversation that was not taken: "file:line" and why."""

TOKEN_ROW = pa.schema(
    [
        ("row_id", pa.string()),
        ("environment", pa.string()),
        ("part", pa.string()),
        ("family", pa.string()),
        ("split", pa.string()),
        ("seed", pa.int64()),
        ("ids", pa.list_(pa.int32())),
        ("mask", pa.list_(pa.bool_())),
        ("weight", pa.float64()),
        ("return", pa.float64()),
        ("turns", pa.int32()),
    ]
)
"""One row of an environment as tokens. ids: of the vocabulary in the file `words.json` beside it (`tasks.environments.tokens`), the
episode of `seed` as a conversation of so many `turns`, or with turns 0 a text of another form. mask: the tokens that train. weight: at
least 0. return: the sum of the episode's rewards; null where nothing was played."""

SCORE = pa.schema(
    [
        ("model", pa.string()),
        ("environment", pa.string()),
        ("part", pa.string()),
        ("family", pa.string()),
        ("row_id", pa.string()),
        ("accuracy", pa.float64()),
        ("exact", pa.float64()),
        ("loss", pa.float64()),
        ("n", pa.int32()),
    ]
)
"""How good one model is on one problem of an environment. Of a row (`TOKEN_ROW`): accuracy: share of its n trained tokens that are the
likeliest; exact: 1 where all of them are; loss: nats a token. Of an episode: accuracy: what it brought; exact: 1 where it was won;
loss: null; n: steps."""
