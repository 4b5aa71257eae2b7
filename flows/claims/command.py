"""What `cairn claims` does, command by command."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from flows import OUTSIDE, PROJECT, STATE
from flows.claims import claim_text, results, running
from flows.claims.declaration import Claim
from flows.claims.papers import load, results_file
from flows.claims.results import Cell
from flows.claims.running import Wish
from flows.claims.standing import standing
from flows.claims.verdict import judge
from flows.papers import names
from tasks.contract.params import BadInput


def run_all(slugs: Sequence[str], seeds: int, quick: bool, again: bool) -> int:
    """Measure what is missing of papers' claims, one paper after another; returns the exit code: 1 when a cell failed."""
    if OUTSIDE:
        raise BadInput(OUTSIDE)
    if seeds < 0:
        raise BadInput(f"--seeds {seeds}: 0 for as many as the claim's rule says, or more.")
    wishes = [Wish(slug, seeds, quick, again) for slug in dict.fromkeys(slugs)]
    missing = [wish for wish in wishes if running.todo(wish, PROJECT, STATE)]  # whatever is wrong is said before anything starts
    if missing:
        _measure(missing)
    return max([_tell(wish) for wish in wishes])


def _measure(wishes: Sequence[Wish]) -> None:
    with _servers():
        from flows.claims.flow import claim

        for wish in wishes:
            claim(wish.slug, wish.seeds, wish.quick, wish.again)


@contextmanager
def _servers() -> Iterator[None]:
    """While the block runs, there is what cells are measured with: Prefect's server, and a loaded process for trainings."""
    from flows.server import prefect_api
    from tasks.engine import process, warm

    with prefect_api(), warm.processes(PROJECT, process.environment_of(1)):  # in this order: a fork has the environment of now
        yield


def _tell(wish: Wish) -> int:
    """Say what is there; 1 when a cell failed."""
    claim, found = wish.paper.CLAIM, results.read(wish.file(STATE))
    cells = [cell for cell in (found.cells if found else ()) if cell.seed in wish.numbers]
    failed = [cell for cell in cells if cell.failed]
    for cell in failed:
        print(f"{wish.slug}: {cell.arm} with seed {cell.seed} failed: {cell.failed}", file=sys.stderr)
    print(f"{wish.slug}: {len(cells) - len(failed)} cells in {wish.file(STATE)}")
    if not wish.quick:
        print("\n".join(claim_text.outcome(wish.slug, claim, found)))
    return int(bool(failed))


def status() -> list[dict[str, Any]]:
    """How each paper stands; one that is wrong says why under `state`."""
    found: list[dict[str, Any]] = []
    for slug in names():
        try:
            claim, there = load(slug).CLAIM, results.read(results_file(slug, False, STATE))
            stands = standing(claim, there, PROJECT)
            word = judge(claim, there).word if there and not stands.open_cells else ""
            found.append({"paper": slug, "verdict": word, **asdict(stands)})
        except BadInput as mistake:
            found.append({"paper": slug, "verdict": "", "state": "wrong", "why": str(mistake)})
    return found


def table(slug: str) -> dict[str, Any]:
    """Metric -> arm -> seed -> mean, and what failed, of a paper's results file."""
    claim, found = load(slug).CLAIM, results.read(results_file(slug, False, STATE))
    if found is None:
        raise BadInput(f"paper {slug}: nothing was measured yet; `cairn claims run {slug}` does.")
    metrics = sorted({metric for cell in found.cells for metric in cell.figures})
    return {
        "paper": slug,
        "arms": list(claim.arms()),
        "metrics": {
            metric: {
                arm: {str(cell.seed): cell.figures[metric].mean for cell in found.cells if cell.arm == arm and metric in cell.figures}
                for arm in sorted({cell.arm for cell in found.cells if metric in cell.figures})
            }
            for metric in metrics
        },
        "failed": {f"{cell.arm}, seed {cell.seed}": cell.failed for cell in found.cells if cell.failed},
    }


def show_lines(slug: str) -> list[str]:
    """A claim, its rule, and what came of it."""
    paper = load(slug)
    return [*claim_text.rule(slug, paper), "", *claim_text.outcome(slug, paper.CLAIM, results.read(results_file(slug, False, STATE)))]


def check_seed(slug: str, seed: int) -> int:
    """Measure treatment and baseline anew with one seed, and compare the sign of their difference with that of the file's cells."""
    wish = Wish(slug)
    claim = wish.paper.CLAIM
    kept = results.read(wish.file(STATE))
    arms = [side for side in (claim.treatment, claim.baseline) if isinstance(side, str)]
    before = [kept.cell(arm, seed) if kept else None for arm in arms]
    if any(cell is None or cell.failed for cell in before):
        raise BadInput(
            f"paper {slug}: its results file has no cells of {' and '.join(arms)} with seed {seed}; `cairn claims run {slug}`."
        )
    with _servers():
        from flows.claims.flow import measured_anew

        now = measured_anew(slug, seed, arms)
    if broken := [cell for cell in now if cell.failed]:
        print(f"{slug}: {broken[0].arm} with seed {seed} failed: {broken[0].failed}", file=sys.stderr)
        return 1
    then, here = (_difference(claim, [cell for cell in cells if cell]) for cells in (before, now))
    same = (then > 0) == (here > 0)
    print(f"{slug}, seed {seed}: {claim.treatment} - {claim.baseline}, {claim.effect.metric}: {then:+.4f} in the file, {here:+.4f} now")
    print("the sign holds" if same else "THE SIGN DOES NOT HOLD")
    return 0 if same else 1


def _difference(claim: Claim, cells: Sequence[Cell]) -> float:
    """Treatment minus baseline in the claim's metric."""
    means: dict[Any, float] = {cell.arm: cell.figures[claim.effect.metric].mean for cell in cells}
    return float(means[claim.treatment]) - float(means.get(claim.baseline, claim.baseline))
