"""The road as one Prefect flow, readable top-down: worlds in, a tested and promoted agent out."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows import form, reserve, server_checks
from flows.ahead import check_ahead
from flows.champion_file import settle
from flows.flow_ends import decided, in_words
from flows.flow_run_name import of_the_road, unless_named
from flows.interrupt import stopping
from flows.model_checks import Asking, write_down
from flows.moved_alias import settle_alias
from flows.promote import promote_candidate
from flows.reconcile import reconcile
from flows.road import Walk, check_part
from flows.run import Run
from flows.run_artifacts import show
from flows.survey import survey
from tasks.road import ROAD


@flow(name="cairn", flow_run_name=unless_named(of_the_road), validate_parameters=False)
@in_words
def pipeline(
    profile: form.Profile = form.WORKSPACE,
    first: form.First = ROAD.names[0],
    last: form.Last = ROAD.names[-1],
    refresh: form.Refresh = (),
    refresh_models: bool = False,
    more_overrides: form.Lines = "",
    overrides: form.Overrides = {},  # noqa: B006  # never written to; last, for it is the long part of the form
) -> dict[str, str] | State[Any]:
    """Run the road from worlds to a decision, and carry the decision out.

    Every stage is cached by all that it depends on: what has a result is not computed again. Returns the identity of each stage's
    artifact. A run whose candidate a gate refuses ends in the state Refused, with the reason.

    Args:
        refresh_models: Take another model behind a server than the one that params/roles.lock has noted.
    """
    chosen = form.all_overrides(overrides, more_overrides)
    part = check_part(first, last, refresh)
    server_checks.mlflow()
    with stopping(), Run.open(form.profile_of(profile), chosen, refresh) as run:
        for line in [*reconcile(run.plan.store.state), settle_alias(run.plan), settle(run.plan)]:
            run.note(line)
        for stage, line in check_ahead(run.plan, part, survey(run.plan)):
            run.plan.watch(stage, "note", {"note": line})
        asking = Asking(accept=refresh_models)
        run.plan = write_down(asking.ahead(run.plan, first, last))
        walk = Walk(run.plan, first, last, asking=asking)

        for step in walk.road:  # as tasks/road.py says it, each step with the results of those that it reads
            walk.take(step)

        road, done = walk.road, walk.done
        run.note(reserve.note(run.plan, {name: one.identity for name, one in done.items()}, road.judged in run.computed))
        try:
            promote_candidate(run, done.get(road.decision), done.get(road.candidate))
        finally:
            run.finish(done)
        show(run, done, run.report(done))
        return decided(run.promotion, {stage: artifact.identity for stage, artifact in done.items()})
