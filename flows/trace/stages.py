"""The section of a stage's result: what its record says, and what of it is at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.ledger import Ledger
from flows.records import Record, Records
from flows.trace.tracking import Tracking
from flows.trace.trail import Section
from tasks.contract.params import BadInput
from tasks.engine import dvc_lock, roles_lock
from tasks.engine.artifact import Store
from tasks.engine.dvc_yaml import DATA
from tasks.engine.key import Key, canonical
from tasks.engine.settings import load
from tasks.engine.shared_params import Promote
from tasks.road import ROAD, Road
from tasks.worlds import UNSEEN

PARAMS = ("method", "params", "loop", "agents", "engine", "as_served", "settings")
"""Parts of a key that people write."""
FIGURES = ("metrics.json", "decision.json")
"""Files that hold a result's figures, for one that was adopted: its record has none."""
LINE = 14
"""Numbers of one line; the details have all."""


@dataclass(frozen=True)
class Known:
    """Where trails are read from. project: of the checkout."""

    project: Path
    store: Store
    tracking: Tracking
    road: Road = ROAD

    @cached_property
    def records(self) -> Records:
        """The store's records."""
        return Records(self.store, self.road)

    @cached_property
    def promotion(self) -> Promote:
        """What the params say of promotion: the model's name, and where its ledger lies."""
        return load(self.project).shared.promote

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of promotions."""
        return Ledger(self.store.state, self.promotion.ledger)

    @cached_property
    def workspace(self) -> dict[str, str]:
        """Stage -> identity of its result, as dvc.lock of the checkout has it."""
        outs = dvc_lock.outs(self.project)
        return {name: outs[f"{DATA}{name}"] for name in self.road.names if f"{DATA}{name}" in outs}

    def folder(self, identity: str) -> Path | None:
        """A result's files; None when they are not in the store."""
        return self.store.view(identity) if self.store.has(identity) else None


def here() -> Known:
    """This project, its store and its MLflow. BadInput outside a project."""
    from flows import OUTSIDE, PROJECT, STATE

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    return Known(PROJECT, Store(STATE), Tracking())


def down(known: Known, identities: Mapping[str, str]) -> tuple[list[Section], dict[str, str]]:
    """(sections, stage -> identity) of results and all that they were made of, the last step of the road first. identities: stage ->
    result."""
    records: dict[str, Record] = {}
    for stage, identity in identities.items():
        behind = known.records.behind(identity, stage)
        mine = {name: one for name, one in behind.items() if name == stage or name not in {**identities, **records}}
        records |= mine  # of a stage whose result is given it is that one, whatever the others were made of
    named = {**_inputs(records), **identities}
    order = [name for name in (*reversed(known.road.names), *named) if name in named]
    sections = {name: of_stage(known, name, named[name], records.get(name)) for name in order}
    return list(sections.values()), {name: (records[name]["identity"] if name in records else named[name]) for name in sections}


def _inputs(records: Mapping[str, Record]) -> dict[str, str]:
    """Stage -> identity of what the records were made of: what nobody recorded among it is to be told as missing."""
    return {name: identity for record in records.values() for name, identity in record["parts"]["inputs"].items()}


def of_stage(known: Known, stage: str, identity: str, record: Record | None) -> Section:
    """The section of one result. record: None when there is none."""
    if record is None:
        return Section(stage, identity, missing=[_no_record(known, stage, identity)])
    parts, folder = record["parts"], known.folder(record["identity"])
    key = Key(parts).digest
    said = {name: parts[name] for name in PARAMS if name in parts}
    came = known.tracking.run_of_key(key)
    figures = record.get("figures") or _from_files(folder)
    facts = {
        "made": _made(record),
        "inputs": [f"{name} {one}" for name, one in parts["inputs"].items()],
        "met": ", ".join(f"{who} {parts[key]}" for who, key in (("champion", "opponent"), ("anchor", "anchor")) if parts.get(key)),
        "params": f"{_short_hash(said)} (sha256), seed {said.get('settings', {}).get('seed', 'unknown')}",
        "code": _code(known, parts.get("code") or {}),
        "commit": came.get("commit", "") + (f", with changes in {came['dirty']}" if "dirty" in came else ""),
        "MLflow run": came.get("run", ""),
        "key": key,
        "roles": list(_roles(parts)),
        "checkpoints": _checkpoints(known, record["identity"]),
        **(ROOMS.get(known.road[stage].room, _numbers)(figures, folder) if stage in known.road.names else {}),
    }
    missing = []
    if folder is None:
        missing.append(
            f"the bytes of {record['identity']} are not in the store: `dvc pull` brings them if a remote has them, and a run with "
            "these params and this code makes them anew"
        )
    if "commit" not in came:
        where = "the MLflow run that computed it says none" if came else "no run of this MLflow computed this key"
        missing.append(f"commit: a record holds hashes of code and no commit, and {where}")
    if "adopted" in record and not figures:
        missing.append("figures: it was adopted from dvc.lock; the machine that computed it has them in its records and in MLflow")
    return Section(stage, record["identity"], facts, missing, {**said, "figures": figures, "code": parts.get("code") or {}})


