"""From rows of trials to metrics.json: every number is computed from the rows alone.

`Played` holds one model in one world: its problems in a fixed order, with successes per problem. Blocks of estimates are
made of such tables, for all problems, by family, over the families with writes, and by tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tasks.contract.trajectory import PARTIES
from tasks.evaluate.core.estimates import Floats, difference, estimate, pass_hat_k
from tasks.evaluate.core.sign_flips import one_sided

COLUMNS = ("model", "set", "world", "problem_id", "family", "tags", "trial", "reward", "policy", "stop", "blame", "n_tokens")
"""What the metrics need of a row of trials.parquet."""
KS = (1, 4)
"""pass^1 is the mean reward; pass^4 is the consistency that tau-bench and APIGen-MT report."""
WRITE = "write"
"""Under `families`: all families whose problems change the state, together."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Played:
    """One model in one world, problems sorted by id. wins: int [n]; policy: float [n], mean share of rules kept."""

    problems: tuple[str, ...]
    families: tuple[str, ...]
    tags: tuple[frozenset[str], ...]
    wins: Any
    policy: Floats
    trials: int
    stops: Mapping[str, int]
    blame: Mapping[str, int]
    tokens: float

    def where(self, belongs: Callable[[str, frozenset[str]], bool]) -> Any:
        """Mask [n] of the problems whose (family, tags) are wanted."""
        return np.array([belongs(family, tags) for family, tags in zip(self.families, self.tags, strict=True)], dtype=bool)


