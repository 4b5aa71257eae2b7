"""The conversations of the report: which ones are shown, and each with its calls, its outcome and the state that should be.

Chosen by rule, so that nobody picks the pretty ones: from each pile (won, lost, requests that had to be declined, rows that
the filter refused) worlds and families take turns, each giving its conversation of median length. What should have happened is
the oracle's trial of the same problem, or the blueprint's proven actions. States are shown only when replaying the calls gives
the very hash that was graded; a world whose code has changed since is named by its hashes alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.contract import schemas, tables
from tasks.contract.params import BadInput
from tasks.contract.problem import Action
from tasks.road import ROAD, Road

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

Row = Mapping[str, Any]

LONGEST = 1500
"""Characters of one message or answer that are shown; ours, a page of text."""
MOST = 10
"""Conversations shown in all."""
WON, LOST, DECLINE, FILTERED = "won", "lost", "request to decline", "refused by the filter"
SHARES = {LOST: 3, WON: 3, DECLINE: 2}
"""How many of each pile at least; what one of them lacks goes to lost, then won."""
FROM_FILTER = 2
"""How many rows that the filter refused."""

_PICKED_BY = ("traj_id", "problem_id", "world", "family", "trial", "reward", "n_tool_calls")
_TURNING = (0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_HIDDEN = {chr(code): chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_HIDDEN |= {chr(code): f"[U+{code:04X}]" for code in (0x7F, *_TURNING)}
_COLUMNS = [field for field in schemas.TRAJECTORY if field.name != "turns"]


def conversations(folders: Mapping[str, Path], model: str, road: Road = ROAD) -> list[dict[str, Any]]:
    """Up to MOST conversations ready for the template: test trials of `model` and rows that the filter refused; without
    trials, the conversations that generate made."""
    marks = [schemas.DATASET.field(name) for name in ("keep", "score", "reason")]
    places = {room: next((name for name in road.entering(room) if name in folders), "") for room in ("filter", "generate", "worlds")}
    made = _table(folders, places["filter"], "dataset.parquet", [*_COLUMNS, *marks])
    refused = _pick(made, {FILTERED: _filtered(made)}, {FILTERED: FROM_FILTER}, FROM_FILTER) if made is not None else []
    if made is None:
        made = _table(folders, places["generate"], "trajectories.parquet", _COLUMNS)
    trials = _table(folders, road.judged, "trials.parquet", [schemas.TRIAL.field("model"), schemas.TRIAL.field("set"), *_COLUMNS])
    if trials is not None:
        made = trials.filter(pc.and_(pc.equal(trials["model"], model), pc.equal(trials["set"], "test")))
    expected, worlds = _expected(folders, road, places["generate"]), _Worlds(folders.get(places["worlds"]))
    chosen = _pick(made, _piles(made, expected), SHARES, MOST - len(refused)) if made is not None else []
    twice = {row["traj_id"] for row in chosen}
    shown = [*chosen, *(row for row in refused if row["traj_id"] not in twice)]
    return [_for_page(row, expected.get((row["world"], row["problem_id"])), worlds) for row in shown]


def _table(folders: Mapping[str, Path], stage: str, name: str, fields: Iterable[pa.Field]) -> pa.Table | None:
    path = folders[stage] / name if stage in folders else None
    return tables.read_table(path, pa.schema(list(fields))) if path is not None and path.exists() else None


# --- what should have happened -----------------------------------------------------------------------------------------------


def _expected(folders: Mapping[str, Path], road: Road, generate: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(world, problem) -> {by, calls, outputs}: from the oracle's trials and the accepted blueprints."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    wanted = ("world", "problem_id", "actions", "outputs", "status")
    blueprints = _table(folders, generate, "blueprints.parquet", [schemas.BLUEPRINT.field(name) for name in wanted])
    if blueprints is not None:
        for row in blueprints.filter(pc.equal(blueprints["status"], "accepted")).to_pylist():
            by = {"by": "the blueprint", "calls": row["actions"], "outputs": row["outputs"]}
            found[row["world"], row["problem_id"]] = by
    needed = ("model", "set", "world", "problem_id", "calls", "messages")
    trials = _table(folders, road.judged, "trials.parquet", [schemas.TRIAL.field(name) for name in needed])
    if trials is not None:
        oracle = trials.filter(pc.and_(pc.equal(trials["set"], "baseline"), pc.equal(trials["model"], "oracle")))
        for row in oracle.to_pylist():
            said = [message["content"] for message in row["messages"] if message["role"] == "assistant" and message["content"]]
            calls = [call for call in row["calls"] if call["ok"]]
            found[row["world"], row["problem_id"]] = {"by": "the oracle", "calls": calls, "outputs": said[-1:]}
    return found


# --- which ones ----------------------------------------------------------------------------------------------------------------


def _piles(table: pa.Table, expected: Mapping[tuple[str, str], Row]) -> dict[str, list[Row]]:
    """Light rows by pile. A request is one to decline when the right way through it changes nothing but ends with a
    hand-over, or its family says so."""
    piles: dict[str, list[Row]] = {WON: [], LOST: [], DECLINE: []}
    for row in table.select(_PICKED_BY).to_pylist():
        right = expected.get((row["world"], row["problem_id"]), {"calls": ()})
        kinds = {call["kind"] for call in right["calls"]}
        decline = "forbidden" in row["family"] or ("end" in kinds and "write" not in kinds)
        piles[DECLINE if decline else WON if row["reward"] else LOST].append(row)
    return piles


def _filtered(table: pa.Table) -> list[Row]:
    """Rows that the filter refused; when there are any that the verifier had passed, those alone: there it earned its keep."""
    refused = table.filter(pc.invert(table["keep"])).select([*_PICKED_BY, "reason"]).to_pylist()
    own = [row for row in refused if row["reward"] and row["reason"] not in ("test_split", "lineage", "duplicate")]
    return [{**row, "family": f"{row['reason']} {row['family']}"} for row in own or refused]


def _pick(table: pa.Table, piles: Mapping[str, Sequence[Row]], shares: Mapping[str, int], room: int) -> list[dict[str, Any]]:
    """Full rows, at most `room`, each with its `pile`: every pile's share first, then what else is there. No problem twice."""
    taken: dict[str, str] = {}
    problems: set[str] = set()
    for name, share in [*shares.items(), *((name, room) for name in shares)]:
        for row in _in_turn(piles[name]):
            if share and len(taken) < room and row["problem_id"] not in problems:
                taken[row["traj_id"]] = name
                problems.add(row["problem_id"])
                share -= 1
    found = table.filter(pc.is_in(table["traj_id"], pa.array(list(taken), pa.string()))).to_pylist()
    order = (WON, LOST, DECLINE, FILTERED)
    full = [{**row, "pile": taken[row["traj_id"]]} for row in found]
    return sorted(full, key=lambda row: (order.index(row["pile"]), row["world"], row["family"], row["traj_id"]))


