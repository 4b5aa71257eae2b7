"""`cairn world check` on worlds with one fault each: it names the tool, the line and the remedy, and says nothing of what is well."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flows.worlds import (
    call_checks,
    check,
    command,
    policy_checks,
    problem_checks,
    process_checks,
    sharing_checks,
    state_checks,
    tool_checks,
)
from flows.worlds.fingerprints import _attributes, changed, print_of
from flows.worlds.report import Check, Finding, Report, kind_of
from flows.worlds.sample import Sample, draw
from tasks.contract.params import BadInput
from tasks.worlds.api.calls import ANSWER
from tasks.worlds.api.loading import BUILT_IN
from tasks.worlds.api.places import location, place
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Refused, Tool, tools_of
from tasks.worlds.library.library.world import Library
from tests.worlds import broken

SOURCE = Path(broken.__file__)


def build(cls: type) -> World:
    return World.build(cls, 12, 0, f"{cls.__module__}:{cls.__name__}")


@cache
def sample(cls: type, count: int = 10) -> Sample:
    return draw(build(cls), count, 0)


def line(mark: str) -> str:
    """Where a mark stands in broken.py, as the report writes it."""
    numbers = [number for number, text in enumerate(SOURCE.read_text().splitlines(), 1) if text.endswith(mark)]
    assert len(numbers) == 1, mark
    return location(str(SOURCE), numbers[0])


def definition(function: Any) -> str:
    lines, start = inspect.getsourcelines(function)
    offset = next(number for number, text in enumerate(lines) if text.lstrip().startswith("def "))
    return location(str(SOURCE), start + offset)


def said(found: Check) -> dict[str, Finding]:
    """Place -> finding."""
    return {finding.where: finding for finding in found.findings}


# --- bad input ---


def test_a_tool_without_types_or_docstring() -> None:
    """Every mistake of every tool, each with file and line, at once."""
    with pytest.raises(BadInput) as caught:
        tools_of(broken.Untyped)
    lines = str(caught.value).splitlines()
    assert lines == [
        f"tool Untyped.first ({line('# untyped')}): argument 'key' has no type hint. "
        "Allowed: str, int, float, bool, Literal, list of these, and '| None'.",
        f"tool Untyped.second ({line('# no docstring')}): no docstring. Write one line on what the tool does, and an 'Args:' section.",
        f"tool Untyped.third ({line('# two mistakes')}): argument 'key' is not described under 'Args:'. Add a line for it.",
        f"tool Untyped.third ({line('# two mistakes')}): argument 'other' has type dict. "
        "Allowed: str, int, float, bool, Literal, list of these, and '| None'.",
        f"tool Untyped.third ({line('# two mistakes')}): 'Args:' describes 'kee', which is no argument. Did you mean 'key'?",
    ]
    report = check.check(broken.Untyped)
    assert [finding.what for finding in report["schemas"].findings] == lines
    assert len(report.checks) == 2 and not report.ok, "nothing else can be looked at"


def test_a_clock_inside_a_tool() -> None:
    """However it was imported, and in a function that the tool calls; a log record is no fault."""
    found = said(call_checks.Repeats(sample(broken.Clock)).watched("clock"))
    assert set(found) == {line("# clock-1"), line("# clock-2"), line("# clock-3")}
    assert found[line("# clock-1")].what == "tool get_title reads the clock: it calls time.time"
    assert found[line("# clock-2")].what == "tool get_loan reads the clock: it calls datetime.now"
    assert found[line("# clock-3")].what == "tool pay_fee reads the clock: it calls date.today"
    assert all("Keep the date in a table" in finding.remedy for finding in found.values())


def test_chance_inside_a_tool() -> None:
    found = said(call_checks.Repeats(sample(broken.Chance)).watched("random"))
    assert set(found) == {line(f"# random-{number}") for number in (1, 2, 3, 4)}
    assert found[line("# random-1")].what.startswith("tool get_title draws random numbers: it calls random.")
    assert found[line("# random-2")].what == "tool get_loan draws random numbers: it calls uuid.uuid4, os.urandom"
    assert found[line("# random-3")].what == "tool find_user draws random numbers: it calls os.urandom"
    assert found[line("# random-4")].what == "tool find_user draws random numbers: it calls random.Random() without a seed"
    assert "Derive the value from the arguments" in found[line("# random-1")].remedy


def test_a_generator_that_a_tool_seeds_is_no_chance() -> None:
    repeats = call_checks.Repeats(sample(broken.Seeded))
    assert repeats.watched("random").ok and repeats.watched("clock").ok and repeats.determinism().ok


def test_a_tool_that_is_not_deterministic() -> None:
    """Its answer counts how often it was called."""
    (finding,) = call_checks.Repeats(sample(broken.Forgetful)).determinism().findings
    assert finding.where == definition(broken.Forgetful.get_title)
    assert finding.what.startswith("tool get_title is not deterministic: get_title(title=") and " and then {" in finding.what
    assert finding.remedy == "Let a tool depend on its arguments and on self.db alone."


def test_a_tool_that_mutates_shared_state() -> None:
    found = {finding.what: finding for finding in sharing_checks.shared_state(sample(broken.Forgetful)).findings}
    where = {
        "tool get_title changes self.last, which is no part of the state": line("# shared-1"),
        "tool get_title changes Forgetful.calls, which is no part of the state": line("# shared-2"),
        "tool get_loan changes tests.worlds.broken.SEEN, which is no part of the state": line("# shared-3"),
        "tool get_loan changes tests.worlds.broken._times, which is no part of the state": definition(broken.Forgetful.get_loan),
    }
    assert set(found) == set(where)
    for what, finding in found.items():
        if "_times" not in what:
            assert finding.where == where[what]
        assert "Keep it in a table" in finding.remedy


def test_a_row_changed_in_place() -> None:
    """The report ends there: every other figure would be wrong for this one reason."""
    report = check.check(broken.InPlace, 12, 0, 10)
    (finding,) = report["stored rows"].findings
    assert finding.where == definition(broken.InPlace.pay_fee)
    assert finding.what.startswith("tool pay_fee changes a stored row in place, past the state: pay_fee(loan_id=")
    assert "Use self.db.update" in finding.remedy
    assert report.checks[-1].name == "stored rows"


def test_a_snapshot_that_shares_memory() -> None:
    (finding,) = state_checks.snapshots(sample(broken.Sharing)).findings
    assert finding.where == definition(broken.Sharing.reserve_title)
    assert finding.what == "tool reserve_title: a snapshot shares memory with the live state: a write made after it has changed it"
    assert "Use self.db.update" in finding.remedy


def test_the_order_of_a_set() -> None:
    """It is the same within a process: only others, with another PYTHONHASHSEED, show it."""
    elsewhere = process_checks.Elsewhere("tests.worlds.broken:Unordered", 12, 0, 10)
    try:
        found = elsewhere.check(sample(broken.Unordered))
    finally:
        elsewhere.stop()
    assert call_checks.Repeats(sample(broken.Unordered)).determinism().ok
    (finding,) = found.findings
    assert finding.where == definition(broken.Unordered.find_user)
    assert finding.what.startswith("tool find_user differs in another process: ") and "sort first" in finding.remedy


def test_what_tools_print_does_not_stand_in_the_way() -> None:
    elsewhere = process_checks.Elsewhere("tests.worlds.broken:Prints", 12, 0, 10)
    try:
        assert elsewhere.check(sample(broken.Prints)).ok
    finally:
        elsewhere.stop()


# --- the other faults ---


def test_tools_that_fail() -> None:
    """A bug by its own line; a look-up that writes by its `def`, since the state refuses it."""
    reached = draw(World.build(broken.Failing, 12, 0, "tests.worlds.broken:Failing"), 10, 0)
    found = said(call_checks.calls_work(reached))
    bug = found[line("# failing")]
    assert bug.what.startswith("tool get_title fails when it is called as get_title(title=") and "ZeroDivisionError" in bug.what
    assert "mend what is a bug" in bug.remedy
    (other,) = (finding for where, finding in found.items() if where != line("# failing"))
    assert other.where == definition(broken.Failing.get_loan) and "a tool that is not a write tried to change loans" in other.what


def test_new_rows_must_not_be_numbered() -> None:
    (finding,) = state_checks.state_hash(sample(broken.Counting)).findings
    assert finding.where == definition(broken.Counting.reserve_title)
    assert finding.what.startswith("tools reserve_title and reserve_title write different rows") and "a counter" in finding.remedy
    assert state_checks.state_hash(sample(Library)).ok, "two reservations of one title by one member are one row, in either order"


def test_tools_that_nobody_needs() -> None:
    """A write that changes nothing; a tool that nothing leads to and that is in no ground truth."""
    lazy = sample(broken.Lazy)
    (idle,) = state_checks.state_hash(lazy).findings
    assert idle.where == definition(broken.Lazy.reserve_title) and "changes nothing in any ground truth" in idle.what
    (unreached,) = problem_checks.graph(lazy).findings
    assert unreached.where == definition(broken.Lazy.stamp_card)
    assert unreached.what == "tool stamp_card needs stamp, which no look-up that can be reached gives"
    assert "Given now: fee, free, loan_id, status, user_id" in unreached.remedy
    (uncovered,) = problem_checks.coverage(lazy).findings
    assert uncovered.where == definition(broken.Lazy.stamp_card) and "in none of 20 ground truths" in uncovered.what


def test_predicates_must_be_able_to_hold_and_to_fail() -> None:
    found = {finding.what.split(":")[0]: finding for finding in policy_checks.policy(sample(broken.Blind)).findings}
    assert set(found) == {
        "BLUEPRINT_PREDICATES['R5'] never fails",
        "TRAJECTORY_PREDICATES['R6'] never holds, not even on a ground truth",
        "the trajectory predicate R7 fails",
    }
    assert found["BLUEPRINT_PREDICATES['R5'] never fails"].where == line("# always")
    assert found["TRAJECTORY_PREDICATES['R6'] never holds, not even on a ground truth"].where == line("# never")
    assert found["the trajectory predicate R7 fails"].where == line("# crashes")
    assert "KeyError: 'no such argument'" in found["the trajectory predicate R7 fails"].what


def test_rules_without_a_predicate_are_listed() -> None:
    found = policy_checks.policy(sample(Library))
    assert found.ok and found.notes == (
        "without a predicate: R10 (left to the grading and to judges)",
        "predicates that are no rules of the policy: G1, S1",
    )


def test_problems_that_their_own_predicates_refuse() -> None:
    found = [finding.what for finding in policy_checks.policy(sample(broken.Strict)).findings]
    assert len(found) == 1 and "breaks blueprint predicate R9: handed over without get_title" in found[0]


def test_problems_that_cannot_be_solved_or_need_nothing() -> None:
    mute = sample(broken.Mute)
    solved = problem_checks.oracle(mute)
    assert solved.summary == "score 0.80 on 20 problems (must be 1.00)" and len(solved.findings) == 4
    assert all("(family hand_over" in finding.what and "fails in required" in finding.what for finding in solved.findings)
    lazy = problem_checks.idle(mute)
    assert lazy.summary == "do_nothing 0.20, always_refuses 0.20, always_hands_over 0.20 (must be 0.00)"
    assert "do_nothing passes library_" in lazy.findings[0].what and "(family forbidden" in lazy.findings[0].what
    taught = problem_checks.teacher(mute)
    assert "fails 4 of 20 problems (hand_over 4)" in taught.findings[0].what


def test_problems_that_say_the_same_and_want_different_things() -> None:
    vague = problem_checks.ambiguous(sample(broken.Vague))
    assert vague.summary == "4 of 20 problems are ambiguous"
    assert all("say the same and want different things" in finding.what for finding in vague.findings)


def test_a_family_without_problems_says_why() -> None:
    stuck = sample(broken.Stuck)
    assert [finding.where for finding in stuck.findings] == [definition(broken.Stuck.propose)] * 2
    what = "no problem of family 'renewals' in split 'train'; of 40 drafts 40: action 1 renew_loan: {\"error\": \"closed today\"}"
    assert stuck.findings[0].what == what


def test_tables_that_are_drawn_anew() -> None:
    report = check.check(broken.Drifting, 12, 0, 10)
    assert [finding.what for finding in report["tables"].findings] == [
        "tables() calls random.random",
        "tables(size, seed) gives different rows the second time",
    ]
    assert report["tables"].findings[0].where == line("# drifting")


def test_everything_that_a_class_lacks_is_named_at_once() -> None:
    report = check.check(broken.Bare)
    assert [finding.what for finding in report.findings] == [
        "Bare.POLICY is missing: its policy text",
        "Bare.tables is missing: a static method tables(size, seed)",
        "NAME = 'my shop' is no word of letters, digits and underscores",
    ]


def test_a_class_inside_a_function_is_nowhere() -> None:
    with pytest.raises(BadInput, match="define it at the top level of its module"):
        check.check(type("Inner", (Library,), {"__qualname__": "test.<locals>.Inner"}))


def test_a_world_without_problems_is_looked_at_all_the_same() -> None:
    report = check.check(broken.Toolbox, 12, 0, 10)
    assert [finding.what for finding in report.findings] == [
        "no rule of the policy was read (1 lines, the first: 'Be kind.')",
        "it makes no problems: FAMILIES, context, propose are missing",
    ]
    assert report["schemas"].notes == ("public methods that are no tools: total",)
    assert report["calls"].summary == "8 calls of 1 tools, 0 of them refused, none failed"
    assert "oracle" not in [one.name for one in report.checks]


def test_an_api_that_is_adapted() -> None:
    """Its methods lie anywhere: the line is found all the same, and what has no description is told."""
    report = check.check(broken.Ticking, 6, 0, 4, "tests.worlds.broken:Ticking")
    (clock,) = report["clock"].findings
    assert clock.where == line("# adapted-1") and clock.what == "tool now reads the clock: it calls time.time"
    (bug,) = report["calls"].findings
    assert "tool peek fails when it is called as peek(): SourceFailed" in bug.what and bug.remedy == "", "the adapter says what to do"
    assert report["schemas"].notes == ("a model reads no description of: add, add.user, add.amount",)
    assert report["shared state"].ok and report["shared state"].summary.endswith("left classes and globals of 2 files alone")
    (uncovered,) = report["coverage"].findings
    assert uncovered.what == "tool leave (end) is in none of 3 ground truths" and "problems file" in uncovered.remedy
    (typo,) = report["left out"].findings
    assert typo.what.startswith("leave_out names 'amuonts.*.seen', and nothing in the start or after ")
    assert "Correct it, or take it out" in typo.remedy, "amount is rounded, which fits"


def test_objects_that_share_a_class_or_a_global() -> None:
    """Found by calls that change it, at the line of a tool that writes; a table that nothing changes is no fault."""
    report = check.check(broken.Shared, 6, 0, 4, "tests.worlds.broken:Shared")
    found = {finding.where: finding for finding in report["shared state"].findings}
    assert set(found) == {line("# common-1"), line("# common-2")}
    assert found[line("# common-1")].what.startswith("calls change tests.worlds.broken.LEDGER (add mention it)")
    assert "Counter.numbers" in found[line("# common-2")].what and "own_process" in found[line("# common-2")].remedy


def test_more_tools_than_hosted_apis_take() -> None:
    tools = {f"t{number}": _tool(f"t{number}") for number in range(129)}
    (found,) = tool_checks.names(tools, {}).findings
    assert found.what == "129 tools, and hosted APIs take 128 in one request" and "leave out" in found.remedy


def test_an_api_without_problems_or_people() -> None:
    """Everything that needs neither is looked at: names that hosted APIs refuse, endless answers, a policy in prose."""
    report = check.check(broken.Foreign, 6, 0, 4, "tests.worlds.broken:Foreign")
    odd, long = report["names"].findings
    assert "the name of tool 'prüfe': it holds 'ü'" in odd.what and "rename it" in odd.remedy and odd.where == line("# named-1")
    assert long.what.endswith("it has 70 characters")
    (endless,) = report["answers"].findings
    assert "tool everything answers 40,000 characters when it is called as everything(); what is beyond 30,000 is cut" in endless.what
    assert "worlds.freeze.longest_answer" in endless.remedy and endless.where == line("# endless-1")
    assert [finding.what for finding in report["rules"].findings] == [
        "no rule of the policy was read (2 lines, the first: '1. Look before you write.')",
        "line 1 of the policy looks like a rule, and is none as it is written: '1. Look before you write.'",
        "line 2 of the policy looks like a rule, and is none as it is written: 'R2: Be brief.'",
    ]
    assert report["described"].ok and report["problems"].ok and "a model in the generator's role" in report["problems"].notes[0]
    larger = check.check(broken.Foreign, 6, 0, 4, "tests.worlds.broken:Foreign", longest=50_000)
    assert larger["answers"].ok and larger["answers"].summary == "the longest is everything's, 40,000 characters; at most 50,000"


def _tool(name: str, parameters: dict[str, Any] | None = None, check: Any = dict) -> Tool:
    return Tool(name, "", {"type": "object", "properties": {}, **(parameters or {})}, "read", (), (), check)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["get.order"], ["it holds '.'"]),
        (["get order/now"], ["it holds ' /'"]),
        (["注文"], ["it holds '注文'"]),
        (["x" * 65], ["it has 65 characters"]),
        (["é" * 65], ["it holds 'é' and it has 65 characters"]),
        (["get.order", "get_order"], ["it holds '.'", "are all 'get_order'"]),
        (["x" * 64 + "a", "x" * 64 + "b"], ["65 characters", "65 characters", "are all 'xxx"]),
        (["x" * 64, "get-order", "Get_Order2"], []),
    ],
)
def test_names_that_hosted_apis_refuse(names: list[str], message: list[str]) -> None:
    found = tool_checks.names({name: _tool(name) for name in names}, {})
    assert len(found.findings) == len(message) and all(finding.remedy for finding in found.findings)
    assert all(text in finding.what for finding, text in zip(found.findings, message, strict=True))


def test_argument_names_that_hosted_apis_refuse() -> None:
    (found,) = tool_checks.names({"get": _tool("get", {"properties": {"order id": {}, "fine.one": {}}})}, {}).findings
    assert found.what == "tool get: hosted APIs refuse the argument names 'order id'"


ODD_SCHEMAS: list[dict[str, Any]] = [
    {"properties": {"n": {"type": "integer", "minimum": 3, "multipleOf": 5}}, "required": ["n"]},
    {"properties": {"n": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "multipleOf": 0.25}}, "required": ["n"]},
    {"properties": {"n": {"type": "integer", "maximum": -4}}, "required": ["n"]},
    {"properties": {"d": {"type": "string", "format": "date", "minLength": 10}}, "required": ["d"]},
    {"properties": {"a": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2}}, "required": ["a"]},
    {
        "properties": {"o": {"$ref": "#/$defs/o"}},
        "required": ["o"],
        "$defs": {"o": {"type": "object", "properties": {"s": {"minLength": 4}}}},
    },
    {"properties": {"u": {"anyOf": [{"pattern": "^z+$"}, {"type": ["null", "integer"], "minimum": 2}]}}, "required": ["u"]},
    {"properties": {"p": {"type": "string", "pattern": "^z"}, "q": {"const": 4}}, "required": ["q"]},
]


@pytest.mark.parametrize("schema", ODD_SCHEMAS)
def test_a_tool_that_refuses_what_its_schema_says(schema: dict[str, Any]) -> None:
    """Arguments are made to the schema; a check that takes them is fine, one that takes none is named with what it refused."""

    def refuse(arguments: Any) -> Any:
        raise Refused("not so")

    world = build(broken.Toolbox)
    for check_, taken in ((dict, True), (refuse, False)):
        world.tools = {"odd": _tool("odd", schema, check_)}
        found = tool_checks.described(Sample(world, frozenset(), {}))
        assert found.ok is taken and not found.notes
        assert taken or (
            "tool odd cannot be called as it is described" in found.findings[0].what and "not so" in found.findings[0].what
        )


def test_a_tool_for_which_no_arguments_can_be_made_is_told() -> None:
    world = build(broken.Toolbox)
    world.tools = {"odd": _tool("odd", {"properties": {"p": {"type": "string", "pattern": "^z"}}, "required": ["p"]}, broken.refuse)}
    found = tool_checks.described(Sample(world, frozenset(), {}))
    assert found.ok and found.notes == ("no arguments could be made for odd; give a problem that calls them",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("R1. Ask first.\nR2. Be brief.", []),
        ("R1. Ask first, in\n3. steps at most.", []),
        ("Be kind.", ["no rule of the policy was read"]),
        ("- **R1.** Ask first.", ["no rule", "line 1"]),
        ("R1. Ask first.\nR2: Be brief.\nRule 3) Be kind.", ["line 2", "line 3"]),
        ("R1. Ask first.\nR1. Be brief.", ["two rules R1"]),
        ("Политика: будьте вежливы.", ["no rule"]),
    ],
)
def test_rules_that_are_not_read(text: str, message: list[str]) -> None:
    found = policy_checks.rules(type("Told", (), {"POLICY": text}), "here")
    assert len(found.findings) == len(message) and all(finding.remedy for finding in found.findings)
    assert all(word in finding.what for finding, word in zip(found.findings, message, strict=True))
    assert bool(found.notes) is ("R1. " in text), "nothing checks what was read"


def test_a_slow_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_checks, "LIMIT", 1e-12)
    found = state_checks.speed(sample(Library))
    assert [finding.what.split()[0] for finding in found.findings] == ["reset", "snapshot", "restore"]
    assert "ms; at most 0 ms" in found.findings[0].what and "Copy only what changed" in found.findings[0].remedy


# --- the parts ---


def test_prints_tell_what_changes() -> None:
    """Equal prints for equal contents, and another after a change at any depth."""

    class Thing:
        __slots__ = ("box",)

        def __init__(self) -> None:
            self.box: dict[str, list[int]] = {"a": [1]}

    def keeps(value: int, seen: list[int] = []) -> None:  # noqa: B006
        seen.append(value)

    one, other = Thing(), Thing()
    assert print_of(one) == print_of(other) and print_of({1, 2}) == print_of({2, 1})
    one.box["a"].append(2)
    assert print_of(one) != print_of(other) and print_of(1) != print_of(True) and print_of([1]) != print_of((1,))
    before = print_of(keeps)
    keeps(1)
    assert print_of(keeps) != before
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    kept = dict(_attributes(type("Keeps", (), {"deep": deep, "near": [1]})))
    assert kept["Keeps.deep"] == "list" and kept["Keeps.near"] == print_of([1]), "what is too deep to look into ends no check"
    loop: list[Any] = []
    loop.append(loop)
    assert print_of(loop) == print_of(loop), "a cycle ends"
    round_about = Thing()
    round_about.box = {round_about}  # type: ignore[assignment]
    assert print_of(round_about) == print_of(round_about), "and one through a set"
    assert changed({"a": 1, "b": 2}, {"b": 3, "c": 4}) == ["a", "b", "c"]


def test_types_in_words() -> None:
    assert kind_of({"type": "array", "items": {"type": "integer"}}) == "list of integer"
    assert kind_of({"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]}) == '"a" or "b" or null'
    assert kind_of({"type": ["string", "null"]}) == "string or null" and kind_of({}) == "any"


def test_a_report_in_words() -> None:
    faults = tuple(Finding("", f"fault {number}") for number in range(14))
    report = Report("a world", (), (Check("one", "looked at", notes=("known",)), Check("two", "seen", faults)))
    lines = report.text().splitlines()
    assert lines[2:6] == ["ok     one            looked at", "       . known", "wrong  two            seen", "       - fault 0"]
    assert lines[-3:] == ["       - and 2 more", "", "1 of 2 checks failed: two."]


# --- worlds that are sound ---


@pytest.mark.parametrize("address", BUILT_IN)
def test_the_built_in_worlds_are_sound(address: str) -> None:
    report = check.check(check.load(address), 20, 3, 14)
    assert report.ok, report.text()
    assert len(report.checks) == 27 and len(report.tools) == 11


def test_places_are_those_an_editor_opens() -> None:
    assert place(broken.Clock.get_title) == definition(broken.Clock.get_title)
    assert place(broken._today).endswith(f":{inspect.getsourcelines(broken._today)[1]}")
    assert place(broken._today, "no such argument") == place(broken._today) and place(len) == ""
    assert location("/elsewhere/world.py", 3) == "/elsewhere/world.py:3"


def test_the_size_of_an_answer_comes_from_the_active_params(monkeypatch: pytest.MonkeyPatch) -> None:
    def params(**freeze: Any) -> None:
        monkeypatch.setattr(
            command, "read_yaml", lambda path: {"worlds": {"method": "freeze", "freeze": {"modules": ["x:Y"], **freeze}}}
        )

    params(longest_answer=1200)
    assert command._longest("x:Y") == 1200
    params()
    assert command._longest("x:Y") == ANSWER
    params(longest_answer="many")
    with pytest.raises(BadInput, match=r"worlds.freeze.*longest_answer"):
        command._longest("x:Y")
