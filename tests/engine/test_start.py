"""Where a process of Cairn keeps things, whatever the folder is called, and what it asks without a proxy."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.engine import start
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["plain", "a b", "Hütte", "a?b&c=d", "50%off", "a#b", "a'b", "$x;y"])
def test_a_database_lies_where_its_path_says(tmp_path: Path, name: str) -> None:
    """What opens it is SQLAlchemy, in Prefect as in MLflow."""
    from sqlalchemy import create_engine, text

    folder = tmp_path / name
    folder.mkdir()
    with create_engine(start.database("sqlite", folder / "x.db")).begin() as connection:
        connection.execute(text("create table here (a)"))
    assert sqlite3.connect(folder / "x.db").execute("select name from sqlite_master").fetchall() == [("here",)]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/x/a%20b/.cairn", "MLflow takes a %"),
        ("/x/a'b\"c/.cairn", "both kinds of quotes"),
        ("/x/a :b/.cairn", "a colon after a mark"),
        ("/x/a\nb/.cairn", "control characters"),
        ("/x/\udcff/.cairn", "no UTF-8"),
        ("/" + "ä" * 250, "501 bytes"),
    ],
)
def test_a_place_that_libraries_cannot_work_in_is_refused_in_words(path: str, message: str) -> None:
    why = start.misplaced(Path(path))
    assert message in why and "CAIRN_HOME" in why


@pytest.mark.parametrize("path", ["/x/a b", "/x/Hütte ?#$&'", "/x/100% sure", "/x/a:b", "/" + "x" * 400])
def test_other_places_are_fine(path: str) -> None:
    assert start.misplaced(Path(path)) == ""


@pytest.mark.parametrize(
    ("lower", "upper", "wanted"),
    [
        ("", "", "localhost,127.0.0.1,::1"),
        ("intra.example", ".corp, 10.0.0.1", "intra.example,.corp,10.0.0.1,localhost,127.0.0.1,::1"),
        ("127.0.0.1", "", "127.0.0.1,localhost,::1"),
        ("*", "x", "*"),
    ],
)
def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch, lower: str, upper: str, wanted: str) -> None:
    """By any client that a library brings: those of urllib, requests and httpx ask the same variables in ways of their own."""
    import httpx
    import requests

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", lower)
    monkeypatch.setenv("NO_PROXY", upper)
    start.fix(ROOT)
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == wanted
    for url in ("http://127.0.0.1:4200/api", "http://localhost:5000", "http://[::1]:80"):
        assert not requests.utils.get_environ_proxies(url)
        transport = httpx.Client()._transport_for_url(httpx.URL(url))
        assert not type(getattr(transport, "_pool")).__name__.endswith("Proxy"), url  # noqa: B009


def test_what_cairn_sets_is_not_taken_for_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from tasks.engine import start; from pathlib import Path; start.fix(Path.cwd()); print(sorted(start.users_variables()))"
    environment = {"PATH": os.defpath, "HF_HOME": "/elsewhere", "OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    assert "'HF_HOME', " in said and "'OMP_NUM_THREADS'" in said and "MKL_NUM_THREADS" not in said
