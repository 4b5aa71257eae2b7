"""Services that a world starts itself, one for each conversation in play.

Worked by hand: two conversations count to 2 and 1 in services of their own; a third one, when two are the most, gets one that is
started anew. Limit: what dies is replaced, in the state of the conversation.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput, StageFailed
from tasks.worlds.adapters import SqliteDatabase, from_openapi
from tasks.worlds.api.runtime import World
from tests.worlds.servers import tiny_service

COMMAND = ("python", str(Path(tiny_service.__file__)), "{port}")


def build(**about: Any) -> World:
    wanted: dict[str, Any] = {
        "name": "tiny",
        "policy": "R1. Be kind.",
        "command": COMMAND,
        "state": "GET /state",
        "services": 2,
        "start_seconds": 20,
        **about,
    }
    return World.build(from_openapi(wanted.pop("spec", tiny_service.SPEC), "http://127.0.0.1:{port}", **wanted), 1, 0)


def about(fork: World) -> Any:
    return json.loads(fork.call("about", {}).content)


def end(here: World) -> None:
    for one in here.foreign.source._places._all:
        one.close()


def test_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    here = build(spec="http://127.0.0.1:{port}/openapi.json", env={"KEY": "${SECRET}"})
    one, two, three = (here.fork() for _ in range(3))
    assert [one.call("add", {}).content, one.call("add", {}).content, two.call("add", {}).content] == ["1", "2", "1"]
    assert about(one)["pid"] != about(two)["pid"] and about(one)["seat"] == "/cairn-seat" and about(one)["key"] == "${SECRET}"
    assert about(one)["url"] == "http://cairn-service/about", "a port differs each time"
    assert three.call("count", {}).content == "0" and three.call("note", {}).ok
    assert (one.diff(), three.diff()) == ("- count: 0\n+ count: 2", "- notes: 0\n+ notes: 1")
    assert [fork.call("count", {}).content for fork in (one, two, three)] == ["2", "1", "0"], "brought about again"
    snapshot = one.snapshot()
    assert one.call("add", {}).content == "3"
    one.restore(snapshot)
    assert one.call("count", {}).content == "2" and len(here.foreign.source._places._all) == 2
    pids = {about(fork)["pid"] for fork in (one, two)}
    end(here)
    time.sleep(0.05)
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids) or not os.path.isdir("/proc")


def test_a_database_in_the_folder_of_each_service(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "start.db")) as start, start:
        start.execute("create table notes (words)")
    here = build(state=(), database=SqliteDatabase("{seat}/tiny.db", tmp_path / "start.db"))
    one, two = here.fork(), here.fork()
    assert one.call("note", {}).ok and two.call("note", {}).ok and two.call("note", {}).ok
    assert (one.diff(), two.diff()) == ('+ notes[0]: {"words":"x"}', '+ notes[0]: {"words":"x"}\n+ notes[1]: {"words":"x"}')
    end(here)


def test_a_service_that_dies_is_replaced() -> None:
    here = build()
    fork = here.fork()
    assert fork.call("add", {}).content == "1"
    assert "POST http://127.0.0.1:{port}/dies: the connection was closed before an answer came" in fork.call("dies", {}).content
    assert fork.call("count", {}).content == "1"
    end(here)


def test_a_service_that_starts_no_more_ends_the_stage(tmp_path: Path) -> None:
    program = Path(shutil.copy(tiny_service.__file__, tmp_path))
    here = build(command=("python", str(program), "{port}"))
    fork = here.fork()
    assert fork.call("add", {}).content == "1"
    program.unlink()
    for tool in ("dies", "count"):  # the call in which it is found, and any other
        with pytest.raises(StageFailed, match=r"world tiny: command .* ended: .*can't open file.*Then run again: what is done is kept"):
            fork.call(tool, {})
    shutil.copy(tiny_service.__file__, tmp_path)
    assert fork.call("count", {}).content == "1", "as soon as it starts again"
    end(here)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"command": (*COMMAND, "refuses")}, r"command .* ended: no shop today\. It must serve HTTP at 127\.0\.0\.1:\{port\}"),
        ({"command": ("no-such-program", "{port}")}, "command 'no-such-program {port}' ended: no-such-program: No such file"),
        ({"command": ("sleep", "60"), "start_seconds": 0.2}, r"takes no connections within 0\.2 s: it wrote nothing"),
        ({"env": {"KEY": "${NOT_SET_AT_ALL}"}}, r"env\.KEY names \$\{NOT_SET_AT_ALL\}, which is not set"),
        ({"command": ()}, r"command and '\{port\}' in base_url go together"),
        ({"command": "python x.py"}, r"command = 'python x\.py' is one text"),
    ],
)
def test_what_cannot_be_started(about: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build(**about)


def test_what_is_started_is_not_the_real_one() -> None:
    here = build(state=())
    with pytest.raises(BadInput, match="real_url is missing"):
        here.foreign.source.real()
    assert not here.compared and here.copies, "nothing is read of it, and it is brought about all the same"
    end(here)
