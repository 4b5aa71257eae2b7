"""The problems that a step of room generate has proven, out of the file that it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks.contract.problem import ACCEPTED, Problem

BLUEPRINTS = "blueprints.parquet"


def proven(folder: Path | None) -> Iterator[Problem]:
    """The accepted blueprints in a step's folder, in the order in which they were made; none without a folder. The file is read when
    the first is taken."""
    from tasks.contract import rows, schemas, tables

    for row in tables.read_rows(folder / BLUEPRINTS, schemas.BLUEPRINT) if folder else ():
        if row["status"] == ACCEPTED:
            yield rows.problem_of(row)
