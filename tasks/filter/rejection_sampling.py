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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import Field

from tasks.contract import params as base
from tasks.contract import schemas, tables
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.trajectory import ENDED
from tasks.contract.values import UNREADABLE
from tasks.filter import Inputs
from tasks.filter.core.splits import STRICTNESS, resplit, straddling
from tasks.filter.core.waterfall import Bar, Check, flow, write_bars

TITLE = "Rejection sampling: verifier, policy, critics, duplicates, lineage"
PAPER = ""
SLUG = ""

_MARKED_BY = ("traj_id", "problem_id", "world", "split", "lineage", "messages", "stop", "state", "outputs", "required", "policy")
FINISHED = (*ENDED, "max_steps")
"""How conversations stop whose turns are whole. By any other stop the last one was cut, cannot be read or never came; the verifier may
pass such a conversation all the same, and nobody should learn half a turn."""
_READ = pa.schema([schemas.TRAJECTORY.field(name) for name in _MARKED_BY])
_WRITTEN = pa.schema([schemas.TRAJECTORY.field(name) for name in ("traj_id", "problem_id", "calls")])
_WANTED = pa.schema([schemas.BLUEPRINT.field(name) for name in ("problem_id", "status", "actions")])
_BLUEPRINT = pa.schema([schemas.BLUEPRINT.field(name) for name in ("problem_id", "lineage")])
_CRITIQUE = pa.schema([schemas.CRITIQUE.field(name) for name in ("traj_id", "source", "score")])


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
    deduplicate: bool = Field(True, description="keep one of several conversations with the same words and calls; ours")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Write dataset.parquet (every trajectory, marked) and waterfall.csv; return counts by reason, which add up to rows."""
    source = inputs.generate / "trajectories.parquet"
    table = [_light(row) for row in tables.read_rows(source, _READ)]
    _check_ids(table)
    if params.writes:
        detours = _detours(source, inputs.generate / "blueprints.parquet")
        table = [{**row, "writes": int(row["traj_id"] not in detours)} for row in table]
    scores = _scores(inputs.critique / "critiques.parquet")
    marks = mark(table, _known(inputs.worlds, table), _parents(inputs.generate, table), scores, params)
    tables.write_rows(ctx.out / "dataset.parquet", schemas.DATASET, _marked(source, marks, scores))
    write_bars(ctx.out / "waterfall.csv", marks.bars)
    ctx.progress(len(table), len(table), "trajectories marked")
    counts = figures(table, marks)
    check_kept(marks, counts)
    return counts


def check_kept(marks: Marks, counts: Mapping[str, Any]) -> None:
    """Stop when a split of which there were rows has none left: nothing could be trained, or nobody could tell how well."""
    for split in ("train", "validation"):
        if (offered := marks.splits.count(split)) and not counts["kept_by_split"].get(split):
            reasons = Counter(reason for reason, own in zip(marks.reasons, marks.splits, strict=True) if own == split)
            why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
            raise StageFailed(
                f"filter: none of {offered} rows of the {split} split is kept ({why}). Generate more or better rows, or ask for less "
                "(policy, writes, min_score)."
            )
    if not counts["kept"]:
        raise StageFailed(f"filter: {counts['rows']} rows came in and none is kept; generate has to make some first.")


class Marks(NamedTuple):
    """What was decided: each row's split and reason ("" when kept), the waterfall, how many components straddle splits."""

    splits: list[str]
    reasons: list[str]
    bars: list[Bar]
    straddling: int


def mark(
    table: Sequence[Mapping[str, Any]],
    known: Mapping[str, Mapping[str, str]],
    parents: Mapping[str, Sequence[str]],
    scores: Mapping[str, float],
    params: Params,
) -> Marks:
    """Decide on every row. table: TRAJECTORY rows, a `hash` for messages; known, parents: as in `resplit`; scores: by id."""
    splits = resplit(table, known, parents)
    stricter, straddles = straddling(table, splits)
    reasons, bars = flow(len(table), _checks(table, splits, stricter, scores, params))
    return Marks(splits, reasons, bars, straddles)


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


def _check_ids(table: Sequence[Mapping[str, Any]]) -> None:
    twice = [traj_id for traj_id, count in Counter(row["traj_id"] for row in table).items() if count > 1]
    if twice:
        raise BadInput(f"trajectories.parquet: traj_id {twice[0]!r} comes more than once ({len(twice)} such ids); generate again.")


