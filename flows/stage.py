"""One stage by name: the command that dvc.yaml calls. Same task, same key, same store as the whole road.

A hit is laid out instead of computed. The exit code is not zero when code, params or inputs changed under the stage, so that DVC
writes no lock line for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flows.exit_codes import guarded
from flows.model_checks import Asking, write_down
from flows.source_checks import check_sources
from tasks.contract.params import BadInput
from tasks.engine import start
from tasks.engine.explain import remember
from tasks.engine.job import Changed, job_of
from tasks.engine.param_files import ROLES_LOCK
from tasks.engine.roles_lock import in_force
from tasks.road import ROAD

if TYPE_CHECKING:
    from flows.run import Run
    from tasks.engine.plan import Plan


def run_stage(stage: str, refresh: bool = False) -> str:
    """Run one stage on what lies in the workspace, and lay its artifact out there; returns the artifact's identity."""
    from flows import gate_reach, given_problems, reserve
    from flows.road import check_stage, lay_out, workspace_inputs
    from flows.run import Run
    from flows.survey import survey
    from tasks.engine.param_files import PIPELINE

    check_stage(stage, f"no stage {stage!r}.")
    with Run.open("", {}, [stage] if refresh else ()) as run:
        plan = run.plan = write_down(run.plan)
        job = job_of(plan, stage, workspace_inputs(plan, stage))
        artifact = job.find()
        if artifact is None and plan.stages[stage].roles:
            plan = run.plan = _ask(plan, stage)
            job = job_of(plan, stage, job.inputs)
            artifact = job.find()
        if artifact:
            plan.watch(stage, "cached", {"identity": artifact.identity, "key": artifact.key})
        else:
            _check_champion(plan, stage)
            given_problems.check(plan, plan.settings.road.part(stage, ROAD.names[-1]), job.inputs)
            if stage == ROAD.judged:
                reserve.check(plan, job.inputs)
            for name, line in gate_reach.check(plan, [stage], decides=False):
                plan.watch(name, "note", {"note": line})
            check_sources(plan, [step.stage for step in survey(plan) if step.artifact is None])
            check_caps(plan, stage, job.inputs)
            artifact = _compute(run, stage, job.inputs)
        job.check_unchanged()
        if workspace_inputs(plan, stage) != dict(job.inputs):
            raise Changed(f"an input in data/ changed while stage {stage!r} ran; DVC is told to record nothing. Run again.")
        if plan.settings.tree != plan.reread():
            raise Changed(f"{PIPELINE} changed while stage {stage!r} ran; DVC is told to record nothing. Run again.")
        lay_out(plan, [artifact])
        remember(plan, job)
        if stage == ROAD.judged:
            run.note(reserve.note(plan, {**job.inputs, stage: artifact.identity}, anew=stage in run.computed))
        if stage == ROAD.names[-1]:
            _show(run)
    return artifact.identity


def _show(run: Run) -> None:
    """At the end of the road: the same report as after `cairn run`, which alone carries the decision out."""
    from flows.promote import foreseen
    from flows.survey import survey

    done = {step.stage: step.artifact for step in survey(run.plan) if step.artifact}
    if len(done) == len(ROAD.names):
        if ROAD.decision:
            run.promotion.update(foreseen(run.plan, done[ROAD.decision], done[ROAD.candidate]).summary())
        run.report(done)


def _check_champion(plan, stage):  # type: ignore[no-untyped-def]
    """DVC has read params/champion.yaml already, so it cannot be set right here, as `cairn run` does before it looks."""
    from flows.champion_file import differs
    from tasks.engine.champion import CHAMPION

    meets = CHAMPION in plan.stages[stage].files and "DVC_EXP_NAME" not in os.environ
    if meets and (said := differs(plan)):
        raise BadInput(
            f"{said}: this would be decided against the wrong one. `cairn champion --settle` writes it anew, then run again."
        )


def check_caps(plan: Plan, stage: str, inputs: Mapping[str, str]) -> None:
    """Hold typical conversations against the caps of this and all later stages, as soon as there is a base to measure them with."""
    from flows.survey import survey
    from flows.token_caps import Caps

    later = plan.settings.road.after(stage)
    there = {step.stage: step.artifact for step in survey(plan) if step.artifact and step.stage not in later}
    if all(name in there and there[name].identity == identity for name, identity in inputs.items()):
        Caps(plan).check(plan.settings.road.part(stage, plan.settings.road.names[-1]), there)


def _ask(plan: Plan, stage: str) -> Plan:
    """The plan once the servers of this stage's roles were asked and what they said is written down."""
    from flows.model_checks import ACCEPT

    noted = in_force(plan.settings)
    plan = write_down(Asking(accept=os.environ.get(ACCEPT, "") not in ("", "0")).before(plan, [stage]))
    now = in_force(plan.settings)
    other = {role for role in plan.stages[stage].roles if noted[role] and noted[role] != now[role]}
    for earlier in ROAD.names[: ROAD.index(stage)]:
        if both := other & {*plan.stages[earlier].roles}:
            raise Changed(
                f"{ROLES_LOCK} now has another model for {', '.join(sorted(both))}, whom stage {earlier!r} asks too; DVC passed that "
                "stage before it was known. Run dvc repro again: it begins there."
            )
    return plan


def _compute(run, stage, inputs):  # type: ignore[no-untyped-def]  # Prefect is imported here alone: a hit does not pay for it
    from flows import server_checks
    from flows.server import prefect_api
    from flows.server_lost import without

    server_checks.mlflow()
    job = job_of(run.plan, stage, inputs)
    with prefect_api(), without(lambda: run.plan.store.find(job.key) is not None):
        from prefect import flow

        from flows.interrupt import stopping
        from flows.reconcile import reconcile
        from tasks.engine.cached import take

        @flow(name="cairn stage", flow_run_name=stage, validate_parameters=False)
        def one_stage():  # type: ignore[no-untyped-def]
            with stopping():
                take(job_of(run.plan, stage, inputs))
                run.artifacts.close()
                run.logs.close()

        for line in reconcile(run.plan.store.state):
            run.note(line)
        one_stage()
    return run.plan.store.find(job.key)


def main() -> int:
    """`python -m flows.stage NAME`."""
    from flows import PROJECT

    start.use_own_python(PROJECT)
    if len(sys.argv) != 2:
        raise BadInput(f"usage: python -m flows.stage NAME, with NAME one of {', '.join(ROAD.names)}")
    run_stage(sys.argv[1], refresh=os.environ.get("CAIRN_REFRESH", "") not in ("", "0"))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
