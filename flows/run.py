"""One run from its opening to its report: the plan, who watches it, and what is brought up to date when it ends."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows import OUTSIDE, PROJECT, STATE
from flows.champion_rows import champion_rows
from flows.console import Console
from flows.differences import candidate_of, for_report, last_parts
from flows.dvc_command import check_cache
from flows.road import bring_up_to_date, everyone
from flows.run_display import Artifacts
from flows.run_logs import Logs
from flows.server import of_server
from tasks.contract.params import BadInput
from tasks.engine import dvc_lock
from tasks.engine.artifact import Artifact, check_writable
from tasks.engine.files import sweep, write_text
from tasks.engine.locks import using
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tasks.engine.start import check_place
from tasks.worlds import UNSEEN

CHECKOUTS = "checkouts"
"""Below a state root that CAIRN_HOME names: a file for each project that ran there, so that `cairn gc` knows of all of them."""


@dataclass
class Run:
    """A plan with its watchers, and what happened so far."""

    plan: Plan
    tracker: Any
    start: float
    computed: set[str] = field(default_factory=set)
    promotion: dict[str, Any] = field(default_factory=dict)
    artifacts: Artifacts = field(default_factory=Artifacts)
    logs: Logs = field(default_factory=Logs)
    before: Mapping[str, Any] = field(default_factory=dict)
    """stage -> parts of the key of its last result before this run"""

    @classmethod
    @contextmanager
    def open(cls, profile: str = "", overrides: Mapping[str, Any] | None = None, refresh: Sequence[str] = ()) -> Iterator[Run]:
        """Check everything a user can get wrong, then watch the run; the tracker's run ends with the block."""
        plan = open_plan(profile, overrides or {}, refresh)
        with using(plan.store.state):
            note_checkout(plan)
            yield from cls._of(plan)

    @classmethod
    def _of(cls, plan: Plan) -> Iterator[Run]:
        from tasks.engine.track import Tracker

        before = last_parts(plan)
        console = Console()
        tracker = Tracker.of(plan, lambda text: console("mlflow", "note", {"note": text}), of_server)
        artifacts = Artifacts(tell=lambda text: console("prefect", "note", {"note": text}))
        logs, computed = Logs(), set[str]()

        def note(stage: str, event: str, details: Mapping[str, Any]) -> None:
            if event == "done":
                computed.add(stage)

        watched = _watched(plan, everyone(console, tracker.watch(plan), artifacts, logs, note))
        run = cls(watched, tracker, time.monotonic(), computed, artifacts=artifacts, logs=logs, before=before)
        try:
            try:
                yield run
            finally:
                console.close()
                artifacts.close()
                logs.close()
        except BaseException as error:
            with suppress(Exception):  # an interrupt may have left MLflow's session half-way; what ended the run is what counts
                tracker.close(error, artifacts.lost)
            raise
        tracker.close(None, artifacts.lost)

    @property
    def folder(self) -> Path:
        """Where this run's report goes."""
        return reports_folder(self.plan)

    def note(self, text: str) -> None:
        """Tell people something about the run, if there is something to tell."""
        if text:
            self.plan.watch("cairn", "note", {"note": text})

    def finish(self, done: Mapping[str, Artifact]) -> None:
        """Bring the workspace and DVC up to date with what was found; an experiment touches neither."""
        if self.plan.experiment:
            return
        for line in bring_up_to_date(self.plan, done):
            self.plan.watch("dvc", "note", {"note": line})

    def report(self, done: Mapping[str, Artifact]) -> dict[str, Any]:
        """Write summary.json and report.html: views, never inputs. Returns what the report shows (see `flows.report.page`)."""
        from flows.report import render

        summary = self.summary(done)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "summary.json", json.dumps(summary, indent=1))
        folders = {stage: self.plan.store.view(one.identity) for stage, one in done.items()}
        return render(self.folder / "report.html", summary, folders, self.plan.settings.road)

    def summary(self, done: Mapping[str, Artifact]) -> dict[str, Any]:
        """The run in figures (see the README for the shape)."""
        stages = {}
        for stage, artifact in done.items():
            entry = self.plan.store.entry(artifact.key) or {}
            stages[stage] = {
                "seconds": entry.get("seconds"),
                "used": entry.get("used", {}),
                "cached": stage not in self.computed,
                "artifact": artifact.identity,
                "method": self.plan.settings.method(stage),
                "figures": entry.get("figures", {}),
            }
        return {
            "profile": self.plan.settings.shared.profile,
            "run": self.plan.run_key[:10],
            "seed": self.plan.settings.shared.seed,
            "roles": {name: role.model_dump(mode="json") for name, role in self.plan.settings.shared.roles.items()},
            "experiment": self.plan.experiment,
            "seconds": round(time.monotonic() - self.start, 3),
            "made": self._made(done),
            "stages": stages,
            "differs": for_report(self.plan, self.before, candidate_of(done, self.plan.settings.road)),
            **self._measured(done),
            "champions": champion_rows(self.plan, candidate_of(done, self.plan.settings.road)) if self._judged(done) else [],
            "tracking": self.tracker.lost,
            "promotion": {"outcome": None, "decision": None, "reason": None, "version": None, "alias": None} | self.promotion,
        }

    def _made(self, done: Mapping[str, Artifact]) -> dict[str, str]:
        """{date, commit, changed}: the day (UTC) on which the newest result was recorded, whichever run it was; of the checkout the
        commit, and the files that differ from it; "" for what is not known."""
        tags = self.tracker.facts["tags"]
        newest = max((self.plan.store.recorded(one.key) for one in done.values()), default=0.0)
        date = time.strftime("%Y-%m-%d", time.gmtime(newest)) if newest else ""
        return {"date": date, "commit": tags.get("cairn.commit", ""), "changed": tags.get("cairn.dirty", "")}

    def _judged(self, done: Mapping[str, Artifact]) -> bool:
        return self.plan.settings.road.judged in done

    def _measured(self, done: Mapping[str, Artifact]) -> dict[str, Any]:
        judged = self.plan.settings.road.judged
        if not self._judged(done):
            return {}
        metrics: dict[str, Any] = json.loads((self.plan.store.view(done[judged].identity) / "metrics.json").read_text())
        self.tracker.measured(metrics)
        apart = {UNSEEN: _with_constants(metrics[UNSEEN])} if UNSEEN in metrics else {}
        return {**_with_constants(metrics), **apart}


