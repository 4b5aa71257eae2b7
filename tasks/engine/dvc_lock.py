"""What DVC has written down: reads `dvc.lock`, to adopt what DVC holds unchanged and to see whether DVC is up to date.

Reads only. `dvc.lock` is written by DVC itself (`dvc repro`, or the `dvc commit` at the end of `cairn run`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.contract.params import BadInput, parse_yaml, read_yaml
from tasks.engine import methods, roles_lock
from tasks.engine.dotted import dig
from tasks.engine.dvc_yaml import DATA, Listed
from tasks.engine.key import Key
from tasks.engine.param_files import PIPELINE, ROLES_LOCK
from tasks.engine.shared_params import Role, answer_params


def stages(project: Path) -> Mapping[str, Any]:
    """stage -> its entry in dvc.lock; empty when there is none."""
    try:
        return _stages((project / "dvc.lock").read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return {}


def outs(project: Path) -> dict[str, str]:
    """path -> md5 of every output that dvc.lock names."""
    entries = stages(project).values()
    return {out["path"]: str(out.get("md5")) for entry in entries for out in entry.get("outs") or ()}


RESTORE = "`git checkout HEAD -- dvc.lock` brings the committed one back; or delete it, and `cairn run` has it written anew."


@lru_cache(maxsize=2)
def _stages(text: str) -> Mapping[str, Any]:
    """The same text is parsed once: a run asks for every stage. BadInput when it is not what DVC writes."""
    if marks := [number for number, line in enumerate(text.splitlines(), 1) if _CONFLICT.match(line)]:
        raise BadInput(
            f"dvc.lock holds a merge conflict (from line {marks[0]}). Take one side whole, with `git checkout --ours dvc.lock` or "
            "`git checkout --theirs dvc.lock`, and run `cairn run`: what differs is found in the store or made again, and the file is "
            "brought up to date; then `git add dvc.lock`."
        )
    try:
        tree = parse_yaml(text, "dvc.lock")
    except BadInput as error:
        raise BadInput(f"{error} {RESTORE}") from None
    found = {} if tree is None else tree.get("stages") or {} if isinstance(tree, Mapping) else None
    if not isinstance(found, Mapping) or not all(_shaped(entry) for entry in found.values()):
        raise BadInput(f"dvc.lock does not hold stages as DVC writes them. {RESTORE}")
    return found


_CONFLICT = re.compile(r"(<{7}|>{7}|\|{7})( |$)")


def _shaped(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("params") or {}, Mapping):
        return False
    files = [*(entry.get("deps") or ()), *(entry.get("outs") or ())]
    return all(isinstance(one, Mapping) and isinstance(one.get("path"), str) for one in files)


def held(
    project: Path,
    listed: Listed,
    key: Key,
    tree: Mapping[str, Any],
    as_read: Callable[[Mapping[str, str]], Mapping[str, str]] = dict,
) -> str | None:
    """Identity that DVC holds for a stage, if its deps and params are those of `key` in all that counts; else None.

    as_read: from the identities of whole inputs, which DVC knows, to those of what the stage reads of them, which the key has.
    Of CPU kernels DVC knows what stands in params/versions.yaml: where this process fixes something else, nothing is taken over.
    """
    kernels = (key.parts["versions"] or {}).get("kernels") or {}
    if any(key.parts["kernels"].get(name) != value for name, value in kernels.items()):
        return None
    entry = stages(project).get(listed.stage)
    if entry is None or not _same_deps(entry, listed, key, as_read) or not _same_params(project, entry, listed, key, tree):
        return None
    return _identity(entry, listed)


def _identity(entry: Mapping[str, Any], listed: Listed) -> str | None:
    for out in entry.get("outs") or ():
        if out["path"] == listed.out:
            return str(out.get("md5"))
    return None


def _same_deps(
    entry: Mapping[str, Any], listed: Listed, key: Key, as_read: Callable[[Mapping[str, str]], Mapping[str, str]] = dict
) -> bool:
    deps = _deps(entry)
    inputs = {name: str(deps.pop(f"{DATA}{name}", "")) for name in listed.inputs}
    return as_read(inputs) == {name: key.parts["inputs"][name] for name in listed.inputs} and deps == dict(key.parts["code"])


def _deps(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {dep["path"]: dep.get("md5") for dep in entry.get("deps") or ()}


def _same_params(project: Path, entry: Mapping[str, Any], listed: Listed, key: Key, tree: Mapping[str, Any]) -> bool:
    """Whether an entry's params are these. Of a role, what says how its model is reached may differ, and of a method where what it
    reads from outside lies: no result depends on it."""
    locked = entry.get("params") or {}
    try:
        wanted = {key: _counts(listed, key, dig(tree, key)) for key in listed.settings}
    except KeyError:
        return False
    own = {name: _counts(listed, name, value) for name, value in locked.get(PIPELINE, {}).items() if name in wanted}
    if own != wanted or locked.get(ROLES_LOCK, {}) != key.parts["servers"]:
        return False
    return all(locked.get(file, {}) == (read_yaml(project / file) or {}) for file in listed.files)


def _counts(listed: Listed, key: str, value: Any) -> Any:
    if key == listed.stage and isinstance(value, Mapping):
        return {name: _without_place(listed.room, name, params) for name, params in value.items()}
    if not key.startswith("roles."):
        return value
    try:
        return answer_params(Role.model_validate(value))
    except ValidationError:
        return value


def _without_place(room: str, name: str, params: Any) -> Any:
    place = methods.load(room, name).Params.PLACE if name in methods.names(room) else ""
    return {key: value for key, value in params.items() if key != place} if place and isinstance(params, Mapping) else params


def up_to_date(
    project: Path,
    listed: Listed,
    key: Key,
    tree: Mapping[str, Any],
    identity: str,
    extra: Mapping[str, str],
    inputs: Mapping[str, str],
) -> bool:
    """Whether dvc.lock already says that this key gave this identity (and these extra files), word for word as DVC compares it.

    inputs: stage -> identity of its artifact, whole."""
    if held(project, listed, key, tree, lambda _: key.parts["inputs"]) != identity:
        return False
    entry = stages(project)[listed.stage]
    deps = _deps(entry)
    if any(deps.get(f"{DATA}{name}") != inputs[name] for name in listed.inputs):
        return False
    reports = roles_lock.read(project)
    literal = {
        PIPELINE: {key: dig(tree, key) for key in listed.settings},
        ROLES_LOCK: {role: reports.get(role) for role in listed.roles},
    }
    if any((entry.get("params") or {}).get(file, {}) != params for file, params in literal.items()):
        return False
    outs = {out["path"]: out.get("md5") for out in entry.get("outs") or ()}
    return all(outs.get(path) == md5 for path, md5 in extra.items())
