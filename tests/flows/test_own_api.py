"""`cairn init --from`: a project around an API that exists, without a line written; what is no API is refused in words, nothing written."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from flows.init import ROOT
from flows.own_api import written
from flows.own_api.api import Wish
from flows.own_api.command import look
from flows.own_api.guesses import guess
from flows.small_run import SmallRun
from flows.worlds.new import LIBRARY
from tasks.contract.params import BadInput
from tasks.engine.settings import load
from tests.flows.test_init import small  # noqa: F401

BANK = '''
"""Accounts."""
import json
from pathlib import Path
from bank_rules import LEAST

class Bank:
    """Accounts of some people, with what they hold."""

    def __init__(self) -> None:
        self.accounts = json.loads(Path(__file__).with_name("accounts.json").read_text())

    def get_account(self, account_id: str) -> dict:
        """What an account holds."""
        return dict(self.accounts[account_id])

    def withdraw(self, account_id: str, cents: int) -> str:
        """Take money out."""
        if self.accounts[account_id]["cents"] - cents < LEAST:
            raise ValueError("not enough")
        self.accounts[account_id]["cents"] -= cents
        return "here you are"

    def hand_over(self, reason: str) -> str:
        """Call a clerk."""
        return "a clerk comes"

def make() -> Bank:
    return Bank()

def make_for(owner: str) -> Bank:
    return Bank()

ready = Bank()
'''


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Path]:
    """A folder with an API in two modules and a file of data; its modules are forgotten afterwards."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "own_bank.py").write_text(BANK)
    (folder / "bank_rules.py").write_text("LEAST = 0\n")
    (folder / "accounts.json").write_text('{"A1": {"owner": "u1", "cents": 100}, "A2": {"owner": "u2", "cents": 50}}')
    (folder / "unrelated.py").write_text("raise SystemExit\n")
    path = list(sys.path)
    yield folder
    sys.path[:] = path
    for name in ("own_bank", "bank_rules"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["Bank", "make", "ready"])
def test_a_project_around_a_python_object(name: str, bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "rules.md"
    policy.write_text("R1. Ask before money is taken out.\n")
    folder = tmp_path / "corner_bank"
    asked = ["init", str(folder), "--from", f"{bank}/own_bank.py:{name}", "--policy", str(policy), "--model", "m", "--key-env", "KEY"]
    assert main(asked) == 0
    home = folder / LIBRARY.replace(".", "/") / "corner_bank"
    assert sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()) == [
        *("__init__.py", "api/accounts.json", "api/bank_rules.py", "api/own_bank.py", "policy.md", "world.py")
    ]
    said = capsys.readouterr().out
    assert "only look something up: get_account\n" in said and "change something: withdraw\n" in said
    assert (
        "hand over to a person and end the conversation: hand_over\n" in said
        and f"{LIBRARY.replace('.', '/')}/corner_bank/world.py" in said
    )
    own = yaml.safe_load((folder / "project.yaml").read_text())
    assert own["roles"] == {"backend": "openai_compatible", "base_url": "http://127.0.0.1:8000/v1", "model": "m", "key_env": "KEY"}
    for profile in ("", "own_api", "smoke", "real_cpu"):
        roles = load(folder, profile).shared.roles
        assert {role.backend for part, role in roles.items() if part != "contender"} == {"openai_compatible"}
        assert roles["contender"].backend == "none"
    assert load(folder).shared.profile == "own_api"
    assert "What to edit next" in (folder / "PROJECT.md").read_text()
    assert (home / "policy.md").read_text() == policy.read_text()
    answer = elsewhere(home, "CornerBank", "withdraw", {"account_id": "A1", "cents": 40})
    assert answer == "{'get_account': 'read', 'withdraw': 'write', 'hand_over': 'end'} True\n"


OWN = """
from their_desk import Desk

class OwnDesk(Desk):
    def snapshot(self):
        return self.database.execute("select * from tickets order by id").fetchall()

    def restore(self, state):
        self.database.execute("delete from tickets")
        self.database.executemany("insert into tickets values (?, ?)", state)
"""
RULES = "R1. Close a ticket only when its owner asks for it.\nR2. Ask for a yes before a ticket is closed.\n"
DESK = '''
import sqlite3

class Desk:
    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.execute("create table tickets (id text, status text)")
        self.database.executemany("insert into tickets values (?, 'open')", [(f"T{n}",) for n in range(9)])

    def get_ticket(self, ticket_id: str) -> str:
        """Status of a ticket."""
        return self.database.execute("select status from tickets where id = ?", (ticket_id,)).fetchone()[0]

    def close_ticket(self, ticket_id: str) -> str:
        """Close a ticket."""
        self.database.execute("update tickets set status = 'closed' where id = ?", (ticket_id,))
        return "closed"
'''


