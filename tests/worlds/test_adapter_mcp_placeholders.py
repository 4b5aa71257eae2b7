"""The seat of an MCP server and secrets: filled in for the server, and nowhere else; errors that servers do not flag; huge answers.

Worked by hand: a server that says where its files are says `/cairn-seat/notes`, from every seat, and finds a file that it is asked for
under that name. Limit: a secret has no way back, so nobody gets it by writing its placeholder.
"""

from __future__ import annotations

import html
import json
import logging
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.adapters.openapi_http import Credentials
from tasks.worlds.adapters.placeholders import NotSet, Placeholders
from tasks.worlds.api.calls import ANSWER, CUT
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.play import TOOL_FAILURE
from tasks.worlds.api.runtime import World
from tests.worlds.servers import failing
from tests.worlds.test_adapter_mcp import url
from tests.worlds.test_adapter_mcp_state import build, serving

__all__ = ["url"]  # a fixture
SECRET = "sk-0123456789"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Notes in a file, with a secret in the environment."""
    monkeypatch.setenv("NOTES_KEY", SECRET)
    (tmp_path / "notes.json").write_text("{}")
    about = serving("json", "{seat}/notes.json")
    env = {"KEY": "${NOTES_KEY}", "LOG": "{seat}/log", "PLAIN": "as it is"}
    return build(
        tmp_path, **about, fixture="notes.json", files=["notes.json"], env=env, errors_match=["^Failed: ", '"status": "failed"']
    )


def test_by_hand(tmp_path: Path) -> None:
    placeholders = Placeholders(tmp_path, {"KEY": SECRET, "SHORT": "ab"})
    filled = placeholders.fill("{seat}/x?key=${KEY}&more=${SHORT}", "url")
    assert filled == f"{tmp_path}/x?key={SECRET}&more=ab"
    assert placeholders.hide([filled, {filled: 1}]) == ["/cairn-seat/x?key=${KEY}&more=ab", {"/cairn-seat/x?key=${KEY}&more=ab": 1}]
    assert placeholders.reveal({"path": "/cairn-seat/x", "word": "a/cairn-seats ${KEY}"}) == {
        "path": f"{tmp_path}/x",
        "word": "a/cairn-seats ${KEY}",
    }
    with pytest.raises(NotSet, match=r"env: A names \$\{OTHER\}, which is not set in the environment"):
        placeholders.fill("${OTHER}", "env: A")


def test_the_seat_never_leaks(here: World, caplog: pytest.LogCaptureFixture) -> None:
    """Not in descriptions, answers, keys, errors, state or what is logged; and it is found again."""
    fork = here.fork()
    assert here.tools["where"].description == "where in /cairn-seat"
    assert fork.call("where", {}).content == 'in /cairn-seat/notes\n{"/cairn-seat": "real: /cairn-seat"}'
    assert fork.call("add", {"id": "place", "text": "/cairn-seat/notes.json"}).ok
    assert here.fork().call("size", {"path": "/cairn-seat/notes.json"}).content == "2", "the seat of whichever server holds this state"
    assert "no file /cairn-seat/none" in fork.call("size", {"path": "/cairn-seat/none"}).content
    assert fork.state.value == {"place": "/cairn-seat/notes.json"}
    assert "cairn-seats-" not in fork.call("crash", {}).content + caplog.text and "no key ${NOTES_KEY} in /cairn-seat" in caplog.text


def test_secrets_are_the_servers_alone(here: World, tmp_path: Path) -> None:
    assert here.call("variable", {"name": "KEY"}).content == "${NOTES_KEY}" and here.call("variable", {"name": "PLAIN"}).ok
    assert here.call("variable", {"name": "LOG"}).content == "/cairn-seat/log"
    assert here.call("echo", {"text": "${NOTES_KEY}"}).content == "${NOTES_KEY}"
    here.shared.base.total()
    frozen = World.build(failing.Notes, 1, 0, f"{failing.__name__}:Notes")
    freeze_world(frozen, tmp_path / "frozen")
    assert SECRET not in "".join(path.read_text() for path in (tmp_path / "frozen").iterdir())


def test_a_secret_is_hidden_however_it_is_spelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service repeats the url that it was asked, or an error that it wrote as JSON: there a token looks otherwise."""
    secret = 'ab/c+d"e=&f'
    places = Placeholders(tmp_path, {"KEY": secret})
    assert places.fill("${KEY}", "env") == secret
    monkeypatch.setenv("KEY", secret)
    credentials = Credentials({"query key": "KEY"}, "world shop")
    for one in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret).lower(), json.dumps(secret), html.escape(secret)):
        assert places.hide(f"GET /a?key={one} failed").replace('"', "") == "GET /a?key=${KEY} failed"
        assert credentials.without(f"GET /a?key={one} failed".encode()).replace(b'"', b"") == b"GET /a?key=<secret> failed"
    assert places.hide(json.dumps({"a": secret}).replace("/", r"\/")) == '{"a": "${KEY}"}'