def _with_constants(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {**metrics, "baselines": {world: _with_constant(one) for world, one in metrics["baselines"].items()}}


def _with_constant(baselines: Mapping[str, Any]) -> dict[str, Any]:
    """The baselines of a world, with the best of the constant agents under the name `constant`."""
    always = [figure for name, figure in baselines.items() if name.startswith("always_")]
    return {**baselines, "constant": max(always, key=lambda figure: figure["pass_1"]["mean"])}


def note_checkout(plan: Plan) -> None:
    """Write down that this project keeps its results where CAIRN_HOME says, so that `cairn gc` asks it what it names."""
    if "CAIRN_HOME" in os.environ:
        project = str(plan.settings.project)
        write_text(plan.store.state / CHECKOUTS / hashlib.sha256(project.encode()).hexdigest()[:16], project)


def open_plan(profile: str = "", overrides: Mapping[str, Any] | None = None, refresh: Sequence[str] = (), room: bool = True) -> Plan:
    """The checked plan of a run; BadInput for whatever a user can get wrong. room: the disk must have some, as for a run."""
    if OUTSIDE:
        raise BadInput(OUTSIDE)
    check_place(STATE)
    if room:
        check_writable(STATE)
    check_cache(PROJECT, STATE)
    dvc_lock.stages(PROJECT)  # a conflict in it is told now
    settings = load(PROJECT, profile, tuple((overrides or {}).items()))
    plan = Plan.open(settings, STATE, experiment=bool(profile or overrides), refresh=frozenset(refresh))
    plan.store.sweep()
    for folder in (PROJECT, PROJECT / "params", PROJECT / "reports"):
        sweep(folder)
    return plan


def reports_folder(plan: Plan) -> Path:
    """Where a run's report goes: the workspace's reports/, or the experiment's own folder.

    A queued experiment of DVC's runs in a copy that is thrown away: its report goes to the checkout that DVC works for.
    """
    project = plan.settings.project
    main = Path(os.environ.get("DVC_ROOT") or project).resolve()
    apart = plan.experiment or main != project.resolve()
    return main / "reports" / "runs" / plan.run_key[:10] if apart else main / "reports"


def _watched(plan: Plan, watcher: Any) -> Plan:
    from dataclasses import replace

    return replace(plan, watch=watcher)