@pytest.mark.usefixtures("small")
def test_a_policy_and_a_reset_of_ones_own_are_fifteen_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an API whose state cannot be copied; without them it is refused, with what to write."""
    (tmp_path / "their_desk.py").write_text(DESK)
    (tmp_path / "own_desk.py").write_text(OWN)
    (tmp_path / "rules.md").write_text(RULES)
    path, folder = list(sys.path), tmp_path / "desk"
    try:
        with pytest.raises(BadInput, match=r"its state cannot be copied .*or give it methods snapshot\(\) and restore\(state\)"):
            look(f"{tmp_path}/their_desk.py:Desk", Wish())
        assert main(["init", str(folder), "--from", f"{tmp_path}/own_desk.py:OwnDesk", "--policy", f"{tmp_path}/rules.md"]) == 0
    finally:
        sys.path[:] = path
        for name in ("their_desk", "own_desk"):
            sys.modules.pop(name, None)
    lines = [line for text in (OWN, RULES) for line in text.splitlines() if line.strip()]
    assert len(lines) <= 15, "what a user writes"
    home = folder / LIBRARY.replace(".", "/") / "desk"
    assert elsewhere(home, "Desk", "close_ticket", {"ticket_id": "T1"}) == "{'get_ticket': 'read', 'close_ticket': 'write'} True\n"


def test_an_estimate_of_a_world_without_scripts(tmp_path: Path) -> None:
    """A stand-in is asked in their place; every stage that asks people has its calls, the reserve among them."""
    served = {"backend": "openai_compatible", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    settings = load(ROOT, "own_api")
    tree = copy.deepcopy(settings.tree)
    tree["worlds"]["freeze"] = {"modules": ["tests.players.test_stand_in:BankWorld"], "allow": ["tests"]}
    for name in tree["roles"]:
        if name != "contender":
            tree["roles"][name] = served
    folder = tmp_path / "project"
    (folder / "params").mkdir(parents=True)
    (folder / "params/pipeline.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "small").mkdir()
    found = SmallRun(load(folder), tmp_path / "small").of(["generate", "reserve", "critique", "rl", "evaluate"])
    calls = {(stage, role) for stage, (counts, _) in found.items() for role, what in counts if what == "calls" and counts[role, what]}
    assert {("generate", "generator"), ("reserve", "judge"), ("critique", "critic"), ("rl", "human"), ("evaluate", "human")} <= calls
    assert found["reserve"][1] == 100 / 5 and found["generate"][1] == 300 / 20


def elsewhere(home: Path, cls: str, tool: str = "", arguments: dict[str, object] | None = None) -> str:
    """What a process of its own prints of the world that was written: its tools, and whether a call succeeds, where one is made."""
    called = [(tool, arguments)] if tool else []
    code = (
        f"import sys; sys.path.insert(0, {str(home.parent)!r})\n"
        f"from {home.name}.world import {cls}\nfrom tasks.worlds.api.runtime import World\n"
        f"world = World.build({cls}, 60, 0)\n"
        f"print({{name: tool.kind for name, tool in world.tools.items()}}, *(world.call(*one).ok for one in {called!r}))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    check_form(home)
    return answer.stdout


def check_form(home: Path) -> None:
    """What was written is as the project's own `make check` wants it."""
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--check",
        "--diff",
        "--config",
        str(ROOT / "pyproject.toml"),
        str(home / "world.py"),
    ]
    answer = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.usefixtures("small")
