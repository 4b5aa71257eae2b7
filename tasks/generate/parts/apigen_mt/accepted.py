"""What phase 1 has accepted so far in one world: what feeds the example bank, what is recombined, what is played.

Accepted tasks lie in a file of the scratch folder; memory holds their ids, their customers and a place in the file each, so that a run
of 100,000 blueprints does not keep them.

What becomes of a blueprint depends on blueprints with smaller numbers alone: the bank by whole rounds, recombination by earlier tasks
of the same customer. So more problems add to a dataset without changing what it had.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from math import comb
from pathlib import Path
from random import Random
from typing import Any

from tasks.contract.params import BadInput
from tasks.generate.parts.apigen_mt.samplers import Bank

SPLITS: Mapping[str, tuple[str, ...]] = {"train": ("train", "validation"), "test": ("test",)}
"""What blueprints are for -> the splits of whose customers they are."""
TRIES = 4
"""Draws of a recombination for each one wanted; a draw may repeat a group. Ours."""

Pinned = Mapping[str, Mapping[str, Any]]
"""split -> {"examples": all of them, "seen": how many of them each round saw}: a bank that another run left (`Accepted.bank`)."""


@cache
def _kept() -> tuple[str, ...]:
    """Columns of a blueprint that are kept."""
    from tasks.contract.schemas import PROBLEM

    return *PROBLEM.names, "walk", "policy_ids", "data"


class Accepted:
    """The accepted blueprints of one world. file: where they are kept; it is begun anew. recombine: recombinations per base blueprint.
    parts: most blueprints in one. pinned: the examples to show instead of those that this run accepts. splits: of the
    customers that they are about."""

    def __init__(
        self,
        file: Path,
        bank: int,
        bank_per_walk: float,
        recombine: float,
        parts: int,
        pinned: Pinned | None = None,
        splits: Sequence[str] = SPLITS["train"],
    ) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("w+b")
        self._places = array("q")
        self._ids: set[str] = set()
        self._users: dict[str, list[int]] = {}
        self._banks = {split: Bank(bank, bank_per_walk) for split in splits}
        self._seen: dict[str, list[int]] = {split: [] for split in splits}
        self._pinned = pinned
        self._rate, self._parts, self._owed = recombine, parts, 0.0

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def take(self, row: dict[str, Any], base: bool) -> int | None:
        """Keep an accepted row, and say its place; None, and the row is marked as a duplicate, when its very task was accepted before.
        base: no recombination, so it feeds the bank and may be recombined."""
        if row["problem_id"] in self._ids:
            row.update(status="failed_duplicate", fail_reason="duplicate: the same task was accepted before")
            return None
        self._ids.add(row["problem_id"])
        self._file.seek(0, 2)
        self._places.append(self._file.tell())
        self._file.write(json.dumps({name: row[name] for name in _kept()}, ensure_ascii=False).encode() + b"\n")
        place = len(self._places) - 1
        if base:
            self._users.setdefault(row["lineage"][0], []).append(place)
            calls = [{"name": call["name"], "arguments": json.loads(call["arguments_json"])} for call in row["actions"]]
            example = {"instruction": row["instruction"], "actions": calls, "outputs": row["outputs"]}
            self._banks[row["split"]].add(row["walk"] or [row["family"]], example)
        return place

    def texts(self, places: Sequence[int]) -> list[str]:
        """The tasks at these places, as JSON."""
        found = []
        for place in places:
            self._file.seek(self._places[place])
            found.append(self._file.readline().decode().rstrip("\n"))
        return found

    # --- examples ----------------------------------------------------------------------------------------------------------

    def examples(self) -> dict[str, list[dict[str, Any]]]:
        """Split -> the examples of the round that begins now: what rounds before it accepted, or what is pinned for it."""
        shown = {split: list(bank.examples) for split, bank in self._banks.items()}
        for split, counts in self._seen.items():
            counts.append(len(shown[split]))
            if self._pinned is not None:
                examples, seen = self._pinned[split]["examples"], self._pinned[split]["seen"]
                shown[split] = list(examples[: seen[min(len(counts), len(seen)) - 1]])
        return shown

    def bank(self) -> dict[str, dict[str, Any]]:
        """What `pinned` of another run may be, so that it shows what this one has shown."""
        if self._pinned is not None:
            return {split: dict(pinned) for split, pinned in self._pinned.items()}
        return {split: {"examples": bank.examples, "seen": self._seen[split]} for split, bank in self._banks.items()}

    # --- recombination -----------------------------------------------------------------------------------------------------

    def groups(self, fresh: Sequence[tuple[int, str]], rng_of: Callable[[int], Random]) -> Iterator[tuple[int, ...]]:
        """Groups of places to recombine: each is a fresh base task with earlier ones of its customer, in a drawn order.

        Every base task adds the rate to what is owed; a task with no earlier one of its customer leaves it to those that have some.
        fresh: (place, customer). rng_of(place): the generator of that place.
        """
        for place, user in fresh:
            mates = [mate for mate in self._users[user] if mate < place]
            rng = rng_of(place)
            self._owed += self._rate
            wanted = min(int(self._owed), sum(comb(len(mates), size) for size in range(1, self._parts)))
            found: dict[frozenset[int], tuple[int, ...]] = {}
            for _ in range(TRIES * wanted):
                if len(found) < wanted:
                    group = [place, *rng.sample(mates, min(len(mates), rng.randint(1, self._parts - 1)))]
                    rng.shuffle(group)
                    found.setdefault(frozenset(group), tuple(group))
            self._owed -= len(found)
            yield from found.values()


def read_bank(path: Path | None, worlds: Sequence[str]) -> dict[str, Pinned]:
    """World -> its pinned bank; {} when the file is {} (the bank grows). Raises BadInput, naming the file, for what is no bank."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        pinned: dict[str, Pinned] = {name: {split: _pinned(banks[split]) for split in SPLITS["train"]} for name, banks in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise BadInput(f"{path}: is no example bank ({why}). Write {{}}, or run `cairn bank pin`.") from None
    if pinned and set(pinned) != set(worlds):
        known = f"the worlds {', '.join(sorted(pinned))}, not of {', '.join(sorted(worlds))}"
        raise BadInput(f"{path}: is the bank of {known}. Run `cairn bank grow`, or pin anew.")
    return pinned


def _pinned(bank: Mapping[str, Any]) -> dict[str, Any]:
    examples, seen = list(bank["examples"]), [int(count) for count in bank["seen"]]
    if not seen or not all(isinstance(one, dict) for one in examples):
        raise ValueError("examples must be objects, and seen a count for each round")
    return {"examples": examples, "seen": seen}


def write_bank(path: Path, banks: Mapping[str, Any]) -> None:
    """What `read_bank` reads. Keys keep their order, which a prompt shows."""
    path.write_text(json.dumps(banks, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
