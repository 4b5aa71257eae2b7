"""The plan of a run: its checked params, its stages, and the code as it was before any method was imported.

The order of things makes law 1 hold: names of methods first (they are parts of paths), then the hashes of the code, then the params
(whose check imports methods).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput
from tasks.engine import roles_lock, sources, versions
from tasks.engine import server_keys as keys
from tasks.engine.artifact import Store
from tasks.engine.closure import check_closure, players_of
from tasks.engine.dotted import dig
from tasks.engine.dvc_yaml import Listed, listed
from tasks.engine.key import Key
from tasks.engine.settings import Settings
from tasks.engine.shared_params import answer_params

_first_seen: dict[Path, str] = {}
"""Code as it was when this process first looked at it, before it imported any method. A later plan of the same process (the flow's,
after the command's survey) must not pair newer bytes with the modules that are already loaded."""


@dataclass(frozen=True)
class Plan:
    """One run: checked params, the list of code as it was when the process started, and the store.

    experiment: the params are not those of the workspace; `data/`, `params/` and `dvc.lock` stay as they are.
    refresh: stages that are computed even when they are cached.
    """

    settings: Settings
    store: Store
    stages: Mapping[str, Listed]
    code: Mapping[str, str]
    experiment: bool = False
    refresh: frozenset[str] = frozenset()
    watch: Callable[[str, str, Mapping[str, Any]], None] = field(default=lambda stage, event, details: None)
    """told of every event: (stage, event, facts); events: started, progress, cached, adopted, done, failed"""

    @classmethod
    def open(
        cls,
        settings: Settings,
        state: Path,
        whole: bool = True,
        listing: Callable[[Settings], Mapping[str, Listed]] = listed,
        **more: Any,
    ) -> Plan:
        """Hash the code first, then look at the params (which imports methods). Names of methods and of
        backends are parts of paths: before both.
        whole: the road may be run to its end, so what its stages say together is looked at too; False for a search of single ones.
        listing: says what each stage depends on; by default dvc.yaml does."""
        for stage in settings.road.names:
            settings.method(stage)
        _ = settings.shared
        store = Store(state)
        stages = listing(settings)
        code = {}
        for path in {path for about in stages.values() for path in about.code}:
            if (settings.project / path).exists():
                code[path] = _first_seen.setdefault(settings.project / path, store.hashes.path(settings.project / path))
        plan = cls(settings, store, stages, code, **more)
        settings.check(whole)
        _check_local_roles(settings, store)
        sources.check_local(settings, store)
        for about in stages.values():
            _check_listed(settings, about)
            for file in about.files:
                if not (settings.project / file).is_file():
                    back = f"`git checkout HEAD -- {file}` brings the committed one back."
                    raise BadInput(f"{file} is missing: dvc.yaml tracks it for stage {about.stage!r}. {back}")
        return replace(plan, settings=roles_lock.recalled(settings, state))

    def check_closures(self, stages: Iterable[str]) -> None:
        """Compare the imports of these stages with their deps now, not when their turn comes after hours; look for the keys that their
        roles need, and at the versions that are installed."""
        versions.check(self.settings.project)
        for stage in stages:
            check_closure(self.settings, self.stages[stage])
            for _, key, role in players_of(self.settings, self.stages[stage]):
                keys.check(role.model_dump(), f"{self.settings.source}: {key}")

    def reread(self) -> Any:
        """What params/pipeline.yaml holds now."""
        from tasks.contract.params import read_yaml
        from tasks.engine.param_files import PIPELINE

        return read_yaml(self.settings.project / PIPELINE)

    @property
    def run_key(self) -> str:
        """Names this run for the tracker: the same params, code and versions give the same one, in every process."""
        return self._digest(self.settings.tree)

    @property
    def ledger(self) -> str:
        """Under which name this run's calls to servers are paid. Neither the budget, nor how much may be lost, nor how a model is
        reached is part of it, so that with a larger budget, or at another port, the run goes on from what it has spent; all stages
        share it."""
        tree = {name: value for name, value in self.settings.tree.items() if name not in ("budget", "losses")}
        return self._digest({**tree, "roles": {name: answer_params(role) for name, role in self.settings.shared.roles.items()}})

    def _digest(self, tree: Mapping[str, Any]) -> str:
        versions = (self.settings.project / "params/versions.yaml").read_text()
        return Key({"tree": tree, "code": self.code, "versions": versions}).digest


def _check_local_roles(settings: Settings, store: Store) -> None:
    """DVC sees the params and not the checkpoint's folder; so the params must name the bytes."""
    for _, said, role in settings.shared.players():
        if role.backend == "local" and role.identity != (found := store.hashes.path(settings.project / role.path)):
            raise BadInput(
                f"{settings.source}: {said}.identity = {role.identity!r}: the bytes in {role.path} are {found!r}. "
                "Write that, so that a change of the checkpoint is a change of the params, for Cairn and for DVC."
            )


def _check_listed(settings: Settings, stage: Listed) -> None:
    missing = [path for path in stage.code if not (settings.project / path).exists()]
    if missing:
        raise BadInput(f"dvc.yaml: stage {stage.stage!r}: deps that do not exist: {', '.join(missing)}")
    for key in stage.settings:
        try:
            dig(settings.tree, key)
        except KeyError:
            raise BadInput(
                f"{settings.source}: {key!r} is missing; dvc.yaml tracks it for stage {stage.stage!r}. A profile is one complete file."
            ) from None
