"""Rejection sampling: the waterfall, splits by lineage, duplicates; every row is kept or has a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.params import BadInput, StageFailed, validate
from tasks.filter import Check, Marks
from tasks.filter.core.room import Decided, check_kept, decide, figures
from tasks.filter.core.splits import resplit, straddling, strictest
from tasks.filter.core.waterfall import flow, write_bars
from tasks.filter.rejection_sampling import Params, _light, checks, content_hash
from tests.critique.conversations import good, hasty

KNOWN = {"shop": {"u1": "train", "u2": "train", "u3": "validation", "u4": "test"}}


def row(name: str, lineage: tuple[str, ...] = ("u1",), words: str = "", **columns: Any) -> dict[str, Any]:
    """What marking a trajectory needs; passes every check unless columns say otherwise."""
    passed = {"stop": "user_stop", "state": 1, "outputs": 1, "required": 1, "policy": 1.0}
    about = {"traj_id": name, "problem_id": f"p{name}", "world": "shop", "split": "train", "lineage": list(lineage)}
    return {**about, **passed, "hash": words or name, **columns}


def mark(table: list[dict[str, Any]], known: Any, parents: Any, scores: dict[str, float], params: Params) -> Decided:
    splits = resplit(table, known, parents)
    return decide(table, splits, checks(table, splits, scores, params))


def reasons(table: list[dict[str, Any]], params: Params | None = None, scores: dict[str, float] | None = None) -> list[str]:
    return mark(table, KNOWN, {}, scores or {}, params or Params()).reasons


def test_worked_example(tmp_path: Path) -> None:
    """Nine conversations, each met by its first failing check, by hand.

    a kept; b wrong state and broken policy: state comes first; c outputs; d required; e policy; f repeats a's words;
    g is of a test user; h shares user u2 with i, which also concerns the validation user u3, so i is validation and h straddles.
    Left after each check: 9, -1 test 8, -1 lineage 7, -1 state 6, -1 outputs 5, -1 required 4, -0 unfinished 4, -1 policy 3, -1 duplicate 2.
    """
    table = [
        row("a", words="same"),
        row("b", state=0, policy=0.5),
        row("c", outputs=0),
        row("d", required=0),
        row("e", policy=0.75),
        row("f", words="same"),
        row("g", ("u4",)),
        row("h", ("u2",)),
        row("i", ("u2", "u3")),
    ]
    marks = mark(table, KNOWN, {}, {}, Params())
    assert marks.reasons == [
        "", "failed_state", "failed_outputs", "failed_required", "policy", "duplicate", "test_split", "lineage", "",
    ]  # fmt: skip
    assert marks.splits == ["train"] * 6 + ["test", "train", "validation"]
    assert [bar.kept for bar in marks.bars] == [9, 8, 7, 6, 5, 4, 4, 3, 2]
    assert marks.straddling == 1
    write_bars(tmp_path / "waterfall.csv", marks.bars)
    lines = (tmp_path / "waterfall.csv").read_text().splitlines()
    assert lines[:4] == ["stage,reason,kept,dropped", "all,,9,0", "split,test_split,8,1", "split,lineage,7,1"]


parts = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.sampled_from([0.5, 1.0]), st.integers(0, 3))


@given(st.lists(parts, max_size=30))
def test_without_extras_it_is_the_plain_verifier(drawn: list[tuple[Any, ...]]) -> None:
    """The limit: no policy, no score, no duplicates asked for, all users of train. Kept = state * outputs * required."""
    table = [row(f"{n:02}", words=str(w), state=s, outputs=o, required=r, policy=p) for n, (s, o, r, p, w) in enumerate(drawn)]
    plain = Params(policy=False, min_score=0.0, deduplicate=False)
    assert [not reason for reason in reasons(table, plain)] == [bool(s * o * r) for s, o, r, _, _ in drawn]


users = st.lists(st.sampled_from(["u1", "u2", "u3", "u4"]), min_size=1, max_size=2)


@given(st.lists(st.tuples(parts, users, st.floats(0, 1)), max_size=30))
def test_counts_add_up_and_splits_never_touch(drawn: list[tuple[Any, ...]]) -> None:
    """Whatever comes in: bars add up, each row has one mark, kept rows of different splits share no user, words are unique."""
    table = [
        row(f"{n:02}", tuple(lineage), str(w), state=s, outputs=o, required=r, policy=p)
        for n, ((s, o, r, p, w), lineage, _) in enumerate(drawn)
    ]
    scores = {f"{n:02}": value for n, (_, _, value) in enumerate(drawn) if n % 3}
    marks = mark(table, KNOWN, {}, scores, Params(min_score=0.4))
    counted = Counter(marks.reasons)
    assert len(marks.reasons) == len(table)
    assert sum(bar.dropped for bar in marks.bars) + counted[""] == len(table)
    assert all(counted[bar.reason] == bar.dropped for bar in marks.bars[1:])
    assert all(before.kept - after.dropped == after.kept for before, after in zip(marks.bars, marks.bars[1:], strict=False))
    kept = [(line, split) for line, split, reason in zip(table, marks.splits, marks.reasons, strict=True) if not reason]
    assert "test" not in {split for _, split in kept}
    assert len({line["hash"] for line, _ in kept}) == len(kept)
    home: dict[str, str] = {}
    for line, split in kept:
        assert {home.setdefault(user, split) for user in line["lineage"]} == {split}
    assert mark(table, KNOWN, {}, scores, Params(min_score=0.4)) == marks


@given(st.permutations(list(range(8))))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    table = [row(f"{n}", ("u1",) if n % 2 else ("u3",), str(n // 4)) for n in range(8)]
    wanted = dict(zip((line["traj_id"] for line in table), reasons(table), strict=True))
    shuffled = [table[index] for index in order]
    assert dict(zip((line["traj_id"] for line in shuffled), reasons(shuffled), strict=True)) == wanted


@pytest.mark.parametrize("stop", ["max_tokens", "parse_error", "context_length", "content_filter", "human_unanswered"])
def test_a_conversation_whose_last_turn_is_none_is_not_kept_though_the_verifier_passes_it(stop: str) -> None:
    table = [row("a"), row("b", stop=stop), row("c", stop=stop, required=0), row("d", stop="hand_over")]
    assert reasons(table) == ["", "unfinished", "failed_required", ""]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([row("a"), row("b", ("u3",), state=0), row("c", ("u3",), policy=0.5)], r"none of 2 rows of the validation split is kept \(failed_state 1, policy 1\)"),
        ([row("a", state=0), row("b", ("u3",))], r"none of 1 rows of the train split is kept \(failed_state 1\)"),
        ([row("a", ("u4",))], "1 rows came in and none is kept"),
        ([], "0 rows came in and none is kept"),
    ],
)  # fmt: skip
def test_a_filter_that_leaves_a_split_empty_says_why(table: list[dict[str, Any]], message: str) -> None:
    marks = mark(table, KNOWN, {}, {}, Params())
    with pytest.raises(StageFailed, match=message):
        check_kept(marks, figures(table, marks), Marks(), "policy")


def test_a_split_of_which_there_was_no_row_is_not_missed() -> None:
    table = [row("a")]
    marks = mark(table, KNOWN, {}, {}, Params())
    check_kept(marks, figures(table, marks), Marks(), "policy")


def test_a_detour_drops_when_the_writes_are_asked_for() -> None:
    table = [row("a", writes=1), row("b", writes=0), row("c", writes=0, policy=0.5)]
    assert reasons(table, Params(writes=True)) == ["", "writes", "policy"]
    assert reasons(table) == ["", "", "policy"]


def test_a_score_below_the_threshold_or_none_at_all_drops() -> None:
    table = [row("a"), row("b"), row("c")]
    scores = {"a": 0.49, "b": 0.5}
    assert reasons(table, Params(min_score=0.5), scores) == ["critique", "", "no_critique"]
    assert reasons(table, Params(min_score=0.0), scores) == ["", "", ""]


def test_of_equal_conversations_the_first_sound_one_stays() -> None:
    """By id order among those that pass; a lost one does not take the place of a good one; a validation row goes before."""
    assert reasons([row("b", words="w"), row("a", words="w")]) == ["duplicate", ""]
    assert reasons([row("a", words="w", state=0), row("b", words="w")]) == ["failed_state", ""]
    assert reasons([row("a", words="w"), row("b", ("u3",), words="w")]) == ["duplicate", ""]
    assert reasons([row("a", words="w"), row("b", ("u4",), words="w")]) == ["duplicate", "test_split"]


def test_words_and_calls_make_a_conversation_and_call_ids_do_not() -> None:
    same = good().row()["messages"]
    for message in same:
        message["content"] = message["content"].upper().replace(" ", "  ")
        message["tool_call_id"] = "another" if message["tool_call_id"] else None
        for call in message["tool_calls"]:
            call["id"] = "another"
    assert content_hash(same) == content_hash(good().row()["messages"]) != content_hash(hasty().row()["messages"])


def test_a_recombined_problem_is_as_strict_as_its_parents() -> None:
    """p3 was made from p1 and p2; p2 is of a validation user. p1 shares p3, so p1 straddles and only the strictest stay."""
    table = [row("1", ("u1",)), row("2", ("u3",)), row("3", ("u1", "p1", "p2"))]
    parents = {line["problem_id"]: line["lineage"] for line in table}
    marks = mark(table, KNOWN, parents, {}, Params())
    assert (marks.splits, marks.reasons) == (["train", "validation", "validation"], ["lineage", "", ""])


def test_lineage_that_runs_in_a_circle_ends() -> None:
    table = [row("1", ("u3", "p2")), row("2", ("p1",))]
    assert resplit(table, KNOWN, {line["problem_id"]: line["lineage"] for line in table}) == ["validation", "validation"]


def test_rows_without_lineage_keep_their_split() -> None:
    table = [row("1", ()), row("2", (), split="validation")]
    assert resplit(table, KNOWN, {}) == ["train", "validation"]
    assert straddling(table, ["train", "validation"]) == ([False, False], 0)


def test_unknown_lineage_is_named() -> None:
    with pytest.raises(BadInput, match=r"trajectory 1: lineage entry 'u9' is neither a user of world 'shop' nor a blueprint"):
        resplit([row("1", ("u9",))], KNOWN, {})
    nobody = [{**row("1", ("case7",)), "split": "validation"}]
    assert resplit(nobody, {name: {} for name in KNOWN}, {}) == ["validation"], "a world without users draws lineages of its own"


def test_strictness() -> None:
    assert strictest(["train", "test", "validation"]) == "test"
    assert strictest(["train", "validation"]) == "validation"


def test_a_check_sees_only_what_is_left() -> None:
    seen: list[list[int]] = []

    def odd(left: Any) -> set[int]:
        seen.append(list(left))
        return {index for index in left if index % 2}

    marked, bars = flow(4, [Check("s", "first", odd), Check("s", "second", odd)])
    assert (marked, seen) == (["", "first", "", "first"], [[0, 1, 2, 3], [0, 2]])
    assert [(bar.kept, bar.dropped) for bar in bars] == [(4, 0), (2, 2), (2, 0)]


def test_bad_params_are_named() -> None:
    with pytest.raises(BadInput, match=r"min_score = 1.5.*<= 1"):
        validate(Params, {"min_score": 1.5}, "params")
    with pytest.raises(BadInput, match="unknown key 'threshold'"):
        validate(Params, {"threshold": 0.5}, "params")


def test_a_call_that_could_not_be_read_is_not_learnt() -> None:
    """Told from what was kept of it; a bar of its own, and only where there is such a call."""
    said = {"role": "assistant", "content": "", "tool_call_id": None, "name": None}
    call = {"id": "call_0", "name": "get", "arguments_json": '{"unreadable": "{"}'}
    table = [row("a"), row("b")]
    light = _light({**table[1], "messages": [{**said, "tool_calls": [call]}]})
    assert light["unread"] and not _light({**table[0], "messages": [{**said, "tool_calls": []}]})["unread"]
    parents = {one["problem_id"]: one["lineage"] for one in table}
    marks = mark([table[0], {**table[1], "unread": True}], KNOWN, parents, {}, Params())
    assert marks.reasons == ["", "unreadable_call"] and ("unreadable_call", 1) in [(bar.reason, bar.dropped) for bar in marks.bars]
    assert "unreadable_call" not in [bar.reason for bar in mark(table, KNOWN, parents, {}, Params()).bars]
