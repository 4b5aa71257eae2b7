"""The databases of MLflow and Prefect, and of answers of model servers: there, readable, not locked, of the version that is installed.

SQLite files are opened here; Postgres is asked with a time limit. Nothing is migrated and no library is imported for it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flows.doctor.finding import Finding, Place, error, good, note, warning
from flows.inherited import of_prefect, printable
from flows.server import own_database, own_database_url
from tasks.engine.sqlite_files import opened, path_of, unusable
from tasks.players.openai_compatible.cache import NAME as CALLS

PATIENCE = 3.0
"""Seconds to wait for a lock, or for a connection."""


@dataclass(frozen=True)
class Migrations:
    """The versions of a schema that an installed library knows. newest: those that no other builds upon."""

    known: frozenset[str]
    newest: frozenset[str]


def databases(place: Place) -> Iterator[Finding]:
    """All of them, each by the address under which a run finds it."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    files = [
        ("answers of model servers", place.state / CALLS, None),
        ("Prefect", own_prefect(), "Prefect"),
        ("MLflow", local_mlflow(place.state), "MLflow"),
    ]
    for name, path, library in files:
        if path is not None and not path.exists():
            yield good("databases", f"{name}: {path} is not there yet; a run that needs it makes it")
        elif path is not None:
            yield from _sqlite(name, path, library)
    if tracking.startswith("postgres"):
        yield from _postgres("MLflow", "MLFLOW_TRACKING_URI", tracking)
    if (url := own_database_url()).startswith("postgres"):
        yield from _postgres("Prefect", "PREFECT_SERVER_DATABASE_CONNECTION_URL", url)


def local_mlflow(state: Path) -> Path | None:
    """MLflow's database where it is a file; None where a server keeps it."""
    return path_of(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state / 'mlflow.db'}")


def own_prefect() -> Path | None:
    """The database of the server that a run starts; None where a server is named, or where it is no file."""
    return None if of_prefect("PREFECT_API_URL") else own_database()


# --- SQLite ----------------------------------------------------------------------------------------------------------


def _sqlite(name: str, path: Path, library: str | None) -> Iterator[Finding]:
    aside = f"mv {path} {path}.broken   # a new one is made; what it held is not in the new one"
    if why := unusable(path, PATIENCE):
        remedy = f"fuser {path}   # who holds it; a run that goes on lets go of it by itself" if "locked" in why else aside
        yield error("databases", f"{name}: {why}", f"ls -l {path}   # this user must write it" if "written" in why else remedy)
        return
    with closing(opened(path, "ro", PATIENCE)) as database:
        said = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        version = _version(database) if library else ""
    if said != "ok":
        yield error("databases", f"{name}: {path} is damaged: {said}", aside)
    else:
        yield _schema(library, f"sqlite:///{path}", version) if library else good("databases", f"{name}: {path} is sound")


def _version(database: sqlite3.Connection) -> str:
    try:
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as wrong:
        if "no such table" not in str(wrong):
            raise
        row = None
    return str(row[0]) if row else ""


# --- Postgres --------------------------------------------------------------------------------------------------------


def _postgres(library: str, variable: str, url: str) -> Iterator[Finding]:
    import psycopg

    shown = printable(variable, url)
    plain = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
    host, port = urlsplit(plain).hostname or "", urlsplit(plain).port or 5432
    try:
        options = f"-c statement_timeout={PATIENCE * 1000:.0f} -c lock_timeout={PATIENCE * 1000:.0f}"
        with psycopg.connect(plain, connect_timeout=int(PATIENCE), options=options) as database:
            there = database.execute("SELECT to_regclass('alembic_version')").fetchone()
            row = database.execute("SELECT version_num FROM alembic_version").fetchone() if there and there[0] else None
    except psycopg.Error as wrong:
        lines = str(wrong).strip().splitlines() or [type(wrong).__name__]
        yield error("databases", f"{library}: {shown}: {lines[0][:200]}", f"pg_isready --host {host} --port {port}")
        return
    yield _schema(library, shown, str(row[0]) if row else "")


# --- versions of schemas ---------------------------------------------------------------------------------------------


def _schema(library: str, url: str, version: str) -> Finding:
    """Whether a database has the schema of the library that is installed."""
    kind = "postgresql" if url.startswith("postgres") else "sqlite"
    upgrade = f"mlflow db upgrade {url}" if library == "MLflow" else "prefect server database upgrade --yes"
    migrations = of_library(library, kind)
    if not version:
        return note("databases", f"{library}: {url} has no tables of {library} yet; a run makes them")
    if version in migrations.newest:
        return good("databases", f"{library}: {url} has the schema of the version that is installed")
    if version not in migrations.known:
        text = f"{library}: {url} has the schema {version}, which the {library} that is installed does not know: a newer one wrote it"
        return error("databases", text, f"pip install --upgrade {library.lower()}   # or name another database")
    text = f"{library}: {url} has the schema {version} of an older {library}"
    if library == "Prefect":
        return warning(
            "databases", f"{text}; its server brings it up to date when it starts, and an older one cannot read it then", upgrade
        )
    return error("databases", f"{text}; runs are refused until it is brought up to date (copy it first)", upgrade)


def of_library(library: str, kind: str) -> Migrations:
    """The migrations that come with MLflow or Prefect, by their files. kind: sqlite or postgresql; MLflow has one list for both."""
    inside = {"MLflow": "store/db_migrations/versions", "Prefect": f"server/database/_migrations/versions/{kind}"}[library]
    spec = importlib.util.find_spec(library.lower())
    texts = [
        path.read_text("utf-8")
        for path in Path(str(spec and spec.origin)).with_name(inside.partition("/")[0]).glob(f"{inside.partition('/')[2]}/*.py")
    ]
    known = {found[1] for text in texts if (found := re.search(r"^revision\b[^=\n]*= *['\"](\w+)['\"]", text, re.MULTILINE))}
    below = {
        name
        for text in texts
        for line in re.findall(r"^down_revision\b[^=\n]*= *(.*)", text, re.MULTILINE)
        for name in re.findall(r"\w+", line)
    }
    return Migrations(frozenset(known), frozenset(known - below))
