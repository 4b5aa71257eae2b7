"""Pictures in tools' answers: shown to models that take them, named in the text for everybody, and in no row.

Worked by hand: a server answers "A dot:" and a PNG of 70 bytes; the model reads the text with the picture's name, and a message with
the picture follows the answers. Limit: a role that does not say `images: true` is sent what it was sent before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mcp_types import CallToolResult

from tasks.contract.client import Message, Request
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Image, Problem
from tasks.contract.rows import trajectory_row
from tasks.contract.scripts import STOP
from tasks.engine.check_players import check_roles
from tasks.engine.shared_params import Role
from tasks.players.openai_compatible.wire import SHOWN, Dialect, body
from tasks.players.trivial.oracle import Oracle
from tasks.worlds.adapters.answers import LARGEST, answer_of
from tasks.worlds.api.play import play
from tests.worlds.servers.notes import DOT
from tests.worlds.test_adapter_mcp_state import build, serving

TEXT = "A dot:\n[image: image/png, 70 bytes, "


class Human:
    """Opens, and hangs up at the first reply."""

    name = revision = "human"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        return [{"role": "assistant", "content": STOP if len(request.messages) > 2 else "Hello."} for request in requests]


def test_from_the_server_to_the_model(tmp_path: Path) -> None:
    world = build(tmp_path, **serving("nowhere"), writes=[])
    actions = (Action("picture", {}), Action("echo", {"text": "hello"}))
    problem = Problem("p", "notes", "train", "information", ("u1",), "plain", "Show it.", {}, actions)
    (played,) = play(world, [(problem, 0)], Oracle([problem]), Human(), seed=0)
    answer = next(message for message in played.messages if message["role"] == "tool")
    assert answer["images"] == (Image("image/png", DOT),) and answer["content"].startswith(TEXT)
    row = json.dumps(trajectory_row(played), default=str)
    assert DOT not in row and json.dumps(TEXT)[1:-1] in row
    blind, seeing = (json.loads(body(Dialect("m", images=images), Request(played.messages))) for images in (False, True))
    assert DOT not in json.dumps(blind)
    assert next(one["content"] for one in blind["messages"] if one["role"] == "tool") == answer["content"]
    (shown,) = [one for one in seeing["messages"] if one not in blind["messages"]]
    place = seeing["messages"].index(shown)
    assert seeing["messages"][place - 1]["content"] == answer["content"] and shown["role"] == "user"
    url = {"url": f"data:image/png;base64,{DOT}"}
    assert shown["content"] == [{"type": "text", "text": SHOWN}, {"type": "image_url", "image_url": url}]


def test_pictures_follow_all_answers_of_a_turn() -> None:
    """Between two answers of one turn there may be no other message."""
    call = [{"id": f"call_{place}", "type": "function", "function": {"name": "look", "arguments": {}}} for place in (0, 1)]
    answers: list[Message] = [
        {"role": "tool", "tool_call_id": one["id"], "content": "x", "images": (Image("image/gif", "R0lG"),)} for one in call
    ]
    sent = json.loads(body(Dialect("m", images=True), Request([{"role": "assistant", "content": "", "tool_calls": call}, *answers])))
    assert [one["role"] for one in sent["messages"]] == ["assistant", "tool", "tool", "user"] and len(
        sent["messages"][3]["content"]
    ) == 3


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ({"type": "image", "data": DOT, "mimeType": "image/png"}, 1),
        ({"type": "image", "data": DOT, "mimeType": "image/tiff"}, 0),
        ({"type": "image", "data": "A" * (LARGEST // 3 * 4 + 8), "mimeType": "image/png"}, 0),
        ({"type": "resource", "resource": {"uri": "file:///dot", "mimeType": "image/png", "blob": DOT}}, 1),
        ({"type": "resource", "resource": {"uri": "file:///dot", "mimeType": "application/pdf", "blob": DOT}}, 0),
        ({"type": "audio", "data": DOT, "mimeType": "audio/wav"}, 0),
    ],
)
def test_what_is_a_picture(part: dict[str, Any], count: int) -> None:
    answer = answer_of(CallToolResult.model_validate({"content": [part]}))
    assert len(answer.images) == count and answer.readable().startswith("["), "its name stands in the text either way"


def test_a_role_that_cannot_be_shown_any() -> None:
    class Players:
        budget = None

        @staticmethod
        def players() -> list[Any]:
            return [("agent", "roles.agent", Role(backend="scripted", images=True))]

    with pytest.raises(BadInput, match=r"roles.agent.images: pictures in tools' answers are shown to an agent or a contender behind"):
        check_roles(Players(), Path(), "params")  # type: ignore[arg-type]