def _in_turn(pile: Sequence[Row]) -> list[Row]:
    """Families take turns, and with them worlds and outcomes; each gives its conversation of the most typical length first."""
    groups: dict[tuple[str, tuple[str, int]], list[Row]] = {}
    for row in pile:
        groups.setdefault((row["family"], (row["world"], row["reward"])), []).append(row)
    families = sorted({family for family, _ in groups})
    sides = sorted({side for _, side in groups})
    ranked: list[tuple[int, int, int, Row]] = []
    for (family, side), members in groups.items():
        turn = (sides.index(side) + families.index(family)) % len(sides)
        ranked += [(place, turn, families.index(family), row) for place, row in enumerate(_typical(members))]
    return [row for *_, row in sorted(ranked, key=lambda entry: entry[:3])]


def _typical(group: Sequence[Row]) -> list[Row]:
    """One trial of each problem, those with a number of calls near the median first."""
    middle = median(row["n_tool_calls"] for row in group)
    ordered = sorted(group, key=lambda row: (abs(row["n_tool_calls"] - middle), row["problem_id"], row["trial"]))
    first: dict[str, Row] = {}
    for row in ordered:
        first.setdefault(row["problem_id"], row)
    return list(first.values())


# --- how they are shown --------------------------------------------------------------------------------------------------------


