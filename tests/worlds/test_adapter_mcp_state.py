"""What the state of an MCP server is: declared read tools, files, a dump, a server started anew, or nothing that is compared.

Worked by hand: a note that is added in one fork is not in another one, whatever the state is read and restored by, and dropping it
again brings back the hash of the start. Limit: where nothing is read, every state has one hash, and grading says so.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows.worlds.clock_watch import watching
from tasks.contract.params import BadInput
from tasks.worlds.adapters import from_mcp, state_files
from tasks.worlds.api.play import TOOL_FAILURE
from tasks.worlds.api.runtime import World

SERVER = str(Path(__file__).parent / "servers" / "notes.py")
START = {"n1": "milk"}


def serving(kind: str, place: str = "none") -> dict[str, Any]:
    return {"command": ["python", SERVER, kind, place], "call_seconds": 20}


def build(folder: Path, **about: Any) -> World:
    (folder / "mcp.yaml").write_text(json.dumps(about))  # JSON is YAML
    return World.build(from_mcp(folder / "mcp.yaml", name="notes", policy="R1. Be kind."), 1, 0)


def filled(folder: Path, kind: str) -> str:
    """A fixture with one note; its name."""
    if kind == "sqlite":
        with sqlite3.connect(folder / "notes.db") as database:
            database.execute("create table notes (id text primary key, text text)")
            database.executemany("insert into notes values (?, ?)", START.items())
        database.close()
        return "notes.db"
    (folder / "notes.json").write_text(json.dumps(START))
    return "notes.json"


def commanded(word: str) -> dict[str, Any]:
    return {"command": ["python", SERVER, word, "{seat}/notes.json"]}


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "reads": ("memory", {"reads": ["notes"]}),
    "reads with arguments": ("memory", {"reads": ["notes", {"tool": "read", "arguments": {"id": "n1"}}]}),
    "a dump without a restore": ("memory", {"dump": "export"}),
    "a file": ("json", {"files": ["notes.json"]}),
    "a folder": ("json", {"files": ["."]}),
    "a database": ("sqlite", {"files": ["notes.db"]}),
    "a database, started anew": ("sqlite", {"files": ["notes.db"], "restart": True}),
    "commands": ("json", {"dump": commanded("dump"), "restore": commanded("restore")}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("servers", [1, 3])
def test_forks_are_apart(way: str, servers: int, tmp_path: Path) -> None:
    kind, state = WAYS[way]
    fixture = filled(tmp_path, kind)
    here = build(tmp_path, **serving(kind, "{seat}/" + fixture), fixture=fixture, servers=servers, **state)
    one, two = here.fork(), here.fork()
    start = here.state_hash()
    assert one.call("add", {"id": "n2", "text": "bread"}).ok
    assert json.loads(two.call("notes", {}).content) == START and two.state_hash() == start
    assert two.call("drop", {"id": "n1"}).ok and json.loads(two.call("notes", {}).content) == {}
    assert json.loads(one.call("notes", {}).content) == {**START, "n2": "bread"}
    assert one.diff() and one.state_hash() != start != two.state_hash() != one.state_hash()
    assert one.call("drop", {"id": "n2"}).ok and one.state_hash() == start and one.diff() == ""
    two.restore(one.snapshot())
    assert json.loads(two.call("notes", {}).content) == START
    refused = two.call("drop", {"id": "n9"})
    assert not refused.ok and "no note n9" in refused.content and two.call("notes", {}).ok


@pytest.mark.parametrize("way", ["reads", "a file", "a database"])
def test_a_look_up_that_writes_is_named(way: str, tmp_path: Path) -> None:
    kind, state = WAYS[way]
    fixture = filled(tmp_path, kind)
    here = build(tmp_path, **serving(kind, "{seat}/" + fixture), fixture=fixture, **state)
    result = here.call("sly", {})
    assert result.content.startswith(TOOL_FAILURE) and "tool 'sly' is not declared to write and changed the state" in result.content
    assert json.loads(here.call("notes", {}).content) == START and here.diff() == ""


def test_one_line_is_enough(tmp_path: Path) -> None:
    """A server that keeps nothing, in a file with its command alone; the tools that write are those that the server says."""
    here = build(tmp_path, command=["python", SERVER, "nowhere"])
    assert {name for name, tool in here.tools.items() if tool.kind == "write"} == {"add", "drop", "count"}
    assert here.call("echo", {"text": "hello"}).content == "hello" and not here.compared


def test_tools_that_do_not_say_whether_they_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are taken for look-ups, and that is told: nothing would show that one changes what other conversations see."""
    raw = {"command": ["python", str(Path(SERVER).with_name("raw.py")), "works"]}
    assert {tool.kind for tool in build(tmp_path, **raw).tools.values()} == {"read"}
    assert "do not say whether they write are taken for look-ups: look, dump, restore. Name in writes those that do" in caplog.text
    caplog.clear()
    build(tmp_path, **raw, writes=[])
    assert "look-ups" not in caplog.text


