"""Whether what is served is what was evaluated: the candidate's conversations as it is served against its own on the same problems.

Both have the same seeds, so where nothing but the way to the model differs they are the same token for token. A turn that can be read
neither as a reply nor as calls ends an evaluated conversation; a client is given its text, and may go on: only what was evaluated is
compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tasks.evaluate.core.tables import Maker, tables

AS_SERVED = "as_served"
"""The set of these trials in trials.parquet, and their place in metrics.json."""
TURNS = "turn_digests"
Row = Mapping[str, Any]


def digests(row: Row) -> list[str]:
    """Of each turn of a conversation: what was read for it and what was produced. row: of TRIAL."""
    said = ([list(map(int, turn["prompt_ids"])), list(map(int, turn["ids"]))] for turn in row["turns"])
    return [hashlib.sha256(json.dumps(one).encode()).hexdigest() for one in said]


def compared(rows: Iterable[Row], candidate: str, exact: bool, maker: Maker) -> dict[str, Any]:
    """What stands in metrics.json of it. rows: those of the metrics, each of the candidate's with TURNS (`digests`).

    alike: how many of `conversations` are the same token for token, which all must be where `exact`. first: one that is not, None when
    there is none. as_served, evaluated: pass^1 on the problems that were played both ways; difference: the first minus the second.
    """
    own = [row for row in rows if row["model"] == candidate]
    served = {_place(row): row for row in own if row["set"] == AS_SERVED}
    evaluated = {_place(row): row for row in own if row["set"] == "test" and _place(row) in served}
    other = sorted(place for place, row in served.items() if not _alike(evaluated[place], row))
    first = {"world": other[0][0], "problem_id": other[0][1], "trial": other[0][2]} if other else None
    ours, theirs = ([found for _, found in sorted(tables(one.values()).items())] for one in (served, evaluated))
    masks = [np.ones(len(one.problems), dtype=bool) for one in ours]
    return {
        "candidate": candidate,
        "exact": exact,
        "conversations": len(served),
        "alike": len(served) - len(other),
        "first": first,
        AS_SERVED: maker.passes(ours, masks)["pass_1"],
        "evaluated": maker.passes(theirs, masks)["pass_1"],
        "difference": maker.gaps(ours, theirs, masks)["pass_1"],
    }


def _place(row: Row) -> tuple[str, str, int]:
    return row["world"], row["problem_id"], row["trial"]


def _alike(evaluated: Row, served: Row) -> bool:
    before: Sequence[str] = evaluated[TURNS]
    after: Sequence[str] = served[TURNS]
    return after[: len(before)] == before and (len(after) == len(before) or evaluated["stop"] == "parse_error")
