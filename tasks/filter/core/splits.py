"""Splits by lineage: a row is as strict as the strictest thing it is made from; what shares a lineage shares a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import SPLITS

STRICTNESS = {name: rank for rank, name in enumerate(SPLITS)}
"""train < validation < test: the order of `tasks.contract.problem.SPLITS`."""


def strictest(splits: Iterable[str]) -> str:
    """The strictest of some splits."""
    return max(splits, key=STRICTNESS.__getitem__)


def resplit(
    trajectories: Sequence[Mapping[str, Any]],
    known: Mapping[str, Mapping[str, str]],
    parents: Mapping[str, Sequence[str]],
) -> list[str]:
    """Each row's split, recomputed from its lineage.

    known: world -> entry -> split (a world's users). parents: problem id -> its own lineage; an entry that names a problem
    counts as everything that this problem was made from. BadInput names an entry that is neither, in a world with users.
    A row whose lineage leads to nothing keeps its split.
    """
    found = (_splits(row, row["lineage"], known[row["world"]], parents, {row["problem_id"]}) for row in trajectories)
    return [strictest(splits or [row["split"]]) for row, splits in zip(trajectories, found, strict=True)]


def _splits(
    row: Mapping[str, Any],
    lineage: Iterable[str],
    known: Mapping[str, str],
    parents: Mapping[str, Sequence[str]],
    seen: set[str],
) -> list[str]:
    found = []
    for entry in lineage:
        if entry in known:
            found.append(known[entry])
        elif entry not in parents and not known:  # a world of which no user is known: a lineage of the row's own
            continue
        elif entry not in parents:
            raise BadInput(
                f"trajectory {row['traj_id']}: lineage entry {entry!r} is neither a user of world {row['world']!r} nor a "
                f"blueprint.{nearest(entry, known)} Its split cannot be told. Run the steps that froze its world and made it again."
            )
        elif entry not in seen:
            seen.add(entry)
            found.extend(_splits(row, parents[entry], known, parents, seen))
    return found


def straddling(trajectories: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> tuple[list[bool], int]:
    """Rows that share a lineage, directly or through others, with a row of a stricter split; and how many components
    straddle.

    Two rows are connected when they have a lineage entry or the problem in common. Training on such a row would show the
    model what a stricter split keeps from it.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    nodes = [[(row["world"], entry) for entry in (row["problem_id"], *row["lineage"])] for row in trajectories]
    for own in nodes:
        for node in own[1:]:
            parent[root(node)] = root(own[0])
    components = [root(own[0]) for own in nodes]
    held: dict[tuple[str, str], set[str]] = {}
    for component, split in zip(components, splits, strict=True):
        held.setdefault(component, set()).add(split)
    marks = [split != strictest(held[component]) for component, split in zip(components, splits, strict=True)]
    return marks, sum(len(found) > 1 for found in held.values())
