"""MCP servers as worlds, with real ones on stdin/stdout and on loopback: state, forks, and everything that a server can do wrong.

Worked by hand: cancelling W1 in one fork leaves another fork, and the server behind both, as they were. Limit: a server that dies is
replaced, in the state of the fork; where another one does not start, the stage ends.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.worlds import check
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.problem import Action, ToolResult
from tasks.worlds.adapters import from_mcp, server_file
from tasks.worlds.api.places import location
from tasks.worlds.api.play import TOOL_FAILURE
from tasks.worlds.api.runtime import World
from tests.conftest import ROOT
from tests.warm import FIXED, WARM
from tests.worlds.servers import failing

SERVERS = Path(__file__).parent / "servers"
SHOP: dict[str, Any] = {
    "command": ["python", str(SERVERS / "shop.py")],  # forked where `warm` is
    "pass_env": ["PYTHONPATH", *FIXED],
    "writes": ["cancel_order"],
    "ends": ["call_a_person"],
    "dump": "export_state",
    "restore": "import_state",
    "leave_out": ["looks"],
    "users": "users",
    "call_seconds": 20,
    "start_seconds": 120,
}
RAW: dict[str, Any] = {"dump": "dump", "restore": "restore", "call_seconds": 1, "start_seconds": 120}


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    """A server that is started has what it imports already."""
    WARM.run(["-c", "import mcp.server.mcpserver"], ROOT, os.environ, 60)
    with WARM.python():
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One world with one server behind it, for the tests that do it no harm."""
    return build(tmp_path_factory.mktemp("shop"), **SHOP)


def build(folder: Path, **about: Any) -> World:
    (folder / "mcp.yaml").write_text(json.dumps(about))  # JSON is YAML
    return World.build(from_mcp(folder / "mcp.yaml", name="shop", policy="R1. Be kind."), 1, 0)


def raw(folder: Path, mode: str) -> World:
    return build(folder, command=["python", str(SERVERS / "raw.py"), mode], **RAW)


def said(result: ToolResult) -> str:
    return str(json.loads(result.content)["error"])


def pid(here: World) -> int:
    return int(here.call("process", {}).content)


def test_by_hand(shop: World) -> None:
    here = shop.fork()
    start = here.state_hash()
    order = {"user": "u1", "status": "pending", "total": 11.5}
    assert json.loads(here.call("get_order", {"order_id": "W1"}).content) == order
    assert here.state_hash() == start, "the counter of look-ups is left out"
    assert here.call("cancel_order", {"order_id": "W1", "reason": "late"}) == ToolResult(True, "cancelled")
    assert here.diff().splitlines() == [
        *('+ orders.W1.reason: "late"', '- orders.W1.status: "pending"', '+ orders.W1.status: "cancelled"'),
    ]
    other = shop.fork()
    assert other.call("cancel_order", {"order_id": "W1", "reason": "mistake"}).ok and shop.diff() == ""
    other.restore(here.snapshot())
    assert other.state_hash() == here.state_hash() != start
    here.reset()
    assert here.state_hash() == start and here.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok


def test_answers_do_not_depend_on_who_held_the_server(shop: World) -> None:
    """Alone, and in turns with another fork, whose state is in the server in between: the same texts."""
    steps = [
        ("cancel_order", {"order_id": "W2", "reason": "late"}),
        ("get_order", {"order_id": "W2"}),
        ("get_order", {"order_id": "W1"}),
    ]
    alone, turned, other = shop.fork(), shop.fork(), shop.fork()
    straight = [alone.call(*step) for step in steps]
    bent = []
    for number, step in enumerate(steps):
        other.call("cancel_order", {"order_id": f"W{number}", "reason": "mistake"})
        bent.append(turned.call(*step))
    assert bent == straight and turned.state_hash() == alone.state_hash()


def test_tools(shop: World) -> None:
    kinds = {name: tool.kind for name, tool in shop.tools.items()}
    assert kinds["cancel_order"] == "write" and kinds["call_a_person"] == "end" and kinds["get_order"] == "read"
    assert "export_state" not in kinds and "import_state" not in kinds
    assert shop.tools["cancel_order"].schema()["function"] == {
        "name": "cancel_order",
        "description": "Cancel a pending order.",
        "parameters": {
            "type": "object",
            "properties": {
                "order_id": {"type": "string"},
                "reason": {"enum": ["mistake", "late"], "type": "string"},
                "note": {"default": "", "type": "string"},
            },
            "required": ["order_id", "reason"],
        },
    }
    assert sorted(shop.splits) == ["u0", "u1", "u2", "u3", "u4"]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("get_order", {"order_id": "W9"}, "no order W9"),
        (
            "cancel_order",
            {"order_id": "W1", "reason": "bored"},
            "argument 'reason' is wrong: 'bored' is not one of ['mistake', 'late']",
        ),
        ("cancel_order", {"order_id": "W1"}, "argument 'reason' is missing"),
        ("export_state", {}, "no tool 'export_state'"),
    ],
)
def test_bad_calls_are_answers(shop: World, name: str, arguments: Any, says: str) -> None:
    here = shop.fork()
    result = here.call(name, arguments)
    assert not result.ok and says in said(result) and not result.content.startswith(TOOL_FAILURE) and here.diff() == ""


