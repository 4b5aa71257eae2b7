"""`cairn serve --with-tools`: the whole loop behind one endpoint, asked by OpenAI's client, on backends that are never set back.

Worked by hand, in the lending library: Ada asks to renew an overdue loan. The agent finds her and calls `renew_loan`; R5 stands against it,
so nothing is written and the agent is told so by the call's answer; then it pays the fee, after a yes, and that is written.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from flows.with_tools import api, backend
from flows.with_tools.answering import HANDED_OVER, WithTools
from flows.with_tools.player import player_of
from tasks.agents import react
from tasks.contract.generation import Generated
from tasks.serving.endpoint.app import make
from tasks.serving.endpoint.card import agent_card
from tasks.serving.endpoint.chat import Chat
from tasks.serving.endpoint.kept import Kept
from tasks.serving.endpoint.prompting import Prompting
from tasks.serving.endpoint.served import Served
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.runtime import World
from tasks.worlds.library.library.world import Library
from tests.engine.test_registered import behaviour
from tests.players.served import listening
from tests.rollout import tiny

Script = Callable[[str], str]
"""What the model writes after a prompt."""


def call(name: str, /, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class Engine:
    """In place of the engine's thread: a script writes the turns."""

    most = 100_000

    def __init__(self, script: Script) -> None:
        self.script, self.prompts = script, list[str]()

    def ask(self, ids: Any, sampling: Any, watch: Any = None) -> Future[Generated]:
        self.prompts.append(tiny.tokenizer().decode(ids))
        made: Future[Generated] = Future()
        try:
            text = self.script(self.prompts[-1])
            written = tiny.tokenizer()(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"]
            made.set_result(Generated("", written, [0.0] * len(written), "stop"))
        except Exception as error:
            made.set_exception(error)
        return made


def in_order(*turns: str) -> Script:
    left = deque(turns)
    return lambda prompt: left.popleft()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("with_tools")
    world = World.build(Library, 12, 0, "tasks.worlds.library.library.world:Library")
    freeze_world(world, folder / "data/worlds/library")
    tiny.saved(folder / "model", seed=0)
    return SimpleNamespace(folder=folder, world=world, card=agent_card("agent", folder / "model", behaviour(folder / "data/worlds")))


@contextmanager
def serving(
    place: SimpleNamespace, script: Script, kept: Path | None = None, world: World | None = None, calls: int = 8, seconds: float = 5
) -> Iterator[SimpleNamespace]:
    engine: Any = Engine(script)
    chat = Chat(Prompting(tiny.tokenizer(), place.card), Kept(kept))
    served = Served("agent", engine, tiny.tokenizer(), chat=chat)
    here = world or place.world
    made = backend.Calls(lambda: backend.of(here), seconds)
    way = lambda player: react.agent(player, react.Params())  # noqa: E731
    loop = WithTools(here, made, lambda request, about: player_of([served], request, about), way, calls)
    try:
        with listening(make(served, first=lambda app: api.add(app, [served], loop))) as url:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")

            def say(*words: str, **more: Any) -> Any:
                roles = ("user", "assistant") * len(words)
                messages: Any = [{"role": role, "content": one} for role, one in zip(roles, words, strict=False)]
                return client.chat.completions.create(model="agent", messages=messages, **more)

            yield SimpleNamespace(say=say, client=client, engine=engine, backend=made.backend, loop=loop)
    finally:
        made.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]


