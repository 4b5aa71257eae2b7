"""The road as one Prefect flow, readable top-down: worlds in, a tested and promoted agent out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.champion_file import settle
from flows.interrupt import stopping
from flows.model_checks import Asking, write_down
from flows.promote import promote_candidate
from flows.reconcile import reconcile
from flows.road import Walk, check_part
from flows.run import Run
from flows.source_checks import check_sources
from flows.survey import survey
from tasks.road import ROAD


def _run_name() -> str:
    return f"cairn {flow_run.parameters.get('profile') or 'workspace'}"


@flow(name="cairn", flow_run_name=_run_name, validate_parameters=False)
def pipeline(
    profile: str = "",
    overrides: Mapping[str, Any] | None = None,
    first: str = ROAD.names[0],
    last: str = ROAD.names[-1],
    refresh: Sequence[str] = (),
    refresh_models: bool = False,
) -> dict[str, str]:
    """Run the road.

    profile: a complete profile by name; empty means params/pipeline.yaml, the workspace's own.
    overrides: dotted key -> value, for an experiment that leaves the workspace as it is. first, last: the part of the road to
    run. refresh: stages to compute again even if cached. refresh_models: take another model behind a server than the one that
    params/roles.lock has noted. Returns the identity of each stage's artifact.
    """
    check_part(first, last, refresh)
    with stopping(), Run.open(profile, overrides or {}, refresh) as run:
        for line in [*reconcile(run.plan.store.state), settle(run.plan)]:
            run.note(line)
        asking = Asking(accept=refresh_models)
        check_sources(run.plan, [step.stage for step in survey(run.plan) if step.artifact is None])
        run.plan = write_down(asking.ahead(run.plan, first, last))
        walk = Walk(run.plan, first, last, asking=asking)

        for step in walk.road:  # as tasks/road.py says it, each step with the results of those that it reads
            walk.take(step)

        road, done = walk.road, walk.done
        try:
            promote_candidate(run, done.get(road.decision), done.get(road.candidate))
        finally:
            run.finish(done)
        run.report(done)
        return {stage: artifact.identity for stage, artifact in done.items()}