def test_a_look_up_that_writes_is_named(shop: World) -> None:
    here = shop.fork()
    result = here.call("sly", {"order_id": "W3"})
    assert result.content.startswith(TOOL_FAILURE) and here.diff() == ""
    assert "tool 'sly' is not declared to write and changed the state (- orders.W3.status" in said(result)
    assert json.loads(here.call("get_order", {"order_id": "W3"}).content)["status"] == "pending", "the server was brought back"


def test_a_server_that_dies_in_a_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = build(tmp_path, **SHOP)
    assert here.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok
    result = here.call("die", {})
    assert result.content.startswith(TOOL_FAILURE)
    assert "tool 'die' of the MCP server of" in said(result) and "closed the connection; it died" in said(result)
    assert "Run its command by hand" in said(result) and str(tmp_path) not in said(result), "what is kept names no place"
    assert "the disk is full" in caplog.text
    again = json.loads(here.call("get_order", {"order_id": "W1"}).content)
    assert again["status"] == "cancelled", "another server goes on where the fork was"


def test_a_server_that_starts_no_more_ends_the_stage(tmp_path: Path) -> None:
    program = Path(shutil.copy(SERVERS / "shop.py", tmp_path))
    here = build(tmp_path, **{**SHOP, "command": ["python", str(program)]})
    assert here.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok
    program.unlink()
    for tool, arguments in (("die", {}), ("get_order", {"order_id": "W1"})):  # the call in which it is found, and any other
        with pytest.raises(StageFailed, match=r"world shop: the MCP server of .*shop\.py\) .* Run its command by hand .*run again"):
            here.call(tool, arguments)
    shutil.copy(SERVERS / "shop.py", tmp_path)
    again = json.loads(here.call("get_order", {"order_id": "W1"}).content)
    assert again["status"] == "cancelled", "as soon as it starts again, where the fork was"


def test_a_server_that_hangs(tmp_path: Path) -> None:
    here = build(tmp_path, **{**SHOP, "call_seconds": 0.5})
    before = time.monotonic()
    result = here.call("sleep", {"seconds": 30})
    assert time.monotonic() - before < 10 and result.content.startswith(TOOL_FAILURE)
    assert "tool 'sleep' of" in said(result) and "did not answer within 0.5 s; it hangs, or call_seconds is too short" in said(result)
    assert here.call("get_order", {"order_id": "W1"}).ok


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (
            "babble",
            "did not answer within 1 s; it hangs, or call_seconds is too short. It wrote to its standard output what is no JSON-RPC",
        ),
        ("wrong", "answered what is no MCP"),
    ],
)
def test_a_server_that_answers_garbage(mode: str, says: str, tmp_path: Path) -> None:
    here = raw(tmp_path, mode)
    result = here.call("look", {})
    assert result.content.startswith(TOOL_FAILURE) and "tool 'look' of" in said(result) and says in said(result)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (
            {"command": ["python", str(SERVERS / "raw.py"), "mute"], **RAW, "start_seconds": 1},
            "did not answer within 1 s when it was started (start_seconds)",
        ),
        ({"command": ["python", "-c", "import sys; sys.exit('no database')"], **RAW}, "its last words: no database"),
        ({"command": ["no-such-program"], **RAW}, "its last words: no-such-program: No such file or directory"),
        ({**SHOP, "dump": "exprt_state"}, "dump names 'exprt_state'. Did you mean 'export_state'?"),
        ({**SHOP, "dump": "bad_export"}, "(tool 'bad_export'): gave what is no JSON"),
        ({**SHOP, "dump": "get_order"}, "(tool 'get_order'): refused: "),
        ({**SHOP, "restore": "cancel_order"}, "tool 'cancel_order' has the arguments order_id, reason, note; name the one that takes"),
        ({**SHOP, "restore_argument": "stat"}, "restore_argument = 'stat': tool 'import_state' has the arguments state"),
        ({**SHOP, "writes": ["cancel_oder"]}, "writes names 'cancel_oder'. Did you mean 'cancel_order'?"),
        ({**SHOP, "tools": ["cancel_order", "look"]}, "tools names 'look'"),
        ({**SHOP, "start": "none.json"}, "start = 'none.json': "),
        ({**SHOP, "users": "people"}, "users = 'people': the state has no 'people' there; it has: "),
        ({**SHOP, "url": "http://127.0.0.1:1/mcp"}, "give command (a server of your own) or url (one that runs), and not both"),
        ({"dump": "a", "restore": "b", "url": "http://127.0.0.1:1/mcp"}, "start is missing"),
        ({"dump": "a", "restore": "b", "url": "ftp://x", "start": "s"}, "must begin with http:// or https://"),
        (
            {"dump": "a", "restore": "b", "url": "http://127.0.0.1:1/mcp", "start": "s", "servers": 2},
            "behind a url there is one server",
        ),
        ({**SHOP, "command": "python shop.py"}, "command = 'python shop.py': Input should be a valid list"),
        ({**SHOP, "wirtes": []}, "unknown key 'wirtes'. Did you mean 'writes'?"),
    ],
)
def test_mistakes_are_named_with_the_file(about: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        build(tmp_path, **about)
    assert says in str(caught.value) and str(tmp_path / "mcp.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Dies", "closed the connection; it died. Run its command by hand"),
        ("Hangs", "did not answer within 1 s; it hangs, or call_seconds is too short. Run its command by hand"),
        ("Babble", "It wrote to its standard output what is no JSON-RPC; a server must log to standard error. Run its command"),
    ],
)
def test_the_check_names_tool_line_and_remedy(name: str, says: str) -> None:
    """And waits for a server that hangs once in each process, not at every call."""
    report = check.check(getattr(failing, name), 3, 0, 1, f"{failing.__name__}:{name}")
    (found,) = report["calls"].findings
    assert found.where == location(str(SERVERS / f"{name.lower()}.yaml"), 2), "the line of its command"
    assert "tool look fails when it is called as look()" in found.what and says in found.what
    assert report["calls"].notes == ("no check below calls look",) and report["processes"].ok


