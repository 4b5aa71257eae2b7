"""`cairn compare A B`: in what two runs, versions, experiments or commits differ (params, inputs, code), and what that did to figures.

Stage by stage the parts of the two keys are held against each other. Figures of the evaluations are paired by problem where both played
the same test problems; where they did not, that is said, and each stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.differences import differences
from flows.model_names import place
from flows.records import Record
from flows.trace.rows import TRIALS
from flows.trace.stages import Known, estimate_text
from flows.trace.trail import Trail
from tasks.contract import schemas, tables
from tasks.contract.params import BadInput
from tasks.engine.key import changed

RESAMPLES = 10_000
"""Bootstrap samples of an interval; ours."""
OTHER = ("versions", "kernels", "servers", "opponent", "anchor", "used")
"""Parts of a key beside params, inputs and code: library versions, what fixes CPU kernels, who answers for roles, the champion met."""
Wins = Mapping[tuple[str, str, str], Sequence[int]]
"""(model, world, problem) -> reward of each trial."""


@dataclass(frozen=True)
class StageDifference:
    """One stage whose results differ. params, inputs, code, other: lines, before -> after. unknown: why nothing can be said of it."""

    stage: str
    params: Sequence[str] = ()
    inputs: Sequence[str] = ()
    code: Sequence[str] = ()
    other: Sequence[str] = ()
    unknown: str = ""


@dataclass(frozen=True)
class PairedFigure:
    """pass^1 of a model in a world ("" for all together), second minus first. first, second: means over the problems that both played;
    difference: an estimate with its interval over problems."""

    model: str
    world: str
    first: float
    second: float
    difference: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """names: of the two. same: stages with the same result. stages: the others, in the road's order. figures: paired, or none, and then
    `unpaired` says why. alone: lines on what each figure is by itself, where there are no pairs. notes: what to know of the pairs."""

    names: tuple[str, str]
    same: Sequence[str]
    stages: Sequence[StageDifference]
    figures: Sequence[PairedFigure] = ()
    unpaired: str = ""
    alone: Sequence[str] = ()
    notes: Sequence[str] = field(default=())


def compare(known: Known, first: Trail, second: Trail) -> Comparison:
    """Hold two trails against each other. BadInput when they have no stage in common."""
    both = [name for name in known.road.names if name in first.stages and name in second.stages]
    if not both:
        told = " and ".join(f"{one.name} ({', '.join(one.stages) or 'no result'})" for one in (first, second))
        raise BadInput(f"{told} have no stage in common, so there is nothing to compare")
    same = [name for name in both if first.stages[name] == second.stages[name]]
    stages = [_stage(known, name, first.stages.get(name), second.stages.get(name)) for name in known.road.names if name not in same]
    return Comparison((first.name, second.name), same, [one for one in stages if one], **_figures(known, first, second))


def _stage(known: Known, stage: str, first: str | None, second: str | None) -> StageDifference | None:
    if first is None or second is None:
        holder = "second" if second else "first" if first else ""
        return StageDifference(stage, unknown=f"only the {holder} has it") if holder else None
    old, new = known.records.of(first, stage), known.records.of(second, stage)
    if old is None or new is None:
        which = " and ".join(one for one, record in ((first, old), (second, new)) if record is None)
        return StageDifference(stage, unknown=f"how {which} was made is not recorded in this store")
    before, after = old["parts"], new["parts"]
    return StageDifference(
        stage,
        [str(one) for one in differences(stage, before, after)],
        list(changed(before["inputs"], after["inputs"])),
        list(_code(old, new)),
        list(changed({name: before.get(name) for name in OTHER}, {name: after.get(name) for name in OTHER})),
    )


def _code(old: Record, new: Record) -> Iterator[str]:
    """Files and folders of code that differ."""
    before, after = old["parts"].get("code") or {}, new["parts"].get("code") or {}
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            alone = "" if path in before and path in after else " (the first alone)" if path in before else " (the second alone)"
            yield path + alone


# --- figures ---------------------------------------------------------------------------------------------------------


def _figures(known: Known, first: Trail, second: Trail) -> dict[str, Any]:
    """The fields of `Comparison` about figures."""
    judged = known.road.judged
    ours, theirs = first.stages.get(judged), second.stages.get(judged)
    if not ours or not theirs:
        lacking = " and ".join(one.name for one, identity in ((first, ours), (second, theirs)) if not identity)
        return {"unpaired": f"{lacking}: no evaluation, so no figures to compare"}
    if ours == theirs:
        return {"unpaired": "both have the same evaluation"}
    folders = [known.folder(one) for one in (ours, theirs)]
    if gone := [one for one, folder in zip((ours, theirs), folders, strict=True) if folder is None]:
        return {"unpaired": f"the evaluation {' and '.join(gone)} is not in the store (`dvc pull` may bring it)"}
    wins = [_wins(folder / TRIALS) for folder in folders if folder]
    pairs = sorted({*wins[0]} & {*wins[1]})
    if not pairs:
        why = "they played other test problems (another world, seed or generator), so nothing is paired; each alone:"
        return {
            "unpaired": why,
            "alone": [line for one, found in ((first, wins[0]), (second, wins[1])) for line in _alone(one.name, found)],
        }
    models = sorted({model for model, _, _ in pairs}, key=lambda model: place(model, known.road))
    numbers = [len({key[1:] for key in found}) for found in wins]
    shared = len({key[1:] for key in pairs})
    left = f"of {numbers[0]} and {numbers[1]} test problems {shared} are the same; the others are left out"
    notes = [left] if numbers != [shared, shared] else []
    return {
        "figures": [figure for model in models for figure in _paired(model, pairs, *wins)],
        "notes": [*notes, *_gates_between(known, first, second)],
    }


def _gates_between(known: Known, first: Trail, second: Trail) -> Iterator[str]:
    """What the gate said where the second met the first on fresh problems."""
    decision = second.stages.get(known.road.decision)
    record = known.records.of(decision, known.road.decision) if decision else None
    if record and record["parts"].get("opponent") and record["parts"]["opponent"] == first.stages.get(known.road.candidate):
        for gate in record["figures"].get("gates") or ():
            yield f"gate {gate['name']}, where {second.name} met {first.name} on fresh problems: {gate['explanation']}"


def _wins(path: Path) -> dict[tuple[str, str, str], list[int]]:
    found: dict[tuple[str, str, str], list[int]] = {}
    for row in tables.read_rows(path, schemas.some(schemas.TRIAL, "model", "set", "world", "problem_id", "reward")):
        if row["set"] == "test":
            found.setdefault((row["model"], row["world"], row["problem_id"]), []).append(row["reward"])
    return found


def _paired(model: str, pairs: Sequence[tuple[str, str, str]], first: Wins, second: Wins) -> Iterator[PairedFigure]:
    """A model's figures in each world, and over all where there are several."""
    from tasks.evaluate.core.estimates import difference

    by_world: dict[str, list[tuple[str, str, str]]] = {}
    for key in pairs:
        if key[0] == model:
            by_world.setdefault(key[1], []).append(key)
    parts = {world: [keys] for world, keys in by_world.items()}
    for world, strata in {**parts, **({"": [*by_world.values()]} if len(by_world) > 1 else {})}.items():
        old, new = ([_rates(found, keys) for keys in strata] for found in (first, second))
        trials = min(len(found[key]) for found in (first, second) for keys in strata for key in keys)
        gap = difference(new, old, trials, seed=0, resamples=RESAMPLES)
        yield PairedFigure(model, world, _mean(old), _mean(new), gap)


