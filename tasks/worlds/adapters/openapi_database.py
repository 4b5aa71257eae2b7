"""The database behind an HTTP service as its state: set back to a start, and read as JSON.

    SqliteDatabase("shop.db", start="fixtures/start.db")      # the file that the service has open; the file that holds the start
    PostgresDatabase("SHOP_DATABASE", start="shop_start")     # the variable that holds its url; a database of the same server

A service keeps running, and sees the start with its next transaction. Each table is shown as primary key -> row, one without a key as a
list of rows. To make the start of a Postgres database: createdb --template shop shop_start
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.contract import secret_blocks
from tasks.contract.params import BadInput
from tasks.contract.values import whole_text
from tasks.worlds.adapters import state_files
from tasks.worlds.adapters.foreign_state import SourceDown, SourceFailed
from tasks.worlds.adapters.placeholders import Placeholders

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composable

    from tasks.worlds.adapters.openapi_http import Service

WAIT = 30.0
"""Seconds that other users of a database are waited for; ours."""
MAINTENANCE = "postgres"
"""The database of a Postgres server from which others are dropped and made."""


@dataclass(frozen=True)
class SqliteDatabase:
    """A SQLite file that the service has open. path: where, "{seat}" for the folder of a service that is started. start: the file that
    holds the start. It is copied by SQLite itself, into the open file, and waits for transactions that are under way."""

    path: Path | str
    start: Path | str

    def check(self, where: str) -> None:
        """Raise BadInput for a start that is no database."""
        try:
            with Path(self.start).open("rb") as file:
                good = state_files.is_database(file.read(len(state_files.MAGIC)))
        except OSError as error:
            raise BadInput(f"{where}: database: start {self.start} cannot be read ({error.strerror}).") from None
        if not good:
            raise BadInput(f"{where}: database: start {self.start} is no SQLite file.")

    def file(self) -> Path:
        """The file whose content is the start."""
        return Path(self.start)

    def send(self, service: Service) -> None:
        """Bring the start about. Raises SourceFailed."""
        path = self._here(service)
        try:
            state_files.put_live(((path.name, Path(self.start).read_bytes()),), path.parent, WAIT)
        except (sqlite3.Error, OSError) as error:
            raise SourceFailed(f"database {self.path}: cannot be set back: {error}. Let the service end its transactions.") from None

    def value(self, service: Service) -> Any:
        """Its tables. Raises SourceFailed."""
        path = self._here(service)
        if not path.is_file():
            raise SourceFailed(f"database {self.path}: is not there. Start the service first, or correct its path.")
        nothing = Placeholders(path.parent)
        try:
            return state_files.as_json(state_files.contents(path.parent, [path.name], nothing, WAIT), [path.name], nothing)
        except (state_files.Unreadable, OSError) as error:
            raise SourceFailed(f"database {self.path}: {error}.") from None

    def _here(self, service: Service) -> Path:
        return Path(str(self.path).replace("{seat}", str(service.seat)))


@dataclass(frozen=True)
class PostgresDatabase:
    """A Postgres database. url: the environment variable, or "prefect:NAME" of a Secret block, that holds its url. start: a database of
    the same server that holds the start.

    by: `transaction` replaces all rows in one transaction: connections of the service go on (its user may set
    session_replication_role, so that foreign keys do not matter meanwhile). `template` drops the database and makes it anew from the
    start: connections are ended, and the service must open others.
    """

    url: str
    start: str
    by: Literal["transaction", "template"] = "transaction"

    def check(self, where: str) -> None:
        """Raise BadInput for another way."""
        if self.by not in ("transaction", "template"):
            raise BadInput(f"{where}: database: by = {self.by!r}; allowed: transaction, template.")
        if "://" in self.url:
            raise BadInput(f"{where}: database: url names the environment variable that holds it, so that no secret stands in code.")
        if not self.url.startswith("prefect:") and not os.environ.get(self.url):
            raise BadInput(f"{where}: database: the environment variable {self.url} is not set.")

    def file(self) -> None:
        """The start is in the server."""

    def send(self, service: Service) -> None:
        """Bring the start about. Raises SourceFailed."""
        if self.by == "template":
            self._made_anew()
        else:
            self._rows_replaced()

    def value(self, service: Service) -> Any:
        """Its tables. Raises SourceFailed."""
        with self._connected() as database, database.transaction():
            database.execute("set transaction isolation level repeatable read, read only")
            return {label: _rows(database, schema, table) for label, schema, table in _tables(database)}

    def _made_anew(self) -> None:
        from psycopg import sql

        with self._connected() as database:
            name = database.info.dbname
        if self.start == name or name == MAINTENANCE:
            raise SourceFailed(f"database {self.url}: {name!r} cannot be made anew from {self.start!r}.")
        with self._connected(MAINTENANCE) as server:
            server.autocommit = True
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            server.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(self.start)))

    def _rows_replaced(self) -> None:
        from psycopg import errors, sql

        with self._connected(self.start) as start, self._connected() as database, database.transaction():
            database.execute(f"set local lock_timeout = '{int(WAIT)}s'")
            try:
                database.execute("set local session_replication_role = replica")
            except errors.InsufficientPrivilege:
                raise SourceFailed(
                    f"database {self.url}: its user may not set session_replication_role. Grant it (grant set on parameter "
                    'session_replication_role to ...), or take by="template".'
                ) from None
            tables = [sql.Identifier(schema, table) for _, schema, table in _tables(start)]
            if tables:
                database.execute(sql.SQL("truncate {} cascade").format(sql.SQL(", ").join(tables)))
            for table in tables:
                _copied(start, database, table)
            for schema, name, value in start.execute("select schemaname, sequencename, last_value from pg_sequences"):
                if value is None:
                    database.execute(sql.SQL("alter sequence {} restart").format(sql.Identifier(schema, name)))
                else:
                    database.execute("select setval(format('%%I.%%I', %s::text, %s::text), %s)", (schema, name, value))

    @contextmanager
    def _connected(self, name: str = "") -> Iterator[Connection[Any]]:
        """A connection to the database, or to another one of its server. What goes wrong is told without the url."""
        import psycopg
        from psycopg.conninfo import make_conninfo

        url = (
            secret_blocks.load(self.url.removeprefix("prefect:"), "database")
            if self.url.startswith("prefect:")
            else os.environ[self.url]
        )
        told, connected = {"dbname": name} if name else {}, False
        try:
            with psycopg.connect(make_conninfo(url, connect_timeout=int(WAIT), **told)) as connection:
                connected = True
                yield connection
        except psycopg.Error as error:
            said = " ".join(str(error).split())[:300].replace(url, self.url)
            where = f"database {self.url}{f' ({name})' if name else ''}"
            if not connected:
                raise SourceDown(f"{where}: {said}. Start it, or mend its url.") from None
            raise SourceFailed(f"{where}: {said}") from None


def _tables(database: Connection[Any]) -> list[tuple[str, str, str]]:
    """(label, schema, name) of every table: in the schema public its name, else with the schema before it."""
    found = database.execute(
        "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema') order by 1, 2"
    ).fetchall()
    return [(name if schema == "public" else f"{schema}.{name}", schema, name) for schema, name in found]


def _rows(database: Connection[Any], schema: str, name: str) -> Any:
    from psycopg import sql

    table = sql.Identifier(schema, name)
    keys = [
        row[0]
        for row in database.execute(
            "select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) "
            "where i.indisprimary and i.indrelid = format('%%I.%%I', %s::text, %s::text)::regclass "
            "order by array_position(i.indkey::int2[], a.attnum)",
            (schema, name),
        )
    ]
    texts = database.execute(sql.SQL("select row_to_json(t)::text from {} t").format(table)).fetchall()
    rows = [json.loads(whole_text(text)) for (text,) in texts]
    if keys:
        return {" ".join(str(row[key]) for key in keys): row for row in rows}
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def _copied(start: Connection[Any], database: Connection[Any], table: Composable) -> None:
    """All rows of a table, as they are."""
    from psycopg import sql

    reading, writing = (sql.SQL(f"copy {{}} {way} (format binary)").format(table) for way in ("to stdout", "from stdin"))
    with start.cursor().copy(reading) as source, database.cursor().copy(writing) as target:
        for part in source:
            target.write(part)
