"""A model behind a server as a role's client: answers, second rounds, faults, salvage. Each by its effect against the stub server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from infra.stub import Stub
from tasks.chat.answers import read_json
from tasks.contract.client import CallFailed, Request
from tasks.players.openai_compatible import Dialect, stats, wire
from tests.players.conftest import QUICK, SCORE, TOOL, Make, questions

FAULTS = {"429": 0.04, "429_after": 0.04, "503": 0.04, "500": 0.04, "reset": 0.04, "hang": 0.02, "garbage": 0.04}
SLIPS = {"malformed": 0.02, "truncated": 0.02}


def talks() -> list[Request]:
    """Structured answers, tool calls and free text, with equal ones among them."""
    calls = [replace(one, schema=None, tools=[TOOL]) for one in questions(40, start=1000)]
    return [*questions(60), *calls, *questions(40, schema=None, start=2000), *questions(5)]


def test_answers_come_in_order_and_are_asked_once(make: Make, stub: Stub) -> None:
    asked = talks()
    answers = make().complete(asked)
    assert [make(name="other").complete([one])[0] for one in asked[:100:20]] == answers[:100:20]
    assert all(read_json(one, SCORE)[1] == "" for one in answers[:60]) and answers[140:] == answers[:5]
    assert stub.counts()["paid"] == 140 + 5 and stub.counts()["most"] <= QUICK.max_in_flight


def test_tool_calls_are_messages_of_the_house(make: Make) -> None:
    """Arguments are a dict, ids are numbered on from the calls before: what the server drew as an id is nowhere."""
    first = make().complete([Request([{"role": "user", "content": "Where is it?"}], tools=[TOOL])])[0]
    call = first["tool_calls"][0]
    assert call["id"] == "call_0" and call["function"]["name"] == "get_order" and set(call["function"]["arguments"]) == {"order_id"}
    said = [
        {"role": "user", "content": "Where is it?"},
        first,
        {"role": "tool", "tool_call_id": "call_0", "name": "get_order", "content": "{}"},
    ]
    again = make().complete([Request([*said, {"role": "user", "content": "And the other?"}], tools=[TOOL])])[0]
    assert again["tool_calls"][0]["id"] == "call_1"


def test_thirty_percent_faults_change_no_answer(make: Make, stub: Stub) -> None:
    asked = talks()
    clean = make().complete(asked)
    stub.turn(faults=FAULTS | SLIPS, retry_after=0.02)
    assert sum((FAULTS | SLIPS).values()) == pytest.approx(0.30)
    assert make(name="faulty", run="faulty").complete(asked) == clean
    served = stub.counts()["served"]
    assert len([name for name in (*FAULTS, *SLIPS) if served.get(name)]) >= 7, served
    figures = stats("faulty")["judge"]
    assert figures["throttled"] == sum(served.get(name, 0) for name in ("429", "429_after", "503"))
    assert figures["failures"] == sum(served.get(name, 0) for name in ("500", "reset", "hang", "garbage"))
    assert figures["repaired"] == figures["repairs"] > 0 and figures["unreadable"] == 0


def test_what_failed_to_the_end_is_an_error_that_says_what_and_what_next(make: Make, stub: Stub) -> None:
    """No answer is made up; the answers of the others are kept, so that the next run asks for the rest alone."""
    stub.turn(faults={"500": 0.9})
    role = make(pace=replace(QUICK, retries=2, failures=1000))
    with pytest.raises(CallFailed) as failed:
        role.complete(questions(40))
    said = str(failed.value)
    assert (
        "role 'judge'" in said
        and "of 40 calls to model 'some-model'" in said
        and "status 500 (on demand)" in said
        and "run again" in said
    )
    before = stub.counts()["paid"]
    assert 0 < before < 40 and stats()["judge"]["set_aside"] > 0
    assert max(stub.counts()["served"].values()) <= 40 * 2 * 3  # two attempts, and twice that in the two salvage rounds
    stub.turn(faults={})
    assert len(role.complete(questions(40))) == 40
    assert stub.counts()["paid"] == 40 - before


def test_salvage_finds_what_two_attempts_did_not(make: Make, stub: Stub) -> None:
    """With half of the tries failing, 100 calls of two attempts leave some 25 aside; salvage gives them up to four more each."""
    stub.turn(faults={"500": 0.5})
    role = make(pace=replace(QUICK, retries=2, failures=1000))
    done = 0
    for start in range(0, 100, 5):
        try:
            done += len(role.complete(questions(5, start=start)))
        except CallFailed:
            continue
    assert done >= 75 and stats()["judge"]["set_aside"] > 10


def test_a_hang_is_cut_by_the_time_out(make: Make, stub: Stub) -> None:
    stub.turn(faults={"hang": 1.0})
    with pytest.raises(CallFailed, match=r"no answer within timeout_seconds = 0\.1"):
        make(pace=replace(QUICK, timeout=0.1, retries=1)).complete(questions(1))


def test_malformed_and_cut_answers_get_one_second_round(make: Make, stub: Stub) -> None:
    """By hand: every first answer is broken, every second one good; so each question is paid twice and nothing is lost."""
    for slip in ("malformed", "truncated"):
        stub.turn(faults={slip: 1.0})
        role = make(slip, name=slip, run=slip)
        assert all(read_json(one, SCORE)[1] == "" for one in role.complete(questions(10)))
        figures = stats(slip)[slip]
        assert (stub.counts()["paid"], figures["repairs"], figures["repaired"]) == (20, 10, 10)
        assert figures["truncations"] == (10 if slip == "truncated" else 0)


def test_a_cut_tool_call_gets_more_room(make: Make, stub: Stub) -> None:
    stub.turn(faults={"truncated": 1.0})
    answer = make().complete([Request([{"role": "user", "content": "Where?"}], tools=[TOOL])])[0]
    assert answer["tool_calls"][0]["function"]["name"] == "get_order" and stats()["judge"]["truncations"] == 1


def test_a_broken_tool_call_is_plain_content(make: Make, stub: Stub) -> None:
    stub.turn(faults={"malformed": 1.0})
    answer = make().complete([Request([{"role": "user", "content": "Where?"}], tools=[TOOL])])[0]
    assert "tool_calls" not in answer and "get_order" in answer["content"] and stats()["judge"]["repairs"] == 0


def test_refusals_are_counted_and_handed_on(make: Make, stub: Stub) -> None:
    for fault in ("refusal", "filter"):
        stub.turn(faults={fault: 1.0})
        answer = make(fault, name=fault).complete(questions(1))[0]
        figures = stats()[fault]
        assert answer["content"] == {"refusal": "I cannot help with that.", "filter": ""}[fault]
        assert (figures["refusals"], figures["repairs"], figures["unreadable"]) == (1, 0, 1)


def test_the_last_answer_is_handed_on_when_the_second_round_fails_too(make: Make, stub: Stub) -> None:
    """The server fills in the schema it is sent, so an answer to one schema never fits another: both rounds are of no use."""
    asked = Request([{"role": "user", "content": "Q"}], schema={"type": "object", "properties": {}, "required": ["missing"]})
    assert make().complete([asked])[0]["content"] == "{}"
    figures = stats()["judge"]
    assert (figures["repairs"], figures["repaired"], figures["unreadable"]) == (1, 0, 1)


def test_many_threads_share_one_rate_limiter(make: Make, stub: Stub) -> None:
    """Eight shards of eight questions at once: more than eight are in flight together, never more than 16."""
    stub.turn(latency=0.05)
    role = make()
    role.complete(questions(32, start=500))  # the limit has grown
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda start: role.complete(questions(8, start=start)), range(0, 64, 8)))
    assert 8 < stub.counts()["most"] <= 16


@pytest.mark.parametrize("structured", ["json_object", "prompt"])
def test_a_schema_can_be_put_in_words(structured: str) -> None:
    asked = Request([{"role": "system", "content": "Judge."}, {"role": "user", "content": "Hello"}], schema={"type": "object"})
    sent = json.loads(wire.body(Dialect("m", structured), asked))
    assert sent["messages"][0]["content"] == 'Judge.\n\nAnswer with one JSON value that fits this schema: {"type": "object"}'
    assert sent.get("response_format") == ({"type": "json_object"} if structured == "json_object" else None)


def test_what_is_sent() -> None:
    """By hand: arguments travel as text, ids as nine letters and digits; a dialect renames, leaves out and overrides."""
    call = {"id": "call_3", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    asked = Request(
        [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_3", "content": "ok"}],
        seed=2**40 + 5, temperature=0.5, max_tokens=9, labels={"role": "hidden"},
    )  # fmt: skip
    sent = json.loads(wire.body(Dialect("m"), asked))
    assert sent["messages"][0]["tool_calls"][0] == {
        "id": "call00003",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a": 1}'},
    }
    assert sent["messages"][1]["tool_call_id"] == "call00003"
    assert (sent["seed"], sent["temperature"], sent["max_tokens"]) == (5, 0.5, 9) and "hidden" not in json.dumps(sent)
    other = json.loads(wire.body(Dialect("m", send_seed=False, temperature=1.0, limit_field="max_completion_tokens"), asked))
    assert (other["temperature"], other["max_completion_tokens"]) == (1.0, 9) and not {"seed", "max_tokens"} & set(other)
    assert json.loads(wire.body(Dialect("m", thinking=1000), asked))["max_tokens"] == 1009


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<think>Two <b>cards</b>.</think>\n\nWhich card?", "Which card?"),
        ("\n<think>\n</think>Yes", "Yes"),
        ("Is it <think>ing</think>?", "Is it <think>ing</think>?"),
        ("<think>and no end", ""),
        ("The user greets me.\n</think>\n\nHi.", "Hi."),
        ("<think>Write </think> at the end.</think>Hi.", "Hi."),
        ("<think>One.</think>\n<think>Two.</think>Hi.", "Hi."),
        ("[THINK]One.[/THINK]Hi.", "Hi."),
        ("hm</reasoning>Hi.", "Hi."),
    ],
)
def test_thoughts_are_not_said(content: str, message: str) -> None:
    assert wire.read({"message": {"content": content}, "finish_reason": "stop"}, 0).message["content"] == message


@pytest.mark.parametrize(
    "arguments", ['{"a": 1', "[1]", '{"a": 1, "a": 2}', '{"a": NaN}', "nothing"],
)  # fmt: skip
def test_arguments_that_are_no_object_are_words(arguments: str) -> None:
    raw = [{"id": "x", "function": {"name": "f", "arguments": arguments}}]
    reply = wire.read({"message": {"content": "Hm.", "tool_calls": raw}, "finish_reason": "tool_calls"}, 0)
    assert reply.called and "tool_calls" not in reply.message and reply.message["content"] == f"Hm.\n{json.dumps(raw)}"


@pytest.mark.parametrize(
    "text", [b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}', b'{"error": {"message": "no"}}']
)
def test_what_is_no_completion_is_said(text: bytes) -> None:
    with pytest.raises(wire.Garbled, match=r"its answer (is not a chat completion|holds no)"):
        wire.take(text)
