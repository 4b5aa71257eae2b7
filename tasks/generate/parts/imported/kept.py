"""The rows of imported conversations on the disk: piece by piece as they are read, then in one file a kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tasks.contract.problem import ACCEPTED
from tasks.generate.parts.imported.checked import Taken

GROUP = 1024
"""Rows of a group in a file; ours."""


def _schemas() -> Mapping[str, Any]:
    from tasks.contract import schemas

    return {
        "trajectories": schemas.TRAJECTORY,
        "blueprints": schemas.BLUEPRINT,
        "feedback": schemas.FEEDBACK,
        "left_out": schemas.LEFT_OUT,
    }


def write(folder: Path, found: Iterable[Taken | tuple[str, str]]) -> None:
    """Write the rows of a piece, one file a kind."""
    from tasks.contract import tables

    with ExitStack() as stack:
        sinks = {
            name: stack.enter_context(tables.Sink(folder / f"{name}.parquet", schema, GROUP)) for name, schema in _schemas().items()
        }
        for one in found:
            if isinstance(one, tuple):
                sinks["left_out"].add({"place": one[0], "reason": one[1]})
                continue
            sinks["trajectories"].add(one.row)
            sinks["blueprints"].add(one.blueprint)
            for row in one.feedback:
                sinks["feedback"].add(row)


def put_together(folders: Sequence[Path], out: Path) -> Counter[str]:
    """One file of each kind out of those of the pieces, in their order; a problem that comes again is written once. Returns how many
    problems are accepted, and of the others how many are not for each kind of reason, in words."""
    from tasks.contract import tables

    problems, seen = Counter[str](), set[str]()

    def first_time(row: tuple[str, str, str]) -> bool:
        if row[0] in seen:
            return False
        seen.add(row[0])
        problems[row[1] if row[1] == ACCEPTED else row[2].partition(":")[0]] += 1
        return True

    for name, schema in _schemas().items():
        parts = [folder / f"{name}.parquet" for folder in folders]
        by, keep = (("problem_id", "status", "fail_reason"), first_time) if name == "blueprints" else ((), None)
        tables.join(parts, out / f"{name}.parquet", schema, by, keep)
    return problems
