"""`cairn serve --with-tools`: the whole loop behind one endpoint, asked by OpenAI's client, on backends that are never set back.

Worked by hand, in the lending library: Ada asks to renew an overdue loan. The agent finds her and calls `renew_loan`; R5 stands against it,
so nothing is written and the agent is told so by the call's answer; then it pays the fee, after a yes, and that is written.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from flows.cli import main
from flows.served_grading import grade_served
from flows.with_tools import api, backend, coverage
from flows.with_tools.answering import HANDED_OVER, WithTools
from flows.with_tools.opened import Limits, with_tools
from flows.with_tools.player import player_of
from flows.worlds.mutants import other_calls
from flows.worlds.sample import Pool
from tasks.agents import react
from tasks.contract import schemas
from tasks.contract.params import BadInput
from tasks.contract.rows import problem_row
from tasks.contract.tables import write_rows
from tasks.engine import settings
from tasks.players.local.generation import Generated
from tasks.serving.endpoint.app import make
from tasks.serving.endpoint.card import agent_card
from tasks.serving.endpoint.chat import Chat
from tasks.serving.endpoint.chat_request import read
from tasks.serving.endpoint.kept import Kept
from tasks.serving.endpoint.prompting import Prompting
from tasks.serving.endpoint.served import Served
from tasks.worlds.adapters.foreign_state import Saved, SourceFailed
from tasks.worlds.adapters.state_content import Content
from tasks.worlds.api import conduct
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Refused
from tasks.worlds.library.library.world import Library
from tests.conftest import ROOT
from tests.engine.test_registered import behaviour
from tests.players.served import listening
from tests.rollout import tiny
from tests.warm import WARM
from tests.worlds import players
from tests.worlds.kiosk import Kiosk, adapted
from tests.worlds.test_adapter_mcp import SHOP, build

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
        with listening(app := make(served, first=lambda app: api.add(app, [served], loop))) as url:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")

            def say(*words: str, **more: Any) -> Any:
                roles = ("user", "assistant") * len(words)
                messages: Any = [{"role": role, "content": one} for role, one in zip(roles, words, strict=False)]
                return client.chat.completions.create(model="agent", messages=messages, **more)

            yield SimpleNamespace(say=say, client=client, engine=engine, backend=made.backend, loop=loop, app=app)
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
                "R6": "renew_loan: a loan can be renewed twice at most",
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
        second = here.say("Hello.", "Found.", "Yes.")
        assert here.say("Hello.", "Found.", "Yes.").id == second.id
        name = {"metadata": {"conversation": first.conversation}}
        third = here.say("Yes.", **name)
        assert here.say("Yes.", **name, **again).id == third.id != second.id
        assert here.say("Hello.").conversation != first.conversation, "another customer"


def test_who_waits_no_longer_and_asks_again_gets_the_one_answer(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two customers begin with the same words. One writes, does not wait for the answer, and asks again, as OpenAI's client does: the
    order is cancelled once, in that customer's conversation. A first line alone, said again, brings nobody into another's either."""
    made: list[str] = []

    def cancel_order(self: Slow, order_id: str, reason: str = "") -> str:
        """Cancel an order."""
        made.append(order_id)
        time.sleep(0.8)
        return "cancelled"

    monkeypatch.setattr(Slow, "cancel_order", cancel_order)
    world = shop(real=Slow, leave_out=("_looks", "_lock"))

    def script(prompt: str) -> str:
        if "Cancel W1." not in prompt:
            return "Hi."
        return "Cancelled." if "tool_response" in prompt else call("cancel_order", order_id="W1")

    with serving(told_of(place, world), script) as here:
        mine, other = (here.say("Hello.").conversation for _ in range(2))
        hasty = here.client.with_options(timeout=0.25, max_retries=4)
        said: Any = [("user", "Hello."), ("assistant", "Hi."), ("user", "Cancel W1.")]
        messages: Any = [{"role": role, "content": one} for role, one in said]
        answer: Any = hasty.chat.completions.create(model="agent", messages=messages)
        assert (words(answer), made) == ("Cancelled.", ["W1"]) and answer.conversation in (mine, other)
        left = other if answer.conversation == mine else mine
        assert words(here.say("Thanks.", metadata={"conversation": left})) == "Hi.", "as if nobody else were here"
        retried = {here.say("Hello.", extra_headers={"x-stainless-retry-count": "1"}).conversation for _ in range(2)}
        assert len(retried - {mine, other}) == 2


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


