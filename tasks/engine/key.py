"""The one cache key of a result: what it depends on, by value. Imports neither prefect nor mlflow nor torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasks.contract.params import Params, read_yaml
from tasks.engine import champion, methods, reserve, start
from tasks.engine.dotted import dig
from tasks.engine.dvc_yaml import Listed
from tasks.engine.hashes import Hashes
from tasks.engine.roles_lock import in_force
from tasks.engine.settings import Settings
from tasks.engine.shared_params import answer_params


@dataclass(frozen=True)
class Key:
    """The key of a result and the parts it was made of, so that a miss can be explained."""

    parts: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """sha256 of the parts."""
        return hashlib.sha256(canonical(self.parts).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: one spelling for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def key_of(settings: Settings, listed: Listed, inputs: Mapping[str, str], hashes: Hashes) -> Key:
    """The key of a stage's result.

    inputs: stage -> identity of its artifact. Everything else is read now: the bytes of the listed code, the params as they would
    be used, the library versions, what `tasks.engine.start` fixes of CPU kernels (threads where the stage has a say in them), the
    identity of every checkpoint that plays a role, what the server of every other model said it is, whom the candidate has to meet, and
    which problems of the reserve other candidates used before it.
    """
    reports = in_force(settings)
    candidate = settings.road.candidate
    meets = candidate in inputs and champion.CHAMPION in listed.files
    standing = champion.read(settings.project / champion.CHAMPION) if meets else champion.Standing()
    anchor = standing.held_to(inputs[candidate]) if meets else None
    noted = meets and reserve.USED in listed.files
    used = reserve.read(settings.project / reserve.USED).before(inputs[candidate]) if noted else {}
    return Key(
        {
            "stage": listed.stage,
            **params_of(settings, listed),
            "inputs": {name: inputs[name] for name in listed.inputs},
            "code": {path: hashes.path(settings.project / path) for path in listed.code},
            "servers": {role: reports[role] for role in listed.roles},
            "versions": read_yaml(settings.project / "params/versions.yaml"),
            "kernels": start.kernels(settings.shared.threads if "threads" in listed.settings else 1),
            **({"opponent": standing.opponent(inputs[candidate])} if meets else {}),
            **({"anchor": anchor} if anchor else {}),
            **({"used": hashlib.sha256(canonical(used).encode()).hexdigest()} if used else {}),
        }
    )


def params_of(settings: Settings, listed: Listed) -> dict[str, Any]:
    """The parts of a stage's key that people write: its method, the params of method, loop, way of acting, engine and way of serving,
    shared settings; all as they would be used, defaults filled in."""
    loop, agents, engine = settings.loop(listed.stage), settings.agents(listed.stage), settings.engine(listed.stage)
    served = settings.as_served(listed.stage)
    ways = methods.engine_module(engine["method"]).WAYS if engine else ()
    return {
        "method": settings.method(listed.stage),
        "params": _named_by_bytes(settings.params(listed.stage)),
        **({"loop": loop.model_dump(mode="json")} if loop else {}),
        **({"agents": agents} if agents else {}),
        **({"engine": {**engine, "params": {k: v for k, v in engine["params"].items() if k not in ways}}} if engine else {}),
        **({"as_served": served} if served else {}),
        "settings": {key: _used(settings, key, listed.stage) for key in listed.settings if key != listed.stage},
    }


def _named_by_bytes(params: Params) -> dict[str, Any]:
    """A method's params as plain values, without the place of what it reads from outside."""
    return params.model_dump(mode="json", exclude={params.PLACE})


def _used(settings: Settings, key: str, stage: str) -> Any:
    """A shared setting as a stage uses it, defaults filled in; of a role what changes answers, wherever and however it is reached."""
    if key == "seed":
        return settings.seed(stage)
    section, _, role = key.partition(".")
    if section == "roles":
        return answer_params(settings.shared.roles[role])
    return dig(settings.shared.model_dump(mode="json"), key)


def changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Which leaves differ between the parts of two keys, as readable lines."""
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changed(before, after, f"{prefix}{name}: " if prefix == "" else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else canonical(value)
    return text if len(text) <= 24 else text[:8] + "..." + text[-4:]
