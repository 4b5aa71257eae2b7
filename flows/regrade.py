"""`cairn regrade`: stored conversations are graded again by the present grading; what changed is told part by part.

The calls of each conversation are played on a fresh fork of its frozen world, and the one grading judges the state that they leave,
the replies, and the calls with the answers that they get now. The file itself stays as it is.

What a conversation was about is no part of its row: problems come from the blueprints or problems files that are named or lie beside
it, or, for the test set of an evaluation, are drawn again with the seed of the run (a problem's id names its content, so a problem
that is found is the one that was played).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.console import tracked
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem
from tasks.contract.rows import outcome_row, trajectory_of
from tasks.contract.trajectory import GRADING, Outcome, Trajectory
from tasks.engine.dvc_yaml import DATA
from tasks.road import ROAD
from tasks.worlds import UNSEEN
from tasks.worlds.api.problem_making import draw_problems

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.worlds.api.runtime import World

Row = dict[str, Any]
Name = tuple[str, str]
"""(world, problem_id)."""

PROBLEMS = ("problems.parquet", "blueprints.parquet")
"""Files of a stage's result in which the problems of its conversations, or of those that it reads, may lie."""
MOST_IDS = 12
"""Problem ids of one line; the rest is counted."""


@dataclass
class Difference:
    """What grading again changed.

    rows: in the file; graded: of these, graded again; left: why the others were not -> how many.
    lost, won: part -> problem ids of the conversations whose verdict was 1 and is 0 now, and the other way round. Parts are
    those of GRADING, then "policy <rule>", then "reward". before, after: conversations with reward 1.
    hashes, answers: conversations with another state hash, and with a call that is answered otherwise.
    notes: what the reader should know of worlds and versions.
    """

    rows: int = 0
    graded: int = 0
    left: Counter[str] = field(default_factory=Counter)
    lost: dict[str, list[str]] = field(default_factory=dict)
    won: dict[str, list[str]] = field(default_factory=dict)
    before: int = 0
    after: int = 0
    hashes: int = 0
    answers: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, old: Row, new: Outcome) -> None:
        """Enter one conversation, as it is stored and as it is graded now."""
        self.graded += 1
        self.before += old["reward"]
        self.after += new.solved
        same = (old["final_state_hash"], old["wanted_state_hash"]) == (new.final_state_hash, new.wanted_state_hash)
        self.hashes += not same
        parts = {name: (old[name], getattr(new, name)) for name in GRADING if name != "policy"}
        parts["policy"] = (not old["broken"], not new.broken)
        for rule in sorted({*old["broken"], *new.broken}):
            parts[f"policy {rule}"] = (rule not in old["broken"], rule not in new.broken)
        parts["reward"] = (old["reward"], int(new.solved))
        for part, (was, now) in parts.items():
            if was != now:
                (self.lost if was else self.won).setdefault(part, []).append(old["problem_id"])


def regrade(
    path: Path, worlds: Path | None = None, problems: Sequence[Path] = (), seeds: Collection[int] = (), out: Path | None = None
) -> Difference:
    """Grade the conversations of a file (rows of TRAJECTORY, DATASET or TRIAL) again; `out` gets the file with the new verdicts.

    worlds: a frozen world, or a folder of them; by default the one that belongs to the file. problems: files of PROBLEM or
    BLUEPRINT. seeds: one may be that of the stage that made the file. Raises BadInput when the files are
    not such, or nothing can be graded.
    """
    import pyarrow as pa

    from tasks.contract import schemas, tables

    schema = schema_of(path)
    if out is not None and out.resolve() == path.resolve():
        raise BadInput(f"--out {out}: this is the file itself, which stays as it is. Name another one.")
    difference = Difference(notes=[_versions(path)])
    home = Worlds(world_folders(worlds or _beside(path)), difference.notes)
    known = _problems(path, problems, home, seeds)
    done = _again(path, schema, home, known, difference)
    whole = pa.schema(
        [*schema, *(schemas.TRAJECTORY.field(name) for name in schemas.ADDED if name not in schema.names)], schema.metadata
    )
    if out is None:
        for _ in done:
            pass
    else:
        part = out.with_name(f"{out.name}.part")
        try:
            tables.write_rows(part, whole, done, group=256)
            _insist(path, difference)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    _insist(path, difference)
    return difference


def _insist(path: Path, difference: Difference) -> None:
    if not difference.graded:
        why = "; ".join(f"{count} {reason}" for reason, count in difference.left.items()) or "it has no rows"
        raise BadInput(f"{path}: nothing can be graded again: {why}.")