def shop(**changes: Any) -> World:
    """The kiosk, an API of plain objects, with a rule about the state: only what is pending can be cancelled."""

    def rule(state: Any, action: Any, user_id: str) -> dict[str, str]:
        order = state.value["_orders"].get(f"({action.arguments['order_id'][1:]})")
        return {"R1": f"it is {order['status']}"} if order and order["status"] != "pending" else {}

    class Shop(adapted(**changes)):  # type: ignore[misc]
        TRAJECTORY_PREDICATES = conduct.trajectory_rules(("R1",), rule)
        GUARDS: Any = {"cancel_order": ("R1",)}

    return World.build(Shop, 1, 0)


def told_of(place: SimpleNamespace, world: World) -> SimpleNamespace:
    about = {"system": f"You are the agent of {world.name}.", "tools": world.schemas()}
    return SimpleNamespace(card={**place.card, "worlds": {world.name: about}}, world=world)


class Slow(Kiosk):
    """Takes a while to cancel an order, and cannot be copied."""

    wait = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def cancel_order(self, order_id: str, reason: str = "") -> str:
        """Cancel an order."""
        with self._lock:
            time.sleep(self.wait)
            return super().cancel_order(order_id, reason)


def test_an_object_is_written_to_and_guarded_by_its_state(place: SimpleNamespace) -> None:
    """The real one, which cannot be copied; the factory's objects, which are for training, stay as they are."""
    world = shop(real=Slow, leave_out=("_looks", "_lock"))
    cancel = call("cancel_order", order_id="W1")
    with serving(
        told_of(place, world), in_order(cancel, "Done.", cancel, "It is.", call("cancel_order", order_id="W9"), "None.")
    ) as here:
        assert here.say("Cancel W1.").calls[0]["ok"]
        assert state(here).value["_orders"]["(1)"]["status"] == "cancelled"
        assert here.say("And again, in another conversation.").calls[0]["blocked_by"] == {"R1": "cancel_order: it is cancelled"}
        (failed,) = here.say("Cancel W9.").calls
        assert (failed["made"], failed["ok"]) == (True, False) and "KeyError" in here.engine.prompts[-1]
    assert json.loads(world.fork().call("get_order", {"order_id": "W1"}).content)["status"] == "pending"


