"""What DVC has written down: reads `dvc.lock`, to adopt what DVC holds unchanged and to see whether DVC is up to date.

Reads only. `dvc.lock` is written by DVC itself (`dvc repro`, or the `dvc commit` at the end of `cairn run`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.fingerprint import DATA, Key, Listed
from tasks.params import read_yaml
from tasks.settings import PIPELINE, dig


def stages(project: Path) -> Mapping[str, Any]:
    """stage -> its entry in dvc.lock; empty when there is none."""
    path = project / "dvc.lock"
    if not path.is_file():
        return {}
    tree = read_yaml(path)
    found = tree.get("stages") if isinstance(tree, Mapping) else None
    return found or {}


def held(project: Path, about: Listed, key: Key, tree: Mapping[str, Any]) -> str | None:
    """Identity that DVC holds for a stage, if its deps and params are exactly those of `key`; else None.

    Of CPU kernels DVC knows what stands in params/versions.yaml: where this process fixes something else, nothing is taken over.
    """
    kernels = (key.parts["versions"] or {}).get("kernels") or {}
    if any(key.parts["kernels"].get(name) != value for name, value in kernels.items()):
        return None
    entry = stages(project).get(about.stage)
    if entry is None or not _same_deps(entry, about, key) or not _same_params(project, entry, about, tree):
        return None
    for out in entry.get("outs", ()):
        if out["path"] == about.out:
            return str(out["md5"])
    return None


def _same_deps(entry: Mapping[str, Any], about: Listed, key: Key) -> bool:
    wanted = {f"{DATA}{name}": key.parts["inputs"][name] for name in about.inputs} | dict(key.parts["code"])
    return {dep["path"]: dep["md5"] for dep in entry.get("deps", ())} == wanted


def _same_params(project: Path, entry: Mapping[str, Any], about: Listed, tree: Mapping[str, Any]) -> bool:
    locked = entry.get("params", {})
    try:
        wanted = {key: dig(tree, key) for key in about.settings}
    except KeyError:
        return False
    own = {name: value for name, value in locked.get(PIPELINE, {}).items() if name in wanted}
    if own != wanted:
        return False
    return all(locked.get(file, {}) == (read_yaml(project / file) or {}) for file in about.files)


def up_to_date(project: Path, about: Listed, key: Key, tree: Mapping[str, Any], identity: str, extra: Mapping[str, str]) -> bool:
    """Whether dvc.lock already says that this key gave this identity (and these extra files)."""
    if held(project, about, key, tree) != identity:
        return False
    outs = {out["path"]: out["md5"] for out in stages(project)[about.stage].get("outs", ())}
    return all(outs.get(path) == md5 for path, md5 in extra.items())
