"""The results file of a paper, `flows/papers/results/<slug>.json`: what was measured, committed beside the claim.

A cell is one arm with one seed. It is added as it ends, so that a run that was killed goes on where it stopped, on another clone too; a
cell that failed stands there with its reason. The file holds the rule under which its cells were measured, what each was made of
(code, data, machine), and a hash over all of that: an edit by hand is told.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.claims.declaration import Claim
from tasks.contract.params import BadInput
from tasks.contract.values import canonical_json
from tasks.engine.files import write_text
from tasks.engine.locks import lock

SIGNIFICANT = 9
"""Digits of a measured number that are kept: more than any measurement has, fewer than machines agree on."""


@dataclass(frozen=True)
class Figure:
    """A metric of a cell. mean: over n problems. values: of each problem in the paper's order, kept where the claim's interval needs
    them, else empty. digest: of all values, kept or not."""

    mean: float
    n: int
    digest: str
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One arm with one seed. figures: metric -> figure. failed: why there are none; "" for a cell that was measured. seconds: what it
    took. code: path -> md5 of each file of the project that it used. data: step -> identity of what the step left. machine: what it ran
    on, as far as numbers depend on it. recipe: digest of all that it is made of (params, code, versions), known before it runs."""

    arm: str
    seed: int
    seconds: float
    code: Mapping[str, str]
    machine: Mapping[str, str]
    data: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    failed: str = ""
    recipe: str = ""


@dataclass(frozen=True)
class Results:
    """All that a results file holds. paper: its slug. rule: `Claim.rule` when the cells were measured. cells: by arm, then seed.
    conclusion: what followed from all cells (`flows.claims.verdict.conclude`); empty before, and again when a cell is added."""

    paper: str
    rule: Mapping[str, Any]
    cells: tuple[Cell, ...]
    conclusion: Mapping[str, Any] = field(default_factory=dict)

    def cell(self, arm: str, seed: int) -> Cell | None:
        """A cell that is there, failed or not."""
        return next((one for one in self.cells if (one.arm, one.seed) == (arm, seed)), None)

    def open_cells(self, claim: Claim) -> list[tuple[str, int, str]]:
        """(arm, seed, why) of each cell that the claim's verdict waits for. why: how it failed; "" when it has not run."""
        found = [(arm, seed, self.cell(arm, seed)) for seed in range(claim.seeds) for arm in claim.arms()]
        return [(arm, seed, cell.failed if cell else "") for arm, seed, cell in found if cell is None or cell.failed]


