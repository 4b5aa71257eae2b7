"""What dvc.yaml says of the stages, the one list that both drivers read.

A stage's `deps` name its inputs and the code files and folders that count, its `params` the settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contract.params import BadInput, read_yaml
from tasks.engine.dotted import dig
from tasks.engine.param_files import PIPELINE, ROLES_LOCK
from tasks.engine.settings import Settings
from tasks.engine.shared_params import NOBODY, SERVER
from tasks.road import Step

DATA = "data/"
"""Deps and outs under this folder are artifacts; all other deps are code or files that people edit."""


@dataclass(frozen=True)
class Listed:
    """What dvc.yaml says of a stage, with `${...}` filled in from the active params."""

    stage: str
    room: str
    inputs: tuple[str, ...]
    """stages whose artifacts it reads (deps `data/<stage>`)"""
    code: tuple[str, ...]
    """code files and folders, and other files that people edit"""
    settings: tuple[str, ...]
    """dotted keys of params/pipeline.yaml"""
    roles: tuple[str, ...]
    """roles whose servers' reports in params/roles.lock count"""
    files: tuple[str, ...]
    """params files that count whole"""
    out: str
    """its artifact folder; "" for a step that DVC does not know"""
    extra: tuple[str, ...]
    """files and folders of the artifact that also stand elsewhere (metrics)"""


def listed(settings: Settings) -> dict[str, Listed]:
    """Every step of the road as dvc.yaml lists it, in the road's order; other stages of dvc.yaml are not Cairn's business."""
    tree = read_yaml(settings.project / "dvc.yaml")
    stages = tree.get("stages") if isinstance(tree, Mapping) else None
    if not isinstance(stages, Mapping) or (lacking := [step.name for step in settings.road if step.name not in stages]):
        what = f"the stage {lacking[0]!r}" if isinstance(stages, Mapping) else "a mapping of stages"
        raise BadInput(f"dvc.yaml: {what} is missing. {RESTORE}")
    found = {}
    for step in settings.road:
        try:
            about = found[step.name] = _listed(step, stages[step.name], settings)
        except (AttributeError, TypeError, KeyError, IndexError, StopIteration):
            raise BadInput(
                f"dvc.yaml: stage {step.name!r} does not have cmd, deps, params and outs as DVC writes them. {RESTORE}"
            ) from None
        if about.inputs != step.inputs:
            said, wanted = (", ".join(names) or "nothing" for names in (about.inputs, step.inputs))
            raise BadInput(f"dvc.yaml: stage {step.name!r} reads {said}, and by the road {wanted}. {RESTORE}")
    return found


RESTORE = "After a change of tasks/road.py `make docs` writes it anew; `git checkout HEAD -- dvc.yaml` brings the committed one back."


def _fill(text: str, tree: Mapping[str, Any]) -> str:
    try:
        return re.sub(r"\$\{([\w.]+)\}", lambda found: str(dig(tree, found[1])), text)
    except KeyError as error:
        key = str(error).strip("'")
        hint = f" Say who plays the role: `backend: scripted`, local or {SERVER}." if key.endswith(".backend") else ""
        if key == "roles.contender.backend":
            hint += f" Or `backend: {NOBODY}`, which `cairn migrate` writes: there is no contender."
        raise BadInput(f"{PIPELINE}: {key} is missing; dvc.yaml's {text!r} needs it.{hint}") from None


def _listed(step: Step, body: Mapping[str, Any], settings: Settings) -> Listed:
    deps = list(dict.fromkeys(_fill(dep, settings.tree) for dep in body.get("deps", ())))  # two roles may have one backend
    keys: list[str] = []
    roles: list[str] = []
    files: list[str] = []
    for entry in body.get("params", ()):
        for file, wanted in entry.items():
            if file == PIPELINE:
                keys += [_fill(key, settings.tree) for key in wanted]
            elif file == ROLES_LOCK:
                roles += wanted
            else:
                files.append(_fill(file, settings.tree))
    metrics = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in body.get("metrics", ())]
    return Listed(
        stage=step.name,
        room=step.room,
        inputs=tuple(dep.removeprefix(DATA) for dep in deps if dep.startswith(DATA)),
        code=tuple(dep for dep in deps if not dep.startswith(DATA)),
        settings=tuple(keys),
        roles=tuple(roles),
        files=tuple(files),
        out=body["outs"][0],
        extra=tuple(metrics),
    )
