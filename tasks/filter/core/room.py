"""What the room does around a method's marks: splits by lineage, counts, the files, and a stop when nothing is left to learn."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.filter import Check, Inputs, Marks, Offered
from tasks.filter.core.splits import resplit, straddling
from tasks.filter.core.waterfall import Bar, flow, write_bars

_KNOWN_BY = ("traj_id", "problem_id", "world", "split", "lineage")


class Decided(NamedTuple):
    """Each row's split and reason ("" when kept), the waterfall, how many components straddle splits."""

    splits: list[str]
    reasons: list[str]
    bars: list[Bar]
    straddling: int


def mark_rows(inputs: Inputs, marker: Callable[[Offered], Marks], ctx: Context, ease: str) -> dict[str, Any]:
    """Write dataset.parquet (every trajectory, marked) and waterfall.csv; return counts by reason, which add up to rows.

    marker: the method's marks of the rows that are offered. ease: the params that ask for less, for the message when nothing is left.
    """
    from tasks.contract import schemas, tables

    def read(*columns: str) -> Iterator[dict[str, Any]]:
        return tables.read_rows(source, schemas.some(schemas.TRAJECTORY, *columns))

    source = inputs.generate / "trajectories.parquet"
    table = list(read(*_KNOWN_BY))
    check_ids(table)
    known, parents = _known(inputs.worlds, table), _parents(inputs.generate, table)

    splits = resplit(table, known, parents)
    marks = marker(Offered(splits, read))
    check_marks(marks, len(table))
    decided = decide(table, splits, marks.checks)
    tables.write_rows(ctx.out / "dataset.parquet", schemas.DATASET, _marked(source, decided, marks))
    write_bars(ctx.out / "waterfall.csv", decided.bars)
    ctx.progress(len(table), len(table), "trajectories marked")
    counts = figures(table, decided)
    check_kept(decided, counts, marks, ease)
    return counts


def decide(table: Sequence[Mapping[str, Any]], splits: Sequence[str], checks: Sequence[Check]) -> Decided:
    """Run the room's checks, then a method's. table: rows with world, problem_id and lineage; splits: of each."""
    stricter, straddles = straddling(table, splits)
    own = [
        Check("split", "test_split", lambda left: {index for index in left if splits[index] == "test"}),
        Check("split", "lineage", lambda left: {index for index in left if stricter[index]}),
    ]
    reasons, bars = flow(len(table), [*own, *checks])
    return Decided(list(splits), reasons, bars, straddles)


def check_ids(table: Sequence[Mapping[str, Any]]) -> None:
    """BadInput when a trajectory's id comes twice."""
    twice = [traj_id for traj_id, count in Counter(row["traj_id"] for row in table).items() if count > 1]
    if twice:
        raise BadInput(f"trajectories.parquet: traj_id {twice[0]!r} comes more than once ({len(twice)} such ids); generate again.")


def check_marks(marks: Marks, count: int) -> None:
    """ValueError for marks that are not one a row, or no weight or score."""
    for name in ("scores", "weights", "trained_turns"):
        if len(given := getattr(marks, name)) not in (0, count):
            raise ValueError(f"filter: the method gave {len(given)} {name} for {count} rows; one a row, or none at all")
    for place, weight in enumerate(marks.weights):
        if not (_finite(weight) and weight >= 0):
            raise ValueError(f"filter: the method gave row {place} the weight {weight!r}; a weight is a number >= 0")
    for place, score in enumerate(marks.scores):
        if not _finite(score):
            raise ValueError(f"filter: the method gave row {place} the score {score!r}; a score is a finite number")


def _finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def check_kept(decided: Decided, counts: Mapping[str, Any], marks: Marks, ease: str) -> None:
    """Stop when a split of which there were rows has none left: nothing could be trained, or nobody could tell how well."""
    for split in ("train", "validation"):
        if (offered := decided.splits.count(split)) and not counts["kept_by_split"].get(split):
            reasons = Counter(reason for reason, own in zip(decided.reasons, decided.splits, strict=True) if own == split)
            why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
            raise StageFailed(
                f"filter: none of {offered} rows of the {split} split is kept ({why}). Generate more or better rows, or ask for less "
                f"({ease})."
            )
    if not counts["kept"]:
        raise StageFailed(f"filter: {counts['rows']} rows came in and none is kept; conversations have to be made first.")
    kept = [place for place, reason in enumerate(decided.reasons) if not reason]
    if marks.weights and not any(marks.weights[place] for place in kept):
        raise StageFailed(f"filter: all {len(kept)} rows that are kept weigh 0, so nothing would be learned ({ease}).")
    if marks.trained_turns and all((turns := marks.trained_turns[place]) is not None and not any(turns) for place in kept):
        raise StageFailed(f"filter: no turn of the {len(kept)} rows that are kept is to be learned ({ease}).")


def _marked(source: Path, decided: Decided, marks: Marks) -> Iterator[dict[str, Any]]:
    """The rows again, in the same order, with their marks. ValueError for a mask that is not one value a turn of the assistant's."""
    from tasks.contract import schemas, tables

    for place, row in enumerate(tables.read_rows(source, schemas.TRAJECTORY)):
        turns = marks.trained_turns[place] if marks.trained_turns else None
        if turns is not None and len(turns) != row["n_agent_steps"]:
            said = f"{row['traj_id']} has {row['n_agent_steps']} assistant turns"
            raise ValueError(f"filter: {said}, the method gave it {len(turns)} trained_turns")
        yield {
            **row,
            "split": decided.splits[place],
            "keep": not decided.reasons[place],
            "score": marks.scores[place] if marks.scores else 0.0,
            "reason": decided.reasons[place],
            "weight": marks.weights[place] if marks.weights else 1.0,
            "trained_turns": None if turns is None else list(turns),
        }


def figures(table: Sequence[Mapping[str, Any]], decided: Decided) -> dict[str, Any]:
    """Counts by reason, which add up to the rows."""
    kept = Counter(split for split, reason in zip(decided.splits, decided.reasons, strict=True) if not reason)
    return {
        "rows": len(table),
        "kept": sum(kept.values()),
        "kept_by_split": dict(sorted(kept.items())),
        "dropped": {bar.reason: bar.dropped for bar in decided.bars[1:]},
        "resplit": sum(row["split"] != split for row, split in zip(table, decided.splits, strict=True)),
        "straddling_components": decided.straddling,
    }


def _known(worlds: Path, table: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """World -> user -> split."""
    from tasks.worlds.api.frozen import load_all

    known: dict[str, Mapping[str, str]] = {name: world.splits for name, world in load_all(worlds).items()}
    for row in table:
        if row["world"] not in known:
            raise BadInput(f"trajectory {row['traj_id']}: its world {row['world']!r} is not among {', '.join(known)}.")
    return known


def _parents(generate: Path, table: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[str]]:
    """Problem id -> lineage, of every blueprint attempted and every problem played."""
    from tasks.contract import schemas, tables

    attempted = tables.read_rows(generate / "blueprints.parquet", schemas.some(schemas.BLUEPRINT, "problem_id", "lineage"))
    return {row["problem_id"]: row["lineage"] or () for row in (*attempted, *table)}
