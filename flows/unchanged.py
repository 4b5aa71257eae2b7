"""The end of a run in which nothing was to be computed: registry, workspace, DVC and report are looked after all the same."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows import reserve
from flows.champion_rows import champions_now
from flows.ledger import ALIAS, Ledger
from flows.promote import foreseen
from flows.reconcile import reconcile
from flows.road import bring_up_to_date
from flows.run import reports_folder
from flows.summary_text import print_summary
from flows.survey import Outlook
from flows.waiting import waits_as_reported
from tasks.engine.artifact import Artifact
from tasks.engine.files import write_text

if TYPE_CHECKING:
    from tasks.engine.plan import Plan


def finish_unchanged(plan: Plan, steps: Sequence[Outlook], start: float) -> int:
    """Bring everything around the cached stages up to date and say that there was nothing to do; returns the exit code.

    start: the monotonic time at which the command began, in seconds.
    """
    for line in reconcile(plan.store.state):
        print(line)
    done = {step.stage: step.artifact for step in steps if step.artifact}
    path = reports_folder(plan) / "summary.json"
    if not _is_current(path, plan, done):
        _render_again(plan, done)
    if not plan.experiment:
        for line in filter(None, [reserve.note(plan, {name: one.identity for name, one in done.items()}, anew=False)]):
            print(line)
        for line in bring_up_to_date(plan, done):
            print(line)
    summary = json.loads(path.read_text())
    summary["seconds"] = round(time.monotonic() - start, 3)
    for stage in summary["stages"].values():
        stage["cached"] = True
    write_text(path, json.dumps(summary, indent=1))
    print_summary(path)
    now = Ledger.of(plan).champion()
    who = f"; {ALIAS}: version {now['version']}" if now else ""
    print(f"Nothing to do: {len(done)} stages cached, checked in {summary['seconds']:.1f} s{who}.")
    return 0


def _is_current(path: Path, plan: Plan, done: Mapping[str, Artifact]) -> bool:
    """Whether the last report shows these artifacts, and says of the decision what is to be said now."""
    try:
        summary = json.loads(path.read_text())
        reported = {name: one["artifact"] for name, one in summary["stages"].items()}
        reported_promotion = summary["promotion"]
    except (OSError, ValueError, KeyError):
        return False
    if not path.with_name("report.html").exists() or reported != {name: artifact.identity for name, artifact in done.items()}:
        return False
    road = plan.settings.road
    if road.decision not in done:
        return True
    candidate = done[road.candidate].identity
    reported_champions = [{**one, "evaluate": None} for one in summary.get("champions", [])]
    if reported_champions != [{**one, "evaluate": None} for one in champions_now(plan, candidate)]:
        return False  # somebody was promoted, or rolled back
    now = foreseen(plan, done[road.decision], done[road.candidate])
    if now.decision == "waiting":
        return waits_as_reported(plan, done[road.decision], reported_promotion)
    fresh = reported_promotion.get("outcome") == "promoted" and now.done and now.version == reported_promotion["version"]
    return fresh or now.summary() == reported_promotion


def _render_again(plan: Plan, done: Mapping[str, Artifact]) -> None:
    from flows import server_checks
    from flows.differences import last_parts
    from flows.promote import promote_candidate
    from flows.run import Run
    from tasks.engine.track import Tracker

    server_checks.mlflow()
    run = Run(plan, Tracker.of(plan), time.monotonic(), before=last_parts(plan))
    promote_candidate(run, done.get(plan.settings.road.decision), done.get(plan.settings.road.candidate))
    run.report(done)
    run.tracker.close(None)
