"""One odd answer loses its conversation or item and nothing else: refusals, errors inside answers, halves of characters, hostile bodies."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.calls import forget_answer, lines
from infra.stub import Stub
from tasks.chat.answers import calls_in_text, looks_like_calls, read_json
from tasks.contract.client import CallFailed, NearlyAllLost, Request
from tasks.contract.context import Losses
from tasks.contract.losses import GONE, KEPT_UNUSABLE, REMEDIES, remedy
from tasks.contract.params import BadInput
from tasks.players.openai_compatible import Dialect, EndpointClient, Setting, stats, wire
from tasks.players.openai_compatible.cache import Cache, Paid, answer_id, first_key_of, key_of
from tasks.players.openai_compatible.refusals import inside, of_status
from tests.players.conftest import QUICK, SCORE, TOOL, Make, questions


def asking(count: int, **more: Any) -> list[Request]:
    return [replace(one, schema=None, tools=[TOOL]) for one in questions(count, **more)]


# --- refused for good --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "reason"), [("context", "context_length"), ("filter_400", "content_filter")])
def test_what_is_refused_for_good_loses_that_call_alone(make: Make, stub: Stub, fault: str, reason: str) -> None:
    """The others are answered as they would be; nobody asks twice for what is refused; what was refused is told with its remedy."""
    clean = make(name="clean", run="clean").complete(questions(60))
    stub.turn(faults={fault: 0.3})
    found = make().complete(questions(60))
    lost = [place for place, one in enumerate(found) if one.get("lost")]
    assert 5 < len(lost) == stub.counts()["served"][fault] < 40
    assert all(found[place] == {"role": "assistant", "content": "", "finish_reason": "error", "lost": reason} for place in lost)
    assert all(found[place] == clean[place] for place in range(60) if place not in lost)
    figures = stats("run")["judge"]
    assert figures["odd"] == {reason: len(lost)} and figures["requests"] == 60 and "status 400" in figures["examples"][reason]
    assert reason in read_json(found[lost[0]], SCORE)[1], "whoever reads the form is told why there is none"


def test_a_request_that_always_fails_is_no_server_that_is_down(make: Make, stub: Stub) -> None:
    """One of 150 ends in status 500 at each try: it is lost, and the stage goes on. Too many such are told as before."""
    stub.turn(faults={"hot": 0.02})
    role = make(pace=replace(QUICK, retries=2))
    found = role.complete(questions(150))
    lost = [one for one in found if one.get("lost") == "unanswered"]
    served = stub.counts()["served"]["hot"]
    assert len(lost) == 1 and served == 2 * 3, "two attempts, and as many in each of the two salvage rounds"
    stub.turn(faults={"hot": 0.3})
    with pytest.raises(CallFailed, match=r"of 60 calls .* failed") as failed:
        make(name="other", run="other", pace=replace(QUICK, retries=2)).complete(questions(60))
    assert not isinstance(failed.value, NearlyAllLost)


def test_nearly_everything_lost_for_one_reason_stops_with_the_reason(make: Make, stub: Stub) -> None:
    stub.turn(faults={"as_text": 1.0})
    with pytest.raises(NearlyAllLost, match=r"60 of 60 were lost for one reason, calls_as_text: .*--tool-call-parser.*--jinja") as said:
        make("agent").complete(asking(60))
    assert "losses.share = 0.9" in str(said.value) and "cairn calls --forget some-model" in str(said.value)
    found = make("agent", run="few").complete(asking(49))
    assert len(found) == 49 and stats("few")["agent"]["odd"] == {"calls_as_text": 49}, "fewer than losses.least are shown alone"
    patient = Setting(None, "patient", "patient", {}, Losses(least=0))
    assert len(make("agent", setting=patient).complete(asking(60))) == 60


def test_calls_between_tags_are_read_out_of_the_text_and_told(make: Make, stub: Stub) -> None:
    """What most models write, and a server without a tool parser leaves in the text: nothing is lost by it."""
    stub.turn(faults={"tagged": 1.0})
    found = make("agent", run="tagged").complete(asking(60))
    assert all(one["finish_reason"] == "tool_calls" and one["tool_calls"][0]["id"] == "call_0" for one in found)
    assert not any(one["content"] for one in found)
    assert stats("tagged")["agent"]["odd"] == {"calls_from_text": 60}
    assert "--tool-call-parser" in remedy("calls_from_text")


@pytest.mark.parametrize(
    ("text", "rest", "names"),
    [
        ('<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>', "", ["a"]),
        (
            'I look.<tool_call>{"name": "a", "arguments": {}}</tool_call>\n<tool_call>{"name": "b", "arguments": null}</tool_call>',
            "I look.",
            ["a", "b"],
        ),
        ('<tool_call>{"name": "a"}</tool_call>', None, []),
        ('<tool_call>{"name": "a", "arguments": {}}</tool_call><tool_call>{"name": "b", "ar', None, []),
        ("<tool_call>[]</tool_call>", None, []),
        ('{"name": "a", "arguments": {}}', None, []),
        ("Write <tool_call> yourself.", None, []),
    ],
)
def test_calls_in_text(text: str, rest: str | None, names: list[str]) -> None:
    said, calls = calls_in_text(text)
    assert said == (text if rest is None else rest) and [call["name"] for call in calls] == names


def test_answers_where_no_tool_was_offered_hide_nothing(make: Make, stub: Stub) -> None:
    stub.turn(faults={"as_text": 1.0})
    role = make("agent")
    role.complete(questions(100, schema=None))
    with pytest.raises(NearlyAllLost, match="calls_as_text"):
        role.complete(asking(50, start=1000))


def test_a_server_that_takes_nothing_is_told_at_once(make: Make, stub: Stub) -> None:
    """Ten calls without an answer are enough, though losses.least is more."""
    stub.turn(faults={"filter_400": 1.0})
    with pytest.raises(NearlyAllLost, match=r"12 of 12 .*content_filter.*Not one call was answered"):
        make().complete(questions(12))


# --- errors inside an answer ---------------------------------------------------------------------------------------------------


def test_an_error_in_a_200_is_what_it_says(make: Make, stub: Stub) -> None:
    """429 slows down and waits as it is told, 5xx and a failed end are tried again: the same answers as without."""
    clean = make(name="clean", run="clean").complete(questions(60))
    stub.turn(faults={"inside_429": 0.1, "inside_502": 0.1, "errored": 0.1}, retry_after=0.02)
    assert make().complete(questions(60)) == clean
    served, figures = stub.counts()["served"], stats("run")["judge"]
    assert figures["throttled"] == served["inside_429"] > 0
    assert figures["failures"] == served["inside_502"] + served["errored"] > 0 and figures["odd"] == {}


@pytest.mark.parametrize(
    ("fault", "message"), [("inside_402", "Top up the account"), ("inside_401", "Check the key"), ("inside_403", "Check")]
)
def test_what_nobody_gets_past_ends_the_run_with_the_remedy(make: Make, stub: Stub, fault: str, message: str) -> None:
    stub.turn(faults={fault: 1.0})
    with pytest.raises(CallFailed, match=message):
        make().complete(questions(40))
    assert stub.counts()["served"][fault] <= 16


def test_an_answer_that_always_fails_is_lost_and_never_kept(make: Make, stub: Stub, tmp_path: Path) -> None:
    stub.turn(faults={"errored": 1.0})
    found = make(pace=replace(QUICK, retries=2)).complete(questions(3))
    assert [one["lost"] for one in found] == ["unusable"] * 3 and Cache(tmp_path / "state").kept() == []


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (400, {"error": {"code": "context_length_exceeded", "message": "x"}}, "strict", "context_length"),
        (400, {"error": "the request exceeds the available context size, try increasing it"}, "strict", "context_length"),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens", "code": 400}, "strict", "context_length"),
        (400, {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}, "strict", "context_length"),
        (413, {"detail": "Payload"}, "strict", "context_length"),
        (500, {"error": {"message": "input length exceeds the maximum context length"}}, "strict", "context_length"),
        (429, {"error": {"message": "Request too large for m on tokens per min (TPM): Limit 30000"}}, "strict", "context_length"),
        (400, {"error": {"code": "content_filter", "message": "The response was filtered"}}, "strict", "content_filter"),
        (400, {"error": {"innererror": {}, "message": "triggering Azure OpenAI's content management policy"}}, "strict", "content_filter"),
        (403, {"error": {"message": "Your chosen model requires moderation and your input was flagged"}}, "strict", "content_filter"),
        (400, {"error": {"code": "data_inspection_failed"}}, "strict", "content_filter"),
        (451, {"error": {"message": "Unavailable for legal reasons"}}, "strict", "content_filter"),
        (400, {"error": {"message": "Unsupported value: 'temperature'"}}, "strict", "not_accepted"),
        (400, {"error": {"message": "Your credit balance is too low"}}, "closed", ""),
        (429, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}, "closed", ""),
        (429, {"error": {"message": "slow down"}}, "busy", ""),
        (403, {"error": {"message": "no access to this model"}}, "closed", ""),
        (502, "<html>", "ill", ""),
        (400, [{"error": {"code": 400, "message": "API key not valid", "status": "INVALID_ARGUMENT"}}], "strict", "not_accepted"),
    ],
)  # fmt: skip
def test_one_thing_is_spelled_in_many_ways(status: int, body: Any, kind: str, reason: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    verdict = of_status(status, text, 0.0)
    assert (verdict.kind, verdict.reason) == (kind, reason), verdict


@pytest.mark.parametrize(
    ("message", "kind", "wait"),
    [
        ({"error": {"code": 429, "message": "slow", "metadata": {"retry_after": 3}}}, "busy", 3.0),
        ({"error": {"type": "rate_limit_error", "message": "slow"}}, "busy", 7.0),
        ({"error": {"type": "overloaded_error"}}, "busy", 7.0),
        ({"error": {"code": "502"}}, "ill", 0.0),
        ({"error": "upstream failed"}, "ill", 0.0),
        ({"error": {"type": "authentication_error"}}, "closed", 0.0),
        ({"error": {"code": 402}}, "closed", 0.0),
        ({"error": {"code": "context_length_exceeded"}}, "strict", 0.0),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"code": 429}}]}, "busy", 7.0),
        ({"detail": "not now"}, "ill", 0.0),
    ],
)  # fmt: skip
def test_an_error_object_is_told_by_its_number_or_name(message: Any, kind: str, wait: float) -> None:
    verdict = inside(message, 0.0 if wait != 7.0 else 7.0)
    assert verdict is not None and (verdict.kind, verdict.wait) == (kind, wait)


def test_a_good_answer_beside_an_error_field_is_an_answer() -> None:
    said = {"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}], "error": {"code": 0, "message": "success"}}
    assert wire.checked(said)["message"] == {"content": "Hi."}


@pytest.mark.parametrize(
    "finish", ["error", "abort", "insufficient_system_resource", "MALFORMED_FUNCTION_CALL", "timeout", "cancelled"]
)
def test_an_answer_that_says_it_failed_is_none(finish: str) -> None:
    for content in ("", "half of it"):
        with pytest.raises(wire.Broken, match="failed on the way"):
            wire.checked({"choices": [{"message": {"content": content}, "finish_reason": finish}]})


@pytest.mark.parametrize("choices", [[], None, [{"finish_reason": "stop"}], [{"message": None}], [{"text": "Hi."}]])
def test_a_completion_without_a_message_says_nothing_against_the_server(choices: Any) -> None:
    """So gateways answer one request that the model's maker blocked: it is lost alone, as `unusable`, and never kept."""
    with pytest.raises(wire.Broken, match="holds no"):
        wire.checked({"object": "chat.completion", "choices": choices})