@dataclass(frozen=True)
class Maker:
    """Makes estimates: the bootstrap's seed and size."""

    seed: int
    resamples: int

    def passes(self, tables: Sequence[Played], masks: Sequence[Any]) -> dict[str, Any]:
        """{"pass_1": estimate, "pass_4": estimate or None when there are fewer trials}, over all tables together."""
        trials = tables[0].trials
        return {
            f"pass_{k}": estimate(_values(tables, masks, k), trials, seed=self.seed, resamples=self.resamples) if k <= trials else None
            for k in KS
        }

    def gaps(self, first: Sequence[Played], second: Sequence[Played], masks: Sequence[Any]) -> dict[str, Any]:
        """The same for first minus second, problem by problem. pass_1 has the exact one-sided p-values of "not below" and "not above"
        too (p_below, p_above): valid for few problems, where a bootstrap is too sure."""
        trials = first[0].trials
        found: dict[str, Any] = {
            f"pass_{k}": difference(
                _values(first, masks, k), _values(second, masks, k), trials, seed=self.seed, resamples=self.resamples
            )
            if k <= trials
            else None
            for k in KS
        }
        won = [one.wins[mask] - other.wins[mask] for one, other, mask in zip(first, second, masks, strict=True)]
        below, above = one_sided(np.concatenate(won))
        found["pass_1"] |= {"p_below": float(f"{below:.6g}"), "p_above": float(f"{above:.6g}")}
        return found

    def block(self, played: Played, writes: Collection[str]) -> dict[str, Any]:
        """Everything about one model in one world."""
        policy = estimate([played.policy], played.trials, seed=self.seed, resamples=self.resamples)
        return {
            **self._split(played, writes, lambda mask: self.passes([played], [mask])),
            "policy": policy,
            "stops": dict(sorted(played.stops.items())),
            "lost_by": {party: played.blame.get(party, 0) for party in PARTIES},
            "tokens_per_trial": round(played.tokens, 1),
        }

    def paired(self, first: Played, second: Played, writes: Collection[str]) -> dict[str, Any]:
        """Everything about the difference of two models in one world."""
        _same(first, second)
        return self._split(first, writes, lambda mask: self.gaps([first], [second], [mask]))

    def _split(self, played: Played, writes: Collection[str], of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """`of` for all problems, by family, over the families with writes, by tag; empty groups are left out."""
        everything = np.ones(len(played.problems), dtype=bool)
        families = {name: played.where(partial(_is_family, name)) for name in sorted(set(played.families))}
        families[WRITE] = played.where(lambda family, _: family in writes)
        tags = {name: played.where(partial(_has_tag, name)) for name in sorted(frozenset().union(*played.tags))}
        return {
            **of(everything),
            "families": {name: of(mask) for name, mask in families.items() if mask.any()},
            "tags": {name: of(mask) for name, mask in tags.items() if mask.any()},
        }


def _is_family(name: str, family: str, _: frozenset[str]) -> bool:
    return family == name


def _has_tag(name: str, _: str, tags: frozenset[str]) -> bool:
    return name in tags


def _values(tables: Sequence[Played], masks: Sequence[Any], k: int) -> list[Floats]:
    return [pass_hat_k(played.wins[mask], played.trials, k) for played, mask in zip(tables, masks, strict=True)]


def _same(first: Played, second: Played) -> None:
    if first.problems != second.problems or first.trials != second.trials:
        raise ValueError("a paired difference needs the same problems and as many trials on both sides")


def tables(rows: Iterable[Row]) -> dict[tuple[str, str, str], Played]:
    """(set, model, world) -> Played. Raises ValueError when problems of one table have different numbers of trials."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["model"], row["world"]), []).append(row)
    return {key: _played(key, group) for key, group in groups.items()}


def _played(key: tuple[str, str, str], rows: Sequence[Row]) -> Played:
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(row["problem_id"], []).append(row)
    counts = {len(trials) for trials in problems.values()}
    distinct = {(row["problem_id"], row["trial"]) for row in rows}
    if len(counts) != 1 or len(distinct) != len(rows):
        raise ValueError(f"trials of {' / '.join(key)}: every problem needs the same trials, each once; found {sorted(counts)}")
    ordered = [problems[problem] for problem in sorted(problems)]
    return Played(
        problems=tuple(sorted(problems)),
        families=tuple(trials[0]["family"] for trials in ordered),
        tags=tuple(frozenset(trials[0]["tags"]) for trials in ordered),
        wins=np.array([sum(trial["reward"] for trial in trials) for trials in ordered], dtype=np.int64),
        policy=np.array([sum(trial["policy"] for trial in trials) / len(trials) for trials in ordered]),
        trials=counts.pop(),
        stops=Counter(row["stop"] for row in rows),
        blame=Counter(row["blame"] for row in rows),
        tokens=sum(row["n_tokens"] for row in rows) / len(rows),
    )


def metrics(
    rows: Iterable[Row],
    models: Sequence[str],
    candidate: str,
    writes: Mapping[str, Collection[str]],
    reference: str | None,
    maker: Maker,
) -> dict[str, Any]:
    """The content of metrics.json.

    models: in the order of the road; differences are later minus earlier, the candidate counts as the last. writes: per
    world, the families that change the state. reference: whom the candidate meets on the gate problems (a model's name in
    the rows), or None.
    """
    found = tables(rows)
    baselines = sorted({model for which, model, _ in found if which == "baseline"})
    return {
        **_compared(_by_world(found, ("test", "baseline")), models, baselines, candidate, writes, maker),
        "gate": _gate(found, sorted(writes), candidate, writes, reference, maker),
    }


def apart(
    rows: Iterable[Row],
    which: str,
    models: Sequence[str],
    baselines: Sequence[str],
    candidate: str,
    writes: Mapping[str, Collection[str]],
    maker: Maker,
) -> dict[str, Any]:
    """What stands in metrics.json of a set that all players, baselines too, played in worlds of its own: as `metrics`, without a gate.

    which: the set. baselines: players among the rows that are no models.
    """
    played = tables(row for row in rows if row["set"] == which)
    return _compared(_by_world(played, (which,)), models, sorted(baselines), candidate, writes, maker)


def _by_world(found: Mapping[tuple[str, str, str], Played], sets: Collection[str]) -> dict[tuple[str, str], Played]:
    """(player, world) -> what it played there in these sets, of which each player is in one."""
    return {(player, world): played for (which, player, world), played in found.items() if which in sets}


def _compared(
    played: Mapping[tuple[str, str], Played],
    models: Sequence[str],
    baselines: Sequence[str],
    candidate: str,
    writes: Mapping[str, Collection[str]],
    maker: Maker,
) -> dict[str, Any]:
    """Models, baselines and the differences between models, by world and over the worlds that `writes` names. played: (player, world)
    -> its problems."""
    worlds = sorted(writes)
    order = [name for name in models if name != candidate] + [candidate]
    return {
        "evaluate": {model: {world: maker.block(played[model, world], writes[world]) for world in worlds} for model in models},
        "overall": {name: _overall(maker, [played[name, world] for world in worlds]) for name in (*models, *baselines)},
        "baselines": {world: {name: maker.block(played[name, world], writes[world]) for name in baselines} for world in worlds},
        "paired": {
            f"{later}-{earlier}": {world: maker.paired(played[later, world], played[earlier, world], writes[world]) for world in worlds}
            for index, later in enumerate(order)
            for earlier in order[:index]
        },
    }


def _overall(maker: Maker, played: Sequence[Played]) -> dict[str, Any]:
    """All worlds together: problems are resampled within their world."""
    return maker.passes(played, [np.ones(len(one.problems), dtype=bool) for one in played])


def _gate(
    found: Mapping[tuple[str, str, str], Played],
    worlds: Sequence[str],
    candidate: str,
    writes: Mapping[str, Collection[str]],
    reference: str | None,
    maker: Maker,
) -> dict[str, Any]:
    """The candidate against the reference, and the anchor where one played, on the gate problems; {} when none were played."""
    if not any(which == "gate" for which, _, _ in found):
        return {}
    ours = [found["gate", candidate, world] for world in worlds]
    said: dict[str, Any] = {
        "candidate": candidate,
        "reference": reference,
        "overall": {"candidate": _overall(maker, ours)},
        "worlds": {world: {"candidate": maker.block(one, writes[world])} for world, one in zip(worlds, ours, strict=True)},
    }
    if reference is None:
        return said
    theirs = [found["gate", reference, world] for world in worlds]
    for world, one, other in zip(worlds, ours, theirs, strict=True):
        said["worlds"][world]["reference"] = maker.block(other, writes[world])
        said["worlds"][world]["paired"] = maker.paired(one, other, writes[world])
    said["overall"]["reference"] = _overall(maker, theirs)
    masks = [np.ones(len(one.problems), dtype=bool) for one in ours]
    said["overall"]["paired"] = maker.gaps(ours, theirs, masks)
    if best := [found["gate", "anchor", world] for world in worlds if ("gate", "anchor", world) in found]:
        said["overall"] |= {"anchor": _overall(maker, best), "anchored": maker.gaps(ours, best, masks)}
    return said