class _Worlds:
    """Frozen worlds, opened when first asked for."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.known: dict[str, World | None] = {}

    def rules(self, name: str, broken: Sequence[str]) -> list[tuple[str, str]]:
        """Broken rules with their text, where the world is there to tell it."""
        world = self.get(name)
        return [(rule, world.rules.get(rule, "") if world else "") for rule in broken]

    def diff(self, name: str, calls: Sequence[Row], expected_hash: str) -> str | None:
        """What these calls change, or None when that cannot be said with certainty."""
        world = self.get(name)
        if world is None:
            return None
        writes = [call for call in calls if call["kind"] == "write" and call.get("ok", True)]
        replay = world.replay([Action(call["name"], json.loads(call["arguments_json"]), "write") for call in writes])
        return replay.diff if replay.state_hash == expected_hash else None

    def get(self, name: str) -> World | None:
        """A world, or None when it is not there as it was frozen."""
        if name not in self.known:
            self.known[name] = self._open(name)
        return self.known[name]

    def _open(self, name: str) -> World | None:
        from tasks.worlds.api.frozen import load, place_of

        if self.folder is None or not (place := place_of(self.folder, name)).is_dir():
            return None
        try:
            return load(place)
        except BadInput:
            return None  # the code moved on since the world was frozen; the report names the hashes instead


def clean(text: str) -> str:
    """Text as it can be shown: what is invisible or turns the writing's direction is named; at most LONGEST characters.

    >>> clean("a" + chr(7) + "b" + chr(0x202E))
    'a\u2407b[U+202E]'
    """
    shown = "".join(_HIDDEN.get(letter, letter) for letter in text[:LONGEST])
    return shown + (f" \u2026 ({len(text) - LONGEST:,} more characters)" if len(text) > LONGEST else "")


def _arguments(text: str) -> str:
    """Arguments as people read them: order_id="W1", days=3."""
    value = json.loads(text)
    if not isinstance(value, dict):
        return clean(text)
    return clean(", ".join(f"{key}={json.dumps(item, ensure_ascii=False)}" for key, item in value.items()))


def _call(call: Row) -> dict[str, Any]:
    return {"name": clean(call["name"]), "arguments": _arguments(call["arguments_json"]), "kind": call.get("kind", "read")}


def _for_page(row: dict[str, Any], right: Mapping[str, Any] | None, worlds: _Worlds) -> dict[str, Any]:
    """A conversation as the template wants it: turns, outcome, and expected beside actual."""
    expected_calls = right["calls"] if right else []
    return {
        **{key: row[key] for key in ("pile", "world", "family", "problem_id", "trial", "tags", "stop", "n_tokens", "n_agent_steps")},
        **{key: row[key] for key in ("reward", "state", "outputs", "required", "policy", "human")},
        "broken": worlds.rules(row["world"], row["broken"]),
        "agent": row.get("model") or row["agent"],
        "reason": row.get("reason") or "",
        "opening": clean(next((message["content"] for message in row["messages"] if message["role"] == "user"), ""))[:120],
        "turns": list(_turns(row["messages"], row["calls"])),
        "by": right["by"] if right else "",
        "expected_calls": [_call(call) for call in expected_calls],
        "expected_outputs": [clean(output) for output in right["outputs"]] if right else [],
        "expected_diff": worlds.diff(row["world"], expected_calls, row["wanted_state_hash"]) if right else None,
        "final_diff": worlds.diff(row["world"], row["calls"], row["final_state_hash"]),
        "hashes": (row["wanted_state_hash"][:8], row["final_state_hash"][:8]),
    }


def _turns(messages: Sequence[Row], calls: Sequence[Row]) -> Iterable[dict[str, Any]]:
    """Messages as {who, text, calls}; each call carries the answer it got, in the order in which calls were made."""
    answers = iter(calls)
    for message in messages:
        if message["role"] not in ("user", "assistant"):
            continue
        made = [_answer(call, next(answers, None)) for call in message["tool_calls"] or ()]
        yield {"who": message["role"], "text": clean(message["content"] or ""), "calls": made}


def _answer(call: Row, done: Row | None) -> dict[str, Any]:
    if done is None:
        return {**_call(call), "ok": None, "answer": ""}
    return {**_call({**call, "kind": done["kind"]}), "ok": done["ok"], "answer": clean(done["content"])}
