"""Recorded conversations in the shapes of several programs come in as the conversations that they are, and what does not is listed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.exports.formats import to_sharegpt
from tasks.contract import schemas, tables
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed, validate
from tasks.contract.rows import message_of
from tasks.generate import Inputs, imported
from tasks.generate.parts.imported import files
from tasks.generate.parts.imported.masking import PATTERNS, Masks
from tasks.players.client_agent import ClientAgent
from tasks.players.roles import maker
from tasks.worlds.api.frozen import load
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tests.generate.conftest import through_json
from tests.playing import NO_PROMPT

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def talks(folder: Path) -> Rows:
    """Conversations of the retail world as an agent's log has them: messages without a system turn, and whom they are about."""
    world = load(folder / "retail")
    role = maker({name: {"backend": "scripted", "errors": {}} for name in ("agent", "human")}, folder, 0)
    problems = draw_problems(world, "train", 12, 0)
    agent = ClientAgent(role("agent", "retail"), NO_PROMPT)
    played = play(world, [(problem, 0) for problem in problems], agent, role("human", "retail"), seed=0)
    return [
        {"messages": [one for one in talk.messages if one["role"] != "system"], "customer": talk.problem.lineage[0]} for talk in played
    ]


class Came:
    """What an import left."""

    def __init__(self, out: Path, figures: dict[str, Any]) -> None:
        self.figures = json.loads(json.dumps(figures))
        self.rows = list(tables.read_rows(out / "trajectories.parquet", schemas.TRAJECTORY))
        self.blueprints = list(tables.read_rows(out / "blueprints.parquet", schemas.BLUEPRINT))
        self.feedback = list(tables.read_rows(out / "feedback.parquet", schemas.FEEDBACK))
        self.left_out = list(tables.read_rows(out / "left_out.parquet", schemas.LEFT_OUT))

    def said(self) -> list[list[tuple[str, str, str]]]:
        """Of each conversation who said and called what."""
        talks = [[message_of(one) for one in row["messages"] if one["role"] != "system"] for row in self.rows]
        return [list(map(_said, talk)) for talk in talks]


def _said(message: dict[str, Any]) -> tuple[str, str, str]:
    calls = [[one["function"]["name"], one["function"]["arguments"]] for one in message.get("tool_calls") or ()]
    return message["role"], message["content"], json.dumps(calls, sort_keys=True)


@pytest.fixture
def take(folder: Path, tmp_path: Path) -> Callable[..., Came]:
    """take(source, seed of the stage, **params) -> Came."""
    count = iter(range(100))

    def run(source: Path, seed: int = 0, **params: Any) -> Came:
        out = tmp_path / f"out{next(count)}"
        out.mkdir()
        ctx = Context(seed=seed, out=out, scratch=tmp_path, shards=through_json, prompt=NO_PROMPT)
        return Came(out, imported.run(Inputs(folder, None, source), imported.Params(**params), ctx))

    return run


def lines(path: Path, values: Sequence[Any]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values), encoding="utf-8")
    return path