# --- what is read --------------------------------------------------------------------------------------------------------------


def _header(path: Path) -> pa.Schema:
    """The schema as the file tells it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: not a readable Parquet file ({error}).") from None


def schema_of(path: Path) -> pa.Schema:
    """The schema of a file of conversations: TRIAL, DATASET or TRAJECTORY of `tasks.contract.schemas`, without what was added since."""
    import pyarrow as pa

    from tasks.contract import schemas

    names = set(_header(path).names)
    if "traj_id" not in names or "calls" not in names:
        raise BadInput(
            f"{path}: holds no conversations. Give trajectories.parquet of generate, dataset.parquet of filter or trials.parquet "
            "of evaluate."
        )
    schema = schemas.TRIAL if {"model", "set"} <= names else schemas.DATASET if "keep" in names else schemas.TRAJECTORY
    newer = {*schemas.ADDED, *schemas.ADDED_MARKS}
    return pa.schema([field for field in schema if field.name in names or field.name not in newer], metadata=schema.metadata)


def _versions(path: Path) -> str:
    stored = (_header(path).metadata or {}).get(b"grading")
    was = _versions_text(json.loads(stored)) if stored else "not recorded"
    return f"grading that is stored: {was}; present: {_versions_text(GRADING)}"


def _versions_text(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {version}" for part, version in sorted(versions.items()))


def _beside(path: Path) -> Path:
    from flows import PROJECT

    own = (folder for folder in _results(path, "worlds") if folder.is_dir())
    return next(own, PROJECT / DATA / ROAD.entering("worlds")[0])


def _results(path: Path, room: str) -> list[Path]:
    """Results of a room that may lie beside a file's folder: the one that its stage reads, or all where the folder is no stage's."""
    here = path.resolve().parent
    names = [ROAD.input(here.name, room)] if here.name in ROAD.names else ROAD.entering(room)
    return [here.parent / name for name in names if name]


def world_folders(folder: Path) -> dict[str, Path]:
    """World name -> its frozen folder, of a frozen world or a folder of them; BadInput when it is neither."""
    from tasks.worlds.api.folder import read_json

    below = [*sorted(folder.glob("*/world.json")), *sorted((folder / UNSEEN).glob("*/world.json"))]
    found = [path.parent for path in (folder / "world.json", *below) if path.is_file()]
    if not found:
        raise BadInput(f"{folder}: holds no frozen world. Give one with --world, or run the step that freezes worlds first.")
    return {str(read_json(path / "world.json").get("name")): path for path in found}


class Worlds:
    """Frozen worlds with the code as it is now, opened when first asked for."""

    def __init__(self, folders: Mapping[str, Path], notes: list[str]) -> None:
        self._folders, self._notes = folders, notes
        self._open: dict[str, World] = {}

    def get(self, name: str) -> World | None:
        """The world, or None when it is not there."""
        from tasks.worlds.api.folder import read_json
        from tasks.worlds.api.frozen import load
        from tasks.worlds.api.loading import code_hash

        if name not in self._open and name in self._folders:
            world = self._open[name] = load(self._folders[name], present_code=True)
            if code_hash(world.shared.address) != read_json(self._folders[name] / "world.json")["code"]:
                self._notes.append(f"{name}: its code has changed since it was frozen; the frozen tables meet the present code")
        return self._open.get(name)


# --- problems ------------------------------------------------------------------------------------------------------------------


def _problems(path: Path, named: Sequence[Path], worlds: Worlds, seeds: Collection[int]) -> dict[Name, Problem]:
    """The problems of a file's conversations, as far as they are known."""
    found: dict[Name, Problem] = {}
    folders = [path.parent, *_results(path, "generate")]
    for place in named or [place for folder in folders for name in PROBLEMS if (place := folder / name).is_file()]:
        found.update(read_problems(place))
    for seed in seeds:
        found.update(_drawn(path, found, worlds, seed))
    return found


def read_problems(path: Path) -> Iterator[tuple[Name, Problem]]:
    """The problems of a file of PROBLEM, or the accepted ones of a file of BLUEPRINT, by (world, problem_id)."""
    from tasks.contract import rows, schemas, tables

    blueprints = "status" in _header(path).names
    for row in tables.read_rows(path, schemas.BLUEPRINT if blueprints else schemas.PROBLEM):
        if not blueprints or row["status"] == "accepted":
            yield (row["world"], row["problem_id"]), rows.problem_of(row)


