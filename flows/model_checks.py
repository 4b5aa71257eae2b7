"""Before a stage computes with a model behind a server: who is it, is it still the one that was noted, does it answer as it must?

What is noted stands in params/roles.lock (see tasks/engine/roles_lock.py) and is part of the key. So it is written before the
key is taken, and a run in which nothing is to do asks nobody.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.contract.params import BadInput
from tasks.engine import project, roles_lock
from tasks.engine.explain import last
from tasks.engine.files import read_json, write_text
from tasks.engine.job import job_of
from tasks.engine.param_files import ROLES_LOCK
from tasks.engine.settings import Settings
from tasks.engine.shared_params import SERVER

if TYPE_CHECKING:
    from tasks.engine.plan import Plan
    from tasks.engine.preflight.questions import Player
    from tasks.engine.preflight.verdicts import ServerReport

ACCEPT = "CAIRN_REFRESH_MODELS"
"""The environment variable that does for `dvc repro` what --refresh-models does for `cairn run`."""


_printed: set[str] = set()
_met: set[str] = set()
"""Engines' params with which a server was asked in this process, and answered well."""


def _print(player: str, note: str) -> None:
    """To people, once: a run asks for all its stages, and again before each."""
    line = f"{player:<9} {note}"
    if line not in _printed:
        _printed.add(line)
        print(line, file=sys.stderr, flush=True)


@dataclass
class Asking:
    """What one run asks its servers. accept: take another model than the noted one. tell: told of each oddity, (player, note)."""

    accept: bool = False
    tell: Callable[[str, str], None] = _print

    def before(self, plan: Plan, stages: Iterable[str], perhaps: Iterable[str] = ()) -> Plan:
        """The plan with what the servers of these stages' roles said; nothing is written yet (see `write_down`).

        perhaps: stages that compute only if one before them has another result; of their servers a fault is only told. Raises
        BadInput when a server would lose everything, or has another model than the one noted.
        """
        self._meet_engines(plan, stages)
        needed, possible = (self._players(plan, some) for some in (stages, perhaps))
        players = [*needed, *(player for player in possible if player not in needed)]
        if not players:
            return plan
        from tasks.engine.preflight.interview import check, meet
        from tasks.players.openai_compatible import Setting

        reports = meet(players, Setting(plan.store.state, "", plan.ledger, plan.settings.shared.budget.model_dump()))
        check(reports, needed)
        self._tell(players, reports)
        self._check_noted(plan.settings, [player for player in needed if not reports[player.name].report], reports)
        sure = [player for player in players if reports[player.name].report and not reports[player.name].stop]
        self._compare(plan.settings, sure, reports)
        return replace(plan, settings=roles_lock.noting(plan.settings, {player.name: reports[player.name].report for player in sure}))

    def ahead(self, plan: Plan, first: str, last: str) -> Plan:
        """`before` for a whole run from `first` to `last`: of all that would compute, however far down the road, before it starts."""
        from flows.survey import survey

        asked: set[str] = set()
        served = any(role.backend == SERVER for _, _, role in plan.settings.shared.players())
        while served or any(self._meets(plan.settings, stage) for stage in plan.settings.road.part(first, last)):
            part = plan.settings.road.part(first, last)
            todo = [step for step in survey(plan) if step.stage in part and step.artifact is None]
            if asked >= {step.stage for step in todo}:
                break
            perhaps = [step.stage for step in todo if step.job is None and _may_be_cached(plan, step.stage)]
            sure = [step.stage for step in todo if step.stage not in perhaps]
            plan = self.before(plan, sure, perhaps)
            asked |= {*sure, *perhaps}  # another model behind a server makes stages run that were cached: look again
        return plan

    def _meet_engines(self, plan: Plan, stages: Iterable[str]) -> None:
        """Ask the servers with which checkpoints of these stages generate, each once. BadInput for one that cannot."""
        from tasks.engine import methods, server_keys

        for stage in stages:
            if (chosen := plan.settings.engine(stage)) and self._meets(plan.settings, stage) and str(chosen) not in _met:
                module = methods.engine_module(chosen["method"])
                try:
                    module.meet(module.Params.model_validate(chosen["params"]), server_keys.of(chosen["params"]))
                except BadInput as wrong:
                    raise BadInput(f"{plan.settings.source}: {stage}.engine.{chosen['method']}: {wrong}") from None
                _met.add(str(chosen))

    @staticmethod
    def _meets(settings: Settings, stage: str) -> bool:
        """Whether a stage's checkpoints generate at a server that is to be asked first."""
        from tasks.engine import methods

        chosen = settings.engine(stage)
        return chosen is not None and hasattr(methods.engine_module(chosen["method"]), "meet")

    def _players(self, plan: Plan, stages: Iterable[str]) -> list[Player]:
        roles = {role for stage in stages for role in plan.stages[stage].roles}
        found = [one for one in plan.settings.shared.players() if one[2].backend == SERVER and one[0].partition("/")[0] in roles]
        if not found:
            return []
        from tasks.engine.preflight.questions import Player

        own = project.read(plan.settings.project)
        of_project = own.roles if own else None
        places = [project.ROLES_SAID if role == of_project else f"{plan.settings.source}: {said}" for _, said, role in found]
        return [Player(name, place, role) for place, (name, _, role) in zip(places, found, strict=True)]

    def _tell(self, players: Sequence[Player], reports: Mapping[str, ServerReport]) -> None:
        for player in players:
            for note in ([reports[player.name].stop] if reports[player.name].stop else []) + [*reports[player.name].notes]:
                self.tell(player.name, f"{player.role.model} at {player.url}: {note}")

    def _check_noted(self, settings: Settings, unasked: Sequence[Player], reports: Mapping[str, ServerReport]) -> None:
        """With a spent budget a run may go on with answers that are kept, from a model that is known."""
        noted = roles_lock.in_force(settings)
        for player in unasked:
            if player.name not in (noted[player.name.partition("/")[0]] or {}):
                raise BadInput(f"{player.where}: {player.role.model!r} was never asked who it is, and {reports[player.name].notes[0]}")

    def _compare(self, settings: Settings, players: Sequence[Player], reports: Mapping[str, ServerReport]) -> None:
        """Refuse another model than the workspace's file has noted."""
        noted = roles_lock.in_force(replace(settings, reported=None))
        wrong = []
        for player in players:
            before = (noted[player.name.partition("/")[0]] or {}).get(player.name)
            now = reports[player.name].report
            if before and dict(before) != dict(now) and not self.accept:
                wrong.append(
                    f"{player.where}: behind {player.role.model!r} at {player.url} is now {_named(now, before)}, but {ROLES_LOCK} has "
                    f"{_named(before, now)}, with which the results so far were made. `cairn run --refresh-models` (or {ACCEPT}=1 "
                    "dvc repro) takes the new one, and what asked the old one is computed anew; or start the old one again."
                )
        if wrong:
            raise BadInput("\n".join(dict.fromkeys(wrong)))


