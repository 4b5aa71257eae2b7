"""Which problems of the reserve gates have used, as a file that both drivers read: `params/reserve_used.yaml`.

    used:                                               # in the order in which candidates were evaluated
    - candidate: <artifact>
      problems: {shop: 0a1b2c3d4e5f 9f8e7d6c5b4a}       # world -> ids, without the world's name

The gate of a candidate plays nothing that another one used before it. What it used itself does not count, nor what others used after
it: so it makes no evaluation stale that its own problems are noted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, brief, read_yaml

USED = "params/reserve_used.yaml"

Ids = Mapping[str, Sequence[str]]
"""World -> ids of problems."""


@dataclass(frozen=True)
class Used:
    """What the file says. entries: (identity of a candidate's artifact, what its gate used), oldest first."""

    entries: tuple[tuple[str, Ids], ...] = ()

    @property
    def candidates(self) -> frozenset[str]:
        """The identities of those whose problems are noted."""
        return frozenset(candidate for candidate, _ in self.entries)

    def before(self, candidate: str) -> dict[str, list[str]]:
        """World -> sorted ids of what others used before a candidate was evaluated first; of a new one, all that is noted."""
        found: dict[str, set[str]] = {}
        for one, problems in self.entries:
            if one == candidate:
                break
            for world, ids in problems.items():
                found.setdefault(world, set()).update(ids)
        return {world: sorted(ids) for world, ids in sorted(found.items())}

    def noted(self, candidate: str, problems: Ids) -> Used:
        """With what a candidate's gate used, as far as that is not noted of it yet."""
        known = {problem for one, ids in self.entries if one == candidate for some in ids.values() for problem in some}
        new = {world: sorted({*ids} - known) for world, ids in sorted(problems.items())}
        return Used((*self.entries, (candidate, new))) if any(new.values()) else self

    def tree(self) -> dict[str, Any]:
        """The file's content."""
        return {"used": [{"candidate": candidate, "problems": _short(problems)} for candidate, problems in self.entries]}


def _short(problems: Ids) -> dict[str, str]:
    return {world: " ".join(one.removeprefix(f"{world}_") for one in ids) for world, ids in problems.items()}


def read(path: Path) -> Used:
    """What the file says; BadInput when it is not of the form above, or not there: what was used would count as free."""
    if not path.exists():
        raise BadInput(
            f"{path}: no such file; it says what gates have used. `git checkout {USED}` brings it back; where no gate ever used a "
            "reserve it says `used: []`"
        )
    tree = read_yaml(path)
    entries = tree.get("used") if isinstance(tree, Mapping) else None
    if not isinstance(entries, list):
        raise BadInput(f"{path}: the key 'used' is missing, or no list; of a reserve that nothing was used of it says `used: []`")
    return Used(tuple(_entry(path, one) for one in entries))


def _entry(path: Path, entry: Any) -> tuple[str, Ids]:
    problems = entry.get("problems") if isinstance(entry, Mapping) else None
    if not isinstance(problems, Mapping) or not isinstance(entry.get("candidate"), str):
        raise BadInput(f"{path}: {brief(entry)}: allowed is {{candidate: <artifact>, problems: {{<world>: <ids>}}}}")
    if wrong := [world for world, ids in problems.items() if not isinstance(world, str) or not isinstance(ids, str)]:
        raise BadInput(f"{path}: problems.{wrong[0]}: expected ids, separated by spaces")
    return entry["candidate"], {world: [f"{world}_{one}" for one in ids.split()] for world, ids in problems.items()}
