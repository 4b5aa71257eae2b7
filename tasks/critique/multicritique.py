"""MultiCritique: several critics review a trajectory in small units, every unit is judged, and one critique is made of them.

Paper: Training Language Models to Critique With Multi-agent Feedback, https://arxiv.org/abs/2410.15287. Here: its critique
side: critics, meta-critic, aggregation, then the quality of a critique and preference pairs. The response is an agent's
trajectory, a location a message's number, the criteria the world's policy rules plus five of conduct.

Departures:
1. The critics are one role under several personas, not four different models; each persona gets its own question.
2. Class names, weights, Q(c) = sum w[class] (1 + severity) and the score are ours: the paper's are not public.
3. Crucial information is the criteria alone: no task description and no reference answer per response.
4. A critic gives no overall judgement; a trajectory's score is computed from the units (`core.units.score`).
5. The aggregator is a rule by default (`aggregator: deterministic`), a model role on demand.
6. Pairs are critic against critic, with the aggregate among the candidates in a set share of cases. They are not
   validated by revisions: the paper's table 7 says that training on such pairs can do harm.

Cost: M critic questions and one meta-critic question per unit for a trajectory; with scripted roles about 2 ms a trajectory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from tasks.contract import params as base
from tasks.contract.client import BudgetSpent
from tasks.contract.context import Context
from tasks.contract.losses import Lost, stop_when_nearly_all
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.critique import Inputs
from tasks.critique.core import prompts
from tasks.critique.core.aggregate import AGGREGATE
from tasks.critique.core.pairs import pair
from tasks.critique.core.review import Critiques, Reviewers, criticise, judge, merge
from tasks.critique.core.units import UNSUPPORTED, WEIGHTS, Unit, quality, render, score

TITLE = "MultiCritique: several critics, judged unit by unit"
PAPER = "https://arxiv.org/abs/2410.15287"
SLUG = "multicritique"

_READ = ("traj_id", "world", "lineage", "messages", "calls", "reward")


class Params(base.Params):
    """How many critics, what their units are worth, and which pairs count."""

    critics: tuple[str, ...] = Field(
        tuple(prompts.PERSONAS),
        min_length=1,
        description=f"personas that review each trajectory, of {', '.join(prompts.PERSONAS)}; M = 4 in the paper",
    )
    weights: tuple[float, float, float, float, float, float, float] = Field(
        WEIGHTS, description="worth of a unit of quality class 1 to 7; ours"
    )
    aggregator: Literal["deterministic", "role"] = Field(
        "deterministic", description="who merges judged units: a rule, or the model role `aggregator` (the paper's way)"
    )
    margin: float = Field(0.5, ge=0, le=100, description="delta: least difference in Q between chosen and rejected; ours")
    aggregate_share: float = Field(
        0.5, ge=0, le=1, description="share of trajectories in which the aggregate may be chosen or rejected; ours"
    )
    repairs: int = Field(1, ge=0, le=5, description="how often an unreadable answer is asked for again; ours")
    max_tokens: int = Field(1024, ge=16, le=32768, description="longest answer of a critic that is a model, tokens; ours")
    min_pairs: int = Field(1, ge=0, description="stop when fewer preference pairs are kept; 0: none are wanted; ours")
    shard_size: int = Field(250, ge=1, le=100_000, description="trajectories a shard, the unit of caching and resuming")


def check(params: Params) -> None:
    """Raise BadInput for critics that do not exist or come twice, and for an unsupported unit that costs nothing."""
    known = prompts.PERSONAS
    for name in params.critics:
        if name not in known:
            raise BadInput(f"critics: no critic {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")
    if len(set(params.critics)) < len(params.critics):
        raise BadInput(f"critics: a critic is named twice in {list(params.critics)}; name each once.")
    if (weight := params.weights[UNSUPPORTED - 1]) >= 0:
        raise BadInput(f"weights: class 6 (flaw not present) weighs {weight}; it must be below 0, or inventing pays.")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Write critiques.parquet and preferences.parquet; return counts that add up, and means over trajectories. A spent budget ends it
    early: what was not reviewed by then has no critique."""
    from tasks.contract import schemas, tables
    from tasks.worlds.api.frozen import load_all

    check(params)
    frames = {name: prompts.frame(world) for name, world in load_all(inputs.worlds).items()}
    trajectories = list(tables.read_rows(inputs.generate / "trajectories.parquet", schemas.some(schemas.TRAJECTORY, *_READ)))
    _check_rows(trajectories, frames)
    done: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()

    def work(shard: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return review(shard, frames, params, ctx)

    stopped = ""
    try:
        for result in ctx.shards("critique", work, trajectories, params.shard_size):
            done.append(result)
            counts.update(result["counts"])
            _check_losses(counts, ctx)
            ctx.progress(sum(len(part["pairs"]) for part in done), len(trajectories), "trajectories reviewed")
    except BudgetSpent as spent:
        stopped = str(spent)
    critiques = [critique for part in done for critique in part["critiques"]]
    pairs = [row for part in done for row in part["pairs"]]
    tables.write_rows(ctx.out / "critiques.parquet", schemas.CRITIQUE, critiques)
    tables.write_rows(ctx.out / "preferences.parquet", schemas.PREFERENCE, pairs)
    said = figures(trajectories, critiques, pairs, counts)
    if said["pairs_kept"] < params.min_pairs and not stopped:
        why = ", ".join(f"{reason} {count}" for reason, count in said["pairs_dropped"].items()) or "no trajectory came in"
        raise StageFailed(
            f"critique: {said['pairs_kept']} preference pairs are kept of {len(trajectories)} trajectories, fewer than min_pairs = "
            f"{params.min_pairs} ({why}). Name other critics, ask for a smaller margin, or set min_pairs: 0."
        )
    return {**said, "stopped": stopped}


def _check_losses(counts: Mapping[str, int], ctx: Context) -> None:
    """Stop when nearly all answers of a role are of no use: what is left would be called flawless by nobody's word."""
    for role in ("critic", "meta_critic", "aggregator"):
        unreadable = {"unreadable": counts.get(f"{role}_unreadable", 0)}
        stop_when_nearly_all(ctx.losses, Lost(f"role {role!r}: questions", unreadable, counts.get(f"{role}_questions", 0), role=role))


def _check_rows(trajectories: Sequence[Mapping[str, Any]], frames: Mapping[str, Any]) -> None:
    seen: set[str] = set()
    for row in trajectories:
        if row["world"] not in frames:
            raise BadInput(f"trajectory {row['traj_id']}: its world {row['world']!r} is not among {', '.join(frames)}.")
        if row["traj_id"] in seen:
            raise BadInput(f"trajectories.parquet: traj_id {row['traj_id']!r} comes more than once; generate again.")
        seen.add(row["traj_id"])


def review(shard: Sequence[Mapping[str, Any]], frames: Mapping[str, Mapping[str, Any]], params: Params, ctx: Context) -> dict[str, Any]:
    """Rows of CRITIQUE and PREFERENCE of one shard of trajectories, in its order, and counts by name."""
    counts: Counter[str] = Counter()
    made: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {}
    for world in sorted({row["world"] for row in shard}):
        group = [row for row in shard if row["world"] == world]
        reviewers = Reviewers(ctx, world, params.max_tokens, params.repairs, counts)
        cases = [prompts.case(row, frames[world]) for row in group]
        judged = judge(reviewers, cases, criticise(reviewers, cases, params.critics), params.weights)
        merged = merge(reviewers, cases, judged, by_role=params.aggregator == "role")
        for row, critiques, units in zip(group, judged, merged, strict=True):
            made[row["traj_id"]] = (_critique_rows(row, critiques, units), _pair(row, critiques, units, params, ctx))
    ordered = [made[row["traj_id"]] for row in shard]
    return {
        "critiques": [critique for critiques, _ in ordered for critique in critiques],
        "pairs": [row for _, row in ordered],
        "counts": dict(sorted(counts.items())),
    }


def _critique_rows(row: Mapping[str, Any], critiques: Critiques, merged: Sequence[Unit]) -> list[dict[str, Any]]:
    """Every readable critique, and the aggregate unless nobody's critique was readable (then nothing is known)."""
    used = {source for unit in merged for source in unit.source_ids}
    written = [_critique_row(row, name, units, _unused(units, used)) for name, units in critiques.items()]
    if critiques:
        left_out = sum(_unused(units, used) for units in critiques.values())
        written.append(_critique_row(row, AGGREGATE, merged, left_out))
    return written


def _unused(units: Sequence[Unit], used: set[str]) -> int:
    return sum(unit.unit_id not in used for unit in units)


def _critique_row(row: Mapping[str, Any], source: str, units: Sequence[Unit], n_dropped: int) -> dict[str, Any]:
    """A row of CRITIQUE. n_dropped: units that the aggregate does not use, of this critic (for the aggregate: of all)."""
    return {
        "critique_id": f"{row['traj_id']}-{source}",
        "traj_id": row["traj_id"],
        "world": row["world"],
        "source": source,
        "units": [unit.row() for unit in units],
        "n_units": len(units),
        "n_dropped": n_dropped,
        "quality": quality(units),
        "score": score(units),
        "text": render(units),
    }


def _pair(row: Mapping[str, Any], critiques: Critiques, merged: Sequence[Unit], params: Params, ctx: Context) -> dict[str, Any]:
    rng = ctx.rng("pair", row["traj_id"])
    with_aggregate = critiques and rng.random() < params.aggregate_share
    candidates = {**critiques, AGGREGATE: merged} if with_aggregate else critiques
    return pair(row, candidates, params.margin, rng)


def figures(
    trajectories: Sequence[Mapping[str, Any]],
    critiques: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Counts by name, and means. `score_won`, `score_lost`: the score where the verifier, unseen by critics, said 1 or 0."""
    scores = {row["traj_id"]: row["score"] for row in critiques if row["source"] == AGGREGATE}
    sources = Counter(row["source"] for row in critiques)
    units = Counter[str]()
    for row in critiques:
        units[row["source"]] += row["n_units"]
    classes = Counter(unit["quality_class"] for row in critiques if row["source"] != AGGREGATE for unit in row["units"])
    kept = [row for row in pairs if row["kept"]]
    won = [scores[row["traj_id"]] for row in trajectories if row["traj_id"] in scores and row["reward"]]
    lost = [scores[row["traj_id"]] for row in trajectories if row["traj_id"] in scores and not row["reward"]]
    return {
        "trajectories": len(trajectories),
        "unreviewed": len(trajectories) - len(scores),
        "critiques": len(critiques),
        "units": sum(classes.values()),
        "units_by_class": {str(name): classes[name] for name in sorted(classes)},
        "units_per_critique": {source: units[source] / sources[source] for source in sorted(sources)},
        "flawless": _mean([row["n_units"] == 0 for row in critiques if row["source"] == AGGREGATE]),
        "score": _mean(list(scores.values())),
        "score_won": _mean(won),
        "score_lost": _mean(lost),
        "pairs_kept": len(kept),
        "pairs_dropped": dict(sorted(Counter(row["drop_reason"] for row in pairs if not row["kept"]).items())),
        "n_units_chosen": _mean([row["n_units_chosen"] for row in kept]),
        "n_units_rejected": _mean([row["n_units_rejected"] for row in kept]),
        "answers": dict(sorted(counts.items())),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
