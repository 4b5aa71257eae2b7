"""What a world declares of its conventions: identification, hand-over, look-ups, confirmation; on an adapted API of other names.

Worked by hand: a counter finds people by card or by name and birth date, and answers {"person": {"no": 7}}; a look-up before that breaks
`authenticated`, the price list does not. Limit: a world that declares nothing is judged as retail is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.worlds import convention_checks
from flows.worlds.sample import Sample
from tasks.contract.client import Message
from tasks.contract.conventions import Conventions, Identification
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem
from tasks.contract.trajectory import Trajectory
from tasks.critique.core import prompts
from tasks.players.critics.scripted import detectors
from tasks.players.trivial.constant import hands_over
from tasks.worlds.adapters import from_object, server_file
from tasks.worlds.api import conduct
from tasks.worlds.api.runtime import World
from tests.critique.conversations import Talk
from tests.worlds.players import world

WAYS = (Identification("by_card", ("card",), "person.no"), Identification("by_name", ("name", "born"), "0.no"))


class Counter:
    """A counter where people ask for things."""

    def __init__(self) -> None:
        self.people = {str(number): {"card": f"C{number}", "open": True} for number in (7, 8, 9)}

    def by_card(self, card: str) -> dict[str, Any]:
        """Find a person by card."""
        return {"person": {"no": next(int(no) for no, row in self.people.items() if row["card"] == card)}}

    def by_name(self, name: str, born: str) -> list[dict[str, int]]:
        """Find a person by name and birth date."""
        return [{"no": 8}]

    def prices(self) -> str:
        """What things cost."""
        return "one thing 3"

    def account(self, no: int) -> dict[str, Any]:
        """An account."""
        return dict(self.people[str(no)])

    def stamp(self, no: int) -> str:
        """Have a manager allow something."""
        return "allowed"

    def close(self, no: int) -> str:
        """Close an account."""
        self.people[str(no)]["open"] = False
        return "closed"

    def note(self, no: int, text: str) -> str:
        """Write a note."""
        self.people[str(no)]["note"] = text
        return "noted"

    def hang_up(self) -> str:
        """End the call."""
        return "over"

    def front_desk(self, why: str) -> str:
        """Put through to the front desk."""
        return "ringing"


def stamped(messages: Sequence[Message], action: Action) -> str | None:
    """The manager has allowed it before."""
    names = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    return None if "stamp" in names else f"{action.name} without a stamp"


DECLARED = Conventions(
    identified_by=WAYS,
    open_tools=("prices",),
    owner="no",
    hand_over="front_desk",
    look_ups=("account",),
    confirmed_by=stamped,
    confirmed=("close",),
)


def counter(declared: Conventions | None = DECLARED, **more: Any) -> World:
    made = from_object(
        Counter,
        name="counter",
        policy="R1. Ask for the card.",
        writes=("close", "note"),
        ends=("hang_up", "front_desk"),
        conventions=declared,
        **{"users": "people", **more},
    )
    made.TRAJECTORY_PREDICATES = {
        "R1": conduct.authenticated,
        "R2": conduct.confirmed,
        "R3": conduct.lean,
        "R4": conduct.looked_up("account"),
    }
    return World.build(made, 3, 0)


def broken(there: World, *turns: tuple[str, dict[str, Any]] | str) -> dict[str, str]:
    """Rule -> why the conversation breaks it. Turns are calls and lines; of two lines in a row the second is the user's."""
    problem = Problem("p", "counter", "train", "", ("7",), "", "", {}, ())
    played, fork, asked = Trajectory(problem, 0), there.fork(), False
    for turn in turns:
        if isinstance(turn, str):
            played.messages.append({"role": "user" if asked else "assistant", "content": turn})
            asked = not asked
            continue
        name, arguments = turn
        result = fork.call(name, arguments)
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
        played.messages += [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "name": name, "content": result.content}]
        played.calls.append((Action(name, arguments, there.tools[name].kind), result))
    predicates = there.trajectory_predicates
    return {rule: why for rule, breaks in predicates.items() if (why := breaks(played, there)) is not None}


CARD = ("by_card", {"card": "C7"})
ACCOUNT = ("account", {"no": 7})
CLOSE = ("close", {"no": 7})