def test_a_world_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mcp.yaml").write_text("- command")
    with pytest.raises(BadInput, match=r"mcp.yaml: must be keys and values"):
        server_file.read(tmp_path / "mcp.yaml")


def test_a_pool_keeps_forks_in_servers_of_their_own(tmp_path: Path) -> None:
    """As soon as setting one server back and forth has cost what another one costs, and no sooner."""
    here = build(tmp_path, **{**SHOP, "servers": 2})
    one, two = here.fork(), here.fork()
    one.call("cancel_order", {"order_id": "W1", "reason": "late"})
    two.call("cancel_order", {"order_id": "W2", "reason": "late"})
    for _ in range(300):
        first = [pid(one), pid(two)]
        if first[0] != first[1]:
            break
    assert first[0] != first[1] and [[pid(one), pid(two)] for _ in range(2)] == [first, first]


def test_state_in_a_file_and_commands(tmp_path: Path) -> None:
    def command(word: str) -> list[str]:
        return ["python", str(SERVERS / "filed.py"), word]

    about = {
        "command": command("serve"),
        "pass_env": ["PYTHONPATH"],
        "writes": ["add"],
        "dump": {"command": command("dump")},
        "restore": {"command": command("restore")},
        "servers": 2,
    }
    here = build(tmp_path, **about)
    one, two = here.fork(), here.fork()
    assert [fork.call("add", {"many": many}).content for fork, many in ((one, 1), (two, 5), (one, 1), (two, 5))] == [
        "1",
        "5",
        "2",
        "10",
    ]
    assert one.diff() == "- count: 0\n+ count: 2"
    noisy = build(tmp_path, **about, rounded={"count": 10}).fork()
    assert noisy.call("add", {"many": 3}).ok and noisy.diff() == ""
    assert noisy.call("add", {"many": 4}).ok and noisy.diff() == "- count: 0\n+ count: 10"
    with pytest.raises(BadInput, match=r"rounded\['count'\] = 0.0 must be a number above 0"):
        build(tmp_path, **{**about, "rounded": {"count": 0}})
    with pytest.raises(BadInput, match=r"filed.py rstore' ended with 1: no rstore"):
        build(tmp_path, **{**about, "restore": {"command": command("rstore")}})
    with pytest.raises(BadInput, match=r"command 'no-such-program': .*No such file"):
        build(tmp_path, **{**about, "dump": {"command": ["no-such-program"]}})