def test_a_project_around_an_mcp_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line in a file is enough; its program comes along, and what the server says of its tools is believed."""
    (tmp_path / "mcp.yaml").write_text("command: [python, notes.py, memory]   # ours\n")
    shutil.copy(ROOT / "tests/worlds/servers/notes.py", tmp_path / "notes.py")
    folder = tmp_path / "notebook"
    assert main(["init", str(folder), "--from", str(tmp_path / "mcp.yaml")]) == 0
    home = folder / LIBRARY.replace(".", "/") / "notebook"
    text = (home / "api/mcp.yaml").read_text()
    assert "# ours" in text and yaml.safe_load(text)["writes"] == ["add", "drop", "count"] and "# guessed; correct it" in text
    said = capsys.readouterr().out
    assert "change something: add, drop, count\n" in said and "notebook/api/mcp.yaml" in said and "policy.md says so" in said
    assert "stands in for a policy" in (home / "policy.md").read_text()
    assert "'add': 'write'" in elsewhere(home, "Notebook", "add", {"id": "1", "text": "x"})


SHOP = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "1"},
    "paths": {
        "/orders/{order_id}": {
            "get": {
                "operationId": "get_order",
                "parameters": [{"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}],
            },
            "post": {
                "operationId": "cancel_order",
                "parameters": [{"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}],
            },
        }
    },
}


@pytest.mark.usefixtures("small")
def test_a_project_around_an_http_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What writes is offered once the service may be changed; nothing is sent to it."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(SHOP))
    with pytest.raises(BadInput, match=r"names no absolute url of the service\. Say where it is: --url"):
        look(str(path), Wish())
    for options, tools in (((), "{'get_order': 'read'}"), (("--disposable",), "{'get_order': 'read', 'cancel_order': 'write'}")):
        folder = tmp_path / f"orders{len(options)}"
        assert main(["init", str(folder), "--from", str(path), "--url", "http://127.0.0.1:9", *options]) == 0
        said = capsys.readouterr().out
        assert ("Nobody said that the service may be changed" in said) == (not options)
        home = folder / LIBRARY.replace(".", "/") / folder.name
        assert elsewhere(home, folder.name.title()) == f"{tools}\n"


HINTED = """
import sys

sys.path.insert(0, ROOT)
from tests.worlds.servers import answering

answering.ANSWERS = {name: answering.text("x") for name in ("get_all", "list_and_clear", "rename")}
answering.ERRORS, answering.ANNOTATIONS = {}, {"list_and_clear": {"destructiveHint": True}}
answering.serve()
"""


def test_what_is_guessed_of_an_mcp_server_counts_when_it_is_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A tool that is said to destroy writes; none is logged as a look-up that the project's file lists among the writes."""
    (tmp_path / "server.py").write_text(HINTED.replace("ROOT", repr(str(ROOT))))
    (tmp_path / "mcp.yaml").write_text("command: [python, server.py]\n")
    made = look(str(tmp_path / "mcp.yaml"), Wish())
    kinds = {one.name: one.kind for one in made.guesses}
    assert kinds == {"get_all": "read", **dict.fromkeys(("list_and_clear", "rename", "dump", "restore"), "write")}
    assert next(one.why for one in made.guesses if one.name == "list_and_clear") == "the server says that it changes something"
    written.check(made, "hinted", "R1. Ask first.")
    assert "taken for look-ups" not in caplog.text
    assert yaml.safe_load(str(made.texts["mcp.yaml"]))["writes"] == ["list_and_clear", "rename", "dump", "restore"]


def test_tools_of_an_object_that_holds_nothing_are_named(bank: Path) -> None:
    (bank / "empty_bank.py").write_text("class Bank:\n    def get_row(self): pass\n    def send_mail(self): pass\n")
    try:
        made = look(f"{bank}/empty_bank.py:Bank", Wish())
    finally:
        sys.modules.pop("empty_bank", None)
    assert {one.kind for one in made.guesses} == {"read"}
    (note,) = made.notes
    assert "The object holds nothing, so these tools count as look-ups, whatever their names say: send_mail." in note


def described(**operations: dict[str, object]) -> dict[str, object]:
    """A description with one path for each operation, "get /a" -> about it."""
    paths: dict[str, dict[str, object]] = {}
    for call, about in operations.items():
        verb, _, path = call.partition(" ")
        paths.setdefault(path, {})[verb] = about
    return {"openapi": "3.1.0", "info": {"title": "Many", "version": "1"}, "servers": [{"url": "http://127.0.0.1:9"}], "paths": paths}