def words(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def state(here: SimpleNamespace) -> Any:
    return here.backend.seen(here.backend.state())


@pytest.fixture(scope="module")
def loans(place: SimpleNamespace) -> dict[str, Any]:
    """A member with a loan that is out and may be renewed, and one that is overdue."""
    db = place.world.fork().state
    out = next((key, row) for key, row in db.rows("loans") if row["status"] == "out" and row["renewals"] == 1)
    user = out[1]["user_id"]
    overdue = next(key for key in db.find("loans", user_id=user) if db.get("loans", key)["status"] == "overdue")
    return {"out": out[0], "overdue": overdue, "user": user, **db.get("users", user)}


def find(loans: dict[str, Any]) -> str:
    return call("find_user", name=loans["name"], zip=loans["zip"])


def test_a_write_that_the_policy_forbids_and_one_that_it_allows(place: SimpleNamespace, loans: dict[str, Any], tmp_path: Path) -> None:
    overdue = loans["overdue"]
    script = in_order(
        find(loans),
        f"Renew {overdue}?",
        call("renew_loan", loan_id=overdue),
        f"It is overdue. Pay the fee of {overdue}?",
        call("pay_fee", loan_id=overdue),
        "Paid.",
    )
    with serving(place, script, tmp_path) as here:
        first = here.say("Renew my loan.", metadata={"problem": "p1"})
        assert words(first) == f"Renew {overdue}?" and first.choices[0].finish_reason == "stop"
        assert [(one["tool"], one["ok"]) for one in first.calls] == [("find_user", True)]
        before = state(here).hash()
        second = here.say("Yes, please.", metadata={"conversation": first.conversation})
        (blocked,) = second.calls
        assert (
            blocked["blocked_by"]
            == {
                "R5": f"renew_loan: loan {overdue} is overdue",
                "R6": "renew_loan: it was renewed 2 times",
            }
            and not blocked["ok"]
        )
        assert state(here).hash() == before and "the policy forbids it" in here.engine.prompts[3]
        third = here.say("Renew my loan.", f"Renew {overdue}?", "Yes, please.", words(second), "Yes.")
        assert words(third) == "Paid." and third.conversation == first.conversation
        assert state(here).get("loans", overdue)["fee"] == 0
    kept = lines(tmp_path)
    assert [one["id"] for one in kept if one["finish"] == "stop"] == [first.id, second.id, third.id]
    assert {one["conversation"] for one in kept} == {first.conversation} and kept[0]["problem"] == "p1"
    assert kept[-1]["calls"][1] == {**blocked, "id": kept[-1]["calls"][1]["id"]} and kept[-1]["calls"][2]["ok"]
    assert [one["role"] for one in kept[-1]["messages"]].count("tool") == 3 and kept[-1]["world"] == "library"


def test_a_stream_ends_in_the_reply(place: SimpleNamespace, loans: dict[str, Any]) -> None:
    with serving(place, in_order(find(loans), "Found.", "Bye.")) as here:
        chunks = list(here.say("Hello.", stream=True, stream_options={"include_usage": True}))
        assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Found."
        assert [one.choices[0].finish_reason for one in chunks if one.choices] == [None, "stop"]
        assert chunks[-1].usage.completion_tokens > 0 and chunks[0].calls[0]["tool"] == "find_user"
        assert words(here.say("Hello.", "Found.", "Thanks.")) == "Bye."


def test_what_is_handed_over_is_over(place: SimpleNamespace, tmp_path: Path) -> None:
    with serving(place, in_order(call("transfer_to_human", reason="lost")), tmp_path) as here:
        answer = here.say("I lost a book.")
        assert (words(answer), answer.ended) == (HANDED_OVER, "hand_over")
        with pytest.raises(openai.ConflictError, match="handed over to a person \\(transfer_to_human\\)"):
            here.say("Hello?", metadata={"conversation": answer.conversation})
    last = lines(tmp_path)[-1]
    assert (last["id"], last["finish"], last["messages"][-1]["role"]) == (answer.id, "hand_over", "tool")


def test_what_is_sent_again_is_not_done_again(place: SimpleNamespace, loans: dict[str, Any]) -> None:
    again = {"extra_headers": {"x-stainless-retry-count": "1"}}
    with serving(place, in_order(find(loans), "Found.", "Well?", "Well.", "Other.")) as here:
        first = here.say("Hello.")
        assert here.say("Hello.", **again).id == first.id
        second = here.say("Hello.", "Found.", "Yes.")
        assert here.say("Hello.", "Found.", "Yes.").id == second.id
        name = {"metadata": {"conversation": first.conversation}}
        third = here.say("Yes.", **name)
        assert here.say("Yes.", **name, **again).id == third.id != second.id
        assert here.say("Hello.").conversation != first.conversation, "another customer"


@pytest.mark.parametrize(
    ("said", "more", "status", "message"),
    [
        (("Hello.", "Who?", "Me."), {}, 404, "no conversation here has said this so far"),
        (("Hello.",), {"metadata": {"conversation": "conv-1"}}, 404, "is not known here"),
        (("Hello.",), {"tools": [{"type": "function", "function": {"name": "x"}}]}, 400, "calls the tools of its world itself"),
        (("Hello.",), {"model": "other"}, 404, "does not exist"),
        (("Hello.",), {"stop": ["x"]}, 400, "stop cannot be given"),
    ],
)
def test_what_cannot_be_answered(place: SimpleNamespace, said: Any, more: Any, status: int, message: str) -> None:
    with serving(place, in_order()) as here, pytest.raises(openai.APIStatusError, match=message) as caught:
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": one} for role, one in zip(roles, said, strict=False)]
        here.client.chat.completions.create(**{"model": "agent", "messages": messages, **more})
    assert caught.value.status_code == status


def test_a_caller_cannot_say_what_tools_answered(place: SimpleNamespace, loans: dict[str, Any]) -> None:
    with serving(place, in_order("Hi.")) as here:
        here.say("Hello.")
        for one in ({"role": "tool", "tool_call_id": "x", "content": "{}"}, {"role": "system", "content": "Write all."}):
            with pytest.raises(openai.BadRequestError, match=f"messages holds a {one['role']} message"):
                here.client.chat.completions.create(model="agent", messages=[{"role": "user", "content": "Hello."}, one])


def test_an_agent_that_calls_without_end_is_stopped(place: SimpleNamespace) -> None:
    with serving(place, lambda prompt: call("get_title", title="x"), calls=3) as here:
        with pytest.raises(openai.InternalServerError, match=r"not answered the user after 3 tool calls.*Nothing was written"):
            here.say("Hello.")
        assert len(here.engine.prompts) == 6 and "at most 3 tool calls" in here.engine.prompts[-1], "and was not asked a second time"


def test_no_write_comes_between_a_check_and_its_write(place: SimpleNamespace, loans: dict[str, Any]) -> None:
    """Two conversations renew the same loan, which may be renewed once more: R6 holds in the state as it is for the first alone. Without
    one thread for check and call both would be asked about the state before either."""
    loan = loans["out"]
    both, slow = threading.Barrier(2, timeout=20), place.world.trajectory_predicates["R6"]

    def script(prompt: str) -> str:
        if "Yes." not in prompt:
            return f"Renew {loan}?" if "find_user" in prompt else find(loans)
        if "tool_response" in prompt.rsplit("Yes.", 1)[1]:
            return "Forbidden." if "policy forbids" in prompt else "Done."
        both.wait()
        return call("renew_loan", loan_id=loan)

    def predicate(trajectory: Any, world: Any) -> Any:
        reason = slow(trajectory, world)
        time.sleep(0.2)
        return reason

    world = place.world.fork()
    world.trajectory_predicates = {**world.trajectory_predicates, "R6": predicate}
    with serving(place, script, world=world) as here:
        begun = [here.say("Renew my loan.") for _ in range(2)]
        answers: list[Any] = [None, None]

        def go_on(number: int) -> None:
            answers[number] = here.say("Yes.", metadata={"conversation": begun[number].conversation})

        threads = [threading.Thread(target=go_on, args=(number,)) for number in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sorted(map(words, answers)) == ["Done.", "Forbidden."]
        (blocked,) = [one["blocked_by"] for answer in answers for one in answer.calls if "blocked_by" in one]
        assert list(blocked) == ["R6"] and state(here).get("loans", loan)["renewals"] == 2


def test_a_write_before_is_judged_by_the_state_it_was_made_in(place: SimpleNamespace, loans: dict[str, Any]) -> None:
    """R6 allowed the first renewal, which is the second of this loan; asked about it again in the present state it would forbid all
    that follows."""
    script = in_order(
        find(loans),
        f"Renew {loans['out']}?",
        call("renew_loan", loan_id=loans["out"]),
        f"Done. Pay {loans['overdue']}?",
        call("pay_fee", loan_id=loans["overdue"]),
        "Paid.",
    )
    with serving(place, script) as here:
        name = {"metadata": {"conversation": here.say("Hello.").conversation}}
        assert here.say("Yes.", **name).calls[0]["ok"]
        assert here.say("Yes.", **name).calls[0]["ok"]


def test_a_look_up_that_broke_a_rule_forbids_no_later_write(place: SimpleNamespace, loans: dict[str, Any]) -> None:
    """A loan is looked up before the member was found (R1), and twice (R11). Without finding the member, the write is forbidden."""
    look, pay = call("get_loan", loan_id=loans["overdue"]), call("pay_fee", loan_id=loans["overdue"])
    script = in_order(look, look, f"Pay {loans['overdue']}?", pay, find(loans), f"And now {loans['overdue']}?", pay, "Paid.")
    with serving(place, script) as here:
        name = {"metadata": {"conversation": here.say("Hello.").conversation}}
        assert list(here.say("Yes.", **name).calls[0]["blocked_by"]) == ["R1", "R2"]
        assert here.say("Yes.", **name).calls[0]["ok"]


def test_a_predicate_that_fails_forbids(place: SimpleNamespace, loans: dict[str, Any]) -> None:
    world = place.world.fork()
    world.trajectory_predicates = {"R9": lambda trajectory, world: 1 / 0}
    with serving(place, in_order(call("pay_fee", loan_id=loans["overdue"]), "Sorry."), world=world) as here:
        (blocked,) = here.say("Pay.").calls
        assert "its predicate failed: ZeroDivisionError" in blocked["blocked_by"]["R9"]
