"""Which problems of the reserve gates have used, as a file that both drivers read: `params/reserve_used.yaml`.

    used:                                               # in the order in which candidates were evaluated
    - candidate: <artifact>
      reserve: <artifact>                               # the reserve that it was evaluated with first,
      worlds: <artifact>                                # in these worlds; entries of earlier versions have neither
      problems: {shop: 0a1b2c3d4e5f 9f8e7d6c5b4a}       # world -> ids, without the world's name

The gate of a candidate plays nothing that another one used before it. What it used itself does not count, nor what others used after
it: so it makes no evaluation stale that its own problems are noted. A candidate stays with the reserve that it met: neither more proven
problems nor others let a refused one try again on other problems. In other worlds that reserve proves nothing; there the present one
counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, brief, read_yaml

USED = "params/reserve_used.yaml"

Ids = Mapping[str, Sequence[str]]
"""World -> ids of problems."""


@dataclass(frozen=True)
class Entry:
    """One evaluation of a candidate (identity of its artifact). problems: what its gate used, as far as no earlier entry of it says so.
    reserve, worlds: identities of what it was evaluated with, the worlds as the reserve's step reads them; "" where nobody noted it."""

    candidate: str
    problems: Ids
    reserve: str = ""
    worlds: str = ""

    def tree(self) -> dict[str, Any]:
        """As it stands in the file."""
        met = {"reserve": self.reserve, "worlds": self.worlds} if self.reserve else {}
        return {"candidate": self.candidate, **met, "problems": _short(self.problems)}


@dataclass(frozen=True)
class Used:
    """What the file says. entries: oldest first."""

    entries: tuple[Entry, ...] = ()

    def before(self, candidate: str) -> dict[str, list[str]]:
        """World -> sorted ids of what others used before a candidate was evaluated first; of a new one, all that is noted."""
        found: dict[str, set[str]] = {}
        for one in self.entries:
            if one.candidate == candidate:
                break
            for world, ids in one.problems.items():
                found.setdefault(world, set()).update(ids)
        return {world: sorted(ids) for world, ids in sorted(found.items())}

    def first_reserve(self, candidate: str, worlds: str) -> str:
        """Identity of the reserve that a candidate was evaluated with first in these worlds; "" where none is noted."""
        return next((one.reserve for one in self._of(candidate) if one.reserve and one.worlds == worlds), "")

    def noted(self, candidate: str, problems: Ids, reserve: str, worlds: str) -> Used:
        """With what a candidate's gate used and what it was evaluated with, as far as that is not noted of it yet."""
        mine = self._of(candidate)
        known = {problem for one in mine for some in one.problems.values() for problem in some}
        new = {world: sorted({*ids} - known) for world, ids in sorted(problems.items()) if {*ids} - known}
        if not new and (not mine or self.first_reserve(candidate, worlds)):
            return self
        if not new and (bare := next((one for one in mine if not one.reserve), None)):  # of an earlier version
            met = replace(bare, reserve=reserve, worlds=worlds)
            return Used(tuple(met if one is bare else one for one in self.entries))
        return Used((*self.entries, Entry(candidate, new, self.first_reserve(candidate, worlds) or reserve, worlds)))

    def _of(self, candidate: str) -> list[Entry]:
        return [one for one in self.entries if one.candidate == candidate]

    def tree(self) -> dict[str, Any]:
        """The file's content."""
        return {"used": [one.tree() for one in self.entries]}


def gone(candidate: str, identity: str) -> str:
    """What to say where the bytes of the reserve that a candidate met are not in the store."""
    return (
        f"{USED} says that the candidate {candidate} was evaluated with the reserve {identity}, whose bytes are not in the store, or "
        "were damaged. `dvc fetch --all-commits` may bring them. Or delete `reserve` and `worlds` of its entry there: then it meets "
        "problems of the present reserve."
    )


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


def _entry(path: Path, entry: Any) -> Entry:
    problems = entry.get("problems") if isinstance(entry, Mapping) else None
    if not isinstance(problems, Mapping) or not isinstance(entry.get("candidate"), str):
        raise BadInput(f"{path}: {brief(entry)}: allowed is {{candidate: <artifact>, problems: {{<world>: <ids>}}}}")
    if wrong := [world for world, ids in problems.items() if not isinstance(world, str) or not isinstance(ids, str)]:
        raise BadInput(f"{path}: problems.{wrong[0]}: expected ids, separated by spaces")
    met = [entry.get(name, "") for name in ("reserve", "worlds")]
    if not all(isinstance(one, str) for one in met) or bool(met[0]) != bool(met[1]):
        raise BadInput(f"{path}: {brief(entry)}: reserve and worlds name an artifact each, or both are left out")
    ids = {world: [f"{world}_{one}" for one in some.split()] for world, some in problems.items()}
    return Entry(entry["candidate"], ids, *met)
