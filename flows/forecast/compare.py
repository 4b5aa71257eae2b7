"""What a stage took when it last ran, beside its forecast: the record of its result holds seconds, memory at the peak and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.differences import differences
from flows.forecast.stages import Stage
from tasks.engine.explain import last
from tasks.engine.files import read_json
from tasks.engine.key import params_of
from tasks.engine.plan import Plan
from tasks.engine.usage import together


@dataclass(frozen=True)
class Taken:
    """seconds: of the stage, its last attempt. memory: bytes of its largest process, where the model lies (a GPU, or the host); 0 when
    nobody measured. tokens: by kind. differs: params that were others then than they are now."""

    seconds: float
    memory: float
    tokens: Mapping[str, int]
    differs: Sequence[str] = ()


def taken(plan: Plan, stages: Sequence[str]) -> dict[str, Taken]:
    """Of those of the stages that last ran with this profile: by this plan's kind of run (the workspace's or an experiment's), else by
    the other."""
    profile, found = plan.settings.shared.profile, {}
    for stage in stages:
        for experiment in (plan.experiment, not plan.experiment):
            noted = read_json(last(plan, stage, experiment)) or {}
            entry = plan.store.entry(str(noted.get("key"))) if noted.get("key") else None
            if entry and entry.get("used") and entry.get("profile", profile) == profile:
                differs = [str(one) for one in differences(stage, entry["parts"], params_of(plan.settings, plan.stages[stage]))]
                found[stage] = _of_entry(entry, plan.settings.shared.device != "cpu", differs)
                break
    return found


def _of_entry(entry: Mapping[str, Any], gpu: bool, differs: Sequence[str]) -> Taken:
    used = together(one for one in entry["used"].values() if one)
    return Taken(entry["seconds"], used.get("gpu_peak" if gpu else "peak", 0), used["tokens"], differs)


def ratios(stage: Stage, was: Taken) -> dict[str, float]:
    """hours, memory (of one process) and kinds of tokens -> forecast / measured, where there is something to compare."""
    pairs = {
        "hours": (stage.hours, was.seconds / 3600),
        "memory": (stage.memory / stage.processes, was.memory),
        **{kind: (count, was.tokens.get(kind, 0)) for kind, count in stage.tokens.items()},
    }
    return {name: forecast / measured for name, (forecast, measured) in pairs.items() if measured}
