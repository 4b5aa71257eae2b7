"""Where a row lies: the results of the store whose Parquet files hold a blueprint, a conversation, a critique or a pair by its id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.trace.stages import Known
from tasks.contract import schemas, tables

BLUEPRINTS, CONVERSATIONS, CRITIQUES, PAIRS, MARKED, PROBLEMS, TRIALS = (
    *("blueprints.parquet", "trajectories.parquet", "critiques.parquet", "preferences.parquet"),
    *("dataset.parquet", "problems.parquet", "trials.parquet"),
)
FILES = {
    "generate": {BLUEPRINTS: "problem_id", CONVERSATIONS: "traj_id"},
    "critique": {CRITIQUES: "critique_id", PAIRS: "pair_id"},
    "filter": {MARKED: "traj_id"},
    "evaluate": {TRIALS: "traj_id", PROBLEMS: "problem_id"},
}
"""Room -> file of its result -> the column with the rows' ids."""
SCHEMAS = {
    **{BLUEPRINTS: schemas.BLUEPRINT, CONVERSATIONS: schemas.TRAJECTORY, CRITIQUES: schemas.CRITIQUE, PAIRS: schemas.PREFERENCE},
    **{MARKED: schemas.DATASET, PROBLEMS: schemas.PROBLEM, TRIALS: schemas.TRIAL},
}
TOLD = 5000
"""Ids among which the nearest one is looked for; ours."""


@dataclass(frozen=True)
class Place:
    """A file with rows. identity: of the stage's result."""

    stage: str
    identity: str
    path: Path


@dataclass
class Search:
    """What was looked through. near: ids that begin alike. absent: results whose bytes are not in the store."""

    found: list[Place] = field(default_factory=list)
    results: int = 0
    absent: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)


def search(known: Known, row: str) -> Search:
    """Look for a row: in the workspace's results first, then in all others of the store."""
    done = Search()
    for stage, identity in _results(known):
        folder = known.folder(identity)
        if folder is None:
            done.absent.append(f"{stage} {identity}")
            continue
        done.results += 1
        for file, column in FILES[known.road[stage].room].items():
            if (folder / file).is_file():
                ids = ids_of(folder / file, column)
                if row in ids:
                    done.found.append(Place(stage, identity, folder / file))
                elif not done.found and len(done.near) < TOLD:
                    done.near += [one for one in ids if one[:4] == row[:4]][:TOLD]
    return done


def _results(known: Known) -> Iterator[tuple[str, str]]:
    """(stage, identity) of every result that may hold rows."""
    stages = [name for name in known.road.names if known.road[name].room in FILES]
    found = {(name, known.workspace[name]): None for name in stages if name in known.workspace}
    found |= {(one["parts"]["stage"], one["identity"]): None for one in known.records.all if one["parts"]["stage"] in stages}
    yield from found


def ids_of(path: Path, column: str) -> set[str]:
    """The ids in a column of a file."""
    import pyarrow.parquet as pq

    return set(pq.read_table(path, columns=[column]).column(0).to_pylist())


def rows(path: Path, column: str, value: str, *names: str) -> list[dict[str, Any]]:
    """The rows of a file of FILES that have a value in a column; with `names` these columns alone. Files of older versions lack columns
    that were added since: they come as None."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = SCHEMAS[path.name]
    there = pq.read_schema(path).names
    whole = [name for name in (names or schema.names) if name in there or name not in (*schemas.ADDED, *schemas.ADDED_MARKS)]
    table = tables.read_table(path, schemas.some(schema, *dict.fromkeys([column, *whole])))
    kept = table.filter(pc.equal(table[column], pa.scalar(value)))
    return [{**dict.fromkeys(names or schema.names), **row} for row in kept.to_pylist()]


def beside(known: Known, identity: str, room: str, file: str) -> list[Place]:
    """The file of each result of a room that was made of a result: critiques of its conversations, data sets that mark them."""
    found: dict[str, Place] = {}
    for record in known.records.readers(identity):
        stage = record["parts"]["stage"]
        if stage in known.road.names and known.road[stage].room == room and (folder := known.folder(record["identity"])):
            found[record["identity"]] = Place(stage, record["identity"], folder / file)
    return list(found.values())


def input_of(known: Known, record: Mapping[str, Any], room: str, file: str) -> Place | None:
    """The file in the result of a room that a recorded result read; None where it read none, or where its bytes are gone."""
    for stage, identity in record["parts"]["inputs"].items():
        if stage in known.road.names and known.road[stage].room == room and (folder := known.folder(identity)):
            return Place(stage, identity, folder / file)
    return None
