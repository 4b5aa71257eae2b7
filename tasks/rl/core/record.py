"""What a run remembers, on disk while it runs and in the artifact when it is done. No clocks: the same run gives the same
bytes."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.contract.trajectory import PARTIES
from tasks.rl.core.pool import Group, Screened, difficulty
from tasks.training import distributed


@dataclass(frozen=True)
class Validation:
    """Sampled pass^1 at a step. families: (solved, tried) of each; where outcomes are real numbers, solved is their sum."""

    step: int
    families: Mapping[str, tuple[float, int]]

    @property
    def rate(self) -> float:
        """pass^1 over all families."""
        return sum(won for won, _ in self.families.values()) / max(1, self.tried)

    @property
    def tried(self) -> int:
        """How many conversations the validation has."""
        return sum(tried for _, tried in self.families.values())

    def rates(self) -> dict[str, float]:
        """pass^1 of each family."""
        return {family: won / tried for family, (won, tried) in self.families.items()}

    def falls(self, start: Validation) -> dict[str, float]:
        """How far each family that fell has fallen since `start`."""
        now, then = self.rates(), start.rates()
        return {family: then[family] - now[family] for family in now if now[family] < then.get(family, 0.0)}


@dataclass
class Record:
    """step: optimiser steps done. lines: one a step, for curves.csv. best: step of the checkpoint
    that is kept so far."""

    step: int = 0
    stopped: bool = False
    best: int = 0
    alarms: list[int] = field(default_factory=list)
    lines: list[dict[str, float]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)

    def groups(self) -> list[Group]:
        """Every group that was played, in order."""
        return [Group(**{**entry, "outcomes": tuple(entry["outcomes"]), "rewards": tuple(entry["rewards"])}) for entry in self.history]

    def validated(self, result: Validation, max_fall: float) -> bool:
        """Add a validation; True when its checkpoint is the one to keep, as the first one always is.

        The latest within one standard error of the highest rate is kept: validation sets are small, and the highest of several
        noisy rates is often an early one. None is kept in which a family fell by more than `max_fall`.
        """
        earlier = {entry.step: entry for entry in self.results()}
        self.validations.append({"step": result.step, "families": {name: list(pair) for name, pair in result.families.items()}})
        if earlier:
            start = next(iter(earlier.values()))
            high = max(entry.rate for entry in earlier.values())
            error = math.sqrt(max(0.0, high * (1 - high)) / max(1, result.tried))  # of real numbers beyond 0 and 1 none is known
            if result.rate < high - error or any(fall > max_fall for fall in result.falls(start).values()):
                return False
        self.best = result.step
        return True

    def results(self) -> list[Validation]:
        """The validations so far."""
        return [
            Validation(entry["step"], {name: (won, tried) for name, (won, tried) in entry["families"].items()})
            for entry in self.validations
        ]

    def add(self, line: dict[str, float], groups: Sequence[Group], floor: float) -> bool:
        """Add a step; True when its entropy is below `floor` times that of the first step that trained."""
        self.step += 1
        self.lines.append(line)
        self.history += [asdict(group) for group in groups]
        trained = [entry["entropy"] for entry in self.lines if entry["tokens"]]
        alarm = bool(line["tokens"]) and line["entropy"] < floor * trained[0]
        if alarm:
            self.alarms.append(self.step)
        return alarm


def fresh(folder: Path) -> Path:
    """The folder, empty: what an earlier attempt left is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder` in one step, or never."""
    stage = fresh(folder.with_name(folder.name + ".part"))
    yield stage
    shutil.rmtree(folder, ignore_errors=True)
    stage.rename(folder)


def keep(record: Record, folder: Path, scratch: Path, step: int) -> None:
    """Move a complete state, with the record, to where `newest` finds it; older states go when every process has the new one."""
    (folder / "record.json").write_text(json.dumps(asdict(record)))
    target = scratch / "steps" / str(step)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
    distributed.wait()
    for older in target.parent.iterdir():
        if int(older.name) < step:
            shutil.rmtree(older)


def newest(scratch: Path) -> Path | None:
    """The newest state to resume from, of several processes that all have. Only complete states are ever here."""
    found = distributed.common([int(path.name) for path in (scratch / "steps").glob("*")])
    return scratch / "steps" / str(found[-1]) if found else None


def read(state: Path) -> Record:
    """The record in a state."""
    return Record(**json.loads((state / "record.json").read_text()))


def publish(record: Record, scratch: Path, out: Path, screened: Sequence[Screened], max_fall: float) -> dict[str, Any]:
    """Copy the best checkpoint to `out`/model (and other policies beside it), write curves.csv, and return the run's figures."""
    shutil.copytree(scratch / "best" / str(record.best), out, dirs_exist_ok=True)
    results = {entry.step: entry for entry in record.results()}
    _write_curves(out / "curves.csv", record, results)
    start, best, last = results[0], results[record.best], list(results.values())[-1]
    first, final = (record.lines[0], record.lines[-1]) if record.lines else ({}, {})
    return {
        "steps": record.step,
        "best_step": record.best,
        "validation_start": start.rate,
        "validation_best": best.rate,
        "validation_last": last.rate,
        "validation_n": start.tried,
        "families_start": start.rates(),
        "families_best": best.rates(),
        "family_falls": best.falls(start),
        "refused_for_a_fall": [
            entry.step for entry in results.values() if any(fall > max_fall for fall in entry.falls(start).values())
        ],
        "reward_first": first.get("reward"),
        "reward_last": final.get("reward"),
        "groups_played": len(record.history),
        "groups_dropped": sum(int(line["dropped_groups"]) for line in record.lines),
        "conversations_left_out": sum(int(line["left_out"]) for line in record.lines),
        "conversations_lost_by": {party: sum(int(line[f"lost_by_{party}"]) for line in record.lines) for party in PARTIES},
        "tokens_trained": sum(int(line["tokens"]) for line in record.lines),
        "entropy_alarms": record.alarms,
        "stopped_by_entropy": record.stopped,
        "screened": difficulty(screened),
    }


def _write_curves(path: Path, record: Record, results: Mapping[int, Validation]) -> None:
    """One line a step, step 0 for the start: numbers with six digits, empty where there is none."""
    found = {name for line in record.lines for name in line}
    names = [name for kind in ("term_", "loss_") for name in sorted(found) if name.startswith(kind)]
    columns = ["outcome", "reward", *names, "entropy", "live_groups", "dropped_groups", "left_out"]
    columns += [*(f"lost_by_{party}" for party in PARTIES), "tokens"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *columns, "validation"])
        for step, line in enumerate([{}, *record.lines]):
            cells = [f"{line[name]:.6g}" if name in line else "" for name in columns]
            writer.writerow([step, *cells, f"{results[step].rate:.6g}" if step in results else ""])