def text_arguments(messages: Sequence[dict[str, Any]]) -> Rows:
    """Messages as OpenAI's API gives them: arguments are text."""
    made = []
    for one in messages:
        if one.get("tool_calls"):
            calls = [
                {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
                for call in one["tool_calls"]
            ]
            one = {**one, "content": None, "tool_calls": calls}
        made.append(one)
    return made


def openai_request(talk: dict[str, Any]) -> dict[str, Any]:
    """A stored completion: all but the last turn is its request."""
    *asked, last = text_arguments(talk["messages"])
    return {
        "request": {"model": "m", "messages": asked},
        "response": {"choices": [{"index": 0, "message": last}]},
        "customer": talk["customer"],
    }


def legacy(talk: dict[str, Any]) -> dict[str, Any]:
    """Function calls as they were before tool calls."""
    made = []
    for one in talk["messages"]:
        if one.get("tool_calls"):
            function = one["tool_calls"][0]["function"]
            made.append(
                {"role": "assistant", "content": None, "function_call": {**function, "arguments": json.dumps(function["arguments"])}}
            )
        elif one["role"] == "tool":
            made.append({"role": "function", "name": one["name"], "content": one["content"]})
        else:
            made.append({"role": one["role"], "content": [{"type": "text", "text": one["content"]}]})
    return {"messages": made, "customer": talk["customer"]}


def sharegpt(talk: dict[str, Any]) -> dict[str, Any]:
    """A file that knows no ids."""
    row = to_sharegpt(talk["messages"], [])
    turns = [{key: turn[key] for key in ("from", "value")} for turn in row["conversations"]]
    return {"conversations": turns, "tools": "[]", "customer": talk["customer"]}


def trace(talk: dict[str, Any]) -> dict[str, Any]:
    """What MLflow's autologging leaves of an agent: a span of each call to the model, with all that it read."""
    spans = []
    for place, one in enumerate(talk["messages"]):
        if one["role"] == "assistant":
            asked = json.dumps({"model": "m", "messages": text_arguments(talk["messages"][:place])})
            said = json.dumps({"choices": [{"message": text_arguments([one])[0]}]})
            spans.append({"name": "Completions", "attributes": {"mlflow.spanInputs": asked, "mlflow.spanOutputs": said}})
    liked = {"assessment_name": "thumb", "source": {"source_type": "HUMAN"}, "feedback": {"value": True}, "rationale": "quick"}
    metadata = {"mlflow.trace.user": talk["customer"]}
    return {"info": {"trace_id": "tr-1", "trace_metadata": metadata, "assessments": [liked]}, "data": {"spans": spans}}


def _to_last_reply(messages: Rows) -> Rows:
    """What the spans of calls to a model hold: nothing after the last of them."""
    return messages[: max(place for place, one in enumerate(messages) if one["role"] == "assistant") + 1]


SHAPES = {"openai": openai_request, "legacy": legacy, "sharegpt": sharegpt, "mlflow": trace}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_conversation_is_the_same_from_every_program(shape: str, talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """Its words, calls and answers; and the world answers as the log says."""
    source = lines(tmp_path / "log.jsonl", [SHAPES[shape](talk) for talk in talks])
    came = take(source, customer="user" if shape == "mlflow" else "customer", mask=())
    seen = [_to_last_reply(talk["messages"]) if shape == "mlflow" else talk["messages"] for talk in talks]
    assert came.said() == [list(map(_said, messages)) for messages in seen]
    assert came.figures["conversations"] == {"read": 12, "kept": 12, "graded": 0, "replayed": 12, "ungraded": 0, "unfinished": 0}
    assert [row["lineage"] for row in came.rows] == [[talk["customer"]] for talk in talks]
    assert {row["split"] for row in came.rows} == {"train"}


def test_parquet_json_and_lines_are_read_alike(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """A table, one JSON list, JSON lines and a folder of the `datasets` library, whose own JSON files are no logs."""
    values = [openai_request(talk) for talk in talks]
    (tmp_path / "a").mkdir()
    pq.write_table(
        pa.Table.from_pylist([{"messages": json.dumps(text_arguments(talk["messages"]))} for talk in talks]),
        tmp_path / "a" / "t.parquet",
    )
    (tmp_path / "b.json").write_text(json.dumps(values), encoding="utf-8")
    import datasets

    rows = datasets.Dataset.from_list([{"messages": text_arguments(talk["messages"])} for talk in talks])
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "d")
    came = take(tmp_path / "d")
    assert came.figures["conversations"]["read"] == len(talks)
    assert take(tmp_path / "a").said() == take(tmp_path / "b.json").said() == came.said()
    assert came.said() == take(lines(tmp_path / "c.jsonl", values)).said()


def test_steps_of_different_seeds_agree_on_who_is_held_out(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """Customers that the world does not know are sorted by who they are alone: none is trained on in one step and a test in another."""
    source = lines(tmp_path / "log.jsonl", [{**talks[number % 12], "customer": f"c{number}"} for number in range(60)])
    splits = [{row["traj_id"]: row["split"] for row in take(source, seed, mask=()).rows} for seed in (0, 1)]
    assert splits[0] == splits[1] and set(splits[0].values()) == {"train", "validation", "test"}


def test_what_was_liked_becomes_a_problem_with_what_was_done_as_its_solution(
    talks: Rows, take: Callable[..., Came], tmp_path: Path
) -> None:
    """And what nobody praised does not; thumbs come along."""
    values = [{**talk, "feedback": {"thumb": word, "comment": "said so"}} for talk, word in zip(talks, ["up", "down"] * 6, strict=True)]
    came = take(lines(tmp_path / "log.jsonl", values), mask=())
    assert [row["reward"] for row in came.rows] == [1, 0] * 6
    assert {row["state"] for row in came.rows} == {None}
    accepted = [row for row in came.blueprints if row["status"] == "accepted"]
    assert {row["problem_id"] for row in accepted} <= {row["problem_id"] for row in came.rows[::2]}
    assert accepted and all(row["n_writes"] for row in accepted)
    assert [(row["kind"], row["value"], row["text"]) for row in came.feedback[:2]] == [
        ("thumb", 1.0, "said so"),
        ("thumb", 0.0, "said so"),
    ]


def test_a_preferred_end_comes_along(take: Callable[..., Came], tmp_path: Path) -> None:
    """Fine-tuning files with pairs of ends."""
    line = {
        "input": {"messages": [{"role": "user", "content": "Hello"}]},
        "preferred_output": [{"role": "assistant", "content": "Good day."}],
        "non_preferred_output": [{"role": "assistant", "content": "What?"}],
    }
    came = take(lines(tmp_path / "log.jsonl", [line]))
    (row,) = came.feedback
    assert (json.loads(row["chosen"])[0]["content"], json.loads(row["rejected"])[0]["content"]) == ("Good day.", "What?")
    assert came.said()[0][-1][1] == "Good day."


def test_simulations_of_a_benchmark_are_graded_by_the_world(
    talks: Rows, take: Callable[..., Came], folder: Path, tmp_path: Path
) -> None:
    """The task says what should have been done: a run that did it is won, one that did nothing is lost."""
    world = load(folder / "retail")
    problem = next(one for one in draw_problems(world, "train", 12, 0) if one.n_writes)
    whole = talks[[one.problem_id for one in draw_problems(world, "train", 12, 0)].index(problem.problem_id)]
    gold = [{"name": one.name, "arguments": one.arguments} for one in problem.actions]
    task = {"id": "7", "user_scenario": {"instructions": {"reason": "help"}}, "evaluation_criteria": {"actions": gold}}
    idle = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Goodbye."}]
    runs = [
        {"id": str(trial), "task_id": "7", "trial": trial, "messages": said}
        for trial, said in enumerate((whole["messages"], idle, [1]))
    ]
    (tmp_path / "results.json").write_text(json.dumps({"info": {}, "tasks": [task], "simulations": runs}), encoding="utf-8")
    came = take(tmp_path / "results.json", max_left_out=0.5)
    assert [row["reward"] for row in came.rows] == [1, 0]
    assert came.figures["conversations"]["graded"] == 2
    assert "message 0 is int" in came.left_out[0]["reason"]


def test_a_log_of_another_state_is_kept_without_a_verdict(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """The world answers otherwise than the log: nothing is claimed about it."""
    talk = next(one for one in talks if any(message["role"] == "tool" for message in one["messages"]))
    said = [{**one, "content": '{"other": 1}'} if one["role"] == "tool" else one for one in talk["messages"]]
    came = take(lines(tmp_path / "log.jsonl", [{"messages": said, "feedback": "up"}]))
    assert came.figures["conversations"]["ungraded"] == 1
    assert [(row["state"], row["policy"], row["reward"]) for row in came.rows] == [(None, None, 1)]
    assert came.blueprints[0]["status"] == "failed_exec"


def test_an_answer_to_another_call_is_none(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """Its call stays without one, wherever it stands; a log whose answers name no call has them in their order."""
    talk = next(one for one in talks if any(message["role"] == "tool" for message in one["messages"]))["messages"]
    at = next(place for place, one in enumerate(talk) if one["role"] == "tool")
    strange = [*talk[:at], {**talk[at], "tool_call_id": "another"}, *talk[at + 1 :]]
    nameless = [{key: item for key, item in one.items() if key != "tool_call_id"} for one in talk]
    came = take(lines(tmp_path / "log.jsonl", [{"messages": nameless}, {"messages": strange}]))
    assert came.rows[0]["stop"] != "no_answer" == came.rows[1]["stop"]
    assert came.figures["conversations"]["unfinished"] == 1 == came.figures["conversations"]["replayed"]
    assert came.figures["problems"]["no verdict"] == 1


def test_a_log_that_breaks_off_is_unfinished(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """In a call without an answer, or in one that cannot be read; one that hands over is at its end, and xLAM's logs hold no answers."""
    at = next(place for place, one in enumerate(talks[0]["messages"]) if one.get("tool_calls"))
    begun = talks[0]["messages"][: at + 1]
    answered = talks[0]["messages"][: at + 2]

    def calling(name: str, arguments: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": None, "tool_calls": [{"id": "z", "function": {"name": name, "arguments": arguments}}]}

    broken = calling("get_order", '{"order_id": "#W')
    values: list[dict[str, Any]] = [
        {"messages": begun},
        {"messages": [*answered, broken]},
        {"messages": [*answered, broken, {"role": "tool", "tool_call_id": "z", "content": "Error: not JSON"}]},
        {
            "messages": [
                *answered,
                broken,
                {"role": "tool", "tool_call_id": "z", "content": "Error: not JSON"},
                talks[0]["messages"][-1],
            ]
        },
        {"messages": [*answered, calling("transfer_to_human", {"reason": "damaged"})]},
        {"query": "Where is it?", "answers": [{"name": "get_order", "arguments": {"order_id": "#W1"}}], "domain": "retail"},
    ]
    came = take(lines(tmp_path / "log.jsonl", [{**one, "feedback": "up"} for one in values]), world="retail", mask=())
    assert [row["stop"] for row in came.rows][:3] == ["no_answer", "parse_error", "parse_error"]
    assert [row["stop"] for row in came.rows[3:]] == ["user_stop", "hand_over", "user_stop"]
    assert came.figures["unfinished"] == {"a call that nobody answered": 1, "a call that cannot be read": 2}
    assert came.figures["conversations"]["unfinished"] == 3
    assert [(row["state"], row["reward"]) for row in came.rows[:3]] == [(None, 1)] * 3
    problems = {row["problem_id"]: row for row in came.blueprints}
    broken_off = problems[came.rows[0]["problem_id"]]
    assert broken_off["status"] == "failed_gate" and "the log holds a call that nobody answered" in broken_off["fail_reason"]


BAD = [
    "{",
    "[1]",
    {"other": 1},
    {"messages": []},
    {"messages": [{"role": "user", "content": "x"}]},
    {"messages": [{"role": "wizard", "content": "x"}]},
    {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]},
    {"messages": [{"role": "user", "content": "x" * 300}, {"role": "assistant", "content": "y"}]},
    {
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "fly", "arguments": "{}"}}]},
        ]
    },
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [5]}]},
]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_of_another_encoding_is_refused_once(encoding: str, take: Callable[..., Came], tmp_path: Path) -> None:
    """It has no lines that could be told apart."""
    source = tmp_path / "log.jsonl"
    source.write_bytes('{"messages": []}\n{"messages": []}\n'.encode(encoding))
    with pytest.raises(BadInput, match=r"log.jsonl: is UTF-16.*Save it as UTF-8: iconv -f UTF-16(LE|BE)? -t UTF-8"):
        take(source)