NOWHERE = {"$ref": "#/components/schemas/Nowhere"}
BROKEN = {"parameters": [{"name": "a", "in": "query", "schema": NOWHERE}]}
SOME = {
    "get /a": {"operationId": "getThing"},
    "get /b": {"operationId": "getThing"},
    "get /c": {"operationId": "getBroken", **BROKEN},
    "get /d": {"operationId": "getFile", "tags": ["files"]},
    "post /d": {"operationId": "sendFile"},
    "post /e": {"operationId": "hand_over"},
    "delete /d": {"operationId": "dropFile"},
}


@pytest.mark.usefixtures("small")
def test_operations_that_cannot_be_tools_are_left_out_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(described(**SOME)))
    folder = tmp_path / "files"
    assert main(["init", str(folder), "--from", str(path), "--disposable"]) == 0
    said = capsys.readouterr().out
    assert "left out: GET /b: GET /a is called 'getThing' as well\n" in said
    assert "left out: GET /c: " in said and "there is no 'components'" in said
    assert "left out: DELETE /d: it is dangerous (DELETE); name it in operations and allow" in said
    home = folder / LIBRARY.replace(".", "/") / "files"
    assert 'operations=("GET /a", "getFile", "sendFile", "hand_over"),\n' in (home / "world.py").read_text()
    tools = "{'getThing': 'read', 'getFile': 'read', 'sendFile': 'write', 'hand_over': 'end'}"
    assert elsewhere(home, "Files") == f"{tools}\n"
    reading = look(str(path), Wish())
    assert [one.name for one in reading.guesses] == ["getThing", "getFile"] and not any("DELETE" in note for note in reading.notes)


def test_operations_are_chosen_by_an_option(tmp_path: Path) -> None:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(described(**SOME)))

    def kinds(*operations: str, disposable: bool = True) -> dict[str, str]:
        return {one.name: one.kind for one in look(str(path), Wish("", disposable, operations)).guesses}

    assert kinds("GET /b", "sendFile") == {"getThing": "read", "sendFile": "write"}
    assert kinds("tag:files", "send*") == {"getFile": "read", "sendFile": "write"}
    assert kinds("*File", disposable=False) == {"getFile": "read"}
    for words, disposable, says in (
        (("getFil",), True, "--operations: 'getFil' stands for no operation. Did you mean 'getFile'"),
        (("getThing",), True, "--operations names GET /b, which cannot be a tool: GET /a is called 'getThing' as well"),
        (("getBroken",), True, "--operations names GET /c, which cannot be a tool: it refers to"),
        (("sendFile",), False, r"names POST /d, which cannot be a tool: it writes, .*\(--disposable\)"),
        (("send*",), False, "there is no operation that only reads.*add --disposable"),
    ):
        with pytest.raises(BadInput, match=says):
            kinds(*words, disposable=disposable)


