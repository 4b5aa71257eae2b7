"""What an agent reads of a foreign tool's answer, and what counts as a failure of whom.

Worked by hand: text beside its own JSON is read once; text that leaves a value out is read with the JSON after it; a picture of
"aGVsbG8=" has 5 bytes. Limit: a number counts as said wherever it stands in the text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from mcp_types import CallToolResult

from tasks.contract.problem import ToolResult
from tasks.contract.values import whole_text
from tasks.worlds.adapters import from_mcp
from tasks.worlds.adapters.answers import answer_of, clear, refusal
from tasks.worlds.api.play import TOOL_FAILURE
from tasks.worlds.api.runtime import World

SERVER = Path(__file__).parent / "servers" / "answering.py"


def read(*content: dict[str, Any] | str, **more: Any) -> Any:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return answer_of(CallToolResult.model_validate({"content": parts, **more})).readable()


def resource(**about: Any) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": "file:///r", "mimeType": "text/plain", **about}}


ROWS = [{"id": "a", "total": 1.5}, {"id": "b", "total": 2}]


@pytest.mark.parametrize(
    ("content", "structured", "message"),
    [
        (["done"], None, "done"),
        (["one", "two"], None, "one\ntwo"),
        (['{"a": [1]}'], None, {"a": [1]}),
        (["12"], None, "12"),
        ([], {"a": 1}, {"a": 1}),
        ([], None, ""),
        (['{"a": 1}'], {"a": 1}, {"a": 1}),
        (["12"], {"result": 12}, "12"),
        (["a", "b"], {"result": ["a", "b"]}, "a\nb"),
        ([json.dumps(row) for row in ROWS], {"result": ROWS}, "\n".join(json.dumps(row) for row in ROWS)),
        (["Order a: 1.50, order b: 2"], {"rows": ROWS}, "Order a: 1.50, order b: 2"),
        (["2 orders found"], {"rows": ROWS}, f"2 orders found\n{json.dumps({'rows': ROWS})}"),
        (["done"], {"ok": False}, 'done\n{"ok": false}'),
        ([resource(text="the whole answer: 42")], None, "the whole answer: 42"),
        (["See:", resource(text="42")], None, "See:\n42"),
        ([resource(blob="aGVsbG8=", mimeType="application/pdf")], None, "[file: file:///r, application/pdf, 5 bytes, afb5c5641e6a]"),
        (
            ["Here:", {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"}],
            None,
            "Here:\n[image: image/png, 5 bytes, afb5c5641e6a]",
        ),
        ([{"type": "audio", "data": "", "mimeType": "audio/wav"}], {"a": 1}, '[audio: audio/wav, 0 bytes, ddd9c40767f9]\n{"a": 1}'),
        (
            [{"type": "resource_link", "uri": "file:///b", "name": "b", "mimeType": "text/csv", "size": 1200, "description": "rows"}],
            None,
            "[link: b, file:///b, text/csv, 1,200 bytes, rows]",
        ),
        (['{"a": NaN}'], None, '{"a": NaN}'),
        (['{"a": 1e999}'], None, '{"a": 1e999}'),
        ([], {"a": float("nan"), "b": [float("inf")]}, {"a": "NaN", "b": ["Infinity"]}),
        (["x\ud83d"], None, "x�"),
        (['{"\\ud83d": "\\ude00"}'], None, {"�": "�"}),
        (["[" * 900 + "]" * 900], None, "[" * 900 + "]" * 900),
    ],
)
def test_what_an_agent_reads(content: list[Any], structured: Any, message: Any) -> None:
    assert read(*content, **({} if structured is None else {"structuredContent": structured})) == message


def test_text_that_files_can_hold() -> None:
    assert whole_text("\ud83d\ude00 café \x00 \udc00") == "😀 café \x00 �"
    assert clear({"\ud83d": ["\ude00", 1, None, True, 2.5]}) == {"�": ["�", 1, None, True, 2.5]}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"error": "gone"}, "gone"),
        ({"error": {"code": 4}}, '{"error": {"code": 4}}'),
        ({"error": True, "message": "gone"}, '{"error": true, "message": "gone"}'),
        ({"error": None, "total": 1}, ""),
        ({"error": False}, ""),
        ({"total": 1}, ""),
        (" Error: gone\n", "Error: gone"),
        ("No Error: fine", ""),
        (["Error: gone"], ""),
    ],
)
def test_refusals_without_a_flag(answer: Any, reason: str) -> None:
    assert refusal(answer, "error", ("Error:", "Failed")) == reason
    assert refusal(answer, "", ()) == ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("answering")
    about = {
        "command": ["python", str(SERVER)],
        "dump": "dump",
        "restore": "restore",
        "users": "users",
        "error_key": "error",
        "errors_begin": ["Error:"],
        "call_seconds": 20,
        "check_reads": False,
    }
    (folder / "mcp.yaml").write_text(json.dumps(about))
    return World.build(from_mcp(folder / "mcp.yaml", name="answering", policy="R1. Be kind."), 1, 0)


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        ("half", "cut �"),
        ("nul", "a\x00b"),
        ("nan_text", '{"price": NaN}'),
        ("nan_value", '{"price": "NaN", "low": "-Infinity"}'),
        ("bytes", "caf�"),
        ("not_keyed", '{"error": null, "total": 3}'),
    ],
)
def test_odd_answers_are_read(world: World, tool: str, says: str) -> None:
    result = world.fork().call(tool, {})
    assert result == ToolResult(True, says)
    assert pyarrow.array([result.content]).to_pylist() == [says] and json.loads(json.dumps(result.content)) == says


@pytest.mark.parametrize("tool", ["flagged", "unflagged", "keyed", "flagged_empty", "flagged_value", "unmet_flagged", "parameters"])
def test_what_a_server_refuses(world: World, tool: str) -> None:
    result = world.fork().call(tool, {})
    says = {"flagged_empty": "does not say why", "flagged_value": "late", "parameters": "Order W9"}.get(tool, "no such order")
    assert not result.ok and not result.content.startswith(TOOL_FAILURE) and says in result.content


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        ("unmet", "its answer does not keep its output schema: it has no structured content. Mend the tool."),
        ("unmet_value", "its answer does not keep its output schema: 'three' is not of type 'number' at ['total']. Mend the tool."),
        ("internal", "it answered with the error -32603 of the protocol: Order W9 is nowhere"),
        ("own", "it answered with the error -32000 of the protocol: Order W9 is nowhere"),
    ],
)
def test_a_tool_that_fails_leaves_its_server_alone(world: World, tool: str, says: str) -> None:
    fork = world.fork()
    assert fork.call("nul", {}).ok
    before = [id(seat.connection) for seat in seats(world)]
    result = fork.call(tool, {})
    assert (
        result.content.startswith(TOOL_FAILURE) and f"tool '{tool}' of the MCP server of " in result.content and says in result.content
    )
    assert fork.call("nul", {}).ok and [id(seat.connection) for seat in seats(world)] == before


def seats(world: World) -> list[Any]:
    return list(world.foreign.source._seats._seats)