@pytest.mark.parametrize("finish", ["content_filter", "content_filter: PROHIBITED_CONTENT"])
def test_a_filtered_answer_needs_no_message(finish: str) -> None:
    kept = wire.checked({"choices": [{"index": 0, "finish_reason": finish}]})
    assert wire.read(kept, 0).refused and kept["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("x</think>" * 3000 + "Hi.", "Hi."),
        ("<think></think>" * 3000 + "Hi.", "Hi."),
        (loop := "<tool_call>" + "\n" * 20_000, loop),
        (fence := "```json" + "\n" * 5_000, fence),
    ],
    ids=["closes", "blocks", "blanks", "fence"],
)
def test_a_model_that_repeats_itself_without_end_is_read_at_once(text: str, rest: str) -> None:
    kept = wire.checked({"choices": [{"message": {"content": text}, "finish_reason": "length"}]})
    started = time.monotonic()
    assert wire.read(kept, 0, offered=True).message["content"] == rest
    looks_like_calls(text, [TOOL])
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize(
    ("message", "content", "finish"),
    [("stop", "a", "stop"), (None, "a", "stop"), ("eos", "a", "stop"), ("max_tokens", "a", "length"), ("MAX_TOKENS", "a", "length"),
     ("SAFETY", "", "content_filter"), ("content-filter", "a", "content_filter"), (7, "a", "stop"), ("unknown", "a", "stop")],
)  # fmt: skip
def test_ends_are_told_in_one_way(message: Any, content: str, finish: str) -> None:
    kept = wire.checked({"choices": [{"message": {"content": content}, "finish_reason": message}]})
    assert wire.read(kept, 0).finish == finish