def figures(claim: Claim, arm: str, values: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    """What a cell keeps of metric -> values, one a problem. ValueError for a metric that the claim needs of this arm and that was not
    measured, for one without values, and for a value that is no number."""
    if missing := [metric for metric in claim.arms().get(arm, ()) if metric not in values]:
        raise ValueError(
            f"the claim needs {missing[0]!r} of arm {arm!r}, which was not measured (measured: {', '.join(values) or 'nothing'})"
        )
    needed = claim.arms().get(arm, ()) if claim.interval == "hierarchical_bootstrap" else ()
    found = {}
    for metric, numbers in values.items():
        if not numbers or not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{metric!r} of arm {arm!r} has {'a value that is no number' if numbers else 'no values'}")
        kept = tuple(float(f"{number:.{SIGNIFICANT}g}") for number in numbers)
        digest = hashlib.sha256(canonical_json(kept).encode()).hexdigest()[:16]
        mean = float(f"{math.fsum(kept) / len(kept):.{SIGNIFICANT}g}")
        found[metric] = Figure(mean, len(kept), digest, kept if metric in needed else ())
    return found


def read(path: Path) -> Results | None:
    """The results in a file; None when it is not there. BadInput for a file that is damaged, that was edited by hand, or that holds
    another paper's results."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        content = document.pop("sha256")
        if content != _content(document):
            raise BadInput(f"{path}: edited by hand: its content is not what its sha256 says. {_remedy(path)}")
        if document["paper"] != path.stem:
            raise BadInput(f"{path}: holds the results of paper {document['paper']!r}; a results file has its paper's name.")
        return _from_document(document)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: no results file, or a damaged one ({type(error).__name__}: {error}). {_remedy(path)}") from None


def check_rule(results: Results, claim: Claim) -> None:
    """BadInput when cells were measured under another rule than the claim's: one that is fitted to what came out says nothing."""
    before, now = json.loads(canonical_json(results.rule)), json.loads(canonical_json(claim.rule()))
    if changed := sorted(key for key in {*before, *now} if before.get(key) != now.get(key)):
        raise BadInput(
            f"paper {results.paper}: {', '.join(changed)} of its CLAIM changed after {len(results.cells)} cells were measured. A rule "
            "stands before anything runs: put it back, or remove the results file and measure all cells anew."
        )


def add(path: Path, claim: Claim, cell: Cell, state: Path) -> Results:
    """Write a cell into the results file of its paper, which others may be writing to; a cell of the same arm and seed gives way.

    state: root of the locks. Returns all that is in the file now. BadInput as of `read` and `check_rule`.
    """
    with lock(state, f"results-{path.stem}"):
        found = read(path) or Results(path.stem, claim.rule(), ())
        check_rule(found, claim)
        others = [one for one in found.cells if (one.arm, one.seed) != (cell.arm, cell.seed)]
        new = Results(found.paper, found.rule, tuple(sorted([*others, cell], key=lambda one: (one.arm, one.seed))))
        write(path, new)
    return new


def write(path: Path, results: Results) -> None:
    """Write a results file, whole or not at all: a line a cell, so that git shows which are new."""
    document = _document(results)
    parts = [f' "{key}": {_in_lines(value)}' for key, value in (document | {"sha256": _content(document)}).items()]
    write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _in_lines(value: Any) -> str:
    """JSON with a line for each item of a list, and of a mapping that holds mappings."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
    if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
        return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()) + "\n }"
    return json.dumps(value)


def _content(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def _remedy(path: Path) -> str:
    return f"`git checkout -- {path.name}` in its folder brings the committed one back; without the file, all cells are measured anew."


def _document(results: Results) -> dict[str, Any]:
    """JSON of results. What many cells have in common (code, machine) stands once, under its hash."""
    code = _once(cell.code for cell in results.cells)
    machines = _once(cell.machine for cell in results.cells)
    return {
        "paper": results.paper,
        "rule": json.loads(canonical_json(results.rule)),
        "conclusion": json.loads(canonical_json(results.conclusion)),
        "code": code,
        "machines": machines,
        "cells": [_cell_document(cell) for cell in results.cells],
    }


def _once(mappings: Iterable[Mapping[str, str]]) -> dict[str, dict[str, str]]:
    found = {_name(one): dict(sorted(one.items())) for one in mappings}
    return dict(sorted(found.items()))


def _name(mapping: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(mapping).encode()).hexdigest()[:12]


def _cell_document(cell: Cell) -> dict[str, Any]:
    document: dict[str, Any] = {"arm": cell.arm, "seed": cell.seed}
    if cell.failed:
        document["failed"] = cell.failed
    for metric, one in sorted(cell.figures.items()):
        figure: dict[str, Any] = {"mean": one.mean, "n": one.n, "digest": one.digest}
        document.setdefault("figures", {})[metric] = figure | ({"values": list(one.values)} if one.values else {})
    return document | {
        "seconds": round(cell.seconds, 1),
        "recipe": cell.recipe,
        "code": _name(cell.code),
        "machine": _name(cell.machine),
        "data": dict(sorted(cell.data.items())),
    }


def _from_document(document: Mapping[str, Any]) -> Results:
    cells = []
    for one in document["cells"]:
        measured = {
            metric: Figure(
                float(one_figure["mean"]),
                one_figure["n"],
                one_figure["digest"],
                tuple(float(value) for value in one_figure.get("values", ())),
            )
            for metric, one_figure in one.get("figures", {}).items()
        }
        code, machine = document["code"][one["code"]], document["machines"][one["machine"]]
        failed = one.get("failed", "")
        cells.append(Cell(one["arm"], one["seed"], float(one["seconds"]), code, machine, one["data"], measured, failed, one["recipe"]))
    return Results(document["paper"], document["rule"], tuple(cells), document["conclusion"])
