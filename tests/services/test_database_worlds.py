"""A world over a service whose state is a Postgres database, with a real one: set back by a transaction, and by a template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from tasks.worlds.adapters import PostgresDatabase
from tests.services.servers import NO_POSTGRES, postgres, postgres_programs
from tests.worlds.bank_service import TABLES, app
from tests.worlds.shop_service import serving
from tests.worlds.test_adapter_openapi_database import play

pytestmark = pytest.mark.services
PROGRAMS = postgres_programs()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """`host:port` of a database server in which `bank_start` holds the start, with the user's name before it."""
    import psycopg

    if PROGRAMS is None:
        pytest.skip(NO_POSTGRES)
    with postgres(PROGRAMS) as place:
        at = place.rpartition("/")[0]
        with psycopg.connect(f"postgresql://{at}/postgres", autocommit=True) as one:
            one.execute("create database bank_start")
            one.execute("create database bank")
        for name in ("bank_start", "bank"):
            with psycopg.connect(f"postgresql://{at}/{name}") as one:
                for statement in TABLES:
                    one.execute(statement)  # type: ignore[arg-type]
        yield at


@pytest.mark.parametrize("by", ["transaction", "template"])
def test_postgres(server: str, by: Literal["transaction", "template"], monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    url = f"postgresql://{server}/bank"
    monkeypatch.setenv("BANK", url)
    held: list[Any] = []

    def execute(statement: str, values: tuple[Any, ...]) -> list[Any]:
        """Over one connection that is kept; another one is opened when the server has ended it, as pools do."""
        for _ in range(2):
            held[:] = held or [psycopg.connect(url, autocommit=True)]
            try:
                done = held[0].execute(statement.replace("?", "%s"), values)
                return list(done.fetchall()) if done.description else []
            except psycopg.OperationalError:
                held.clear()
        raise AssertionError("the database is gone")

    service = app(execute)
    with serving(service) as address:
        play({"spec": service.openapi(), "base_url": address, "database": PostgresDatabase("BANK", "bank_start", by)})
    held[0].close()
