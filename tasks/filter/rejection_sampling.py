"""Rejection sampling: keep the conversations that the verifier passed, that repeat nothing and that no split forbids.

This is the filter of filtered behaviour cloning, as APIGen-MT (https://arxiv.org/abs/2504.03601) uses it: a trajectory is
worth training on if state, outputs and required calls are right. On top come checks that such a verifier is blind to: the
policy's predicates over the conversation, the critics' score, exact duplicates, and splits by lineage.

Departures (what is ours):
1. Rows are marked with the first failing reason, never deleted, so that every loss can be counted and read.
2. A row's split is computed again from its lineage, and whatever is connected to a stricter split is dropped.
3. Policy predicates are an arm that can be switched off: the paper's verifier does not see them. Nor does it see a detour that ends
   in the right state (a write undone by a later one); `writes` asks for the ground truth's writes, in any order.

Cost: two passes over the file (`writes` looks through its calls once more), about 0.2 ms a trajectory; memory holds no messages,
only their hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tasks.contract import params as base
from tasks.contract.context import Context
from tasks.contract.problem import ACCEPTED
from tasks.contract.trajectory import ENDED
from tasks.contract.values import UNREADABLE
from tasks.filter import Check, Inputs, Marks, Offered
from tasks.filter.core.room import mark_rows
from tasks.filter.core.splits import STRICTNESS

TITLE = "Rejection sampling: verifier, policy, critics, duplicates, lineage"
PAPER = ""
SLUG = ""

_MARKED_BY = ("traj_id", "problem_id", "world", "messages", "stop", "state", "outputs", "required", "policy", "reward")
FINISHED = (*ENDED, "max_steps")
"""How conversations stop whose turns are whole. By any other stop the last one was cut, cannot be read or never came; the verifier may
pass such a conversation all the same, and nobody should learn half a turn."""


class Params(base.Params):
    """Which checks a conversation must pass, beside the verifier."""

    policy: bool = Field(True, description="require that every policy predicate over the conversation holds (policy = 1); ours")
    writes: bool = Field(False, description="require exactly the ground truth's writes, in any order; reads are free; ours")
    min_score: float = Field(
        0.0,
        ge=0,
        le=1,
        description="least score of the aggregated critique; 0 asks for no critique at all; ours. 0.5, measured on 3,499 scripted "
        "conversations with three critics: below it are 1.5 % of those that verifier and policy pass, and 63 % of the others",
    )
    ungraded: Literal["drop", "liked", "keep"] = Field(
        "liked", description="recorded conversations without a verdict: keep none, those that people said were good, or all; ours"
    )
    deduplicate: bool = Field(True, description="keep one of several conversations with the same words and calls; ours")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Write dataset.parquet (every trajectory, marked) and waterfall.csv; return counts by reason, which add up to rows."""

    def marker(offered: Offered) -> Marks:
        table = [_light(row) for row in offered.read(*_MARKED_BY)]
        if params.writes:
            detours = _detours(offered, inputs.generate / "blueprints.parquet")
            table = [{**row, "writes": int(row["traj_id"] not in detours)} for row in table]
        scores = _scores(inputs.critique / "critiques.parquet")
        return Marks(checks(table, offered.splits, scores, params), [scores.get(row["traj_id"], 0.0) for row in table])

    return mark_rows(inputs, marker, ctx, "policy, writes, min_score, ungraded")


def _light(row: dict[str, Any]) -> dict[str, Any]:
    """The row without its messages, but with their hash (equal words in two worlds are no repeat), and whether one of its calls could
    not be read."""
    calls = (json.loads(call["arguments_json"]) for message in row["messages"] for call in message["tool_calls"])
    return {
        **{key: value for key, value in row.items() if key != "messages"},
        "hash": row["world"] + content_hash(row["messages"]),
        "unread": any(set(arguments) == {UNREADABLE} for arguments in calls),
    }


