"""What a world declares of its tables: logs and optional fields. Both are no part of the state, on the way of every law.

Worked by hand on a desk of 3 users: looking a user up writes into `audit` and counts in `seen`; neither hash nor diff moves, a snapshot
keeps both. A note of null is no note. The world is frozen with a set, a decimal and a log, and comes back as it was.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.params import BadInput
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.runtime import World
from tasks.worlds.api.state import Base, State
from tasks.worlds.api.tools import Refused, read, write
from tests.worlds.test_state import PATIENT, ROWS, STEP, apply

ADDRESS = "tests.worlds.test_state_tables:Desk"


class Desk:
    """Users with tags (a set) and a price (a decimal), who are looked up and noted."""

    NAME = "desk"
    POLICY = "R1. Be kind."
    LOGS: Any = ("audit", "seen")
    OPTIONAL: Any = {"users": ("note",)}

    def __init__(self, db: State) -> None:
        self.db = db

    @staticmethod
    def tables(size: int, seed: int) -> dict[str, dict[str, Any]]:
        users = {f"u{number}": {"tags": {"new", "b2b"}, "owes": Decimal("19.90"), "note": None} for number in range(size)}
        return {"users": users, "audit": {}, "seen": {"u0": {"times": 1}}}

    @read()
    def look(self, user_id: str) -> dict[str, Any]:
        """Look a user up.

        Args:
            user_id: such as u0.
        """
        self.db.log("audit", {"looked": user_id})
        times = (self.db.get("seen", user_id) or {"times": 0})["times"]
        self.db.put("seen", user_id, {"times": times + 1})
        user = self.db.get("users", user_id)
        if user is None:
            raise Refused("no such user")
        return user

    @read()
    def trail(self) -> list[str]:
        """Who was looked up, in order."""
        return [row["looked"] for _, row in self.db.rows("audit") if "looked" in row]

    @write()
    def note(self, user_id: str, text: str | None) -> str:
        """Write a note, or take it away.

        Args:
            user_id: such as u0.
            text: the note; null for none.
        """
        self.db.log("audit", {"noted": user_id})
        self.db.update("users", user_id, note=text)
        return "ok"

    @write()
    def drop_note(self, user_id: str) -> str:
        """Remove the field itself.

        Args:
            user_id: such as u0.
        """
        row = dict(self.db.get("users", user_id) or {})
        del row["note"]
        self.db.put("users", user_id, row)
        return "ok"

    @write()
    def busiest(self) -> str:
        """A write that depends on how often somebody was looked up: what must not be."""
        most = max(self.db.rows("seen"), key=lambda pair: pair[1]["times"])[0]
        self.db.update("users", most, note="busy")
        return most

    @read()
    def touch(self, user_id: str) -> str:
        """The classic trap: a look-up that counts in the state itself.

        Args:
            user_id: such as u0.
        """
        self.db.update("users", user_id, looked=True)
        return "ok"


def desk() -> World:
    return World.build(Desk, 3, 0, ADDRESS)


def test_looking_is_no_change_of_state() -> None:
    here = desk()
    start = here.state_hash()
    assert json.loads(here.call("look", {"user_id": "u1"}).content) == {"tags": ["b2b", "new"], "owes": 19.9, "note": None}
    once = here.snapshot()
    assert here.call("look", {"user_id": "u1"}).ok and here.call("look", {"user_id": "u0"}).ok
    assert here.state_hash() == start and here.diff() == ""
    assert json.loads(here.call("trail", {}).content) == ["u1", "u1", "u0"]
    assert here.state.get("seen", "u1") == {"times": 2} and here.state.get("seen", "u0") == {"times": 2}
    here.restore(once)
    assert json.loads(here.call("trail", {}).content) == ["u1"]
    here.reset()
    assert json.loads(here.call("trail", {}).content) == [] and here.state.get("seen", "u0") == {"times": 1}


def test_a_refused_call_leaves_no_log_either() -> None:
    here = desk()
    assert not here.call("look", {"user_id": "u9"}).ok
    assert here.snapshot() == () and json.loads(here.call("trail", {}).content) == []


def test_a_write_cannot_depend_on_look_ups() -> None:
    here = desk()
    for _ in range(2):
        assert here.call("look", {"user_id": "u2"}).ok
    result = here.call("busiest", {})
    assert not result.ok and "a tool that writes looked into the log table seen" in result.content and here.diff() == ""
    result = here.call("touch", {"user_id": "u0"})
    assert not result.ok and "mark it @write, or name users in LOGS" in result.content and here.diff() == ""
    one, other = desk(), desk()
    other.call("look", {"user_id": "u0"})
    for world in (one, other):
        assert world.call("note", {"user_id": "u0", "text": "x"}).ok
    assert one.state_hash() == other.state_hash() and one.diff() == other.diff() == '+ users u0 note: "x"'


def test_null_is_absence_where_the_world_says_so() -> None:
    here = desk()
    start = here.state_hash()
    assert here.call("drop_note", {"user_id": "u0"}).ok
    assert here.state_hash() == start and here.diff() == "" and "note" not in (here.state.get("users", "u0") or {})
    assert here.call("note", {"user_id": "u1", "text": "x"}).ok and here.state_hash() != start
    assert here.call("note", {"user_id": "u1", "text": None}).ok and here.state_hash() == start
    here.state.update("users", "u1", owes=None)
    assert here.state_hash() != start, "owes is not optional"
    strict = {"t": {"a": {"note": None}}}, {"t": {"a": {}}}
    assert State(Base(strict[0])).hash() != State(Base(strict[1])).hash()
    assert State(Base(strict[0], optional={"t": ["note"]})).hash() == State(Base(strict[1], optional={"t": ["note"]})).hash()


@PATIENT
@given(ROWS, ROWS, st.lists(STEP, max_size=4), st.lists(STEP, max_size=4))
def test_logs_never_matter(rows: dict[str, Any], logged: dict[str, Any], steps: list[Any], more: list[Any]) -> None:
    """With any log rows at the start and any writes to them, hash and diff are those of a world without them."""
    live, plain = State(Base({"t": rows, "log": logged}, logs=["log"])), State(Base({"t": rows}))
    apply(live, steps)
    apply(plain, steps)
    for what, key, row in more:
        live.put("log", key, row) if what == "put" else live.remove("log", key)
        live.log("log", row)
    assert (live.hash(), live.diff()) == (plain.hash(), plain.diff())
    kept, trail = live.snapshot(), list(live.rows("log"))
    live.reset()
    live.restore(kept)
    assert list(live.rows("log")) == trail and live.hash() == plain.hash()


@PATIENT
@given(ROWS, st.lists(STEP, max_size=5))
def test_null_and_absent_are_one_in_every_row(rows: dict[str, Any], steps: list[Any]) -> None:
    """x, y and z are optional: leaving the nulls out changes neither hash nor diff."""

    def bare(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in row.items() if value is not None}

    full, short = (
        State(Base({"t": {key: change(row) for key, row in rows.items()}}, optional={"t": tuple("xyz")})) for change in (dict, bare)
    )
    apply(full, steps)
    apply(short, [(what, key, bare(row)) for what, key, row in steps])
    assert (full.hash(), full.diff()) == (short.hash(), short.diff())


def test_log_rows_are_numbered_in_their_order() -> None:
    live = State(Base({"t": {}, "log": {"000000000": {"n": 0}, "old": {}}}, logs=["log"]))
    for number in range(1, 12):
        live.log("log", {"n": number})
    assert [row["n"] for _, row in live.rows("log") if row] == list(range(12))
    with pytest.raises(PermissionError, match=r"t is no log table; the world declares: LOGS = \('log',\)"):
        live.log("t", {})


def test_it_is_frozen_and_comes_back(tmp_path: Path) -> None:
    here = desk()
    freeze_world(here, tmp_path / "a")
    freeze_world(here, tmp_path / "b")
    assert (tmp_path / "a/tables.json").read_bytes() == (tmp_path / "b/tables.json").read_bytes()
    back = load(tmp_path / "a")
    assert back.state_hash() == here.state_hash() and back.state.base.logs == {"audit", "seen"}
    row = back.state.get("users", "u0")
    assert row == {"tags": frozenset({"new", "b2b"}), "owes": Decimal("19.90"), "note": None}
    assert str(row["owes"]) == "19.90" and type(row["tags"]) is frozenset


def test_frozen_tables_meet_the_present_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code has changed: it has a further log, and the old tables are still known to be unaltered."""
    freeze_world(desk(), tmp_path)
    about = json.loads((tmp_path / "world.json").read_text())
    (tmp_path / "world.json").write_text(json.dumps({**about, "code": "0" * 32}))
    monkeypatch.setattr(Desk, "LOGS", ("audit", "seen", "visits"))
    monkeypatch.setattr(Desk, "OPTIONAL", {})
    with pytest.raises(BadInput, match="has changed since it was frozen"):
        load(tmp_path)
    here = load(tmp_path, present_code=True)
    assert here.state.base.logs == {"audit", "seen", "visits"} and list(here.state.rows("visits")) == []
    assert here.state_hash() != about["state"] and here.call("note", {"user_id": "u0", "text": "x"}).ok
    tables = (tmp_path / "tables.json").read_text()
    (tmp_path / "tables.json").write_text(tables.replace("19.90", "19.80", 1))
    with pytest.raises(BadInput, match="altered after it was frozen"):
        load(tmp_path, present_code=True)
    (tmp_path / "tables.json").write_text(tables.replace('"19.90"', "[]", 1))
    with pytest.raises(BadInput, match=r"altered after it was frozen \(\$decimal holds \[\]"):
        load(tmp_path, present_code=True)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"LOGS": ("audits",)}, "world desk: LOGS names 'audits', which is no table; tables: users, audit, seen"),
        ({"LOGS": "audit"}, r"world desk: LOGS = 'audit' is text; write LOGS = \('audit',\)"),
        ({"OPTIONAL": {"users": "note"}}, r"world desk: OPTIONAL\['users'\] = 'note' is text; write \('note',\)"),
        ({"OPTIONAL": {"user": ("note",)}}, "world desk: OPTIONAL names 'user', which is no table"),
        ({"tables": lambda size, seed: {"users": {"u": 1}}, "LOGS": ()}, "at least 3 users"),
        (
            {"tables": lambda size, seed: {"users": dict.fromkeys("abc", 1)}},
            "world desk: table 'users', row 'a': a row must be an object, got int",
        ),
        ({"tables": lambda size, seed: {"users": {str(n): {"x": b""} for n in range(3)}}}, "row '0': only JSON values"),
    ],
)
def test_bad_declarations_are_named(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        World.build(type("Other", (Desk,), {name: staticmethod(new) if callable(new) else new for name, new in changed.items()}), 3, 0)