def test_the_frozen_start_is_the_start(tmp_path: Path) -> None:
    """Law 4: what a server begins with may drift; a loaded world begins with what was frozen."""
    start = {"users": {f"u{number}": {} for number in range(3)}, "orders": {"Z1": {"status": "pending", "total": 2.0}}, "looks": 0}
    (tmp_path / "start.json").write_text(json.dumps(start))
    here = build(tmp_path, **{**SHOP, "start": "start.json"})
    assert here.shared.base.tables["start"]["dump"]["state"]["orders"] == start["orders"]
    assert json.loads(here.call("get_order", {"order_id": "Z1"}).content) == start["orders"]["Z1"]
    assert here.replay([Action("cancel_order", {"order_id": "Z1", "reason": "late"}, "write")]).ok


def test_a_world_that_is_built_again_starts_anew(tmp_path: Path) -> None:
    """Though the one server behind both has been played on."""
    here = build(tmp_path, **SHOP)
    here.call("cancel_order", {"order_id": "W1", "reason": "late"})
    assert World.build(here.shared.cls, 1, 0).state_hash() == here.fork().state_hash() != here.state_hash()


def in_a_fork(here: World, answer: Any) -> None:
    answer.put((pid(here), here.call("get_order", {"order_id": "W1"}).ok))


def test_a_forked_process_has_servers_of_its_own(shop: World) -> None:
    mine = pid(shop)
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=in_a_fork, args=(shop.fork(), answer))
    child.start()
    theirs, worked = answer.get(timeout=30)
    child.join(30)
    assert worked and theirs != mine == pid(shop)
    assert gone(theirs), "the server of a process that ended is ended too"


def gone(process: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


KILLED = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background has it ignored
from tests.worlds.test_adapter_mcp import raw
print(raw(Path(sys.argv[1]), "stubborn").call("look", {}).content, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is up to the server to notice")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_its_process(how: signal.Signals, tmp_path: Path) -> None:
    """Even one that ends neither when its input closes nor when it is asked to, and whose process had no time to say anything."""
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    server = int(parent.stdout.readline())
    os.kill(server, 0)
    parent.send_signal(how)
    parent.wait(30)
    parent.stdout.close()
    assert gone(server)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A shop on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([sys.executable, str(SERVERS / "shop.py"), str(port)], stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.kill()
        server.wait()


def over_http(folder: Path, url: str, disposable: bool = True) -> World:
    about = {key: value for key, value in SHOP.items() if key not in ("command", "pass_env")}
    orders = {f"W{number}": {"user": f"u{number}", "status": "pending", "total": 10.5 + number} for number in range(5)}
    (folder / "start.json").write_text(json.dumps({"users": {f"u{number}": {} for number in range(5)}, "orders": orders, "looks": 0}))
    return build(folder, **about, url=url, start="start.json", disposable=disposable)


def test_over_http(url: str, tmp_path: Path) -> None:
    here = over_http(tmp_path, url)
    one, two = here.fork(), here.fork()
    assert one.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok
    assert two.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok, "another fork has not cancelled it"
    assert not one.call("cancel_order", {"order_id": "W1", "reason": "late"}).ok
    assert "no order W9" in said(one.call("get_order", {"order_id": "W9"}))
    assert one.state_hash() == two.state_hash() != here.state_hash()


def test_a_url_that_is_not_disposable_is_read_and_never_set_back(url: str, tmp_path: Path) -> None:
    over_http(tmp_path, url).call("cancel_order", {"order_id": "W4", "reason": "late"})  # so that it is not at the start
    here = over_http(tmp_path, url, disposable=False)
    assert json.loads(here.fork().call("get_order", {"order_id": "W4"}).content)["status"] == "cancelled"
    for tool, arguments in (("cancel_order", {"order_id": "W1", "reason": "late"}), ("call_a_person", {})):
        assert "was not called: it may change the server at http://127.0.0.1:" in said(here.fork().call(tool, arguments))
    assert json.loads(here.fork().call("get_order", {"order_id": "W1"}).content)["status"] == "pending"


def cancel_all(here: World, answer: Any) -> None:
    answer.put([here.call("cancel_order", {"order_id": f"W{number}", "reason": "late"}).ok for number in range(5)])


def test_processes_take_turns_behind_a_url(url: str, tmp_path: Path) -> None:
    here = over_http(tmp_path, url)
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    children = [context.Process(target=cancel_all, args=(here.fork(), answer)) for _ in range(3)]
    for child in children:
        child.start()
    assert [answer.get(timeout=60) for _ in children] == [[True] * 5] * 3
    for child in children:
        child.join(30)


def test_a_url_that_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"http://ada:secret@127.0.0.1:{probe.getsockname()[1]}/mcp?key=secret"
    with pytest.raises(
        BadInput, match=r"mcp.yaml:\d+: .*\(http://127.0.0.1:\d+/mcp\) cannot be used: .*Mend or restart the server"
    ) as caught:
        over_http(tmp_path, free)
    assert "secret" not in str(caught.value), "an agent and its users read it too"