def test_by_hand() -> None:
    there = counter()
    assert broken(there, CARD, ACCOUNT, ("stamp", {"no": 7}), CLOSE) == {}
    assert broken(there, ("by_name", {"name": "Ann", "born": "1990-01-02"}), ACCOUNT) == {}
    assert broken(there, ("prices", {}), CARD) == {}
    assert set(broken(there, ACCOUNT, CARD)) == {"R1"} == set(broken(there, ("by_card", {"card": "C0"}), ACCOUNT))
    assert broken(there, CARD, CLOSE) == {"R2": "close without a stamp"}
    assert broken(there, CARD, ("note", {"no": 7, "text": "x"})) == {}, "notes need no confirmation"
    assert set(broken(there, CARD, ACCOUNT, ACCOUNT)) == {"R3"} and broken(there, CARD, ("prices", {}), ("prices", {})) == {}
    assert broken(there, CARD, ("front_desk", {"why": "x"})) == {"R4": "handed over without account"}
    assert broken(there, CARD, ("hang_up", {})) == {}, "it ends, and hands nobody over"


def test_who_was_identified() -> None:
    there = counter()
    calls = [(Action(name, arguments), there.call(name, arguments)) for name, arguments in (CARD, ("by_card", {"card": "C0"}))]
    assert there.conventions.person(calls) == "7" and there.conventions.person(calls[1:]) == ""
    replay = there.replay([Action(*CARD)])
    mine = Problem("p", "counter", "train", "", ("7",), "", "", {}, (Action(*CARD),))
    other = Problem("p", "counter", "train", "", ("8",), "", "", {}, (Action(*CARD),))
    assert conduct.truth_authenticated(mine, replay, there) is None
    assert conduct.truth_authenticated(other, replay, there) == "the customer found is 7, not 8"
    apart = counter(problems_file=None, users="")
    assert apart.conventions.lineage == "other" and conduct.truth_authenticated(other, replay, apart) is None


@pytest.mark.parametrize(
    ("answer", "content", "person"),
    [
        ("", "u_7", "u_7"),
        ("", '"u_7"', "u_7"),
        ("", "12", "12"),
        ("id", '{"id": 12}', "12"),
        ("a.id", '{"a": {"id": "x"}}', "x"),
        ("1.id", '[{"id": 1}, {"id": 2}]', "2"),
        ("a.id", '{"a": 3}', ""),
        ("9.id", "[]", ""),
        ("id", "no JSON", ""),
        ("", '{"id": 1}', ""),
        ("id", '{"id": null}', ""),
    ],
)
def test_the_id_in_an_answer(answer: str, content: str, person: str) -> None:
    assert Identification("f", (), answer).person(content) == person


def test_what_is_not_declared_is_as_in_retail() -> None:
    retail = world("retail").conventions
    assert retail == Conventions() and retail.as_json() == {}
    plain = counter(None)
    assert plain.conventions.identified_by == () and plain.conventions.hand_over == "hang_up"
    with pytest.raises(BadInput, match="no tool identifies one"):
        broken(plain, CARD)


def test_the_user_confirms_or_nobody() -> None:
    by_user = counter(Conventions(identified_by=WAYS, confirmed=("close",)))
    assert set(broken(by_user, CARD, CLOSE)) == {"R2"} and not broken(by_user, CARD, "I will close 7. Yes or no?", "Yes.", CLOSE)
    with pytest.raises(BadInput, match="confirmed_by is 'nobody'"):
        broken(counter(Conventions(identified_by=WAYS, confirmed_by="nobody")), CARD, CLOSE)


def test_the_idle_agent_hands_over_as_declared() -> None:
    there, agent = counter(), hands_over()
    agent.send("c", [], there, 0)
    assert agent.poll()[0][1].message["tool_calls"][0]["function"]["name"] == "front_desk"


def test_critics_read_what_is_declared() -> None:
    """What the words of the shop's tools are to the default, the declared names are to a world of its own; also as they read them in a case."""
    there = counter()
    shared = prompts.frame(there)
    assert shared["conventions"]["identified_by"] == {"by_card": "person.no", "by_name": "0.no"}

    def flaws(talk: Talk) -> set[str]:
        return {flaw.kind for flaw in detectors.read(prompts.case(talk.row(), shared).text.split("\n")[1])[1]}

    def begun() -> Talk:
        return Talk().user("Close account 7. My card is C7.")

    kinds = {name: tool.kind for name, tool in there.tools.items()}
    known = begun().does("by_card", '{"person": {"no": 7}}', kinds=kinds, card="C7")
    own = begun().does("by_card", '{"person": {"no": 7}}', kinds=kinds, card="C7").does("account", '{"no": 7}', kinds=kinds, no=7)
    foreign = known.does("account", '{"no": 888}', kinds=kinds, id="X888").user("Yes.").does("close", '"ok"', kinds=kinds, id="X888")
    assert "unidentified_customer" in flaws(begun().does("account", "{}", kinds=kinds, no=7))
    assert "unidentified_customer" not in flaws(begun().does("prices", "{}", kinds=kinds)) | flaws(own)
    assert "foreign_account" in flaws(foreign) and "unconfirmed_write" not in flaws(own.does("close", "{}", kinds=kinds, no=7))
    assert "needless_handover" not in flaws(Talk().user("Bye.").does("hang_up", "{}", kinds=kinds))