def test_a_tool_that_takes_too_long_is_told_to_the_agent(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it has written nobody knows; while it runs, nothing else is called."""
    monkeypatch.setattr(Slow, "wait", 1.0)
    world = shop(real=Slow, leave_out=("_looks", "_lock"))
    script = in_order(call("cancel_order", order_id="W1"), call("get_order", order_id="W1"), "I do not know.")
    with serving(told_of(place, world), script, seconds=0.3) as here:
        late, next_one = here.say("Cancel W1.").calls
        assert (late["effect"], late["made"], late["ok"], next_one["made"]) == ("unknown", True, False, False)
        assert "did not answer within 0.3 s; whether it takes effect is not known" in here.engine.prompts[1]
        assert "was not called: cancel_order has not ended" in here.engine.prompts[2]


def with_rule(*rules: Any) -> World:
    world = shop(real=Slow, leave_out=("_looks", "_lock"))
    world.trajectory_predicates = {f"R{number}": rule for number, rule in enumerate(rules)}
    return world


def test_what_is_not_checked_in_time_is_not_written(place: SimpleNamespace) -> None:
    """The check goes on for a while; when it is through, nobody waits for the write any more."""
    checked = threading.Event()

    def slow(trajectory: Any, world: Any) -> None:
        time.sleep(0.4)
        checked.set()

    script = in_order(call("cancel_order", order_id="W1"), "I could not.")
    with serving(told_of(place, with_rule(slow)), script, seconds=0.1) as here:
        (late,) = here.say("Cancel W1.").calls
        assert (late["made"], late["ok"]) == (False, False) and "effect" not in late
        assert "was not called: its check did not end within 0.1 s" in here.engine.prompts[1]
        assert checked.wait(5) and here.loop.calls.run("look", lambda real, _: real.state())
        assert state(here).value["_orders"]["(1)"]["status"] == "pending"


def test_a_predicate_changes_neither_the_call_nor_what_others_see(place: SimpleNamespace) -> None:
    def careless(trajectory: Any, world: Any) -> None:
        trajectory.calls[-1][0].arguments["order_id"] = "W2"
        trajectory.messages.clear()

    seen: list[Any] = []

    def next_one(trajectory: Any, world: Any) -> None:
        seen.append((trajectory.calls[-1][0].arguments["order_id"], len(trajectory.messages)))

    script = in_order(call("cancel_order", order_id="W1"), "Done.")
    with serving(told_of(place, with_rule(careless, next_one)), script) as here:
        assert here.say("Cancel W1.").calls[0]["ok"] and seen == [("W1", 2)]
        orders = state(here).value["_orders"]
        assert (orders["(1)"]["status"], orders["(2)"]["status"]) == ("cancelled", "pending")


def test_a_state_before_a_write_is_kept_small_and_shown_whole(place: SimpleNamespace) -> None:
    """What a thousand conversations hold of a shop of some size."""
    seen: list[Any] = []

    def look(trajectory: Any, world: Any) -> None:
        seen.append(world.state.value["_orders"]["(1)"]["status"])

    script = in_order(call("cancel_order", order_id="W1"), "Done.", call("cancel_order", order_id="W2"), "Done.")
    with serving(told_of(place, with_rule(look)), script) as here:
        name = {"metadata": {"conversation": here.say("Cancel W1.").conversation}}
        assert here.say("And W2.", **name).calls[0]["ok"] and seen == ["pending", "pending"], "at the beginning"
        large = Saved(None, Content(here.backend.state().text * 500))
        assert len(here.backend.packed(large)) * 20 < len(large.text)
        with pytest.raises(SourceFailed, match="no dump"):
            here.backend.seen(here.backend.packed(SourceFailed("no dump")))


def test_the_state_that_a_predicate_sees_is_the_real_one_however_it_asks(place: SimpleNamespace) -> None:
    """`world.state` as `world.fork().state`; what can only speak of the frozen world fails, and what fails forbids."""

    def pending(trajectory: Any, world: Any) -> str | None:
        status = world.state.value["_orders"]["(1)"]["status"]
        return None if status == "pending" else f"it is {status}"

    cancel = call("cancel_order", order_id="W1")
    with serving(told_of(place, with_rule(pending)), in_order(cancel, "Done.", cancel, "It is.")) as here:
        assert here.say("Cancel W1.").calls[0]["ok"]
        assert here.say("And again.").calls[0]["blocked_by"] == {"R0": "it is cancelled"}
    for name in ("call", "replay", "snapshot", "state_hash"):
        rule = with_rule(lambda trajectory, world, name=name: getattr(world, name) and None)
        with serving(told_of(place, rule), in_order(cancel, "No.")) as here:
            assert f"used world.{name}, which knows nothing of what is real" in here.say("Cancel.").calls[0]["blocked_by"]["R0"]


@pytest.fixture
def warm() -> Iterator[None]:
    """A server that is started has what it imports already."""
    WARM.run(["-c", "import mcp.server.mcpserver"], ROOT, os.environ, 60)
    with WARM.python():
        yield


def test_a_server_that_dies_is_told_with_what_was_written(place: SimpleNamespace, tmp_path: Path, warm: None) -> None:
    """502, once: the client does not ask again by itself. Nothing goes on afterwards, since a new server would have forgotten."""
    world = build(tmp_path, **SHOP)
    script = in_order(call("cancel_order", order_id="W1", reason="late"), call("die"), call("get_order", order_id="W1"))
    with serving(told_of(place, world), script, tmp_path / "kept") as here:
        with pytest.raises(
            openai.APIStatusError, match=r"it died.* Written in this turn: cancel_order\. The conversation is over"
        ) as caught:
            here.say("Cancel W1.")
        body: Any = caught.value.body
        assert caught.value.status_code == 502 and len(here.engine.prompts) == 2
        assert (body["type"], body["conversation"][:5]) == ("server_error", "conv-")
        with pytest.raises(openai.ConflictError, match="was lost"):
            here.say("Hello?", metadata={"conversation": body["conversation"]})
        with pytest.raises(openai.APIStatusError, match="Nothing was written in this turn"):
            here.say("What about W1?")
    first = [one for one in lines(tmp_path / "kept") if one["conversation"] == body["conversation"]]
    assert first[-1]["finish"] == "backend_lost" and first[-1]["id"] in body["message"]
    assert json.loads(first[-1]["messages"][-1]["tool_calls"][0]["function"]["arguments"]) == {}


def test_a_model_that_fails_after_a_write_is_told_with_what_was_written(place: SimpleNamespace, tmp_path: Path) -> None:
    turns = iter((call("cancel_order", order_id="W1"),))

    def script(prompt: str) -> str:
        if (turn := next(turns, None)) is None:
            raise MemoryError("no room")
        return turn

    world = shop(real=Slow, leave_out=("_looks", "_lock"))
    with serving(told_of(place, world), script, tmp_path) as here:
        with pytest.raises(openai.InternalServerError, match=r"MemoryError: no room\. Written in this turn: cancel_order") as caught:
            here.say("Cancel W1.")
        body: Any = caught.value.body
        with pytest.raises(openai.ConflictError, match="no room"):
            here.say("Hello?", metadata={"conversation": body["conversation"]})
    last = lines(tmp_path)[-1]
    assert (last["finish"], last["messages"][-1]["role"]) == ("model_lost", "tool") and last["id"] in body["message"]


def test_the_end_waits_for_conversations_whose_callers_have_left(
    place: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slow, "wait", 0.5)
    world = shop(real=Slow, leave_out=("_looks", "_lock"))

    async def end(app: Any) -> None:
        async with app.router.lifespan_context(app):
            pass

    with serving(told_of(place, world), in_order(call("cancel_order", order_id="W1"), "Done."), tmp_path) as here:
        with pytest.raises(openai.APITimeoutError):
            here.client.with_options(timeout=0.2, max_retries=0).chat.completions.create(
                model="agent", messages=[{"role": "user", "content": "Cancel W1."}]
            )
        asyncio.run(end(here.app))
        assert [one["finish"] for one in lines(tmp_path)] == ["tool_calls", "stop"]


def test_no_base_answers_for_an_adapter_that_was_taken_away(place: SimpleNamespace) -> None:
    engine: Any = Engine(in_order("Hi."))
    chat = Chat(Prompting(tiny.tokenizer(), place.card))
    served = Served("base", engine, tiny.tokenizer(), adapters={"agent": "agent#1"}, chat=chat)
    player = player_of([served], read({"model": "agent", "messages": [{"role": "user", "content": "Hello."}]}), dict)
    del served.adapters["agent"]
    with pytest.raises(LookupError, match="agent was taken away meanwhile"):
        player.send("one", [{"role": "user", "content": "Hello."}], place.world, 0)


def test_what_guards_what_is_told_and_a_tool_without_is_refused() -> None:
    world = shop()
    with pytest.raises(BadInput, match=r"nothing of the policy is checked before tag, move write.*--allow-unguarded") as caught:
        coverage.check(world, allow_unguarded=False)
    assert "GUARDS = {'tag'" in str(caught.value)
    coverage.check(world, allow_unguarded=True)
    text = "\n".join(coverage.described(world, "a thing"))
    assert (
        "The tools of kiosk are called on a thing." in text and "  cancel_order WRITES, guarded by R1\n  tag WRITES, UNGUARDED" in text
    )
    for wrong, message in (
        ({"get_order": ("R1",)}, "names 'get_order', which is no tool that writes"),
        ({"tag": ("R7",)}, "names 'R7', which is none of TRAJECTORY_PREDICATES: R1"),
        ({"tag": "R1"}, "is one text"),
    ):
        world.shared.cls.GUARDS = wrong
        with pytest.raises(BadInput, match=message):
            coverage.check(world, allow_unguarded=True)


@pytest.mark.parametrize("name", ["retail", "airline", "library"])
def test_what_a_world_says_of_its_guards_is_what_they_refuse(name: str) -> None:
    """Each rule about the state refuses some write of each tool for which it is named, and none of another tool."""
    from tasks.worlds.library import airline, retail
    from tasks.worlds.library.library.services import SERVICES

    ways: Any = {"retail": retail.rules.check, "airline": airline.rules.check, "library": SERVICES.check}
    here = world_of(name)
    drawn = [problem for split in ("train", "test") for problem in draw_problems(here, split, 105, 1)]
    pool = Pool(here, [action for problem in drawn for action in problem.actions])
    found: set[tuple[str, str]] = set()
    for problem in drawn:
        for calls in itertools.islice(other_calls(here, problem.actions, pool, Random(0)), 40):
            for action in (one for one in calls if one.kind == "write"):
                with suppress(Refused):
                    here.tools[action.name].validate(action.arguments)
                    found |= {(action.name, rule) for rule in ways[name](here.state, action, problem.lineage[0])}
    every = {"R1", "R2", "R3", "R4"}
    declared = {(tool, rule) for tool, named in coverage.guards(here).items() for rule in named if rule not in every}
    assert {one for one in found if one[1] not in every} == declared
    assert all(every <= set(named) for named in coverage.guards(here).values())


def world_of(name: str) -> World:
    if name == "library":
        return World.build(Library, 60, 0, "tasks.worlds.library.library.world:Library")
    return players.world(name)


def test_a_kept_conversation_is_graded_without_the_writes_that_were_blocked(place: SimpleNamespace, tmp_path: Path) -> None:
    """The oracle's calls, and before them a write that the policy forbids: the problem is solved all the same, and R5 is broken."""
    here = place.world
    problem = next(one for one in draw_problems(here, "train", 60, 1) if [action.name for action in one.actions][-1] == "pay_fee")
    user, (pay,) = problem.lineage[0], [action for action in problem.actions if action.kind == "write"]
    out = pay.arguments["loan_id"]
    turns = [call(action.name, **action.arguments) for action in problem.actions[:-1]]
    replies = [f"Pay {out}?", "Renewing is forbidden. Pay now?", " ".join(["Done.", *problem.outputs])]
    script = in_order(
        *turns, replies[0], call("renew_loan", loan_id=out), f"No. Pay {out}?", call("pay_fee", **pay.arguments), replies[2]
    )
    with serving(place, script, tmp_path / "served") as server:
        first = server.say("Hello.", metadata={"problem": problem.problem_id})
        about = {"metadata": {"conversation": first.conversation, "problem": problem.problem_id}}
        assert list(server.say("Yes.", **about).calls[0]["blocked_by"]) and user
        assert server.say("Yes.", **about).calls[0]["ok"]
    write_rows(tmp_path / "problems.parquet", schemas.PROBLEM, [problem_row(problem)])
    found = grade_served(tmp_path / "served", tmp_path, place.folder / "data/worlds", [tmp_path / "problems.parquet"])
    (row,) = found.rows
    assert (row["reward"], "R5" in row["broken"]) == (1, True) and not found.left


def test_the_command_refuses_before_anything_is_served(
    place: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.serving.run.check_port", lambda *_: None)
    for more, message in (
        (["--with-tools", "library", "--keep", "no"], "what is written must be kept"),
        (["--with-tools", "library", "--shadow"], "--with-tools goes without --shadow"),
        (["--with-tools", "moon"], "no frozen world in"),
    ):
        assert main(["serve", str(place.folder / "model"), *more]) == 2
        said = capsys.readouterr()
        assert message in said.err and not said.out, "nothing is said to be served"
    chat = Chat(Prompting(tiny.tokenizer(), {**place.card, "worlds": {}}))
    served = Served("agent", Engine(in_order()), tiny.tokenizer(), chat=chat)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="agent was told of other worlds: none"):
        with_tools([served], "library", place.folder, tmp_path, False, Limits(3, 5))


def test_it_starts_on_a_frozen_world(place: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way of acting of the params, and says at the start what may be written and what guards it."""
    monkeypatch.setattr("tasks.engine.settings.load", lambda project, load=settings.load: load(ROOT))
    served = Served("agent", Engine(in_order("Hi.")), tiny.tokenizer(), chat=Chat(Prompting(tiny.tokenizer(), place.card)))  # type: ignore[arg-type]
    told, first = with_tools([served], "library", place.folder, tmp_path, False, Limits(3, 5))
    assert "  pay_fee WRITES, guarded by R1, R2, R3, R4" in told and "tables of this process" in told[0]
    with listening(make(served, first=first)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        answer = client.chat.completions.create(model="agent", messages=[{"role": "user", "content": "Hello."}])
    assert words(answer) == "Hi."
    held = tmp_path / "served/locks/library"  # as if another process held it
    held.write_text(json.dumps({**json.loads(held.read_text()), "process": os.getppid()}))
    with pytest.raises(BadInput, match=f"its tools are called by process {os.getppid()}.* already"):
        with_tools([served], "library", place.folder, tmp_path, False, Limits(3, 5))


def test_the_example_of_the_readme(place: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "flows/README.md").read_text("utf-8").split("## Let the agent act")[1]
    code = text.split("```python")[1].split("```")[0].replace('"champion"', '"agent"')
    with serving(place, in_order("Which one?", call("transfer_to_human", reason="lost"))) as here:
        exec(code.replace("http://127.0.0.1:8000/v1", str(here.client.base_url)), {})
    printed = capsys.readouterr().out
    assert "Which one?" in printed and "hand_over" in printed and "'transfer_to_human'" in printed
