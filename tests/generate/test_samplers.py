"""The API walk, the subset of rules, and the bank of examples."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from tasks.generate.parts.apigen_mt.samplers import MAX_READS, Bank, subset, walk

GRAPH = {
    "find_user": ("get_user", "cancel"),
    "get_user": ("get_order",),
    "get_order": ("cancel", "refund"),
    "cancel": (),
    "refund": (),
    "island": (),
}
KINDS = {
    "find_user": "read",
    "get_user": "read",
    "get_order": "read",
    "cancel": "write",
    "refund": "write",
    "island": "write",
    "end": "end",
}


def test_a_walk_to_refund_by_hand() -> None:
    """refund is fed by get_order alone, that by get_user, that by find_user: the one walk to refund is those four."""
    kinds = {name: kind for name, kind in KINDS.items() if name not in ("cancel", "island")}
    assert walk(GRAPH, kinds, Random(0), 1, 0.0) == ("find_user", "get_user", "get_order", "refund")


def test_walks_end_in_writes_and_follow_edges() -> None:
    for seed in range(300):
        path = walk(GRAPH, KINDS, Random(seed), 3, 0.0)
        reads = [name for name in path if KINDS[name] == "read"]
        writes = [name for name in path if KINDS[name] == "write"]
        assert 1 <= len(writes) <= 3 and len(reads) <= MAX_READS and path == (*reads, *writes)
        assert all(after in GRAPH[before] for before, after in pairwise(reads))
        assert all(any(write in GRAPH[read] for read in reads) for write in writes) or path == ("island",)
        assert "end" not in path


def test_a_share_of_walks_changes_nothing() -> None:
    paths = [walk(GRAPH, KINDS, Random(seed), 2, 0.25) for seed in range(2000)]
    share = sum(all(KINDS[name] == "read" for name in path) for path in paths) / len(paths)
    assert 0.2 < share < 0.3
    assert all(KINDS[name] == "read" for seed in range(20) for name in walk(GRAPH, KINDS, Random(seed), 2, 1.0))


def test_subset_varies_in_size_and_keeps_order() -> None:
    drawn = [subset("abcd", Random(seed), least=1) for seed in range(400)]
    assert {len(part) for part in drawn} == {1, 2, 3, 4} and all(list(part) == sorted(part) for part in drawn)
    assert subset((), Random(0), least=1) == ()


def test_the_bank_is_capped_as_a_whole_and_per_walk() -> None:
    """A bank of 10 with a share of 0.2 takes two of a walk, however many come."""
    bank = Bank(10, 0.2)
    taken = [bank.add(("find_user", "cancel"), {"number": number}) for number in range(5)]
    assert taken == [True, True, False, False, False]
    for number in range(40):
        bank.add((str(number % 20),), {"number": number})
    assert len(bank.examples) == 10
    assert not Bank(0, 1.0).add(("a",), {})