# --- halves of characters ------------------------------------------------------------------------------------------------------


def test_half_a_character_gets_into_no_file(make: Make, stub: Stub, tmp_path: Path) -> None:
    """In words, in forms (where it comes as an escape inside text), in names and nested arguments of calls."""
    stub.turn(faults={"half": 1.0})
    role = make()
    for one in [*role.complete(questions(5, schema=None)), *role.complete(asking(5)), *role.complete(questions(5, start=50))]:
        assert "\ufffd" in str(one) and json.dumps(one, ensure_ascii=False).encode()
    call = role.complete(asking(1))[0]["tool_calls"][0]["function"]
    assert call == {"name": "get_order\ufffd", "arguments": {"a": ["\ufffd"], "\ufffd": 1}}
    for (answer,) in sqlite3.connect(tmp_path / "state" / "calls.sqlite").execute("SELECT answer FROM answers"):
        for text in (json.loads(answer)["message"].get("content") or "", answer):
            text.encode()


def keep(folder: Path, key: bytes, answer: Any) -> None:
    Cache(folder).put(key, {}, Paid("r", "judge", "some-model", 1, 1, 0.0))
    with sqlite3.connect(folder / "calls.sqlite") as db:
        db.execute("UPDATE answers SET answer = ? WHERE key = ?", (json.dumps(answer), key))