def test_lines_that_cannot_be_taken_are_listed_with_reasons(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """Every one, with its line; the others come in."""
    source = lines(tmp_path / "log.jsonl", [*BAD, *talks])
    came = take(
        source,
        max_left_out=0.5,
        longest_message=20_000 if max(len(one["content"]) for talk in talks for one in talk["messages"]) > 290 else 290,
    )
    assert len(came.rows) == 12
    assert [row["place"] for row in came.left_out[:3]] == ["log.jsonl:1", "log.jsonl:2", "log.jsonl:3"]
    reasons = [row["reason"] for row in came.left_out]
    assert any("unknown tools: fly" in reason for reason in reasons)
    assert any("role 'wizard'" in reason for reason in reasons)
    assert came.figures["conversations"]["read"] == 12 + len(came.left_out)


def test_a_log_of_which_too_much_is_broken_stops_and_says_why(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """With counts by reason and an example."""
    with pytest.raises(imported.TooManyLeftOut, match=r"max_left_out = 0.2: .*unreadable.*log.jsonl:1: unreadable: not JSON") as caught:
        take(lines(tmp_path / "log.jsonl", ["{"] * 12 + talks))
    assert caught.value.figures["conversations"]["kept"] == 12 and caught.value.figures["left_out"] == {"unreadable": 12}


def test_tools_of_other_names_are_renamed(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """Unknown ones are told with the nearest name; `rename` maps them."""
    text = json.dumps(talks).replace('"name": "find_user"', '"name": "find_usr"')
    source = lines(tmp_path / "log.jsonl", json.loads(text))
    with pytest.raises(StageFailed, match=r"unknown tools: find_usr. Did you mean 'find_user'"):
        take(source)
    assert take(source, rename={"find_usr": "find_user"}).figures["conversations"]["replayed"] == 12


def test_personal_data_is_masked_the_same_everywhere(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """In words, arguments and answers of one conversation the same value is the same mask; what is masked is no problem for others."""
    came = take(lines(tmp_path / "log.jsonl", [{**talk, "feedback": "up"} for talk in talks]), mask_fields=("name", "zip"))
    text = json.dumps(came.rows)
    known = {
        value
        for talk in talks
        for one in talk["messages"]
        for call in one.get("tool_calls") or ()
        if call["function"]["name"] == "find_user"
        for value in call["function"]["arguments"].values()
    }
    assert known and not [value for value in known if value in text]
    assert "<name 1>" in text and came.figures["masked"]["name"] >= 12
    assert not [row for row in came.blueprints if row["status"] == "accepted"]


def test_a_conversation_that_nothing_can_be_made_of_ends_no_import(talks: Rows, take: Callable[..., Came], tmp_path: Path) -> None:
    """Half a character in any place, numbers that are none or too large, nesting without end: each is taken or named, none stops it."""
    half, greeting = "\ud800", [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Bye"}]

    def called(arguments: Any, name: str = "get_order", number: str = "c") -> dict[str, Any]:
        call = {"id": number, "function": {"name": name, "arguments": arguments}}
        return {"messages": [greeting[0], {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "x"}]}

    deep = "[" * 900 + "]" * 900
    values = [
        *(called(one) for one in ({"order_id": half}, {half: "1"}, json.dumps({"order_id": half}), {"order_id": float("nan")})),
        *(called({}, name=f"get{half}"), called({}, number=half), {half: 1}, {"messages": [{"role": half}]}),
        *({"messages": greeting, **one} for one in ({"customer": half}, {"model": half}, {"feedback": {"thumb": "up", "text": half}})),
        json.dumps({"messages": greeting}).replace("{", f'{{"reward": 1{"0" * 400}, ', 1),
        json.dumps({"messages": [{"role": "user", "content": "DEEP"}, greeting[1]]}).replace('"DEEP"', deep),
        *talks,
    ]
    came = take(lines(tmp_path / "log.jsonl", values), world="retail", max_left_out=0.9)
    counts = came.figures["conversations"]
    assert counts["read"] == len(values) and counts["kept"] + len(came.left_out) == len(values)
    assert len(came.left_out) == 6  # the number that is none, names of a tool, a key and a role, the number too large, the nesting
    assert half not in json.dumps([came.rows, came.left_out], ensure_ascii=False, default=str)


def test_a_table_says_nothing_where_it_holds_null(take: Callable[..., Came], tmp_path: Path) -> None:
    """Structs of a table have every key that any row has; text may be bytes; a number that is missing may be NaN."""
    function = pa.struct([("name", pa.string()), ("arguments", pa.struct([("order_id", pa.string()), ("zip", pa.int64())]))])
    empty = pa.struct([("name", pa.string()), ("arguments", pa.string())])
    message = pa.struct([("role", pa.binary()), ("content", pa.binary()), ("tool_calls", pa.list_(pa.struct([("function", function)]))),
                         ("function_call", empty)])  # fmt: skip
    call = {"function": {"name": "get_order", "arguments": {"order_id": "W1", "zip": None}}}
    talk = [
        {"role": b"user", "content": b"Hi", "function_call": {"name": None, "arguments": None}},
        {"role": b"assistant", "content": None, "tool_calls": [call], "function_call": {"name": None, "arguments": None}},
        {"role": b"tool", "content": b"none", "tool_calls": []},
    ]
    table = pa.Table.from_pylist([{"messages": talk, "reward": float("nan")}], pa.schema([("messages", pa.list_(message)),
                                                                                          ("reward", pa.float64())]))  # fmt: skip
    pq.write_table(table, tmp_path / "log.parquet")
    came = take(tmp_path / "log.parquet", world="retail")
    assert came.said()[0] == [
        ("user", "Hi", "[]"),
        ("assistant", "", '[["get_order", {"order_id": "W1"}]]'),
        ("tool", "none", "[]"),
    ]
    assert not came.feedback


def test_no_place_of_a_row_keeps_what_is_masked(take: Callable[..., Came], tmp_path: Path) -> None:
    """Texts in JSON whatever its escapes, an end that was not preferred, keys, and the reasons why something was left out."""
    user, bye = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Bye"}

    def called(answer: str, tool: str = "get_order", arguments: Any = ()) -> Rows:
        call = {"id": "c", "function": {"name": tool, "arguments": dict(arguments)}}
        return [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": answer}]

    address = {"name": "Jürgen Groß", "to": "A. Roe\n555-123-4567\n10.1.2.3\nada@example.org"}
    values = [
        {"messages": [user, *called(json.dumps(address)), bye]},
        {"messages": [user, *called(json.dumps(json.dumps(address)), arguments={"ada@example.org": 1}), bye]},
        {"messages": [user, *called(str({"to": address["to"]})), bye]},
        {"messages": [user, *called("none", "ada@example.org"), bye]},
        {
            "input": {"messages": [user]},
            "preferred_output": [bye],
            "non_preferred_output": [*called("Jürgen Groß", "x", address)],
        },
    ]
    came = take(lines(tmp_path / "log.jsonl", values), world="retail", mask_fields=("name",))
    assert came.figures["conversations"]["kept"] == 4 and len(came.feedback) == 1
    left = json.dumps([came.rows, came.blueprints, came.feedback, came.left_out, came.figures], ensure_ascii=False, default=str)
    for word in ("example.org", "4567", "10.1.2.3", "rgen", "Gro"):
        assert word not in left, left[left.index(word) - 100 : left.index(word) + 100]
    answers = [one["content"] for row in came.rows for one in row["messages"] if one["role"] == "tool"]
    assert json.loads(answers[0]) == {"name": "<name 1>", "to": "A. Roe\n<phone 1>\n<ip 1>\n<email 1>"}


def test_a_folder_with_packed_logs_is_refused_by_name(tmp_path: Path) -> None:
    """Nobody should think that they were read."""
    lines(tmp_path / "a.jsonl", [{}])
    (tmp_path / "b.jsonl.gz").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"b.jsonl.gz: is packed"):
        files.listed(tmp_path)
    (tmp_path / "b.jsonl.gz").rename(tmp_path / "b.JSONL")
    with pytest.raises(BadInput, match=r"b.JSONL: write the suffix as .jsonl"):
        files.listed(tmp_path)


def test_masks() -> None:
    """What has the form of personal data, and what only looks like it."""
    mask = Masks(("email", "card", "phone", "iban", "ip"), ("city",)).of({"city": "東京", "id": "W1"})
    said = "Write to ada@example.org or ada@example.org, 4111 1111 1111 1111, not 4111 1111 1111 1112; call +49 (0)30 1234567. 東京に #W2378156 1234567890"
    shown = mask.text(said)
    assert shown.count("<email 1>") == 2 and "<card 1>" in shown and "1112" in shown and "東京" not in shown
    assert "#W2378156" in shown and "1234567890" in shown
    assert mask.value({"a": ["ada@example.org", 5, None]}) == {"a": ["<email 1>", 5, None]}


def test_a_short_value_is_masked_where_its_field_stands() -> None:
    """Initials and an age, in arguments and in answers; as words of a line they stay, and what nothing is masked in keeps its bytes."""
    answer = '{"initials": "Jo", "age":7, "note": "Jo is 7", "inner": "{\\"initials\\": \\"Jo\\"}", "email": "ada@example.org"}'
    mask = Masks(("email",), ("initials", "age")).of({"content": answer}, {"initials": "Jo"})
    shown = json.loads(mask.text(answer))
    assert (shown["initials"], shown["age"], shown["note"], shown["email"]) == ("<initials 1>", "<age 1>", "Jo is 7", "<email 1>")
    assert json.loads(shown["inner"]) == {"initials": "<initials 1>"}
    assert mask.value({"initials": ["Jo", "JO"], "age": 7, "x": 7}) == {"initials": ["<initials 1>"] * 2, "age": "<age 1>", "x": 7}
    assert mask.text('{"other":  1}') == '{"other":  1}' and mask.text("Jo said 7.") == "Jo said 7."


@pytest.mark.parametrize("text", ["1", "1 ", "a.", "a", "@a-", " AB12", "+1", "a@a."])
def test_a_long_text_without_a_break_is_masked_at_once(text: str) -> None:
    """Ten times the text takes some ten times the time, not a hundred times."""
    mask = Masks(PATTERNS).of({})

    def seconds(count: int) -> float:
        begun = time.thread_time()
        mask.text(text * count + "@")
        return time.thread_time() - begun

    assert seconds(60_000) < 40 * max(seconds(6_000), 0.002)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_pieces_hold_every_line_once(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their size, and with the last line unended."""
    monkeypatch.setattr(files, "PIECE", size)
    rng = Random(size)
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps({"n": number, "x": "ü" * rng.randrange(40)}) for number in range(50)), encoding="utf-8")
    found = [line for piece in files.pieces(path) for line in files.lines(path, piece)]
    assert [line.value["n"] for line in found] == list(range(50))
    assert [line.where for line in found] == [f"log.jsonl:{number}" for number in range(1, 51)]


def test_bad_params_and_places_are_named(tmp_path: Path) -> None:
    """With what is allowed."""
    with pytest.raises(BadInput, match=r"mask: no kind of personal data is called 'emial'. Did you mean 'email'"):
        imported.check(validate(imported.Params, {"mask": ["emial"]}, "here"))
    with pytest.raises(BadInput, match=r"no file of logs"):
        list(files.pieces(tmp_path))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(BadInput, match=r"this is .txt"):
        list(files.pieces(tmp_path / "a.txt"))