def _no_record(known: Known, stage: str, identity: str) -> str:
    there = "its bytes are in the store" if known.store.has(identity) else "nor are its bytes there (`dvc pull` may bring them)"
    how = "the machine that made it has the record (.cairn/keys)"
    if known.workspace.get(stage) == identity:
        how = "dvc.lock of this checkout names it: `cairn run` adopts it and writes a record, and computes nothing that DVC holds"
    return f"how it was made is not recorded in this store; {there}; {how}"


def _made(record: Record) -> str:
    method = f"by {record['parts']['method']}"
    if "adopted" in record:
        return f"{method}, adopted from dvc.lock: computed elsewhere, or before the store was begun anew"
    took = f", {record['seconds']:g} s" if isinstance(record.get("seconds"), int | float) else ""
    return f"{method}{took}{', profile ' + record['profile'] if record.get('profile') else ''}"


def _checkpoints(known: Known, identity: str) -> str:
    files = known.store.files(identity) or {}
    return ", ".join(sorted(path.removesuffix("/config.json") for path in files if path.endswith("model/config.json")))


def _short_hash(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def _code(known: Known, code: Mapping[str, str]) -> str:
    """How the code that made a result stands to that of the checkout."""
    now = {path: _hash_now(known, path) for path in code}
    moved = [path for path in code if now[path] != code[path]]
    same = f"other than in this checkout: {', '.join(moved)}" if moved else "as in this checkout"
    return f"{len(code)} files and folders, {same}"


def _hash_now(known: Known, path: str) -> str:
    return known.store.hashes.path(known.project / path) if (known.project / path).exists() else ""


def _roles(parts: Mapping[str, Any]) -> Iterator[str]:
    """Who played which role, with the errors that a script was given."""
    for name, role in (parts.get("settings") or {}).items():
        if name.startswith("roles.") and role.get("backend") not in (None, "none"):
            own = name.removeprefix("roles.")
            report = ((parts.get("servers") or {}).get(own) or {}).get(own) or {}
            who = " ".join(filter(None, (role["backend"], role.get("model"), role.get("identity") or roles_lock.revision(report))))
            errors = ", ".join(f"{error} {rate:g}" for error, rate in sorted((role.get("errors") or {}).items()) if rate)
            yield f"{own}: {who}{', errors: ' + errors if errors else ''}"


# --- figures, room by room -------------------------------------------------------------------------------------------


def _from_files(folder: Path | None) -> dict[str, Any]:
    files = [folder / name for name in FIGURES if (folder / name).is_file()] if folder else []
    return {name: value for file in files for name, value in json.loads(file.read_text("utf-8")).items()}


def _numbers(figures: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    return {"figures": list(lines_of(figures, depth=2))}


def lines_of(figures: Mapping[str, Any], name: str = "", depth: int = 3) -> Iterator[str]:
    """Figures within figures as lines, one for each mapping: `dropped: policy 6, duplicate 0`."""
    plain = [f"{key} {_value(value)}" for key, value in figures.items() if isinstance(value, int | float | str) and value != ""]
    if plain:
        more = f" and {len(plain) - LINE} more" if len(plain) > LINE else ""
        yield f"{name}: {', '.join(plain[:LINE])}{more}".removeprefix(": ")
    for key, value in figures.items():
        if isinstance(value, Mapping) and depth > 1:
            yield from lines_of(value, f"{name}.{key}".removeprefix("."), depth - 1)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def estimate_text(one: Mapping[str, Any]) -> str:
    """An estimate with its interval, and what it rests on."""
    return f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}] (95 %, n = {one['n']}, {one['trials']} trials)"


def _scores(figures: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """pass^1 of every model in every world."""
    parts = (("", figures), (f" ({UNSEEN})", figures.get(UNSEEN) or {}))
    lines = [
        f"{model} in {world}{mark}: {estimate_text(block['pass_1'])}"
        for mark, part in parts
        for model, worlds in (part.get("evaluate") or {}).items()
        for world, block in worlds.items()
    ]
    return {"pass^1": lines}


def _verdict(figures: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    gates = [f"{gate['name']} {'holds' if gate['passed'] else 'fails'}: {gate['explanation']}" for gate in figures.get("gates") or ()]
    return {"decision": figures.get("decision", ""), "why": figures.get("reason", ""), "gates": gates}


def _begun_with(figures: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Where the checkpoint came from that the road begins with."""
    file = folder / "source.json" if folder else None
    source = json.loads(file.read_text("utf-8")) if file and file.is_file() else {}
    taken = [f"{name} {source[name] or 'unknown'}" for name in ("origin", "license", "identity") if name in source]
    return {"taken from": taken, **_numbers(figures, folder)}


def _merged(figures: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    experts = figures.get("experts") or {}
    rest = {name: value for name, value in figures.items() if name not in ("experts", "same_as")}
    return {"merge map": list(lines_of(experts)), "figures": list(lines_of(rest, depth=1))}


ROOMS: Mapping[str, Callable[[Mapping[str, Any], Path | None], dict[str, Any]]] = {
    "base": _begun_with,
    "merge": _merged,
    "evaluate": _scores,
    "decide": _verdict,
}
"""Room -> what its figures say; of the others the numbers are listed."""