def test_a_file_of_failed_answers_of_an_earlier_version_stops_no_stage(make: Make, stub: Stub, tmp_path: Path) -> None:
    """All are asked anew, so nothing is lost, however many there are."""
    asked = questions(60, schema=None)
    for one in asked:
        old = first_key_of(stub.url, wire.body(Dialect("some-model"), one), one.seed)
        keep(tmp_path / "state", old, {"message": {"content": ""}, "finish_reason": "error", "tokens": [1, 1], "by": []})
    assert all(answer["content"].startswith("Reply") for answer in make().complete(asked))
    assert stats("run")["judge"]["odd"] == {KEPT_UNUSABLE: 60} and remedy(KEPT_UNUSABLE)


def test_what_an_earlier_version_kept_ends_no_stage(make: Make, stub: Stub, tmp_path: Path) -> None:
    """Halves of characters are mended as they are read; an answer that failed is forgotten and asked anew, told with its id."""
    asked = questions(2, schema=None)
    sent = [wire.body(Dialect("some-model"), one) for one in asked]
    olds = [first_key_of(stub.url, body, one.seed) for body, one in zip(sent, asked, strict=True)]
    state = tmp_path / "state"
    keep(state, olds[0], {"message": {"content": "Hi \ud83d"}, "finish_reason": "stop", "tokens": [1, 1], "by": []})
    keep(state, olds[1], {"message": {"content": ""}, "finish_reason": "error", "tokens": [1, 1], "by": []})
    found = make().complete(asked)
    assert found[0]["content"] == "Hi \ufffd" and found[1]["content"].startswith("Reply") and stub.counts()["paid"] == 1
    said = stats("run")["judge"]["examples"]["kept_unusable"]
    assert answer_id(key_of(stub.url, "", sent[1], asked[1].seed)) in said
    make().complete(asked)
    assert stub.counts()["paid"] == 1


@pytest.mark.parametrize(
    "kept", [{}, {"message": None}, {"message": {"content": [[]]}, "finish_reason": {}}, [1], {"message": 3}, "x", None]
)
def test_anything_may_lie_in_the_file(make: Make, stub: Stub, tmp_path: Path, kept: Any) -> None:
    asked = questions(1, schema=None)
    keep(tmp_path / "state", key_of(stub.url, "", wire.body(Dialect("some-model"), asked[0]), 0), kept)
    assert make().complete(asked)[0]["role"] == "assistant"


# --- keys of kept answers, and forgetting one -------------------------------------------------------------------------------