def test_more_operations_than_a_world_can_have_name_the_option(tmp_path: Path) -> None:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(described(**{f"get /o{n}": {"operationId": f"getO{n}"} for n in range(130)})))
    with pytest.raises(
        BadInput, match=r"130 operations would be tools, and 128 are the most\. Choose some with --operations a,b,c: by"
    ):
        look(str(path), Wish())
    made = look(str(path), Wish(operations=tuple(f"getO{n}" for n in range(128))))
    assert len(made.guesses) == 128 and list(made.built("many", "...").FOREIGN.tools()) == [one.name for one in made.guesses]


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        ("{bank}/own_bank.py:make_for", "make_for needs owner. Write a function without arguments"),
        ("{bank}/own_bank.py:Bnk", "has no 'Bnk'. Did you mean 'Bank'"),
        ("{bank}/unrelatd.py:Bank", "there is no file .*unrelatd.py"),
        ("{bank}/own_bank.py", "a Python object as module:name or path"),
        ("nowhere_at_all:Bank", "there is no module 'nowhere_at_all'"),
        ("{bank}/json.py:Bank", "a module 'json' is installed already"),
        ("{bank}/own_bank.py:json", "json is a module"),
        ("{bank}/broken_bank.py:Bank", "broken_bank.py:2: ModuleNotFoundError: No module named 'not_there'.*pip install"),
        ("{bank}/script_bank.py:Bank", "script_bank.py:1: SystemExit: 0"),
        ("{bank}/ending_bank.py:Bank", "cannot be made: SystemExit: 0"),
        ("{bank}/random_bank.py:Bank", "makes a different state each time"),
        ("{bank}/locked_bank.py:Bank", "its state cannot be copied"),
        ("{bank}/nothing.yaml", "there is no such file"),
        ("{bank}/other.json", "is no OpenAPI description"),
        ("{bank}/clients.yaml", "mcpServers.*command: "),
        ("{bank}/gone.yaml", "gone.yaml.*no_such_program"),
        (
            "{bank}/many/mcp.yaml",
            "mcp.yaml: 300 tools would be offered, and 128 are the most.*Name those to offer in tools, of t0, t1,",
        ),
        ("{bank}/piecewise_bank.py:Bank", "yields its answer piece by piece"),
        ("{bank}/global_bank.py:Bank", "the object holds nothing, and its methods use global_bank.ROWS, which all conv.*snapshot"),
        ("{bank}/class_bank.py:Bank", "the object holds nothing, and its methods use Bank.rows, which all conversations would share"),
    ],
)
def test_what_is_no_api_is_refused_in_words(origin: str, says: str, bank: Path) -> None:
    (bank / "json.py").write_text("class Bank: pass\n")
    (bank / "broken_bank.py").write_text("\nimport not_there\n")
    (bank / "script_bank.py").write_text("raise SystemExit(0)\n")
    (bank / "ending_bank.py").write_text("class Bank:\n    def __init__(self): raise SystemExit(0)\n    def go(self): pass\n")
    (bank / "random_bank.py").write_text(
        "import random\n\nclass Bank:\n    def __init__(self): self.n = random.random()\n    def go(self): pass\n"
    )
    (bank / "locked_bank.py").write_text(
        "import threading\n\nclass Bank:\n    def __init__(self): self.n = threading.Lock()\n    def go(self): pass\n"
    )
    (bank / "piecewise_bank.py").write_text("class Bank:\n    def __init__(self): self.n = [1]\n    def go(self): yield from self.n\n")
    body = "\nclass Bank:\n    {}\n    def get_row(self, key): return {}[key]\n    def set_row(self, key, to):\n        {}[key] = to\n"
    (bank / "global_bank.py").write_text("ROWS = {1: 2}\n" + body.format("pass", "ROWS", "ROWS"))
    (bank / "class_bank.py").write_text(body.format("rows = {1: 2}", "self.rows", "self.rows"))
    (bank / "many").mkdir()
    (bank / "many" / "server.py").write_text(
        f"import sys\n\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.worlds.servers import answering\n\n"
        "answering.ANSWERS = {f't{n}': answering.text('x') for n in range(300)}\nanswering.ERRORS = {}\nanswering.serve()\n"
    )
    (bank / "many" / "mcp.yaml").write_text(
        "command: [python, server.py]\nwrites: []\ndump: dump\nrestore: restore\nrestore_argument: state\n"
    )
    (bank / "other.json").write_text("{}")
    (bank / "clients.yaml").write_text("mcpServers: {notes: {command: npx}}\n")
    (bank / "gone.yaml").write_text("command: [no_such_program]\nstart_seconds: 5\n")
    try:
        with pytest.raises(BadInput, match=f"(?s){says}"):
            look(origin.format(bank=bank), Wish())
    finally:
        for name in ("broken", "script", "ending", "random", "locked", "piecewise", "global", "class"):
            sys.modules.pop(f"{name}_bank", None)


def test_options_of_another_kind_are_refused(bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, says in (
        (("--policy", "x"), "go with --from API"),
        (
            ("--from", f"{bank}/own_bank.py:Bank", "--url", "http://x"),
            "--url, --disposable and --operations go with an OpenAPI description",
        ),
        (("--from", f"{bank}/own_bank.py:Bank", "--policy", "nowhere.md"), "--policy nowhere.md: cannot be read"),
        (("--from", f"{bank}/own_bank.py:Bank", "--server", "localhost:1"), "must begin with http"),
    ):
        assert main(["init", str(tmp_path / "new"), *options]) == 2
        assert says in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_guesses() -> None:
    kinds = {
        "read": ("get_order", "listOrders", "find-user", "check_stock", "is_open", "searchFlights"),
        "write": ("cancel_order", "updateUser", "gettysburg", "exchange", "send_email", "sly"),
        "end": ("transfer_to_human_agents", "escalate", "call_a_person", "handOver"),
    }
    assert {kind: tuple(name for name in names if guess(name).kind == kind) for kind, names in kinds.items()} == kinds
    assert guess("get_then_delete", read_only=False).kind == "write" and guess("cancel", read_only=True).kind == "read"