def _drawn(path: Path, known: Mapping[Name, Problem], worlds: Worlds, seed: int) -> dict[Name, Problem]:
    """The test set of an evaluation, drawn again as `tasks.evaluate.pass_k` did it; empty when the seed is not that of the file."""
    import pyarrow.parquet as pq

    from tasks.evaluate.core.seeds import of_play, of_problems

    columns = ["set", "world", "split", "problem_id", "seed"]
    if not set(columns) <= set(_header(path).names):
        return {}
    asked: dict[Name, set[str]] = {}
    for row in pq.read_table(path, columns=columns).to_pylist():
        own = row["set"] != "gate" and row["seed"] == of_play(seed)
        if own and (row["world"], row["problem_id"]) not in known:
            asked.setdefault((row["world"], row["split"]), set()).add(row["problem_id"])
    found: dict[Name, Problem] = {}
    for (name, split), ids in asked.items():
        world = worlds.get(name)
        with suppress(BadInput):  # the present code makes fewer problems; those rows are left and counted
            for problem in draw_problems(world, split, len(ids), of_problems(seed, split, name)) if world else ():
                found[name, problem.problem_id] = problem
    return found


# --- grading -------------------------------------------------------------------------------------------------------------------


def _again(path: Path, schema: pa.Schema, worlds: Worlds, problems: Mapping[Name, Problem], difference: Difference) -> Iterator[Row]:
    """Every row of the file, with new verdicts where it can be graded again."""
    import pyarrow.parquet as pq

    from tasks.contract.tables import read_rows
    from tasks.worlds.api.grading import TruthRefused

    total = pq.ParquetFile(path).metadata.num_rows
    for row in tracked(read_rows(path, schema, group=256), total, "regrade", "conversations"):
        difference.rows += 1
        problem, world = problems.get((row["world"], row["problem_id"])), worlds.get(row["world"])
        if world is None:
            difference.left[f"of world {row['world']!r}, which is not there (see --world)"] += 1
        elif problem is None:
            difference.left["whose problem is not known (see --problems)"] += 1
        else:
            try:
                outcome, otherwise = graded(trajectory_of(row, problem), world)
            except TruthRefused:
                difference.left["whose ground truth the present code refuses"] += 1
            else:
                difference.count(row, outcome)
                difference.answers += otherwise
                row = {**row, **outcome_row(outcome)}
        yield row


def graded(played: Trajectory, world: World, left_out: Collection[int] = ()) -> tuple[Outcome, bool]:
    """(present outcome, whether some call is answered otherwise than it was) of a conversation, whose calls get their present answers.
    left_out: places of calls that were never made, and keep the answers that they have.

    TruthRefused when the present code refuses its problem's ground truth."""
    fork = world.fork()
    calls = []
    for place, (action, before) in enumerate(played.calls):
        tool = world.tools.get(action.name)
        again = Action(action.name, action.arguments, tool.kind if tool else "read")
        calls.append((again, before if place in left_out else fork.call(action.name, action.arguments)))
    otherwise = [result for _, result in calls] != [result for _, result in played.calls]
    played.calls = calls
    return world.grade(played, fork), otherwise


# --- what is said --------------------------------------------------------------------------------------------------------------


def lines(difference: Difference) -> list[str]:
    """The difference for a reader: notes, one line per part, totals."""
    found = [*difference.notes, f"graded again: {difference.graded} of {difference.rows} conversations"]
    found += [f"left as stored: {count} {reason}" for reason, count in sorted(difference.left.items())]
    rules = sorted(part for part in {*difference.lost, *difference.won} if part.startswith("policy "))
    found += ["", f"{'part':<14}{'was 1 now 0':>12}{'was 0 now 1':>13}  problems"]
    for part in (*GRADING, *rules, "reward"):
        lost, won = difference.lost.get(part, []), difference.won.get(part, [])
        found.append(f"{part:<14}{len(lost):>12}{len(won):>13}  {_some([*lost, *won])}".rstrip())
    found += ["", f"reward 1: {difference.before} before, {difference.after} now, of {difference.graded}"]
    if difference.hashes:
        found.append(f"another state hash: {difference.hashes} conversations")
    if difference.answers:
        found.append(f"a call answered otherwise: {difference.answers} conversations")
    return found


def _some(ids: Sequence[str]) -> str:
    """Each id once, in the order in which they came."""
    once = list(dict.fromkeys(ids))
    more = f" and {len(once) - MOST_IDS} more" if len(once) > MOST_IDS else ""
    return ", ".join(once[:MOST_IDS]) + more