def test_a_variable_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTES_KEY", raising=False)
    with pytest.raises(BadInput, match=r"mcp.yaml:1: .*env: KEY names \$\{NOTES_KEY\}, which is not set in the environment"):
        build(tmp_path, **serving("nowhere"), env={"KEY": "${NOTES_KEY}"})


@pytest.mark.parametrize(
    ("tool", "text", "refused"), [("fails", "Failed: late", True), ("fails", "It Failed: no", False), ("value", "", True)]
)
def test_error_patterns(here: World, tool: str, text: str, refused: bool) -> None:
    result = here.call(tool, {"text": text} if text else {})
    assert result.ok is not refused and not result.content.startswith(TOOL_FAILURE)


def test_a_pattern_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mcp.yaml: errors_match = '\(' is no regular expression: missing \)"):
        build(tmp_path, **serving("nowhere"), errors_match=["("])


def test_ten_megabytes_are_cut_with_words(here: World) -> None:
    content = here.call("long", {}).content
    assert len(content) < ANSWER + 200 and content.endswith(f"[{CUT}: 9,970,000 of 10,000,000 characters are left out; ask for less]")


def test_logs_between_answers_do_no_harm(here: World) -> None:
    assert here.call("log", {}).content == "done" and here.call("echo", {"text": "hello"}).content == "hello"


def test_tools_that_change_under_the_run(here: World, caplog: pytest.LogCaptureFixture) -> None:
    """A server that says that its tools have changed is looked at again, and every server that is started."""
    caplog.set_level(logging.WARNING)
    assert here.call("grow", {}).ok
    told, *later = [result for _ in range(4) if not (result := here.call("echo", {"text": "hello"})).ok]  # it is heard beside a call
    assert told.content.startswith(TOOL_FAILURE) and "has changed its tools since this run began: more. Run again" in told.content
    assert not later, "another server has the tools that it had"


def test_a_slow_tool_is_given_up_with_its_server(tmp_path: Path) -> None:
    here = build(tmp_path, command=serving("nowhere")["command"], call_seconds=1)
    before = here.call("process", {}).content
    result = here.call("slow", {"seconds": 60})
    assert "tool 'slow' of" in result.content and "did not answer within 1 s; it hangs, or call_seconds is too short" in result.content
    assert here.call("process", {}).content != before
    for _ in range(100):
        if not Path(f"/proc/{before}").exists():
            break
        __import__("time").sleep(0.1)
    assert not Path(f"/proc/{before}").exists(), "it does not go on behind our back"


def test_headers_and_variables_of_a_url(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs, of which nothing is read: its calls are made side by side, and what they change stays."""
    monkeypatch.setenv("SHOP_URL", url)
    monkeypatch.setenv("SHOP_TOKEN", "token-of-the-shop")
    here = build(
        tmp_path, url="${SHOP_URL}", headers={"Authorization": "Bearer ${SHOP_TOKEN}"}, writes=["cancel_order"], call_seconds=20
    )
    assert not here.compared and not here.copies
    assert json.loads(here.fork().call("get_order", {"order_id": "W1"}).content)["total"] == 11.5
    refused = here.call("cancel_order", {"order_id": "W1", "reason": "late"}).content
    assert "was not called: it may change the server at ${SHOP_URL}" in refused and url not in refused
    with pytest.raises(BadInput, match=r"headers: Authorization names \$\{NO_TOKEN\}"):
        build(tmp_path, url="${SHOP_URL}", headers={"Authorization": "${NO_TOKEN}"})