def content_hash(messages: Sequence[Mapping[str, Any]]) -> str:
    """Identity of a conversation's words and calls: case, spacing and call ids do not count."""
    said = [
        (
            message["role"],
            " ".join(message["content"].lower().split()),
            [(call["name"], json.loads(call["arguments_json"])) for call in message["tool_calls"]],
        )
        for message in messages
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _detours(offered: Offered, blueprints: Path) -> set[str]:
    """Trajectories whose successful writes are not those of the ground truth, each as often."""
    from tasks.contract import schemas, tables

    wanted = {
        row["problem_id"]: Counter((action["name"], action["arguments_json"]) for action in row["actions"] if action["kind"] == "write")
        for row in tables.read_rows(blueprints, schemas.some(schemas.BLUEPRINT, "problem_id", "status", "actions"))
        if row["status"] == ACCEPTED
    }
    found = set()
    for row in offered.read("traj_id", "problem_id", "calls"):
        done = Counter((call["name"], call["arguments_json"]) for call in row["calls"] if call["ok"] and call["kind"] == "write")
        if done != wanted.get(row["problem_id"]):
            found.add(row["traj_id"])
    return found


def _scores(path: Path) -> dict[str, float]:
    from tasks.contract import schemas, tables

    columns = schemas.some(schemas.CRITIQUE, "traj_id", "source", "score")
    return {row["traj_id"]: row["score"] for row in tables.read_rows(path, columns) if row["source"] == "aggregate"}


def checks(table: Sequence[Mapping[str, Any]], splits: Sequence[str], scores: Mapping[str, float], params: Params) -> list[Check]:
    """The checks in the order in which they are made; the first that fails is the reason. table: TRAJECTORY rows with `hash` for their
    messages; scores: by id."""

    def lacks(key: str) -> Any:
        return lambda left: {index for index in left if table[index][key] not in (1, None)}

    made = []
    if ungraded := {index for index, row in enumerate(table) if row["state"] is None and not _passes(row, params.ungraded)}:
        made.append(Check("verifier", "ungraded", ungraded.intersection))
    made += [Check("verifier", f"failed_{part}", lacks(part)) for part in ("state", "outputs", "required")]
    made.append(Check("verifier", "unfinished", lambda left: {index for index in left if table[index]["stop"] not in FINISHED}))
    if unread := {index for index, row in enumerate(table) if row.get("unread")}:  # a bar only where there is one: no script has any
        made.append(Check("verifier", "unreadable_call", unread.intersection))
    if params.policy:
        made.append(Check("policy", "policy", lacks("policy")))
    if params.writes:
        made.append(Check("writes", "writes", lacks("writes")))
    if params.min_score > 0:
        least = params.min_score - 1e-6  # scores are float32: a score equal to the threshold passes
        unknown = {index for index, row in enumerate(table) if row["traj_id"] not in scores}
        made.append(Check("critique", "no_critique", lambda left: unknown.intersection(left)))
        made.append(Check("critique", "critique", lambda left: {i for i in left if scores[table[i]["traj_id"]] < least}))
    if params.deduplicate:
        made.append(Check("duplicate", "duplicate", lambda left: repeats(table, splits, left)))
    return made


def _passes(row: Mapping[str, Any], ungraded: str) -> bool:
    """Whether a row without a verdict goes on to the other checks."""
    return ungraded == "keep" or (ungraded == "liked" and row["reward"] == 1)


def repeats(table: Sequence[Mapping[str, Any]], splits: Sequence[str], left: Sequence[int]) -> set[int]:
    """Rows of which an equal conversation comes earlier: stricter splits first, then by id; test rows before all."""
    seen = {row["hash"] for row, split in zip(table, splits, strict=True) if split == "test"}
    found = set()
    for index in sorted(left, key=lambda index: (-STRICTNESS[splits[index]], table[index]["traj_id"])):
        if table[index]["hash"] in seen:
            found.add(index)
        seen.add(table[index]["hash"])
    return found