class Desk:
    """An API with a tool that happens to have the name of the default one."""

    def find_user(self, name: str) -> dict[str, str]:
        return {"user": name}


def test_a_tool_of_an_api_that_only_has_the_default_name_identifies_nobody() -> None:
    assert World.build(from_object(Desk, name="desk", policy="R1. x"), 3, 0).conventions.identified_by == ()


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        (
            Conventions(identified_by=(Identification("by_crad"),)),
            r"identified_by names 'by_crad', which is no tool. Did you mean 'by_card'",
        ),
        (Conventions(identified_by=(Identification("by_card", ("crad",)),)), r"by_card has no argument 'crad'. Did you mean 'card'"),
        (Conventions(hand_over="close"), r"hand_over names 'close', which is a tool of kind write, not end"),
        (Conventions(look_ups=("close",)), r"look_ups names 'close', which is a tool of kind write, not read"),
        (Conventions(confirmed="close"), r"confirmed = 'close' is one text"),  # type: ignore[arg-type]
        (Conventions(confirmed_by="me"), r"confirmed_by = 'me': allowed are 'user', 'nobody' and a function"),  # type: ignore[arg-type]
        (Conventions(lineage="me"), r"lineage = 'me': allowed are 'person' and 'other'"),  # type: ignore[arg-type]
        ({}, r"CONVENTIONS must be a tasks.contract.conventions.Conventions, got dict"),
    ],
)
def test_mistakes_are_named(declared: Any, says: str) -> None:
    if declared == {}:
        made = from_object(Counter, name="counter", policy="R1. x", writes=("close", "note"), ends=("hang_up",))
        made.CONVENTIONS = declared
        with pytest.raises(BadInput, match=says):
            World.build(made, 3, 0)
        return
    with pytest.raises(BadInput, match=says):
        counter(declared)


def test_world_check_tells_what_holds_and_what_does_not() -> None:
    there = counter()
    found = convention_checks.declared(there.shared.cls, there.tools, "here")
    ways = "by_card(card) or by_name(name, born)"
    assert found.ok and found.summary == f"people are identified by {ways}; front_desk hands over; a rule confirms close"
    retail = world("retail")
    said = "people are identified by find_user(name, zip); transfer_to_human hands over; the user confirms every write"
    assert convention_checks.declared(retail.shared.cls, retail.tools, "").summary == said
    made = counter().shared.cls
    made.CONVENTIONS = Conventions(hand_over="close")
    (wrong,) = convention_checks.declared(made, there.tools, "here").findings
    assert wrong.where == "here" and "a tool of kind write, not end" in wrong.what and "conventions.py" in wrong.remedy
    with_card = Problem("p", "counter", "train", "", ("7",), "", "", {}, (Action(*CARD),))
    sample = Sample(counter(Conventions(identified_by=(Identification("by_card", ("card",), "person.id"),))), frozenset(), {})
    sample.problems["train"] = [with_card]
    (no_id,) = convention_checks.identified(sample).findings
    assert no_id.what == 'the answer of by_card has no id at \'person.id\': {"person": {"no": 7}}'
    sample.world = there
    assert convention_checks.identified(sample).ok and convention_checks.identified(sample).notes == (
        "no problem identifies anybody by by_name",
    )


def test_keys_of_a_servers_file(tmp_path: Path) -> None:
    about = {"command": ["python", "x.py"], "dump": "dump", "restore": "restore"}
    keys = {
        "identified_by": [{"tool": way.tool, "fields": list(way.fields), "answer": way.answer} for way in WAYS],
        "open_tools": ["prices"],
        "hand_over": "front_desk",
        "confirmed_by": "nobody",
        "confirmed": ["close"],
    }
    path = tmp_path / "mcp.yaml"
    path.write_text(json.dumps({**about, "conventions": keys}))
    read = server_file.read(path).conventions
    assert read is not None and read.declared() == Conventions(
        identified_by=WAYS, open_tools=("prices",), hand_over="front_desk", confirmed_by="nobody", confirmed=("close",)
    )
    path.write_text(json.dumps({**about, "conventions": {"identified_by": []}}))
    empty = server_file.read(path).conventions
    assert empty is not None and empty.declared() == Conventions(identified_by=())
    path.write_text(json.dumps({**about, "conventions": {"confirmed_by": "me"}}))
    with pytest.raises(BadInput, match=r"conventions\.confirmed_by"):
        server_file.read(path)
