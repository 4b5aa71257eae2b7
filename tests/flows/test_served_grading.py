"""Conversations that were served are graded as `evaluate` grades its own, when their requests named the problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.served_grading import grade_served, lines
from tasks.contract import schemas, tables
from tasks.contract.params import BadInput
from tasks.contract.rows import message_of
from tasks.generate.parts.imported.kept_answers import conversations, read
from tasks.serving.endpoint.kept import Kept
from tests.flows.artifacts import build


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    build(folder / "data", users=4, trials=1, steps=5)
    return folder


@pytest.fixture(scope="module")
def rows(made: Path) -> list[dict[str, Any]]:
    """Conversations of the shop with their verdicts, won and lost ones."""
    return [one for one in tables.read_rows(made / "data/generate/trajectories.parquet", schemas.TRAJECTORY) if one["world"] == "shop"]


def serve(kept: Kept, row: dict[str, Any], number: int, problem: str | None = None) -> None:
    """Keep a conversation as `cairn serve` does: a line for each of the agent's turns, as a client repeats those before."""
    messages = [message_of(one) for one in row["messages"]]
    for one in messages:
        for call in one.get("tool_calls") or ():
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    for place, one in enumerate(messages):
        if one["role"] == "assistant":
            finish = "tool_calls" if one.get("tool_calls") else "stop"
            about = {"created": 1, "model": "champion", "world": "", "finish": finish, "checkpoint": "", "adapter": ""}
            name = row["problem_id"] if problem is None else problem
            kept.write({**about, "id": f"chatcmpl-{number}{place:02x}", "problem": name, "messages": messages[: place + 1]})


def test_the_verdicts_are_those_of_the_road(made: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Each conversation twice, so that two that say the same are two; the rows are read back as conversations of the road."""
    kept = Kept(tmp_path / "served")
    for number, row in enumerate([*rows, *rows]):
        serve(kept, row, number)
    found = grade_served(tmp_path / "served", made, out=tmp_path / "rows.parquet")
    parts = ("problem_id", "state", "outputs", "required", "policy", "broken", "reward", "blame", "final_state_hash")
    wanted = [[row[part] for part in parts] for row in (*rows, *rows)]
    assert [[row[part] for part in parts] for row in found.rows] == wanted
    assert {row["reward"] for row in rows} == {0, 1} and found.otherwise == 0 and not found.left
    again = [*tables.read_rows(tmp_path / "rows.parquet", schemas.TRAJECTORY)]
    assert len({row["traj_id"] for row in again}) == len(again) == 2 * len(rows)
    assert f"won: {2 * sum(row['reward'] for row in rows)} of {2 * len(rows)} conversations about 4 problems" in lines(found)


def test_a_shadows_last_turn_is_graded_on_the_conversation_that_it_answered_in(
    made: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Whatever it said before the last turn is counted; the first agent's own conversation is graded as without it."""
    kept, row = Kept(tmp_path / "served"), next(one for one in rows if one["reward"])
    serve(kept, row, 0)
    for one in [*read(tmp_path / "served")]:
        said = {"role": "assistant", "content": "I do not know."}
        kept.write(
            {
                **one,
                "id": f"s{one['id']}",
                "model": "other",
                "finish": "stop",
                "messages": [*one["messages"][:-1], said],
                "shadow_of": one["id"],
            }
        )
        kept.write({**one, "id": f"t{one['id']}", "model": "same", "shadow_of": one["id"]})
    found = grade_served(tmp_path / "served", made)
    turns = sum(message["role"] == "assistant" for message in row["messages"])
    assert [one["agent"] for one in found.rows] == ["served-champion", "served-other", "served-same"] and found.shadows == 2
    assert [one["reward"] for one in found.rows][::2] == [1, 1] and turns > 1
    assert found.left == {"by a shadow in the middle of a conversation: the turns after it were not its own": 2 * (turns - 1)}
    told = "\n".join(lines(found))
    assert "served-champion: won: 1 of 1 conversations about 1 problems" in told and "of a shadow: 2 conversations" in told


def test_what_cannot_be_graded_is_counted_with_its_reason(made: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    kept = Kept(tmp_path / "served")
    serve(kept, rows[0], 0)
    serve(
        kept, {**rows[1], "messages": [{**rows[1]["messages"][0], "content": "About something else."}, *rows[1]["messages"][1:]]}, 1, ""
    )
    other = [{**rows[0]["messages"][0], "content": "Hm?"}, *rows[0]["messages"][1:]]
    serve(kept, {**rows[0], "messages": other}, 2, "nobody's")
    cut = [{**rows[0]["messages"][0], "content": "Hello?"}, *rows[0]["messages"][1:2]]
    serve(kept, {**rows[0], "messages": cut}, 3)
    changed = json.loads(json.dumps(rows[0]))
    next(one for one in changed["messages"] if one["role"] == "tool")["content"] = "my own tool's answer"
    serve(kept, changed, 4)
    with (tmp_path / "served/2000-01-01.jsonl").open("a") as file:
        file.write('{"id": "chatcmpl-cut", "messages": [')  # as a kill leaves it
    found = grade_served(tmp_path / "served", made)
    assert (len(found.rows), found.otherwise) == (2, 1)
    assert sorted(found.left) == [
        "that are not over: nobody answered their last calls",
        "whose problem is not known (see --problems)",
        "whose requests name no problem (metadata: {problem: ID})",
    ]
    assert len(conversations([*read(tmp_path / "served")])) == 5


def test_the_command_and_what_it_refuses(
    made: Path, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(Kept(tmp_path / "served"), rows[0], 0)
    worlds, problems = str(made / "data/worlds"), str(made / "data/generate/blueprints.parquet")
    assert main(["regrade", str(tmp_path / "served"), "--world", worlds, "--problems", problems]) == 0
    assert f"{rows[0]['problem_id']}-served-champion-0" in capsys.readouterr().out
    with pytest.raises(BadInput, match="nothing can be graded: 1 whose problem is not known"):
        grade_served(tmp_path / "served", tmp_path, Path(worlds))
    with pytest.raises(BadInput, match="holds no answers that `cairn serve` kept"):
        grade_served(tmp_path / "nowhere", made)
