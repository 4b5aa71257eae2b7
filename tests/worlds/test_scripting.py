"""The scripted human and the scripted agent's reading, by hand and under garbage.

Worked by hand: a customer in the style `direct` who wants order W4821 cancelled says so, tells name and zip when asked, says yes to a
summary that shows W4821 and no to one that shows W1111, and ends with ###STOP### when the agent asks whether there is anything else.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.client import Request
from tasks.contract.params import BadInput
from tasks.contract.problem import Problem
from tasks.contract.scripts import STOP
from tasks.worlds.api.scripts.agent import CLOSING, HELP, QUESTION
from tasks.worlds.api.scripts.human import MAX_LINES, merged
from tasks.worlds.api.scripts.introductions import NAME_AND_ZIP
from tasks.worlds.api.scripts.phrases import agrees
from tasks.worlds.api.system_prompt import human_system
from tests.worlds.players import NAMES, problems, talk, world

ASK_NAME, identity = NAME_AND_ZIP.question, NAME_AND_ZIP.find
CANCEL = {"kind": "cancel", "slots": {"order_id": "W4821", "reason": "no_longer_needed"}, "check": ["W4821"]}
ADDRESS = {"kind": "address", "slots": {"order_id": "W77", "address": "5 Oak Street"}, "check": ["W77", "5 Oak Street"]}


def task(*requests: dict[str, Any], **more: Any) -> Problem:
    intent = {"name": "Anna Berg", "zip": "48213", "style": "direct", "requests": list(requests), **more}
    return Problem("p", "retail", "train", "one_write", ("U1",), "curt: x", "You are Anna Berg.", intent, ())


def says(problem: Problem, *replies: str, seed: int = 0) -> str:
    """The human's line after these replies of the agent."""
    messages = [{"role": "system", "content": human_system(problem, world("retail").setting)}]
    for reply in replies:
        messages += [{"role": "assistant", "content": "(own line)"}, {"role": "user", "content": reply}]
    return str(world("retail").scripts.human(Request(messages=messages, seed=seed, intent=problem.intent))["content"])


def acts(*messages: dict[str, Any], **errors: float) -> dict[str, Any]:
    turn: dict[str, Any] = world("retail").scripts.agent(Request(messages=messages), errors)
    return turn


def test_the_human_by_hand() -> None:
    one = task(CANCEL)
    assert "W4821" in says(one) and "48213" not in says(one)
    assert identity(says(one, ASK_NAME)) == {"name": "Anna Berg", "zip": "48213"}
    assert agrees(says(one, ASK_NAME, f"I will cancel order W4821. {QUESTION}"))
    no = says(one, ASK_NAME, f"I will cancel order W1111. {QUESTION}")
    assert not agrees(no) and "W4821" in no
    assert says(one, ASK_NAME, f"I will cancel order W4821. {QUESTION}", f"Done. {CLOSING}") == STOP
    assert says(one, "Sorry, I cannot do that.") == STOP


def test_styles_reveal_step_by_step() -> None:
    assert identity(says(task(CANCEL, style="full"))) and "W4821" in says(task(CANCEL, style="full"))
    vague = task(CANCEL, style="vague")
    assert "W4821" not in says(vague) and "need it" in says(vague)
    assert "W4821" in says(vague, ASK_NAME, "Which order is it?")
    drip = task(CANCEL, style="drip")
    assert "order" not in says(drip) and "W4821" in says(drip, ASK_NAME, HELP)


def test_several_wishes_together_or_one_after_another() -> None:
    both = task(CANCEL, ADDRESS, together=True)
    assert "W4821" in says(both) and "W77" in says(both)
    assert says(both, f"Done. {CLOSING}") == STOP
    one_by_one = task(CANCEL, ADDRESS)
    assert "W77" not in says(one_by_one) and "W77" in says(one_by_one, f"Done. {CLOSING}")
    assert says(one_by_one, f"Done. {CLOSING}", "Done.") == STOP


def test_a_refused_customer_may_insist_once() -> None:
    refusal = f"Sorry, order W4821 is delivered. {CLOSING}"
    assert "exception" in says(task(CANCEL, insist=True), refusal) or "once" in says(task(CANCEL, insist=True), refusal)
    assert says(task(CANCEL, insist=True), refusal, refusal) == STOP and says(task(CANCEL), refusal) == STOP


def test_a_real_models_wording_is_understood() -> None:
    one = task(CANCEL)
    assert identity(says(one, "Could you tell me your name and your postal code, please?"))
    assert agrees(says(one, "Just to confirm: you would like order W4821 cancelled. Shall I proceed?"))
    assert says(one, "Your order W4821 has been cancelled successfully.") == STOP
    assert says(one, "Unfortunately this order can't be cancelled.") == STOP
    assert says(one, "Is there anything else I can help with?") == STOP


def test_a_problem_without_intent_says_nothing() -> None:
    assert says(Problem("p", "retail", "train", "", (), "", "Do it.", {}, ())) == STOP