def test_a_kept_answer_is_named_by_what_was_asked_of_which_model() -> None:
    """By hand: not by port, path or scheme; by host, unless the user says that two are the same."""
    one = key_of("http://127.0.0.1:8000/v1", "", b"x", 0)
    assert one == key_of("http://localhost:9000/openai/v1", "", b"x", 0)
    others = [key_of("https://a.example/v1", "", b"x", 0), key_of("https://b.example/v1", "", b"x", 0)]
    others += [key_of("https://a.example/v1", "rev 2", b"x", 0), key_of("https://a.example/v1", "", b"x", 1), key_of("https://a.example/v1", "", b"y", 0)]  # fmt: skip
    assert len({one, *others}) == 6
    assert key_of("https://a.example/v1", "same", b"x", 0) == key_of("http://127.0.0.1:8000", "same", b"x", 0)
    assert key_of("https://A.example:443/v1/", "", b"x", 0) == others[0]


def test_another_port_time_out_or_price_pays_nothing(make: Make, stub: Stub, tmp_path: Path) -> None:
    from infra.stub import running
    from tasks.players.openai_compatible import Prices

    mine = make().complete(questions(5))
    with running() as moved:
        role = EndpointClient("judge", f"http://localhost:{moved.port}/v1", Dialect("some-model"), pace=replace(QUICK, timeout=9.0),
                              prices=Prices(1, 1), setting=Setting(tmp_path / "state", "run", "run"))  # fmt: skip
        assert role.complete(questions(5)) == mine and moved.counts()["paid"] == 0


def test_what_was_asked_before_the_server_said_who_it_is_is_found_if_it_was_the_same(make: Make, stub: Stub) -> None:
    """The stub answers as some-model: what was paid without a report counts for that model, and for no other."""
    make().complete(questions(3))
    make(reported='{"answered":"some-model","root":"/a"}').complete(questions(3))
    assert stub.counts()["paid"] == 3
    make().complete(questions(3, start=10))
    make(reported='{"answered":"another"}').complete(questions(3, start=10))
    assert stub.counts()["paid"] == 9


def test_one_answer_is_forgotten_by_the_id_that_a_message_names(make: Make, stub: Stub, tmp_path: Path) -> None:
    """The server fills in the schema it is sent, so an answer to one never fits another: the message says which kept answer that was."""
    state, asked = (
        tmp_path / "state",
        Request([{"role": "user", "content": "Q"}], schema={"type": "object", "properties": {}, "required": ["gone"]}),
    )
    make().complete([asked, *questions(3)])
    said = stats("run")["judge"]["examples"]["unreadable"]
    name = said.split()[1]
    assert f"cairn calls --forget-answer {name}" in said and "lacks 'gone'" in said
    assert name in "\n".join(lines(state)), "`cairn calls` names it too"
    before = stub.counts()["paid"]
    assert forget_answer(state, name.upper()) == f"answer {name} of some-model (role judge)"
    make().complete([asked, *questions(3)])
    assert stub.counts()["paid"] == before + 1
    for wrong, why in (("abc", "6 or more"), ("../../x", "6 or more"), ("0" * 12, "no answer with that id")):
        with pytest.raises(BadInput, match=why):
            forget_answer(state, wrong)


# --- calls ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function", [{}, {"arguments": None}, *({"arguments": text} for text in ("", "null", " ", "{}", "[]", '""', {}, '"{}"'))]
)
def test_a_call_of_a_tool_that_takes_nothing_has_no_arguments(function: dict[str, Any]) -> None:
    said = {"choices": [{"message": {"content": None, "tool_calls": [{"id": "x", "function": {"name": "get", **function}}]}}]}
    reply = wire.read(wire.checked(json.loads(json.dumps(said))), 3)
    assert reply.message["tool_calls"] == [{"id": "call_3", "type": "function", "function": {"name": "get", "arguments": {}}}]


def test_one_bad_call_of_two_fails_and_the_good_one_counts(make: Make, stub: Stub) -> None:
    stub.turn(faults={"two_calls": 1.0})
    good, bad = make("agent").complete(asking(1))[0]["tool_calls"]
    assert set(good["function"]["arguments"]) == {"order_id"} and "unreadable" not in good
    assert (
        bad["function"]["arguments"] == {"unreadable": '{"broken": '}
        and bad["unreadable"]
        and (good["id"], bad["id"]) == ("call_0", "call_1")
    )
    assert stats("run")["agent"]["odd"] == {"bad_call": 1}


