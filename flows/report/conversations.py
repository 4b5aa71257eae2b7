"""The conversations of the report: which ones are shown, and each with its calls, its outcome and the state that should be.

Chosen by rule, so that nobody picks the pretty ones: from each pile (won, lost, requests that had to be declined, rows that
the filter refused) worlds and families take turns, each giving its conversation of median length. What should have happened is
the oracle's trial of the same problem, or the blueprint's proven actions. States are shown only when replaying the calls gives
the very hash that was graded; a world whose code has changed since is named by its hashes alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks import rows
from tasks.params import BadInput
from tasks.worlds import Action

if TYPE_CHECKING:
    from tasks.worlds.runtime import World

Row = Mapping[str, Any]

LONGEST = 1500
"""Characters of one message or answer that are shown; ours, a page of text."""
MOST = 10
"""Conversations shown in all."""
WON, LOST, DECLINE, FILTERED = "won", "lost", "request to decline", "refused by the filter"
SHARES = {WON: 3, LOST: 3, DECLINE: 2, FILTERED: 2}
"""How many of each pile; what a pile lacks goes to lost, then won."""

_PICKED_BY = ("traj_id", "problem_id", "world", "family", "trial", "reward", "n_tool_calls", "calls")
_SHOWN = [field for field in rows.TRAJECTORY if field.name != "turns"]


def conversations(folders: Mapping[str, Path], model: str) -> list[dict[str, Any]]:
    """Up to MOST conversations ready for the template: test trials of `model` and rows that the filter refused; without
    trials, the conversations that generate made."""
    expected = _expected(folders)
    chosen: list[dict[str, Any]] = []
    trials = _table(folders, "evaluate", "trials.parquet", [rows.TRIAL.field("model"), rows.TRIAL.field("set"), *_SHOWN])
    made = _table(
        folders, "filter", "dataset.parquet", [*_SHOWN, *(rows.DATASET.field(name) for name in ("keep", "score", "reason"))]
    )
    if made is None:
        made = _table(folders, "generate", "trajectories.parquet", _SHOWN)
    if trials is not None:
        own = trials.filter(pc.and_(pc.equal(trials["model"], model), pc.equal(trials["set"], "test")))
        chosen += _pick(own, _piles(own, expected), SHARES)
    if made is not None:
        shares = SHARES if trials is None else {FILTERED: SHARES[FILTERED]}
        chosen += _pick(made, _filtered(made) if trials is not None else _piles(made, expected) | _filtered(made), shares)
    worlds = _Worlds(folders.get("worlds"))
    return [_shown(row, expected.get((row["world"], row["problem_id"])), worlds) for row in chosen[:MOST]]


def _table(folders: Mapping[str, Path], stage: str, name: str, fields: Iterable[pa.Field]) -> pa.Table | None:
    path = folders[stage] / name if stage in folders else None
    return rows.read_table(path, pa.schema(list(fields))) if path is not None and path.exists() else None


# --- what should have happened -----------------------------------------------------------------------------------------------


def _expected(folders: Mapping[str, Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """(world, problem) -> {by, calls, outputs}: from the oracle's trials and the accepted blueprints."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    wanted = ("world", "problem_id", "actions", "outputs", "status")
    blueprints = _table(folders, "generate", "blueprints.parquet", [rows.BLUEPRINT.field(name) for name in wanted])
    if blueprints is not None:
        for row in blueprints.filter(pc.equal(blueprints["status"], "accepted")).to_pylist():
            by = {"by": "the blueprint", "calls": row["actions"], "outputs": row["outputs"]}
            found[row["world"], row["problem_id"]] = by
    needed = ("model", "set", "world", "problem_id", "calls", "messages")
    trials = _table(folders, "evaluate", "trials.parquet", [rows.TRIAL.field(name) for name in needed])
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
    for row in table.select([name for name in _PICKED_BY if name != "calls"]).to_pylist():
        right = expected.get((row["world"], row["problem_id"]), {"calls": ()})
        kinds = {call["kind"] for call in right["calls"]}
        decline = "forbidden" in row["family"] or ("end" in kinds and "write" not in kinds)
        piles[DECLINE if decline else WON if row["reward"] else LOST].append(row)
    return piles


def _filtered(table: pa.Table) -> dict[str, list[Row]]:
    """Rows that the filter refused although the verifier passed them come first: there it earned its keep."""
    if "keep" not in table.column_names:
        return {}
    refused = table.filter(pc.invert(table["keep"])).select([*_PICKED_BY[:-1], "reason"]).to_pylist()
    own = [row for row in refused if row["reward"] and row["reason"] not in ("test_split", "lineage", "duplicate")]
    return {FILTERED: [{**row, "family": f"{row['family']} {row['reason']}"} for row in own or refused]}


