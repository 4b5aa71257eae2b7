"""`cairn run`: look first, and import Prefect only when something is to be computed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flows.ahead import check_ahead
from flows.champion_file import settle
from flows.model_checks import Asking, write_down
from flows.moved_alias import UNKNOWN, settle_alias
from flows.road import check_part
from flows.run import open_plan, reports_folder
from flows.summary_text import print_summary
from flows.survey import Outlook, survey
from tasks.contract.params import BadInput
from tasks.road import ROAD

if TYPE_CHECKING:
    from tasks.engine.plan import Plan


@dataclass(frozen=True)
class Wish:
    """What a run is to do.

    profile: name of a profile, or "" for the workspace's params. overrides: param -> value. first, last: the part of the road that may
    run. refresh: stages to compute though cached; empty: all of the part; None: none. refresh_models: take another model behind a
    server than noted. verify: hash every cached byte. first_option: what the user calls `first`.
    """

    profile: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    first: str = ROAD.names[0]
    last: str = ROAD.names[-1]
    refresh: Sequence[str] | None = None
    refresh_models: bool = False
    verify: bool = False
    first_option: str = "--from"

    @property
    def part(self) -> tuple[str, ...]:
        """The stages that may run. Raises BadInput for a stage that is none."""
        return check_part(self.first, self.last, self.refresh or (), (self.first_option, "--to", "--refresh"))

    @property
    def refreshed(self) -> list[str]:
        """The stages that are computed though cached."""
        return [] if self.refresh is None else list(self.refresh or self.part)

    def plan(self) -> Plan:
        """The checked plan. Raises BadInput for whatever a user can get wrong."""
        return open_plan(self.profile, self.overrides, self.refreshed)

    def steps(self, plan: Plan) -> list[Outlook]:
        """What would happen at each stage up to the last one wanted."""
        return [step for step in survey(plan, self.verify) if ROAD.index(step.stage) <= ROAD.index(self.last)]

    def check_ready(self, steps: Sequence[Outlook]) -> None:
        """Raise BadInput when a stage before the first one is not cached."""
        for step in steps:
            if step.artifact is None and ROAD.index(step.stage) < ROAD.index(self.first):
                why = "; ".join(step.reasons)
                raise BadInput(f"{self.first_option} {self.first}: stage {step.stage!r} before it is not cached ({why}).")


def foresee(wish: Wish) -> tuple[list[Outlook], str]:
    """(what a run would do at each stage, and in which params it differs from its last result; what the run would refuse to start for,
    "" for nothing), without running anything and without asking a server."""
    from flows.differences import last_parts, of_plan

    wish.part  # noqa: B018  # checked before anything is opened
    plan = wish.plan()
    differs = of_plan(plan, last_parts(plan))
    steps = wish.steps(plan)
    try:
        wish.check_ready(steps)
        for stage, line in _check(plan, wish.part, steps):
            print(f"{stage}: {line}", file=sys.stderr)
        refused = ""
    except BadInput as error:
        refused = str(error)
    return [replace(step, differs=differs.get(step.stage, ())) for step in steps], refused


def estimated(wish: Wish) -> tuple[Plan, list[str]]:
    """The plan, and the stages that would run, for an estimate of what they cost."""
    part, plan = wish.part, wish.plan()
    return plan, [step.stage for step in wish.steps(plan) if step.artifact is None and step.stage in part]


def run_road(wish: Wish) -> int:
    """Run what is not cached and print the summary; returns the exit code."""
    start, part = time.monotonic(), wish.part
    plan = wish.plan()
    unusable: BadInput | None = None
    try:
        _tell(settle_alias(plan))
        _tell(settle(plan))
    except BadInput as error:
        unusable = error
    steps = wish.steps(plan)
    wish.check_ready(steps)
    if all(step.artifact for step in steps):
        from flows.unchanged import finish_unchanged

        _tell(f"{UNKNOWN}: {unusable}" if unusable else "")
        return finish_unchanged(write_down(plan), steps, start)
    if unusable:
        raise unusable
    _say_surroundings()
    _check(plan, part, steps)  # what the decision will see, the flow says
    plan = _ask_servers(plan, wish)
    _compute(wish)
    print_summary(reports_folder(plan) / "summary.json")
    return 0


def _tell(line: str) -> None:
    if line:
        print(line)


def _check(plan: Plan, part: Sequence[str], steps: Sequence[Outlook]) -> list[tuple[str, str]]:
    """As `check_ahead`; and BadInput where typical conversations do not fit."""
    from flows.token_caps import Caps

    told = check_ahead(plan, part, steps)
    if todo := [step.stage for step in steps if step.artifact is None]:
        Caps(plan).check(todo, {step.stage: step.artifact for step in steps if step.artifact})
    return told


def _ask_servers(plan: Plan, wish: Wish) -> Plan:
    """Before anything starts: who plays the roles behind servers. Returns the plan that knows it."""
    if any(role.key_block for _, _, role in plan.settings.shared.players()):
        return plan  # such a key comes from Prefect's server, in the flow
    plan = Asking(accept=wish.refresh_models).ahead(plan, wish.first, wish.last)
    wish.check_ready(survey(plan))
    return plan


def _compute(wish: Wish) -> None:
    from flows.server import prefect_api
    from flows.server_lost import without

    def done() -> bool:
        return all(step.artifact for step in wish.steps(open_plan(wish.profile, wish.overrides)))

    with prefect_api(), without(done):
        from flows.form import WORKSPACE
        from flows.pipeline import pipeline

        profile, overrides = wish.profile or WORKSPACE, dict(wish.overrides)
        pipeline(profile, wish.first, wish.last, wish.refreshed, wish.refresh_models, overrides=overrides)


def _say_surroundings() -> None:
    """Before anything starts: which inherited settings change where things go, and whether the servers that they name are there."""
    from flows import inherited, server_checks

    for one in inherited.moving():
        print(f"cairn: {one}", file=sys.stderr)
    server_checks.mlflow()