def test_merged_intents_keep_the_order_of_wishes() -> None:
    one = merged([task(CANCEL, together=True).intent, task(ADDRESS).intent])
    assert [request["kind"] for request in one["requests"]] == ["cancel", "address"] and not one["together"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=40) | st.sampled_from([ASK_NAME, HELP, "yes or no?", "done", "sorry", "W1 U2"]), max_size=MAX_LINES + 3)
)
def test_the_human_stands_garbage(replies: list[str]) -> None:
    """It never says an id that its intent does not hold, never says nothing, and never goes on for ever."""
    for style in ("full", "direct", "vague", "drip"):
        lines = [says(task(CANCEL, ADDRESS, style=style), *replies[:count]) for count in range(len(replies) + 1)]
        assert set(re.findall(r"[A-Z]\d+", " ".join(lines))) <= {"W4821", "W77"} and all(lines)
        if STOP in lines:
            assert set(lines[lines.index(STOP) :]) == {STOP}, "a human that has hung up stays away"
        assert lines[-1] == STOP or len(replies) < MAX_LINES


@pytest.mark.parametrize("reply", ["la la la", "", ASK_NAME, HELP, f"I will do it. {QUESTION}", "Which order is it?"])
def test_the_human_gives_up_on_an_agent_that_does_not_get_on(reply: str) -> None:
    lines = [says(task(CANCEL), *[reply] * count) for count in range(1, 7)]
    assert STOP in lines[:5]


@pytest.mark.parametrize("name", NAMES)
def test_every_phrase_is_understood(name: str) -> None:
    """What the human may say, the agent's grammar reads back: kind and slots, for each sentence of each pool."""
    scripts = __import__(f"tasks.worlds.library.{name}.user_phrases", fromlist=["PHRASES"]).PHRASES
    free = {"order_id": "W4821", "booking_id": "B4821", "address": "48 Mill Road"}
    for kind, wish in scripts.wishes.items():
        slots = {slot: free.get(slot) or next(iter(scripts.lexicon[slot])) for slot in wish.slots}
        if "destination" in slots and "origin" in slots:
            slots["destination"] = list(scripts.lexicon["destination"])[1]
        for template in (*wish.open, *wish.reserved, *wish.vague):
            told = {slot: value for slot, value in slots.items() if f"{{{slot}}}" in template}
            sentence = scripts.say(template, slots)
            assert scripts.parse(f"Hello. {sentence}") == [(kind, told)], sentence
            lowered = f"Yes, also, {sentence[0].lower()}{sentence[1:]}"
            assert [found[0] for found in scripts.parse(lowered)] == [kind], lowered
        assert not set(wish.open) & set(wish.reserved)
        if wish.vague:
            answers = [scripts.say(template, slots) for template in scripts.answers[wish.ask]]
            assert all(scripts.find(wish.ask, answer) == slots[wish.ask] and not scripts.parse(answer) for answer in answers)
    for template in NAME_AND_ZIP.sentences:
        assert identity("Hello. " + template.format(name="Anna Berg", zip="48213")) == {"name": "Anna Berg", "zip": "48213"}


@pytest.mark.parametrize(
    ("line", "yes"),
    [
        ("Yes.", True),
        ("yes, do it", True),
        ("Ok!", True),
        ("No, yes was wrong", False),
        ("I do not know", False),
        ("Yesterday", False),
    ],
)
def test_a_yes_is_a_yes(line: str, yes: bool) -> None:
    assert agrees(line) is yes


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_the_human_leaks_the_ground_truth(name: str) -> None:
    """An id in a user's line stands in the instruction or was said by the agent before."""
    for played in talk(name, problems(name)):
        known = played.problem.instruction
        for message in played.messages:
            if message["role"] == "user":
                for found in re.findall(r"\b[A-Z]?\d{3,}\b", message["content"]):
                    assert found in known, (played.problem, message)
            elif message["role"] == "assistant":
                known += str(message["content"])


def test_the_agent_by_hand() -> None:
    opening = {"role": "user", "content": "Please cancel order W4821, I no longer need it."}
    assert acts(opening)["content"] == ASK_NAME
    call = acts({"role": "user", "content": "I am Anna Berg, zip 48213. Please cancel order W4821, I no longer need it."})
    assert call["tool_calls"][0]["function"] == {"name": "find_user", "arguments": {"name": "Anna Berg", "zip": "48213"}}
    assert acts(opening, skips_authentication=1.0)["tool_calls"][0]["function"]["name"] == "get_order"
    assert acts({"role": "system", "content": "x"}, opening) == acts(opening), "it reads messages alone"


def test_the_agent_stands_garbage() -> None:
    """Messages that no script would write: calls without answers, answers without calls, answers that are not JSON."""
    opening = {"role": "user", "content": "I am Anna Berg, zip 48213. Please cancel order W4821, I no longer need it."}
    call = acts(opening)
    for answer in ("", "{", "[]", "3", '{"error": "no such user"}', "null"):
        assert acts(opening, call, {"role": "tool", "tool_call_id": "call_0", "content": answer})["role"] == "assistant"
    assert acts({"role": "tool", "content": "{}"}, opening)["role"] == "assistant"
    assert acts({"role": "user", "content": "I am Anna Berg, zip 48213. What is the weather?"})["role"] == "assistant"


def test_unknown_errors_and_rates_are_refused() -> None:
    with pytest.raises(BadInput, match=r"agent error 'wrong_totals' is unknown. Did you mean 'wrong_total'?"):
        acts({"role": "user", "content": "x"}, wrong_totals=0.1)
    with pytest.raises(BadInput, match=r"wrong_total = 1.5: a rate lies between 0 and 1"):
        acts({"role": "user", "content": "x"}, wrong_total=1.5)