def _may_be_cached(plan: Plan, stage: str) -> bool:
    """Whether a stage whose inputs are still to be made is a hit if they come out as they did last time."""
    for experiment in (False, True):
        inputs = ((read_json(last(plan, stage, experiment)) or {}).get("parts") or {}).get("inputs") or {}
        if inputs.keys() == {*plan.stages[stage].inputs} and plan.store.find(job_of(plan, stage, inputs).key):
            return True
    return False


def _named(report: Mapping[str, object], other: Mapping[str, object]) -> str:
    """A report as words: what distinguishes it from the other."""
    differs = {name: report.get(name) for name in (*report, *other) if report.get(name) != other.get(name)}
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in differs.items())


def write_down(plan: Plan) -> Plan:
    """Write down what is in force: in the machine's memory, and in params/roles.lock unless this is an experiment. A role that no
    server plays any more is null again. Call it before a key counts for the workspace."""
    settings, state = plan.settings, plan.store.state
    entries, before = roles_lock.in_force(settings), roles_lock.memory(state)
    now = dict(before)
    for name, _, player in settings.shared.players():
        if report := (entries[name.partition("/")[0]] or {}).get(name):
            now[roles_lock.place(player)] = report
    if now != before:
        write_text(state / roles_lock.MEMORY, json.dumps(now, indent=1, sort_keys=True))
    if plan.experiment:
        return plan
    path = settings.project / ROLES_LOCK
    if not path.exists() or roles_lock.read(settings.project) != entries:
        write_text(path, roles_lock.text(entries))
    return plan if settings.reported is None else replace(plan, settings=replace(settings, reported=None))
