"""Services whose state is a database: set back and read without a word of the service's.

Worked by hand: of two conversations on one bank, the one's transfer is not in the other's accounts, and the service, which keeps its
connection, answers to both as they left it. On Postgres: `tests/services/test_database_worlds.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.adapters import PostgresDatabase, SqliteDatabase, from_openapi
from tasks.worlds.api.runtime import World
from tests.worlds.bank_service import TABLES, app
from tests.worlds.shop_service import serving


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Arguments of `from_openapi` for a bank that runs."""
    with closing(sqlite3.connect(tmp_path / "start.db")) as start, start:
        for statement in TABLES:
            start.execute(statement)
    with closing(sqlite3.connect(tmp_path / "bank.db", check_same_thread=False)) as database:
        database.execute("create table leftover (x)")

        def execute(statement: str, values: tuple[Any, ...]) -> list[Any]:
            with database:
                return database.execute(statement, values).fetchall()

        service = app(execute)
        with serving(service) as url:
            yield {"spec": service.openapi(), "base_url": url, "database": SqliteDatabase(tmp_path / "bank.db", tmp_path / "start.db")}


def play(bank: dict[str, Any]) -> World:
    """Two conversations in turns; the world that they were played in."""
    here = World.build(from_openapi(**bank, name="bank", policy="R1. Be kind.", disposable=True, users="accounts"), 1, 0)
    assert sorted(here.splits) == ["a0", "a1", "a2"]
    one, two = here.fork(), here.fork()
    assert one.call("transfer", {"source": "a0", "target": "a1", "amount": 60}).content == "1"
    assert json.loads(two.call("get_account", {"account_id": "a0"}).content)["balance"] == 100
    assert not one.call("transfer", {"source": "a0", "target": "a1", "amount": 60}).ok
    assert one.diff().splitlines() == [
        *("- accounts.a0.balance: 100", "+ accounts.a0.balance: 40", "- accounts.a1.balance: 100", "+ accounts.a1.balance: 160"),
        *('+ transfers.1: {"amount":60,"id":1,"source":"a0","target":"a1"}',),
    ]
    assert two.call("note", {"words": "é 日本"}).ok and two.diff() == '+ notes[0]: {"words":"é 日本"}'
    assert one.call("transfer", {"source": "a1", "target": "a2", "amount": 150}).content == "2"
    assert one.fork().diff() == "" and two.call("transfer", {"source": "a2", "target": "a0", "amount": 1}).content == "1"
    return here


def test_a_sqlite_file(bank: dict[str, Any]) -> None:
    play(bank)


def test_what_is_no_database(bank: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(database: Any, **more: Any) -> Any:
        about = {**bank, "database": database, "name": "bank", "policy": "R1. Be kind.", "disposable": True, **more}
        return World.build(from_openapi(**about), 1, 0)

    (tmp_path / "words.db").write_text("words")
    with pytest.raises(BadInput, match=r"start .*words\.db is no SQLite file"):
        built(SqliteDatabase(tmp_path / "bank.db", tmp_path / "words.db"))
    with pytest.raises(BadInput, match=r"start .*nowhere\.db cannot be read"):
        built(SqliteDatabase(tmp_path / "bank.db", tmp_path / "nowhere.db"))
    with pytest.raises(BadInput, match=r"database change the service; say that it may be changed: disposable=True"):
        built(bank["database"], disposable=False)
    with pytest.raises(BadInput, match="the environment variable BANK is not set"):
        built(PostgresDatabase("BANK", "start"))
    with pytest.raises(BadInput, match="url names the environment variable that holds it"):
        built(PostgresDatabase("postgresql://ada:secret@x/y", "start"))
    monkeypatch.setenv("BANK", "postgresql://ada:secret@127.0.0.1:9/bank")
    with pytest.raises(BadInput, match="world bank: database BANK") as caught:
        built(PostgresDatabase("BANK", "start"))
    assert "secret" not in str(caught.value)
