"""What became of a claim: one of five verdicts, by the rule that its paper's file states.

In this order: `broken` where a sanity condition fails, or a side was decided before it ran; `null` and `reversed` by the interval of
the claim's effect; `null` where something else that the claim says does not hold; `unspecific` where a mechanism control does as well;
`reproduced`. Needs every cell of the claim: a control that was not run is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from flows.claims import intervals
from flows.claims.declaration import Claim, Direction, Effect, NotWorse, Side
from flows.claims.intervals import Estimate
from flows.claims.results import Figure, Results, check_rule, read, write
from tasks.contract.params import BadInput
from tasks.engine.locks import lock

Word = Literal["reproduced", "null", "reversed", "unspecific", "broken"]
MEANING: dict[Word, str] = {
    "reproduced": "the effect is there, may be as large as matters, and the control without the mechanism does not have it",
    "null": "what is claimed is not there, is too small to matter, or cannot be told from nothing by these seeds",
    "reversed": "the effect goes the other way",
    "unspecific": "the effect is there, and a control without the mechanism does as well: the reason is another than the paper's",
    "broken": "the experiment cannot tell: a sanity condition fails, or a side was decided before it ran",
}
ANY = (-math.inf, math.inf)
NEAR = 0.1
"""A side lies at a limit when no seed's mean is further from it than this share of the smallest effect; ours."""


@dataclass(frozen=True)
class Finding:
    """A comparison and what came out. difference: treatment minus baseline; for a mechanism control, what the treatment gains minus
    what the control gains. holds: whether it is as the claim needs it; None for one that decides nothing. reason: in words."""

    name: str
    treatment: str
    baseline: Side
    metric: str
    direction: Direction
    difference: Estimate
    holds: bool | None
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    word: the verdict. reason: the sentence that decided. effect: the claim's own comparison. power: probability that these seeds find
    the smallest effect that matters, by the spread that was measured. seeds_needed: how many would find it in 4 of 5 cases; None where
    no number does that anybody runs.
    """

    word: Word
    reason: str
    effect: Finding
    also: tuple[Finding, ...]
    mechanisms: tuple[Finding, ...]
    sanity: tuple[Finding, ...]
    reported: tuple[Finding, ...]
    power: float
    seeds_needed: int | None


def judge(claim: Claim, results: Results) -> Verdict:
    """The verdict. BadInput when a cell of the claim is not there or failed, or when its rule changed since cells were measured."""
    check_rule(results, claim)
    if missing := results.open_cells(claim):
        raise BadInput(f"paper {results.paper}: no verdict yet. {_missing_in_words(missing, claim)}")
    judged = _Judged(claim, results)
    effect = judged.effect(claim.effect)
    also = tuple(judged.also(one) for one in claim.also)
    mechanisms = tuple(judged.mechanisms())
    sanity = tuple(judged.sanity())
    broken = [*(one.reason for one in sanity if not one.holds), *judged.decided_before()]
    word, reason = _decide(effect, also, mechanisms, broken, claim.effect.smallest)
    spread = effect.difference.spread
    return Verdict(
        word,
        reason,
        effect,
        also,
        mechanisms,
        sanity,
        tuple(judged.reported()),
        intervals.power(claim.effect.smallest, spread, claim.seeds),
        intervals.seeds_for(claim.effect.smallest, spread),
    )


def conclude(path: Path, claim: Claim, state: Path) -> Verdict:
    """Judge a paper and write the conclusion into its results file. state: root of the locks. BadInput as of `judge` and `read`."""
    with lock(state, f"results-{path.stem}"):
        if (results := read(path)) is None:
            raise BadInput(f"paper {path.stem}: no verdict: nothing was measured yet.")
        verdict = judge(claim, results)
        write(path, replace(results, conclusion=conclusion(verdict)))
    return verdict


def conclusion(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a results file has it: the word, the reason, and each comparison with its interval (null: no end)."""
    parts = ("effect", "also", "mechanisms", "sanity", "reported")
    found = {part: getattr(verdict, part) for part in parts}
    listed = {part: [_comparison(one) for one in ((item,) if isinstance(item, Finding) else item)] for part, item in found.items()}
    return {"verdict": verdict.word, "reason": verdict.reason, **{part: items for part, items in listed.items() if items}}


def _comparison(one: Finding) -> dict[str, Any]:
    estimate = one.difference
    ends = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    numbers = {key: float(f"{value:.6g}") if math.isfinite(value) else None for key, value in ends.items()}
    return {"treatment": one.treatment, "baseline": one.baseline, "metric": one.metric, **numbers, "holds": one.holds}