def test_what_nobody_reads_is_not_compared_and_forks_are_still_apart(tmp_path: Path) -> None:
    here = build(tmp_path, **serving("memory"), servers=2)
    one, two = here.fork(), here.fork()
    assert one.call("add", {"id": "n2", "text": "bread"}).ok
    assert two.call("notes", {}).content == "{}" and json.loads(one.call("notes", {}).content) == {"n2": "bread"}
    assert one.state_hash() == two.state_hash(), "so no grading may look at it"


def test_the_users_of_a_database(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({f"u{number}": "" for number in range(4)}))
    about = serving("json", "{seat}/notes.json")
    here = build(tmp_path, **about, fixture="notes.json", files=["notes.json", "more.json"])
    assert here.state.value == {"notes_json": {f"u{number}": "" for number in range(4)}}, "a file that is not there holds nothing"
    with sqlite3.connect(tmp_path / "people.db") as database:
        database.execute("create table users (id integer primary key, name text, photo blob)")
        database.execute("create table log (line text)")
        database.executemany("insert into users values (?, ?, ?)", [(number, f"U{number}", b"\0") for number in range(4)])
        database.executemany("insert into log values (?)", [("b",), ("a",)])
    database.close()
    here = build(tmp_path, **serving("nowhere"), fixture="people.db", files=["people.db"], users="users")
    assert here.state.value["users"]["2"] == {"id": 2, "name": "U2", "photo": "(bytes 00)"} and sorted(here.splits) == list("0123")
    assert here.state.value["log"] == [{"line": "a"}, {"line": "b"}], "rows without a key have no order"


@pytest.mark.parametrize(("files", "before", "after"), [(["notes.json"], {}, {"n1": "a"}), (["."], {}, {"notes_json": {"n1": "a"}})])
def test_files_that_are_not_there_yet(files: list[str], before: Any, after: Any, tmp_path: Path) -> None:
    here = build(tmp_path, **serving("json", "{seat}/notes.json"), files=files)
    assert here.state.value == before and here.call("add", {"id": "n1", "text": "a"}).ok and here.state.value == after