def _pick(table: pa.Table, piles: Mapping[str, Sequence[Row]], shares: Mapping[str, int]) -> list[dict[str, Any]]:
    """Full rows, pile after pile, each with `pile`; no problem twice."""
    taken: dict[str, str] = {}
    problems: set[str] = set()
    room = sum(shares.values())
    for name, share in [*shares.items(), *((name, room) for name in (LOST, WON) if name in shares)]:
        fresh = [row for row in _in_turn(piles.get(name, ())) if row["problem_id"] not in problems]
        for row in fresh[: max(0, min(share, room - len(taken)))]:
            taken[row["traj_id"]] = name
            problems.add(row["problem_id"])
    found = table.filter(pc.is_in(table["traj_id"], pa.array(list(taken), pa.string()))).to_pylist()
    order = list(SHARES)
    full = [{**row, "pile": taken[row["traj_id"]]} for row in found]
    return sorted(full, key=lambda row: (order.index(row["pile"]), row["world"], row["family"], row["traj_id"]))


def _in_turn(pile: Sequence[Row]) -> list[Row]:
    """Families (and won, lost) take turns; within each, the most typical length first, and one trial of a problem."""

    def kind(row: Row) -> tuple[Any, ...]:
        return row["family"], row["world"], row["reward"]

    ranked: list[tuple[int, int, Row]] = []
    for number, (_, members) in enumerate(groupby(sorted(pile, key=kind), kind)):
        group = list(members)
        middle = median(row["n_tool_calls"] for row in group)
        group.sort(key=lambda row: (abs(row["n_tool_calls"] - middle), row["problem_id"], row["trial"]))
        first = {row["problem_id"]: row for row in reversed(group)}
        ranked += [(place, number, row) for place, row in enumerate(row for row in group if first[row["problem_id"]] is row)]
    return [row for *_, row in sorted(ranked, key=lambda entry: entry[:2])]


# --- how they are shown --------------------------------------------------------------------------------------------------------


class _Worlds:
    """Frozen worlds, opened when first asked for."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.known: dict[str, World | None] = {}

    def diff(self, name: str, calls: Sequence[Row], wanted_hash: str) -> str | None:
        """What these calls change, or None when that cannot be said with certainty."""
        if name not in self.known:
            self.known[name] = self._open(name)
        world = self.known[name]
        if world is None:
            return None
        writes = [call for call in calls if call["kind"] == "write" and call.get("ok", True)]
        replay = world.replay([Action(call["name"], json.loads(call["arguments_json"]), "write") for call in writes])
        return replay.diff if replay.state_hash == wanted_hash else None

    def _open(self, name: str) -> World | None:
        from tasks.worlds.runtime import World

        if self.folder is None or not (self.folder / name).is_dir():
            return None
        try:
            return World.load(self.folder / name)
        except BadInput:
            return None  # the code moved on since the world was frozen; the report names the hashes instead


def clean(text: str) -> str:
    """Text as it can be shown: control characters as pictures of themselves, at most LONGEST characters.

    >>> clean("a" + chr(7) + "b")
    'a\u2407b'
    """
    shown = "".join(letter if letter >= " " or letter in "\n\t" else chr(0x2400 + ord(letter)) for letter in text[:LONGEST])
    return shown + (f" \u2026 ({len(text) - LONGEST:,} more characters)" if len(text) > LONGEST else "")


def _arguments(text: str) -> str:
    """Arguments as people read them: order_id="W1", days=3."""
    value = json.loads(text)
    if not isinstance(value, dict):
        return clean(text)
    return clean(", ".join(f"{key}={json.dumps(item, ensure_ascii=False)}" for key, item in value.items()))


def _call(call: Row) -> dict[str, Any]:
    return {"name": clean(call["name"]), "arguments": _arguments(call["arguments_json"]), "kind": call.get("kind", "read")}


def _shown(row: dict[str, Any], right: Mapping[str, Any] | None, worlds: _Worlds) -> dict[str, Any]:
    """A conversation as the template wants it: turns, outcome, and expected beside actual."""
    expected_calls = right["calls"] if right else []
    return {
        **{
            key: row[key]
            for key in ("pile", "world", "family", "problem_id", "trial", "tags", "stop", "n_tokens", "n_agent_steps")
        },
        **{key: row[key] for key in ("reward", "state", "outputs", "required", "policy", "broken", "human")},
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
    answered: Callable[[Row], dict[str, Any]] = lambda call: _answer(call, next(answers, None))  # noqa: E731
    for message in messages:
        if message["role"] not in ("user", "assistant"):
            continue
        made = [answered(call) for call in message["tool_calls"] or ()]
        yield {"who": message["role"], "text": clean(message["content"] or ""), "calls": made}


def _answer(call: Row, done: Row | None) -> dict[str, Any]:
    if done is None:
        return {**_call(call), "ok": None, "answer": ""}
    return {**_call({**call, "kind": done["kind"]}), "ok": done["ok"], "answer": clean(done["content"])}
