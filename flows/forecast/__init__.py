"""`cairn forecast`: memory, tokens and hours of each stage that computes with checkpoints, before anything runs.

Not `cairn run --estimate`, which asks what calls to servers cost: that needs prices and no model, this the model's config.json and no
server. Both count in the same small run of scripts, and by the same `conversations` of the methods. Torch is not imported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flows import OUTSIDE, PROJECT, STATE
from flows.forecast.amounts import Amounts, Counter, run_small
from flows.forecast.checkpoint import Checkpoint, find
from flows.forecast.compare import Taken, taken
from flows.forecast.speed import Speeds
from flows.forecast.stages import ROOMS, Case, Stage
from tasks.contract.params import BadInput
from tasks.engine.artifact import Store
from tasks.engine.check_players import check_device
from tasks.engine.settings import Settings, load
from tasks.engine.together import check_together, planned


@dataclass(frozen=True)
class Forecast:
    """Of a road. counted: how tokens were counted, in words. speed: where the rates are from, in words. compared: whether what the
    stages took when they last ran is wanted; taken: that, of those that have run here."""

    settings: Settings
    checkpoint: Checkpoint
    stages: Sequence[Stage]
    counted: str
    speed: str
    compared: bool = False
    taken: Mapping[str, Taken] = field(default_factory=dict)


def forecast(
    profile: str = "", overrides: Mapping[str, Any] | None = None, calibrate: bool = False, model: str = "", compare: bool = False
) -> Forecast:
    """Of the active params, or of a profile, with overrides; also of a profile for another machine than this.

    calibrate: measure this machine first, which takes some minutes. model: filled in first, as `cairn use` does. compare: forecast what
    would be forecast before anything but the base is there, and say what the stages took when they last ran. BadInput for wrong params,
    a checkpoint that is not there, and `compare` with a model, which no run has had yet.
    """
    if OUTSIDE:
        raise BadInput(OUTSIDE)
    settings = load(PROJECT, profile, tuple((overrides or {}).items()))
    if mistake := next(settings.mistakes(), ""):
        raise BadInput(mistake)
    check_together(settings, {name: settings.params(name) for name in settings.road.names})
    if model and compare:
        raise BadInput("--compare is about a run of these params, and --model changes them. Allowed: one of the two.")
    if model:
        from flows.model_fill import filled, with_changes

        return of(with_changes(settings, filled(settings, model, Store(STATE))), {}, calibrate)
    opened = _Opened(profile, overrides or {}, settings)
    if not compare:
        return of(settings, opened, calibrate)
    base = settings.road.entering("base")[0]
    there = opened.get(base)
    found = of(settings, {base: there} if there else {}, calibrate)
    from flows.run import open_plan

    was = taken(open_plan(profile, overrides or {}), [stage.name for stage in found.stages])
    return replace(found, compared=True, taken=was)


def of(settings: Settings, opened: _Opened | Mapping[str, Path], calibrate: bool = False) -> Forecast:
    """The forecast of checked settings. opened: step -> the folder that it has left, as far as it has."""
    checkpoint, road = find(settings, opened.get, Store(STATE)), settings.road
    counter = Counter(checkpoint.folder)
    steps = planned(settings)
    if calibrate:
        check_device(settings.shared.device, f"{settings.source}: device")
    speeds = Speeds(STATE, settings.project, checkpoint.folder, calibrate)
    with tempfile.TemporaryDirectory() as folder:
        if wanted := [name for name in road.entering("filter") if not opened.get(name)]:
            run_small(settings, Path(folder), wanted)
        amounts = Amounts(settings, Path(folder), counter, opened.get)
        stages = [
            ROOMS[step.room](Case(settings, checkpoint.shape, amounts, speeds, step, settings.loop(name)))
            for name, step in steps.items()
            if step.room in ROOMS
        ]
    return Forecast(settings, checkpoint, stages, counter.how, "; ".join(speeds.how))


class _Opened:
    """Step -> the folder that it has left, for params that can run on this machine; looked up once, when it is asked first."""

    def __init__(self, profile: str, overrides: Mapping[str, Any], settings: Settings) -> None:
        self._source = (profile, overrides, settings)
        self._found: dict[str, Path] | None = None

    def get(self, step: str) -> Path | None:
        """None where it has left nothing."""
        if self._found is None:
            self._found = self._look()
        return self._found.get(step)

    def _look(self) -> dict[str, Path]:
        from flows.run import open_plan
        from flows.survey import survey

        profile, overrides, settings = self._source
        with suppress(BadInput):  # of a profile for another machine nothing can be here
            check_device(settings.shared.device, "device")
            plan = open_plan(profile, overrides)
            return {step.stage: plan.store.view(step.artifact.identity) for step in survey(plan) if step.artifact}
        return {}