def test_a_start_that_is_lost_is_refused_with_the_difference(tmp_path: Path) -> None:
    """The round trip is made when the world is built: a restore that drops something would drop it in every conversation."""
    fixture = filled(tmp_path, "json")
    forgets = {"command": ["python", "-c", "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('{}')", "{seat}/notes.json"]}
    with pytest.raises(BadInput, match=r'mcp.yaml:1: restore: the start is not the same after it was restored \(- n1: "milk"\)'):
        build(tmp_path, **serving("json", "{seat}/notes.json"), fixture=fixture, dump=commanded("dump"), restore=forgets)
    with pytest.raises(BadInput, match=r"reads: the start is not the same after it was restored .*must begin in the same state"):
        build(tmp_path, command=["python", SERVER, "memory"], reads=["notes", "process"])


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"reads": ["nots"]}, "reads names 'nots'. Did you mean 'notes'?"),
        (
            {"reads": [{"tool": "read", "arguments": {"id": "n9"}}]},
            'reads: refused at the start: read {"id":"n9"}. Read what is there.',
        ),
        ({"reads": ["notes"], "dump": "notes"}, "dump and reads: the state is read in one way"),
        ({"restore": "add"}, "restore takes what dump gives; name a dump"),
        ({"start": "x.json"}, "start = 'x.json' is restored before anything is played"),
        ({"files": ["../notes.json"]}, "files = '../notes.json': write it as it lies in {seat}"),
        ({"restart": True}, "restart says how files are restored; give files"),
        ({"fixture": "none.db"}, "fixture = 'none.db': there is no such file or folder in"),
    ],
)
def test_mistakes_are_named(about: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        build(tmp_path, **serving("memory"), **about)
    assert says in str(caught.value) and "mcp.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"files": ["a"]}, "files and fixture lie in {seat}, and a server behind a url has none"),
        ({"reads": ["notes"]}, "a server behind a url is not started anew, so what is read of its state could not be brought back"),
        ({"dump": "a", "restore": "b"}, "start is missing"),
    ],
)
def test_mistakes_behind_a_url(about: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        build(tmp_path, url="http://127.0.0.1:1/mcp", **about)
    assert says in str(caught.value)


def test_calls_that_cannot_be_made_again(tmp_path: Path) -> None:
    """A tool that works once, and refuses in a server that was started anew, is named."""
    here = build(tmp_path, **serving("memory"), reads=["notes"], servers=1, env={"ONCE": str(tmp_path / "mark")})
    one, two = here.fork(), here.fork()
    assert one.call("count", {}).ok and two.call("notes", {}).ok
    result = one.call("notes", {})
    assert "tool 'count' worked, and refuses the same call in a server that was started anew: once only" in result.content


def test_interpreter(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    here = build(tmp_path, **serving("nowhere"), python="./python")
    assert here.call("echo", {"text": "hello"}).ok
    with pytest.raises(BadInput, match=r"its last words: python3.99: No such file"):
        build(tmp_path, **serving("nowhere"), python="python3.99")


def test_a_program_that_dumps_is_no_clock_of_the_tools(tmp_path: Path) -> None:
    """To end it in time, Python looks at the clock, in the thread that `cairn world check` watches."""
    kind, state = WAYS["commands"]
    here = build(tmp_path, **serving(kind, "{seat}/notes.json"), fixture=filled(tmp_path, kind), **state)
    with watching(()) as seen:
        assert here.call("add", {"id": "n2", "text": "bread"}).ok
    assert [one for one in seen if "hypothesis" not in one.file] == []  # which times Python's garbage collector in this process


def test_slow_tools_get_servers_of_their_own_and_fast_ones_share(tmp_path: Path) -> None:
    """Calls that wait 0.4 s take far less than one after the other; those that answer at once start no server for each."""
    here = build(tmp_path, **serving("nowhere"), writes=[])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda fork: fork.call("echo", {"text": "hello"}), [here.fork() for _ in range(8)]))
        few = len(here.foreign.source._seats._seats)
        begin = time.monotonic()
        made = list(pool.map(lambda fork: fork.call("slow", {"seconds": 0.4}), [here.fork() for _ in range(24)]))
        taken = time.monotonic() - begin
    assert all(result.ok for result in made) and taken < 24 * 0.4 / 2
    assert few < len(here.foreign.source._seats._seats) <= 9


def test_a_database_that_a_server_leaves_locked_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """As after a write that was refused: Python's own driver leaves its transaction open. Another server is started then."""
    held = sqlite3.connect(tmp_path / "notes.db")
    held.execute("create table notes (id text)")
    held.commit()
    content = held.serialize()
    held.execute("delete from notes where id = 'none'")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        state_files.put_live((("notes.db", content),), tmp_path, 0.1)
    held.rollback()
    state_files.put_live((("notes.db", content),), tmp_path, 0.1)
    held.close()
