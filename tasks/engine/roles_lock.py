"""What the model servers of the roles said they are: `params/roles.lock`, so that a key holds it and no server need be asked.

    judge: {"judge": {"asked": "small", "answered": "small-2026-01", "root": "/models/small"}, "judge/2": {...}}

One entry for every role, null for a role that no server plays or whose server was not asked yet (DVC refuses a missing one). Both
drivers read it and write it before a stage first computes with a server; `flows/model_checks.py` asks. A line counts only for
the model that the params name now.

What is taken down is what stays the same while the model does: the name in its answers (hosted servers name a dated revision there),
and of its entry in /v1/models `root` and `parent` (vLLM, SGLang: the weights behind a name, the base of an adapter) and the sizes in
`meta` (llama.cpp: they tell one quantisation from another). Left out are `created`, which vLLM and llama.cpp set to the present time,
and `system_fingerprint`, which names a server's set-up and differs among the replicas of one model. What a server does not say cannot
be noticed: a role's `identity` in the params holds the user's own word for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, read_yaml
from tasks.engine.files import read_json
from tasks.engine.param_files import ROLES_LOCK
from tasks.engine.settings import Settings
from tasks.engine.shared_params import ROLES, SERVER, Role

Report = Mapping[str, Any]
"""What a server said of a model: asked (the model's name in the params), answered, root, parent, meta; empty ones are left out."""
Entries = Mapping[str, Mapping[str, Report] | None]
"""role -> player (judge, judge/2) -> report; None where none is known."""

HEADER = """\
# What the model servers of the roles said they are; Cairn writes it before a stage first computes with one (`cairn run
# --refresh-models` takes another model). Part of the keys of the stages that ask that role. null: no server, or not asked yet.
"""
MEMORY = "reported.json"
"""In the state root: address and model -> report. What servers said before, for params that come back and for experiments."""


def read(project: Path) -> Entries:
    """What the file holds; nothing without one. BadInput when it is not of the shape above."""
    path = project / ROLES_LOCK
    tree = (read_yaml(path) if path.exists() else None) or {}
    shaped = isinstance(tree, Mapping) and all(
        entry is None or (isinstance(entry, Mapping) and all(isinstance(one, Mapping) for one in entry.values()))
        for entry in tree.values()
    )
    if not shaped:
        raise BadInput(f"{ROLES_LOCK}: expected for each role null or what its servers said. Restore it, or write null for the role.")
    return dict(tree)


def in_force(settings: Settings) -> Entries:
    """What counts under these params: of every role, what was noted of the servers that play it now."""
    noted = read(settings.project) if settings.reported is None else settings.reported
    found: dict[str, dict[str, Report]] = {role: {} for role in ROLES}
    for name, _, player in settings.shared.players():
        role = name.partition("/")[0]
        report = (noted.get(role) or {}).get(name)
        if player.backend == SERVER and report and report.get("asked") == player.model:
            found[role][name] = report
    return {role: entry or None for role, entry in found.items()}


def recalled(settings: Settings, state: Path) -> Settings:
    """The settings with what this machine remembers of servers that the file says nothing of."""
    known, entries, before = in_force(settings), {}, memory(state)
    for name, _, player in settings.shared.players():
        role = name.partition("/")[0]
        if player.backend == SERVER and name not in (known[role] or {}) and (report := before.get(place(player))):
            entries[name] = report
    return noting(settings, entries) if entries else settings


def noting(settings: Settings, reports: Mapping[str, Report]) -> Settings:
    """The settings with these reports (by player) in force, whatever the file says."""
    entries = {role: dict(entry or {}) for role, entry in in_force(settings).items()}
    for name, report in reports.items():
        entries[name.partition("/")[0]][name] = dict(report)
    return replace(settings, reported={role: entry or None for role, entry in entries.items()})


def text(entries: Entries) -> str:
    """The file with these entries. JSON, which is YAML too and leaves no doubt what is text."""
    return HEADER + "".join(f"{role}: {json.dumps(entries.get(role), ensure_ascii=False, sort_keys=True)}\n" for role in ROLES)


def revision(report: Report) -> str:
    """The version behind a model's name, as far as its server told one: a dated name in its answers, or where its weights lie."""
    answered = str(report.get("answered") or "")
    return answered if answered not in ("", report.get("asked")) else str(report.get("root") or "")


def place(player: Role) -> str:
    """Names a model at its address in the memory."""
    return f"{player.base_url.rstrip('/')} {player.model}"


def memory(state: Path) -> dict[str, Report]:
    """What this machine remembers: `place` -> report."""
    return read_json(state / MEMORY) or {}
