"""Objects that reach a service or a database file: nothing that writes is called unless the world was declared disposable.

Worked by hand: a class that keeps orders in a database file cancels one. Undeclared, the file is read and never written, by plays, by
`cairn world check` and by the stage `worlds`, which refuses such a world; declared, it is written. Limit: objects that keep their
state to themselves need no declaration.
"""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flows.worlds import check
from tasks.contract.params import BadInput
from tasks.worlds.adapters import from_object
from tasks.worlds.adapters.outside import Outside, watched
from tasks.worlds.api.runtime import World
from tasks.worlds.freeze import _check_playable


class Filed:
    """Orders in a database file, as somebody may keep them; copies of the object all reach the one file."""

    def __init__(self, file: str) -> None:
        self._file = file

    def _all(self, statement: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(self._file)) as database, database:
            return database.execute(statement, values).fetchall()

    def get_order(self, order_id: str) -> str:
        """Status of an order."""
        return str(self._all("select status from orders where id = ?", order_id))

    def cancel_order(self, order_id: str) -> str:
        """Cancel an order."""
        self._all("update orders set status = 'cancelled' where id = ?", order_id)
        return "cancelled"

    def hopeful(self, order_id: str) -> dict[str, str]:
        """Cancels an order, and makes an answer of whatever goes wrong."""
        try:
            return {"ok": self.cancel_order(order_id)}
        except Exception as error:
            return {"error": str(error)}


FILE = ""


def make() -> Filed:
    return Filed(FILE)


class Undeclared(from_object(make, name="filed", policy="R1. Be kind.", writes=("cancel_order", "hopeful"))):  # type: ignore[misc]
    """At the top level of a module, where `cairn world check` wants it."""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(tmp_path / "orders.db")
    with closing(sqlite3.connect(name)) as database, database:
        database.execute("create table orders (id text, status text)")
        database.execute("insert into orders values ('W1', 'pending')")
    monkeypatch.setitem(globals(), "FILE", name)
    return name


def status() -> str:
    return Filed(FILE).get_order("W1")


def test_nothing_is_written_undeclared() -> None:
    here = World.build(Undeclared, 1, 0)
    for tool in ("cancel_order", "hopeful"):
        refused = here.fork().call(tool, {"order_id": "W1"})
        assert "not declared disposable" in json.loads(refused.content)["error"] and "the database file" in refused.content
    assert "pending" in here.fork().call("get_order", {"order_id": "W1"}).content
    with pytest.raises(BadInput, match=r"tool 'cancel_order' can be called in no run: .*Pass disposable=True"):
        _check_playable(here)
    report = check.check(Undeclared, count=3)
    assert "not declared disposable" in str(report["calls"].findings) and "pending" in status()


def test_what_is_declared_is_written() -> None:
    declared = from_object(
        make, name="filed", policy="R1. Be kind.", writes=("cancel_order",), tools=("cancel_order",), disposable=True
    )
    here = World.build(declared, 1, 0)
    _check_playable(here)
    assert here.fork().call("cancel_order", {"order_id": "W1"}).ok and "cancelled" in status()


def test_a_kept_connection_is_never_set_back() -> None:
    """An object that cannot be copied says how it is set back, and that would be a write."""
    restored = []
    about: dict[str, Any] = {"snapshot": lambda one: one.get_order("W1"), "restore": lambda one, state: restored.append(state)}

    def connected() -> Filed:
        found = make()
        found.get_order("W1")
        return found

    here = World.build(from_object(connected, name="filed", policy="R1. Be kind.", writes=("cancel_order", "hopeful"), **about), 1, 0)
    assert here.fork().call("get_order", {"order_id": "W1"}).ok
    assert "was not called" in here.fork().call("cancel_order", {"order_id": "W1"}).content
    assert not restored and "pending" in status()


def test_what_is_seen() -> None:
    with watched() as seen:
        sqlite3.connect(":memory:").close()
        assert not seen
        with socket.socket() as one:
            one.connect_ex(("127.0.0.1", 9))
    assert seen == ["a connection to 127.0.0.1:9"]
    with pytest.raises(Outside, match=r"127\.0\.0\.1:9"), watched(forbidden=True), socket.socket() as one:
        one.connect(("127.0.0.1", 9))
    with socket.socket() as one:
        one.connect_ex(("127.0.0.1", 9))
    assert len(seen) == 1, "nothing is seen after the block"


class Noted:
    """Orders in a JSON file, in the manner of small programs; the object itself holds nothing."""

    def get_order(self, order_id: str) -> str:
        """Status of an order."""
        return str(json.loads(Path(FILE).read_text())[order_id])

    def cancel_order(self, order_id: str) -> str:
        """Cancel an order."""
        Path(FILE).write_text(json.dumps({order_id: "cancelled"}))
        return "cancelled"

    def cancel_safely(self, order_id: str) -> str:
        """Cancel an order, by way of a new file that takes the place of the other."""
        Path(FILE + ".new").write_text(json.dumps({order_id: "cancelled"}))
        Path(FILE + ".new").replace(FILE)
        return "cancelled"

    def forget_orders(self) -> str:
        """Delete all orders."""
        Path(FILE).unlink()
        return "forgotten"

    def print_order(self, order_id: str) -> int:
        """Length of a letter about an order, which is printed into a file of its own and thrown away."""
        letter = Path(FILE).with_name("letter.txt")
        letter.write_text(order_id)
        length = len(letter.read_text())
        letter.unlink()
        return length


WRITING = ("cancel_order", "cancel_safely", "forget_orders")


@pytest.mark.parametrize("declared", [WRITING, ()], ids=["as writing", "as looking"])
def test_a_file_that_was_there_is_not_changed_undeclared(declared: tuple[str, ...]) -> None:
    """However the tools were declared: `cairn init` takes those of an object that holds nothing for look-ups."""
    Path(FILE).write_text('{"W1": "pending"}')
    here = World.build(from_object(Noted, name="noted", policy="R1. Be kind.", writes=declared), 1, 0)
    assert json.loads(here.fork().call("print_order", {"order_id": "W1"}).content) == 2
    for tool in WRITING:
        refused = here.fork().call(tool, {} if tool == "forget_orders" else {"order_id": "W1"})
        assert f"the file {FILE}" in refused.content and "not declared disposable" in refused.content
        assert json.loads(Path(FILE).read_text()) == {"W1": "pending"}
    assert "pending" in here.fork().call("get_order", {"order_id": "W1"}).content


def test_a_file_of_a_world_that_is_disposable_is_changed() -> None:
    Path(FILE).write_text('{"W1": "pending"}')
    here = World.build(from_object(Noted, name="noted", policy="R1. Be kind.", writes=WRITING, disposable=True), 1, 0)
    assert here.fork().call("cancel_safely", {"order_id": "W1"}).ok and "cancelled" in Path(FILE).read_text()
