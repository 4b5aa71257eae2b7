"""What phase 1 keeps: places in a file, the bank by rounds, recombinations that follow from earlier tasks alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.schemas import PROBLEM
from tasks.generate.parts.apigen_mt.accepted import Accepted, read_bank, write_bank


def row(number: int, user: str = "u1", split: str = "train") -> dict[str, Any]:
    known = dict.fromkeys(PROBLEM.names, "")
    return {
        **known,
        "problem_id": f"p{number}",
        "split": split,
        "lineage": [user],
        "instruction": f"é {number}",
        "actions": [{"name": "look", "arguments_json": "{}"}],
        "outputs": [],
        "walk": [],
        "family": f"f{number}",
        "policy_ids": [],
        "data": {},
        "status": "accepted",
    }


def accepted(tmp_path: Path, recombine: float = 1.0, parts: int = 3, **more: Any) -> Accepted:
    return Accepted(tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl", 64, 1.0, recombine, parts, **more)


def groups(users: Sequence[str], rate: float, parts: int, tmp_path: Path, rounds: Sequence[int] = ()) -> list[tuple[int, ...]]:
    """Recombinations of tasks of these customers, taken in rounds of these sizes (default: one)."""
    mine, found, start = accepted(tmp_path, rate, parts), [], 0
    for size in rounds or (len(users),):
        fresh = []
        for number in range(start, min(start + size, len(users))):
            place = mine.take(row(number, users[number]), base=True)
            assert place is not None
            fresh.append((place, users[number]))
        found += mine.groups(fresh, lambda place: Random(seed_of(place)))
        start += size
    return found


def test_tasks_come_back_from_the_file_and_duplicates_are_marked(tmp_path: Path) -> None:
    mine = accepted(tmp_path)
    places = [mine.take(row(number), base=True) for number in range(5)]
    again = row(3)
    assert mine.take(again, base=True) is None and again["status"] == "failed_duplicate" and len(mine) == 5
    assert [json.loads(text)["instruction"] for text in mine.texts([4, 0])] == ["é 4", "é 0"] and places == list(range(5))


def test_recombinations_are_different_groups_of_one_customer(tmp_path: Path) -> None:
    users = ["u1", "u2", "u1", "u3", "u2", "u1"]
    found = groups(users, 50.0, 3, tmp_path)
    assert len(found) == 4 + 1, "three pairs and one triple of u1, one pair of u2"
    assert all(len({users[place] for place in group}) == 1 and len(group) >= 2 for group in found)
    assert Counter(map(frozenset, found)).most_common(1)[0][1] == 1
    assert groups(["u1", "u2"], 5.0, 2, tmp_path) == [] and groups(users, 0.0, 2, tmp_path) == []


def test_as_many_as_are_owed(tmp_path: Path) -> None:
    """A quarter of a recombination per task; tasks without a partner leave theirs to later ones."""
    alone = [f"u{number}" for number in range(40)]
    assert len(groups(alone + alone, 0.25, 2, tmp_path)) == 20


@pytest.mark.parametrize("size", [1, 7, 30])
def test_more_tasks_change_nothing_that_was_there(size: int, tmp_path: Path) -> None:
    """The groups of the first tasks are the same in a longer run, whatever the rounds."""
    users = [f"u{Random(seed_of(number)).randint(0, 9)}" for number in range(60)]
    short, long = groups(users[:30], 0.5, 3, tmp_path, [30]), groups(users, 0.5, 3, tmp_path, [size] * 60)
    assert short and long[: len(short)] == short and len(long) > len(short)


def test_a_round_sees_what_rounds_before_it_accepted(tmp_path: Path) -> None:
    mine = accepted(tmp_path)
    assert mine.examples() == {"train": [], "validation": []}
    mine.take(row(0), base=True)
    mine.take(row(1, split="validation"), base=True)
    mine.take(row(2), base=False)
    shown = mine.examples()
    assert [example["instruction"] for example in shown["train"]] == ["é 0"], "a recombination feeds no bank"
    assert [example["instruction"] for example in shown["validation"]] == ["é 1"]


def test_a_pinned_bank_shows_each_round_what_it_was_shown(tmp_path: Path) -> None:
    """Through the file: the other run accepts nothing, and sees the same; later rounds see what the last one saw."""
    mine, seen = accepted(tmp_path), []
    for number in range(3):
        seen.append(mine.examples())
        mine.take(row(number), base=True)
    write_bank(tmp_path / "bank.json", {"retail": mine.bank()})
    pinned = read_bank(tmp_path / "bank.json", ["retail"])
    other = accepted(tmp_path, pinned=pinned["retail"])
    assert [other.examples() for _ in range(3)] == seen and other.examples() == seen[-1]
    assert other.bank() == mine.bank()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no example bank"),
        ('{"retail": {"train": {"examples": [], "seen": []}, "validation": {"examples": [], "seen": [0]}}}', "a count for each round"),
        ('{"retail": {"train": {"examples": [], "seen": [0]}}}', "validation"),
        (
            '{"shop": {"train": {"examples": [], "seen": [0]}, "validation": {"examples": [], "seen": [0]}}}',
            "bank of the worlds shop, not of retail",
        ),
    ],
)
def test_what_is_no_bank_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "bank.json").write_text(text)
    with pytest.raises(BadInput, match=re.escape(says)):
        read_bank(tmp_path / "bank.json", ["retail"])


def test_an_empty_file_or_none_lets_it_grow(tmp_path: Path) -> None:
    (tmp_path / "bank.json").write_text("{}\n")
    assert read_bank(tmp_path / "bank.json", ["retail"]) == {} == read_bank(None, ["retail"])
