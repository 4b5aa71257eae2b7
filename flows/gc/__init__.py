"""`cairn gc`: stored results that nobody names any more are listed, and with `--yes` deleted.

While it deletes, no run begins; while a run goes on, it refuses. Who names what: see `references`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flows.doctor import remotes
from flows.doctor.runs import going_on
from flows.dvc_command import holders
from flows.gc.garbage import UNRECORDED, Garbage, Result, find
from flows.gc.references import RUNS, UNFINISHED, Wish
from flows.run import CHECKOUTS
from tasks.contract.params import BadInput
from tasks.engine.clear import clear
from tasks.engine.locks import clearing
from tasks.engine.plan import Plan

PATIENCE = 120.0
"""Seconds that the DVC remote has to say which of the files it has; ours."""
OPTIONS = {UNFINISHED: "--unfinished lets it go", RUNS: "a run that is deleted in MLflow, with its report, or --runs DAYS lets it go"}


@contextmanager
def to_delete(plan: Plan, wish: Wish) -> Iterator[Garbage]:
    """What goes, while nobody else uses the store: `delete` belongs into the block. BadInput while somebody does."""
    wish = with_checkouts(plan, wish)
    with clearing(plan.store.state) as held:
        dvc = [f"DVC: {one}" for project in (plan.settings.project, *wish.also) for one in holders(project)[0]]
        runs = [f"a run that keeps a journal ({key[:10]})" for key in sorted(going_on(plan.store.state)[0])]
        if busy := [*held, *dvc, *runs]:
            raise BadInput(f"nothing was deleted, since the store is in use: {'; '.join(busy)}. Wait for it, or end it.")
        yield find(plan, wish)


@contextmanager
def to_look_at(plan: Plan, wish: Wish) -> Iterator[Garbage]:
    """What would go; others may use the store meanwhile."""
    yield find(plan, with_checkouts(plan, wish))


def delete(plan: Plan, found: Garbage) -> None:
    """Delete what was found, within the block of `to_delete`. OSError for what cannot be deleted; the next one goes on there."""
    clear(plan.store, found.views, found.work, found.objects, [one.digest for one in found.results])


def with_checkouts(plan: Plan, wish: Wish) -> Wish:
    """The same with the checkouts that ran here by CAIRN_HOME. BadInput when the store may be others' too and nobody says whose, and
    for one that is none."""
    project, state = plan.settings.project, plan.store.state
    for folder in wish.also:
        if not (folder / "dvc.yaml").is_file():
            raise BadInput(f"--also {folder}: no checkout of a project (no dvc.yaml in it)")
    real = [Path(os.path.realpath(path)) for path in (state, state / "store")]
    outside = next((path for path in real if not path.is_relative_to(os.path.realpath(project))), None)
    if outside and not wish.also:
        raise BadInput(
            f"results are kept in {outside}, outside of this project, so another checkout may keep its own there too. Name every one "
            f"with --also FOLDER, so that what they name is kept; --also {shlex.quote(str(project))} where there is none."
        )
    noted = (Path(path.read_text("utf-8")) for path in sorted((state / CHECKOUTS).glob("*")))
    found = {folder: None for folder in (*wish.also, *noted) if folder.is_dir() and folder.resolve() != project.resolve()}
    return replace(wish, also=[*found])


def on_no_remote(plan: Plan, found: Garbage) -> tuple[frozenset[str], str]:
    """(the stored files that would go and that the DVC remote does not have; which remote that is, or why all count, in words)."""
    name, _, _ = remotes.default(plan.settings.project)
    everything = frozenset(found.objects)
    if not everything:
        return everything, ""
    if not name:
        return everything, "there is no DVC remote"
    answer = remotes.ask(plan.settings.project, found.objects, PATIENCE)
    if answer.there is None:
        return everything, f"the DVC remote {name} cannot be asked ({answer.why}), so all of them count as not there"
    return everything - answer.there, f"the DVC remote {name} does not have them"


# --- words -----------------------------------------------------------------------------------------------------------


def lines(plan: Plan, found: Garbage, lost: frozenset[str], why: str) -> Iterator[str]:
    """What goes and what stays, and why. lost, why: of `on_no_remote`."""
    for one in found.results:
        yield f"goes   {one.stage} ({one.method or 'no method'}) {one.identity[:12]}: {_size(one.size)}"
    counts = {"stored files": found.objects, "folders for reading": found.views, "work folders": found.work}
    if not found.empty:
        yield f"goes   in all {', '.join(f'{len(names)} {name}' for name, names in counts.items() if names) or 'records alone'}"
    if lost:
        yield f"       {len(lost)} of the stored files can be made again, and not be fetched: {why}"
    for reason in sorted({one.why for one in found.kept}):
        mine = [one for one in found.kept if one.why == reason]
        how = f"; {OPTIONS[reason]}" if reason in OPTIONS else ""
        yield f"stays  {_count(mine)} for {reason}: {_size(sum({one.identity: one.size for one in mine}.values()))}{how}"
    if found.unrecorded[0]:
        yield f"stays  {found.unrecorded[0]} {UNRECORDED}: {_size(found.unrecorded[1])}; --unrecorded lets them go"
    if found.empty:
        yield f"nothing to delete in {plan.store.state}"


def _count(results: Sequence[Result]) -> str:
    return f"{len(results)} result{'s' if len(results) > 1 else ''}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def as_document(found: Garbage, deleted: bool, lost: frozenset[str], why: str) -> dict[str, Any]:
    """The same for scripts."""
    return {**asdict(found), "deleted": deleted, "on_no_remote": sorted(lost), "remote": why}
