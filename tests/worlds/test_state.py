"""The state: copy-on-write, with a hash that is canonical and incremental. What values are and which are equal: test_state_values.py.

Worked by hand: from {"t": {"a": {"n": 25}}}, writing {"n": 25.0} over row a leaves the hash and an empty diff; writing {"n": 26} gives the
diff "- t a n: 25 / + t a n: 26", and writing {"n": 25} again gives the first hash back.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.contract.values import Row, canonical_json
from tasks.worlds.api.state import Base, State

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy."""
NUMBER = st.integers(-1000, 1000) | st.floats(-1e6, 1e6, allow_nan=False) | st.decimals(-1000, 1000, allow_nan=False, places=3)
SCALAR = st.none() | st.booleans() | NUMBER | st.text(max_size=5)
VALUE = st.recursive(
    SCALAR | st.frozensets(SCALAR, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ROW = st.dictionaries(st.sampled_from("xyz"), VALUE, max_size=3)
ROWS = st.dictionaries(st.sampled_from("abcde"), ROW, max_size=5)
STEP = st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from("abcdefg"), ROW)


def state(rows: dict[str, Any]) -> State:
    return State(Base({"t": rows}))


def apply(live: State, steps: list[tuple[str, str, dict[str, Any]]]) -> None:
    for what, key, row in steps:
        live.put("t", key, row) if what == "put" else live.remove("t", key)


def respelled(value: Any, rng: Any) -> Any:
    """The same value in another spelling: keys and members in another order, each number as int, float or Decimal."""
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {key: respelled(item, rng) for key, item in items}
    if isinstance(value, list):
        return [respelled(item, rng) for item in value]
    if isinstance(value, frozenset):
        members = [respelled(item, rng) for item in value]
        rng.shuffle(members)
        return frozenset(members)
    if type(value) is int:
        return rng.choice((value, float(value), Decimal(value), Decimal(f"{value}.000")))
    return rng.choice((value, Decimal(repr(value)))) if type(value) is float else value


def test_by_hand() -> None:
    live = state({"a": {"n": 25}})
    start = live.hash()
    live.put("t", "a", {"n": 25.0})
    assert (live.hash(), live.diff()) == (start, "")
    live.update("t", "a", n=26)
    assert live.hash() != start and live.diff() == "- t a n: 25\n+ t a n: 26"
    live.update("t", "a", n=25)
    assert live.hash() == start and live.snapshot() == ()


@PATIENT
@given(ROWS, st.lists(st.tuples(STEP, st.sampled_from(["", "hash", "undo", "restore", "reset"]), st.booleans()), max_size=8))
def test_incremental_hash_equals_hash_from_scratch(rows: dict[str, Any], steps: list[Any]) -> None:
    """Whatever happened between two hashes: writes, a call that was taken back, an older snapshot, a new start."""
    live = state(rows)
    kept = live.snapshot()
    for step, event, looks in steps:
        live.begin("write")
        apply(live, [step])
        if looks:
            live.hash()
        live.finish(keep=event != "undo")
        if event == "restore":
            live.restore(kept)
        elif event == "reset":
            live.reset()
        elif event == "hash":
            live.hash()
            kept = live.snapshot()
    assert live.hash() == state({key: dict(row) for key, row in live.rows("t")}).hash()


@PATIENT
@given(ROWS, st.randoms())
def test_order_and_spelling_do_not_matter(rows: dict[str, Any], rng: Any) -> None:
    again = respelled(rows, rng)
    assert state(rows).hash() == state(again).hash()
    live = state(rows)
    for key, row in again.items():
        live.put("t", key, row)
    assert live.hash() == state(rows).hash() and live.diff() == ""


@PATIENT
@given(ROWS, st.lists(STEP, max_size=6))
def test_put_then_undo_is_the_start(rows: dict[str, Any], steps: list[Any]) -> None:
    live = state(rows)
    start = live.hash()
    apply(live, steps)
    for key in "abcdefg":
        live.put("t", key, rows[key]) if key in rows else live.remove("t", key)
    assert (live.hash(), live.diff(), live.snapshot()) == (start, "", ())


@PATIENT
@given(ROWS, st.lists(STEP, max_size=4), st.lists(STEP, max_size=4))
def test_forks_do_not_see_each_other(rows: dict[str, Any], mine: list[Any], yours: list[Any]) -> None:
    base = Base({"t": rows})
    one, other, alone = State(base), State(base), state(rows)
    apply(one, mine)
    seen = dict(one.rows("t"))
    apply(other, yours)
    apply(alone, yours)
    assert dict(one.rows("t")) == seen and other.hash() == alone.hash()
    assert State(base).hash() == state(rows).hash()


@PATIENT
@given(ROWS, ROWS)
def test_different_rows_have_different_hashes(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = {key: canonical_json(row) for key, row in one.items()} == {key: canonical_json(row) for key, row in other.items()}
    assert (state(one).hash() == state(other).hash()) == same


@PATIENT
@given(ROWS, st.lists(STEP, max_size=5), st.lists(STEP, max_size=5))
def test_snapshot_and_restore_in_another_fork(rows: dict[str, Any], first: list[Any], then: list[Any]) -> None:
    base = Base({"t": rows})
    live, twin = State(base), State(base)
    apply(live, first)
    kept, middle = live.snapshot(), live.hash()
    apply(live, then)
    twin.restore(kept)
    live.restore(kept)
    assert live.hash() == twin.hash() == middle
    live.reset()
    assert live.hash() == State(base).hash() and live.diff() == ""


@PATIENT
@given(ROWS, st.lists(STEP, max_size=6))
def test_reads_change_nothing_and_find_agrees_with_a_scan(rows: dict[str, Any], steps: list[Any]) -> None:
    live = state(rows)
    apply(live, steps)
    before = live.hash()
    for value in [row.get("x") for _, row in live.rows("t")]:
        same = [key for key, row in live.rows("t") if canonical_json(row.get("x")) == canonical_json(value)]
        assert sorted(live.find("t", x=value)) == sorted(same)
        assert sorted(live.find("t", x=value, y=None)) == [key for key in sorted(same) if (live.get("t", key) or {}).get("y") is None]
    assert live.get("t", "nowhere") is None and live.hash() == before


def test_rows_come_in_the_order_of_the_base_then_new_keys_sorted() -> None:
    live = state({"b": {"n": 1}, "a": {"n": 2}, "c": {"n": 3}})
    apply(live, [("put", "z", {}), ("remove", "a", {}), ("put", "d", {}), ("put", "b", {"n": 9})])
    assert [(key, row.get("n")) for key, row in live.rows("t")] == [("b", 9), ("c", 3), ("d", None), ("z", None)]
    assert live.find("t", n=9) == ["b"] and live.find("t", n=1) == []
    for key, _ in live.rows("t"):
        live.remove("t", key)  # writing while walking
    assert list(live.rows("t")) == []


def test_true_is_not_one() -> None:
    live = state({"a": {"n": 1}})
    live.update("t", "a", n=True)
    assert live.diff() == "- t a n: 1\n+ t a n: true"


def test_forks_share_rows_and_nobody_can_change_them_in_place() -> None:
    base = Base({"t": {"a": {"n": 1, "items": [{"k": 1}]}}})
    one, other = State(base), State(base)
    row = one.get("t", "a")
    assert row is other.get("t", "a") and isinstance(row, Row)
    with pytest.raises(TypeError, match="shared"):
        row["n"] = 2
    with pytest.raises(TypeError, match="shared"):
        row["items"][0].update(k=2)
    one.update("t", "a", n=2)
    assert other.get("t", "a") == {"n": 1, "items": ({"k": 1},)}


def test_what_was_put_is_not_shared_with_who_put_it() -> None:
    mine: dict[str, Any] = {"items": [{"k": 1}], "tags": {"x"}}
    live = state({"a": mine})
    live.put("t", "b", mine)
    kept = live.snapshot()
    mine["items"][0]["k"] = 2
    mine["tags"].add("y")
    assert live.get("t", "a") == live.get("t", "b") == {"items": ({"k": 1},), "tags": frozenset({"x"})}
    inside = {"deep": [1]}
    live.put("t", "c", Row(inside))
    inside["deep"].append(2)
    assert live.get("t", "c") == {"deep": (1,)}
    live.restore(kept)
    assert live.get("t", "c") is None


def test_mistakes_are_named() -> None:
    live = state({"a": {"n": 1}})
    with pytest.raises(KeyError, match="no table 'u'; tables: t"):
        live.get("u", "a")
    with pytest.raises(KeyError, match="no row 'b' in table 't'"):
        live.update("t", "b", n=1)
    with pytest.raises(TypeError, match=r"table 't', row 'a': only JSON values, sets and decimals can be kept, got object"):
        live.put("t", "a", {"n": object()})
    with pytest.raises(TypeError, match=r"table 't', row 'a': keys must be strings, got int"):
        live.update("t", "a", n={1: 2})
    with pytest.raises(TypeError, match=r"table 't', row 7: keys must be strings, got int"):
        live.put("t", 7, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"table 't', row 'a': a row must be an object, got list"):
        live.put("t", "a", [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"table 't' must map keys to rows, got list"):
        Base({"t": []})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"table 't', row 'a': nan is not a JSON number"):
        state({"a": {"n": float("nan")}})
    assert live.diff() == ""


def test_cost_does_not_depend_on_the_size_of_the_tables() -> None:
    """Reset, snapshot and restore at 10,000 rows: well below a millisecond; here at most a fifth of one, best of 20."""
    live = state({f"k{number}": {"n": number} for number in range(10_000)})
    live.hash()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        for number in range(5):
            live.update("t", f"k{number}", n=-1)
        kept = live.snapshot()
        live.reset()
        live.restore(kept)
        live.reset()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.0002