def _rates(found: Wins, keys: Sequence[tuple[str, str, str]]) -> Any:
    import numpy as np

    return np.array([sum(found[key]) / len(found[key]) for key in keys])


def _mean(strata: Sequence[Any]) -> float:
    values = [float(value) for part in strata for value in part]
    return sum(values) / len(values)


def _alone(name: str, found: Wins) -> Iterator[str]:
    from tasks.evaluate.core.estimates import estimate

    groups: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for key in sorted(found):
        groups.setdefault(key[:2], []).append(key)
    for (model, world), keys in groups.items():
        one = estimate([_rates(found, keys)], min(len(found[key]) for key in keys), seed=0, resamples=RESAMPLES)
        yield f"{name}: {model} in {world}: {estimate_text(one)}"


# --- what is said ----------------------------------------------------------------------------------------------------


def lines(found: Comparison) -> Iterator[str]:
    """The comparison for a reader."""
    yield f"{found.names[0]} -> {found.names[1]}"
    yield f"the same results: {', '.join(found.same) or 'none'}"
    for one in found.stages:
        yield ""
        yield f"{one.stage}{': ' + one.unknown if one.unknown else ''}"
        for label, told in (("params", one.params), ("inputs", one.inputs), ("code", one.code), ("other", one.other)):
            yield from (f"  {label:<7}{line}" for line in told)
        if not (one.unknown or one.params or one.inputs or one.code or one.other):
            yield "  nothing of its key differs, and its results do: another machine or kind of CPU made one of them"
    yield ""
    if found.figures:
        yield "pass^1 on the same test problems, first -> second, difference with its 95 % interval over problems"
        yield from (_figure_line(one) for one in found.figures)
    yield from (found.unpaired, *found.alone) if found.unpaired else ()
    yield from found.notes


def _figure_line(one: PairedFigure) -> str:
    gap = one.difference
    interval = f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
    where = one.world or "all worlds"
    return f"  {one.model:<16} {where:<12} {one.first:.3f} -> {one.second:.3f}  {interval}  n = {gap['n']}, {gap['trials']} trials"