def _missing_in_words(missing: Sequence[tuple[str, int, str]], claim: Claim) -> str:
    total = claim.seeds * len(claim.arms())
    failed = [f"{arm} with seed {seed} failed ({why})" for arm, seed, why in missing if why]
    not_run = [f"{arm} with seed {seed}" for arm, seed, why in missing if not why]
    lines = [*failed[:3], *([f"not run: {', '.join(not_run[:6])}{', ...' if len(not_run) > 6 else ''}"] if not_run else [])]
    return f"{len(missing)} of {total} cells are open: {'; '.join(lines)}."


def _decide(
    effect: Finding, also: Sequence[Finding], mechanisms: Sequence[Finding], broken: Sequence[str], smallest: float
) -> tuple[Word, str]:
    """The verdict and the reason that decides, in the order of this module's header."""
    if broken:
        return "broken", broken[0]
    if not effect.holds:
        gain = _towards(effect.direction, effect.difference)
        turned = gain.high < 0 and gain.low <= -smallest
        return ("reversed" if turned else "null"), effect.reason
    if failing := [one.reason for one in also if not one.holds]:
        return "null", f"the effect is there, and something else that is claimed is not: {failing[0]}"
    if failing := [one.reason for one in mechanisms if not one.holds]:
        return "unspecific", failing[0]
    return "reproduced", effect.reason


class _Judged:
    """The comparisons of a claim, by its results."""

    def __init__(self, claim: Claim, results: Results) -> None:
        self.claim = claim
        self.cells = {(one.arm, one.seed): one for one in results.cells}

    def effect(self, one: Effect) -> Finding:
        """The claim's effect, or another that it states besides: its interval lies on the right side of 0 and reaches the smallest."""
        claim, baseline = self.claim, self.claim.against(one.baseline)
        difference = self._estimate(claim.treatment, baseline, one.metric, _room(one.limits, baseline))
        gain = _towards(one.direction, difference)
        found = gain.low > 0 and gain.high >= one.smallest
        reason = f"{one.metric} of {claim.treatment} minus {_side(baseline)}: {in_words(difference)}; {_size(gain, one.smallest)}"
        return Finding("effect", claim.treatment, baseline, one.metric, one.direction, difference, found, reason)

    def also(self, one: Effect | NotWorse) -> Finding:
        """Something else that the claim says."""
        if isinstance(one, Effect):
            return self.effect(one)
        claim = self.claim
        difference = self._estimate(claim.treatment, claim.baseline, one.metric, _room(one.limits, claim.baseline))
        holds = _towards(one.direction, difference).low > -one.margin
        worse = f"{'' if holds else 'not shown to be '}worse by less than {one.margin:g}"
        reason = f"{one.metric} of {claim.treatment} minus {_side(claim.baseline)}: {in_words(difference)}; {worse}"
        return Finding("not worse", claim.treatment, claim.baseline, one.metric, one.direction, difference, holds, reason)

    def mechanisms(self) -> Iterator[Finding]:
        """Each mechanism control: what the treatment gains over it, beyond 0 by the interval."""
        claim, effect = self.claim, self.claim.effect
        for control in claim.mechanisms:
            baseline = claim.against(effect.baseline)
            if control.baseline in ("", baseline):
                difference = self._estimate(claim.treatment, control.arm, effect.metric, _room(effect.limits, control.arm))
            else:
                own = self._differences(claim.treatment, baseline, effect.metric)
                theirs = self._differences(control.arm, control.baseline, effect.metric)
                difference = self._interval([_minus(ours, other) for ours, other in zip(own, theirs, strict=True)])
            gain = _towards(effect.direction, difference)
            does = "worse" if gain.low > 0 else "better" if gain.high < 0 else "as well, as far as these seeds can tell"
            reason = (
                f"{control.arm} ({control.lacks}) does {does}: {effect.metric} of {claim.treatment} beyond it {in_words(difference)}"
            )
            sides = (control.lacks, claim.treatment, control.arm, effect.metric, effect.direction)
            yield Finding(*sides, difference, gain.low > 0, reason)

    def sanity(self) -> Iterator[Finding]:
        """Each sanity condition, by the mean over the seeds: beyond another arm, or beyond a number or equal to it."""
        for one in self.claim.sanity:
            difference = self._estimate(one.treatment, one.baseline, one.metric)
            gain = _towards(one.direction, difference).mean
            holds = gain > 0 or (gain == 0 and not isinstance(one.baseline, str))
            what = f"{one.metric} of {one.treatment} minus {_side(one.baseline)}: {difference.mean:+.4g}"
            reason = f"{one.name}: {'holds' if holds else 'does not hold'} ({what})"
            yield Finding(one.name, one.treatment, one.baseline, one.metric, one.direction, difference, holds, reason)

    def reported(self) -> Iterator[Finding]:
        """The comparisons that decide nothing."""
        for one in self.claim.reported:
            difference = self._estimate(one.treatment, one.baseline, one.metric)
            reason = f"{one.name}: {in_words(difference)}"
            yield Finding(one.name, one.treatment, one.baseline, one.metric, one.direction, difference, None, reason)

    def decided_before(self) -> Iterator[str]:
        """Sides that no run could have moved: at a limit of the metric in every seed, or equal to each other in every seed."""
        for effect in (one for one in (self.claim.effect, *self.claim.also) if isinstance(one, Effect) and not one.saturates):
            baseline = self.claim.against(effect.baseline)
            for arm in (side for side in (self.claim.treatment, baseline) if isinstance(side, str)):
                means = [self._figure(arm, seed, effect.metric).mean for seed in range(self.claim.seeds)]
                for limit, what in zip(effect.limits, ("floor", "ceiling"), strict=True):
                    if limit is not None and max(abs(mean - limit) for mean in means) <= NEAR * effect.smallest:
                        yield f"{effect.metric} of {arm} lies at its {what} ({limit:g}) in every seed: that was decided before it ran"
            if not any(fmean(one) for one in self._differences(self.claim.treatment, baseline, effect.metric)):
                yield f"{effect.metric} of {self.claim.treatment} is that of {_side(baseline)} in every seed, to the last digit"

    def _figure(self, arm: str, seed: int, metric: str) -> Figure:
        return self.cells[arm, seed].figures[metric]

    def _differences(self, treatment: str, baseline: Side, metric: str) -> list[list[float]]:
        """[seed][problem], or [seed][the mean alone] where the interval is over seeds."""
        ours = [self._values(treatment, seed, metric) for seed in range(self.claim.seeds)]
        if not isinstance(baseline, str):
            return [[value - baseline for value in one] for one in ours]
        return [_minus(one, self._values(baseline, seed, metric)) for seed, one in enumerate(ours)]

    def _values(self, arm: str, seed: int, metric: str) -> list[float]:
        figure = self._figure(arm, seed, metric)
        return list(figure.values) if self.claim.interval == "hierarchical_bootstrap" else [figure.mean]

    def _estimate(self, treatment: str, baseline: Side, metric: str, room: tuple[float, float] = ANY) -> Estimate:
        problems = min(self._figure(treatment, seed, metric).n for seed in range(self.claim.seeds))
        return self._interval(self._differences(treatment, baseline, metric), room, problems)

    def _interval(self, differences: Sequence[Sequence[float]], room: tuple[float, float] = ANY, problems: int = 1) -> Estimate:
        """As the claim says. Where no problem differs from another, drawing them anew tells nothing."""
        if self.claim.interval == "hierarchical_bootstrap" and len({value for one in differences for value in one}) > 1:
            return intervals.over_problems(differences)
        return intervals.over_seeds([fmean(one) for one in differences], room, problems)


