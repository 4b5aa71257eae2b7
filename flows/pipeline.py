"""The road as one Prefect flow, readable top-down: worlds in, a tested and promoted agent out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.asking import Asking, write_down
from flows.interrupt import stopping
from flows.promote import promote_candidate, settle
from flows.reconcile import reconcile
from flows.road import Road, check_part
from flows.run import Run
from tasks import STAGES
from tasks.base.task import build_base
from tasks.critique.task import critique_rows
from tasks.decide.task import decide_promotion
from tasks.evaluate.task import evaluate_models
from tasks.filter.task import filter_rows
from tasks.generate.task import generate_rows
from tasks.merge.task import merge_models
from tasks.rl.task import reinforce
from tasks.sft.task import train_sft
from tasks.worlds.task import freeze_worlds


def _run_name() -> str:
    return f"cairn {flow_run.parameters.get('profile') or 'workspace'}"


@flow(name="cairn", flow_run_name=_run_name, validate_parameters=False)
def pipeline(
    profile: str = "",
    overrides: Mapping[str, Any] | None = None,
    first: str = STAGES[0],
    last: str = STAGES[-1],
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
        run.plan = write_down(asking.ahead(run.plan, first, last))
        road = Road(run.plan, first, last, asking=asking)

        worlds = road(freeze_worlds)
        base = road(build_base, worlds)
        rows = road(generate_rows, worlds)
        critiques = road(critique_rows, worlds, rows)
        dataset = road(filter_rows, worlds, rows, critiques)
        sft = road(train_sft, worlds, base, dataset)
        specialists = road(reinforce, worlds, sft)
        merged = road(merge_models, sft, specialists)
        trials = road(evaluate_models, worlds, base, sft, specialists, merged)
        decision = road(decide_promotion, merged, trials)

        try:
            promote_candidate(run, decision, merged)
        finally:
            run.finish(road.done)
        run.report(road.done)
        return {stage: artifact.identity for stage, artifact in road.done.items()}


TASKS = {
    one.name: one
    for one in (
        freeze_worlds,
        build_base,
        generate_rows,
        critique_rows,
        filter_rows,
        train_sft,
        reinforce,
        merge_models,
        evaluate_models,
        decide_promotion,
    )
}