@pytest.mark.parametrize(("beside", "content"), [("null", {"content": None}), ("absent", {}), ("empty", {"content": ""})])
def test_no_empty_text_is_sent(beside: str, content: dict[str, Any]) -> None:
    """Beside calls as the role says; an assistant's turn without anything says that it is one, so that turns still alternate."""
    call = {"id": "call_0", "type": "function", "function": {"name": "get", "arguments": {}}}
    asked = Request([{"role": "assistant", "content": " ", "tool_calls": [call]}, {"role": "assistant", "content": ""}])
    first, second = json.loads(wire.body(Dialect("m", content_beside_calls=beside), asked))["messages"]
    assert {key: value for key, value in first.items() if key == "content"} == content and second["content"] == wire.NOTHING


def test_an_empty_form_is_asked_for_again_and_loses_its_item_alone(make: Make, stub: Stub) -> None:
    stub.turn(faults={"empty": 1.0})
    found = make().complete(questions(3))
    assert [one["content"] for one in found] == [""] * 3 and stats("run")["judge"]["odd"] == {"empty": 3}
    assert stats("run")["judge"]["repairs"] == 3


# --- room ----------------------------------------------------------------------------------------------------------------------


def test_a_cut_answer_is_asked_for_once_more_with_room_and_told(make: Make, stub: Stub) -> None:
    stub.turn(faults={"cut": 1.0})
    found = make().complete(questions(3, schema=None))
    assert [one["finish_reason"] for one in found] == ["length"] * 3 and stub.counts()["paid"] == 6
    assert stats("run")["judge"]["odd"] == {"cut": 3}


def test_the_most_tokens_are_a_role_s_own() -> None:
    asked = Request([{"role": "user", "content": "Q"}], max_tokens=256)

    def most(room: int = 1, **more: Any) -> int:
        return int(json.loads(wire.body(Dialect("m", **more), asked, room))["max_tokens"])

    assert (most(), most(max_tokens=900), most(4, max_tokens=900, thinking=50)) == (256, 900, 3650)


# --- anything ------------------------------------------------------------------------------------------------------------------

GOOD = {
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi.",
                "refusal": None,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}}],
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    "error": None,
}
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text()
    | st.just("\ud83d")
    | st.just('{"a": 1e999}'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["message", "content", "text", "code"]), inner)
    ),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, item in inner for place in places(item, (*at, key)))]


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if new is ... and len(at) == 1:
        del copy[at[0]]
        return copy
    copy[at[0]] = changed(copy[at[0]], at[1:], new)
    return copy


def answered_or_refused(text: str) -> None:
    """Through the wire as the line does it: an answer that any file can hold, or a refusal in words for a reason that is known."""
    said = None
    try:
        kept = wire.checked(said := wire.parse(text.encode("utf-8", "surrogatepass")))
    except wire.Garbled as error:
        assert str(error).encode()
        if verdict := inside(said, 0.0):
            assert verdict.text.encode() and verdict.kind in ("busy", "ill", "strict", "closed") and verdict.reason in ("", *GONE)
        return
    kept = json.loads(json.dumps(kept))
    reply = wire.read(kept, 0)
    assert json.dumps(reply.message, allow_nan=False, ensure_ascii=False).encode()
    assert reply.message["role"] == "assistant" and isinstance(reply.message["content"], str)
    assert reply.finish in ("stop", "length", "tool_calls", "content_filter")
    for call in reply.message.get("tool_calls", ()):
        assert isinstance(call["function"]["arguments"], dict) and isinstance(call["function"]["name"], str)
    assert wire.body(Dialect("m"), Request([reply.message]))
    read_json(reply.message, SCORE)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_hostile_bodies_are_answers_or_refusals(data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(places(GOOD)))
    new = data.draw(ANY | (st.just(...) if at else st.nothing()))
    answered_or_refused(json.dumps(changed(GOOD, at, new), ensure_ascii=data.draw(st.booleans())))


@pytest.mark.parametrize("deep", ["[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 900 + "1" + "}" * 900])
def test_endless_nesting_anywhere(deep: str) -> None:
    answered_or_refused(deep)
    for at in places(GOOD):
        answered_or_refused(json.dumps(changed(GOOD, at, "@@")).replace('"@@"', deep))
    answered_or_refused(json.dumps(changed(GOOD, ("choices", 0, "message", "tool_calls", 0, "function", "arguments"), deep)))


def test_every_reason_has_its_words() -> None:
    assert set(GONE) <= set(REMEDIES) and all(words and "\n" not in words for words in REMEDIES.values())