def _room(limits: tuple[float | None, float | None], baseline: Side) -> tuple[float, float]:
    """The least and the greatest difference that a metric with these limits allows."""
    low, high = (limit if limit is not None else end for limit, end in zip(limits, ANY, strict=True))
    return (low - high, high - low) if isinstance(baseline, str) else (low - baseline, high - baseline)


def _minus(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Problem by problem. BadInput where the sides have not the same problems."""
    if len(first) != len(second):
        raise BadInput(f"sides with {len(first)} and {len(second)} problems in one seed cannot be compared problem by problem")
    return [ours - theirs for ours, theirs in zip(first, second, strict=True)]


def _towards(direction: Direction, difference: Estimate) -> Estimate:
    """A difference turned so that more is better."""
    if direction == "higher":
        return difference
    return Estimate(-difference.mean, -difference.high, -difference.low, difference.spread, difference.seeds)


def _size(gain: Estimate, smallest: float) -> str:
    """What the interval says of a gain's size, in words."""
    if gain.high < smallest and gain.low > -smallest:
        return f"an effect of {smallest:g}, the smallest that matters, is excluded"
    if gain.low > 0 or gain.high < 0:
        return "as claimed" if gain.low > 0 else "the other way"
    return f"neither no effect nor one of {smallest:g} is excluded"


def in_words(difference: Estimate) -> str:
    """A difference with its interval: +0.12 [+0.04, +0.20]."""
    return f"{difference.mean:+.3g} [{difference.low:+.3g}, {difference.high:+.3g}]"


def _side(side: Side) -> str:
    return side if isinstance(side, str) else f"{side:g}"
