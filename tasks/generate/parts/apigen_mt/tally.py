"""Counts of what the generate room made, refused, played, won and lost; every group adds up to its total."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.contract.losses import Lost, stop_when_nearly_all
from tasks.contract.params import StageFailed
from tasks.contract.problem import ACCEPTED
from tasks.contract.trajectory import ENDED, PARTIES
from tasks.generate.parts.apigen_mt.checks import FAILURES
from tasks.generate.parts.apigen_mt.trivial_agents import AGENTS

if TYPE_CHECKING:
    from tasks.contract.context import Losses


@dataclass
class Tally:
    """Counts of everything that was made, refused, played, won and lost. total: blueprints to start. at: how many are behind us, in
    parts."""

    total: int = 0
    at: float = 0.0
    kinds: dict[str, Counter[str]] = field(default_factory=lambda: {"base": Counter(), "recombined": Counter()})
    gates: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    blame: Counter[str] = field(default_factory=Counter)
    families: dict[str, Counter[str]] = field(default_factory=dict)
    seen: tuple[str, set[str]] = ("", set())
    stopped: str = ""
    done: int = 0

    def blueprint(self, kind: str, row: Mapping[str, Any]) -> None:
        """Count one attempt."""
        self.kinds[kind][row["status"]] += 1
        self.unreadable.update(row["unreadable"])
        self.gates.update({"gated": bool(row["gates"]), **row["gates"]})
        if row["status"] == ACCEPTED:
            self.accepted.update((row["world"], row["split"], "zero_writes" if not row["n_writes"] else "with_writes"))

    def through(self, started: int) -> None:
        """A round of so many blueprints is over."""
        self.done += started
        self.at = self.done

    def so_far(self) -> dict[str, int]:
        """Accepted, refused by reason, won and lost."""
        made = self.kinds["base"] + self.kinds["recombined"]
        return {
            **{name: made[name] for name in (ACCEPTED, *FAILURES) if made[name]},
            **{name: self.outcomes[name] for name in ("won", "lost")},
        }

    def words(self) -> str:
        """The same for people."""
        return ", ".join(f"{count} {name.removeprefix('failed_')}" for name, count in self.so_far().items() if count)

    @property
    def played(self) -> int:
        """Conversations so far."""
        return self.outcomes["won"] + self.outcomes["lost"]

    def conversation(self, row: Mapping[str, Any]) -> None:
        """Count one conversation; a won one that repeats another of its problem word for word is not a distinct one."""
        won = "won" if row["reward"] else "lost"
        self.outcomes[won] += 1
        self.stops[row["stop"]] += 1
        self.failed[row["stop"]] += not row["reward"] and row["stop"] not in ENDED
        self.blame[row["blame"]] += not row["reward"]
        family = self.families.setdefault(f"{row['world']}.{row['family']}", Counter())
        family.update({"played": 1, won: 1})
        if self.seen[0] != row["problem_id"]:
            self.seen = (row["problem_id"], set())
        words = json.dumps(row["messages"], sort_keys=True)
        if row["reward"] and words not in self.seen[1]:
            self.outcomes["won_distinct"] += 1
            self.seen[1].add(words)

    def check(self, losses: Losses) -> None:
        """Raise NearlyAllLost when nearly all conversations came to no end for one reason, or none was won."""
        stop_when_nearly_all(losses, Lost("conversations", self.failed, self.played))
        if not self.outcomes["won"]:
            stop_when_nearly_all(losses, Lost(f"conversations ({self._lost_by()})", {"none_won": self.played}, self.played))

    def _lost_by(self) -> str:
        """Whose failure the lost conversations are, and how those that were broken off ended."""
        by = ", ".join(f"{party} {count}" for party, count in self.blame.most_common() if count)
        broken = ", ".join(f"{stop} {count}" for stop, count in self.failed.most_common() if count)
        return f"lost by: {by}{f'; broken off by: {broken}' if broken else ''}"

    def check_accepted(self, least: int) -> None:
        """StageFailed when fewer blueprints than `least` were accepted, unless a spent budget ended it: too little to learn from."""
        made = self.kinds["base"] + self.kinds["recombined"]
        if made[ACCEPTED] >= least or self.stopped:
            return
        why = ", ".join(f"{reason} {count}" for reason, count in made.most_common() if reason != ACCEPTED) or "no other was attempted"
        raise StageFailed(
            f"generate: {made[ACCEPTED]} of {made.total()} attempts at a blueprint were accepted, fewer than min_accepted = {least} "
            f"({why}). `cairn preview generate` shows some with their reasons; look at roles.generator and roles.judge."
        )

    def check_enough(self, world: str, accepted: int, least: int, started: int) -> None:
        """StageFailed when fewer of a world's blueprints were accepted than were asked for, unless a spent budget ended it."""
        if accepted >= least or self.stopped:
            return
        raise StageFailed(
            f"generate: {accepted} blueprints of world {world} were accepted of the {least} that are wanted (accepted), although all "
            f"{started} that may be (problems) were started. Raise problems, what was paid is not paid again; or look at why they are "
            "refused: `cairn preview generate`."
        )

    def figures(self) -> dict[str, Any]:
        """Everything as JSON. In "base" and "recombined" the reasons add up to attempts; won and lost add up to played, and
        lost_by to lost."""
        made = {kind: _by_reason(count) for kind, count in self.kinds.items()}
        calls = made["base"]["attempts"]
        gated = self.gates["gated"]
        scores = {name: self.gates[name] / gated for name in AGENTS} if gated else {}
        played = self.played
        return {
            **made,
            "accepted_per_generator_call": made["base"][ACCEPTED] / calls if calls else 0.0,
            "accepted": dict(sorted(self.accepted.items())),
            "gate": {"n": gated, **scores},
            "unreadable": {name: self.unreadable[name] for name in ("drafts", "votes", "plans", "scores")},
            "conversations": {"played": played, **{name: self.outcomes[name] for name in ("won", "lost", "won_distinct")}},
            "won_per_conversation": self.outcomes["won"] / played if played else 0.0,
            "stops": dict(sorted(self.stops.items())),
            "lost_by": {party: self.blame[party] for party in PARTIES},
            "families": {name: dict(sorted(count.items())) for name, count in sorted(self.families.items())},
            "stopped": self.stopped,
            "warning": "" if self.outcomes["won"] or not played else f"none of {played} conversations was won ({self._lost_by()})",
        }


def _by_reason(count: Counter[str]) -> dict[str, int]:
    reasons = {name: count[name] for name in (ACCEPTED, *FAILURES)}
    return {"attempts": sum(count.values()), **reasons}