def _detours(source: Path, blueprints: Path) -> set[str]:
    """Trajectories whose successful writes are not those of the ground truth, each as often."""
    wanted = {
        row["problem_id"]: Counter((action["name"], action["arguments_json"]) for action in row["actions"] if action["kind"] == "write")
        for row in tables.read_rows(blueprints, _WANTED)
        if row["status"] == schemas.ACCEPTED
    }
    found = set()
    for row in tables.read_rows(source, _WRITTEN):
        done = Counter((call["name"], call["arguments_json"]) for call in row["calls"] if call["ok"] and call["kind"] == "write")
        if done != wanted.get(row["problem_id"]):
            found.add(row["traj_id"])
    return found


def _scores(path: Path) -> dict[str, float]:
    return {row["traj_id"]: row["score"] for row in tables.read_rows(path, _CRITIQUE) if row["source"] == "aggregate"}


def _known(worlds: Path, table: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """World -> user -> split."""
    from tasks.worlds.api.runtime import load_all

    known: dict[str, Mapping[str, str]] = {name: world.splits for name, world in load_all(worlds).items()}
    for row in table:
        if row["world"] not in known:
            raise BadInput(f"trajectory {row['traj_id']}: its world {row['world']!r} is not among {', '.join(known)}.")
    return known


def _parents(generate: Path, table: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[str]]:
    """Problem id -> lineage, of every blueprint attempted and every problem played."""
    attempted = tables.read_rows(generate / "blueprints.parquet", _BLUEPRINT)
    return {row["problem_id"]: row["lineage"] or () for row in (*attempted, *table)}


def _checks(
    table: Sequence[Mapping[str, Any]],
    splits: Sequence[str],
    stricter: Sequence[bool],
    scores: Mapping[str, float],
    params: Params,
) -> list[Check]:
    """The checks in the order in which they are made; the first that fails is the reason."""

    def lacks(key: str) -> Any:
        return lambda left: {index for index in left if table[index][key] != 1}

    checks = [
        Check("split", "test_split", lambda left: {index for index in left if splits[index] == "test"}),
        Check("split", "lineage", lambda left: {index for index in left if stricter[index]}),
        *(Check("verifier", f"failed_{part}", lacks(part)) for part in ("state", "outputs", "required")),
    ]
    checks.append(Check("verifier", "unfinished", lambda left: {index for index in left if table[index]["stop"] not in FINISHED}))
    if unread := {index for index, row in enumerate(table) if row.get("unread")}:  # a bar only where there is one: no script has any
        checks.append(Check("verifier", "unreadable_call", unread.intersection))
    if params.policy:
        checks.append(Check("policy", "policy", lacks("policy")))
    if params.writes:
        checks.append(Check("writes", "writes", lacks("writes")))
    if params.min_score > 0:
        least = params.min_score - 1e-6  # scores are float32: a score equal to the threshold passes
        unknown = {index for index, row in enumerate(table) if row["traj_id"] not in scores}
        checks.append(Check("critique", "no_critique", lambda left: unknown.intersection(left)))
        checks.append(Check("critique", "critique", lambda left: {i for i in left if scores[table[i]["traj_id"]] < least}))
    if params.deduplicate:
        checks.append(Check("duplicate", "duplicate", lambda left: repeats(table, splits, left)))
    return checks


def repeats(table: Sequence[Mapping[str, Any]], splits: Sequence[str], left: Sequence[int]) -> set[int]:
    """Rows of which an equal conversation comes earlier: stricter splits first, then by id; test rows before all."""
    seen = {row["hash"] for row, split in zip(table, splits, strict=True) if split == "test"}
    found = set()
    for index in sorted(left, key=lambda index: (-STRICTNESS[splits[index]], table[index]["traj_id"])):
        if table[index]["hash"] in seen:
            found.add(index)
        seen.add(table[index]["hash"])
    return found


def _marked(source: Path, marks: Marks, scores: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """The rows again, in the same order, with split, keep, score (0 without a critique) and reason."""
    for row, split, reason in zip(tables.read_rows(source, schemas.TRAJECTORY), marks.splits, marks.reasons, strict=True):
        marks_of = {"keep": not reason, "score": scores.get(row["traj_id"], 0.0), "reason": reason, "weight": 1.0}
        yield {**row, "split": split, **marks_of}


def figures(table: Sequence[Mapping[str, Any]], marks: Marks) -> dict[str, Any]:
    """Counts by reason, which add up to the rows."""
    kept = Counter(split for split, reason in zip(marks.splits, marks.reasons, strict=True) if not reason)
    return {
        "rows": len(table),
        "kept": sum(kept.values()),
        "kept_by_split": dict(sorted(kept.items())),
        "dropped": {bar.reason: bar.dropped for bar in marks.bars[1:]},
        "resplit": sum(row["split"] != split for row, split in zip(table, marks.splits, strict=True)),
        "straddling_components": marks.straddling,
    }
