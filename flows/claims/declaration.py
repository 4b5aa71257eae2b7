"""What a paper's file states before anything runs: what is compared, over how many seeds, and by which rule it is judged.

An arm is one way of doing it (the paper's method, the plain one, a control), measured once a seed. A metric is a number that the paper
measures of an arm, one a problem. All comparisons are paired: the same seed, and in it the same problems, on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tasks.contract.params import BadInput, nearest

Direction = Literal["higher", "lower"]
"""Which of two values of a metric is the better one."""
Interval = Literal["paired_t", "hierarchical_bootstrap"]
"""How sure a difference is. paired_t: Student's t over the seeds' mean differences. hierarchical_bootstrap: seeds are drawn anew, then
problems in each, for claims about problems that were not played; no percentiles, which are too narrow over few seeds."""
Side = str | float
"""What a treatment is compared with: another arm, or a number."""

LEAST_SEEDS = 5
"""Fewer say next to nothing about how much seeds differ."""


@dataclass(frozen=True)
class Effect:
    """A difference that the treatment is to make.

    metric: of which the treatment has more or less (`direction`) than the baseline. smallest: the smallest difference that would matter
    to somebody, above 0, in the metric's unit: seeds are to be as many as find it in 4 of 5 cases, and what is surely smaller counts as
    none. limits: least and greatest value that the metric can have, None where it has none: a side that lies at one in every seed was
    decided before it ran. saturates: why a side may lie there nevertheless ("yes or no, one answer a seed"). baseline: what is compared
    with, where it is not the claim's baseline.
    """

    metric: str
    direction: Direction
    smallest: float
    limits: tuple[float | None, float | None] = (0.0, 1.0)
    saturates: str = ""
    baseline: Side = ""


@dataclass(frozen=True)
class NotWorse:
    """A metric in which the treatment may lose against the claim's baseline, by less than `margin` (above 0, in the metric's unit).
    limits: as of an effect; a side may lie there."""

    metric: str
    direction: Direction
    margin: float
    limits: tuple[float | None, float | None] = (0.0, 1.0)


@dataclass(frozen=True)
class Mechanism:
    """A control that does what the treatment does without what the paper says is the reason (a random mask, a linear merge, noise for
    reward). Does it as well as the treatment, then the effect is real and the reason is not.

    arm: its own. lacks: what it does instead, in words. baseline: what the control is compared with, where that is not the claim's
    baseline: for a control in other surroundings, where the effect should vanish.
    """

    arm: str
    lacks: str
    baseline: Side = ""


@dataclass(frozen=True)
class Comparison:
    """Two sides in one metric, with a name for people. As a sanity condition of a claim the difference's mean over the seeds must have
    the direction, or nothing that was measured means anything."""

    name: str
    treatment: str
    baseline: Side
    metric: str
    direction: Direction


@dataclass(frozen=True)
class Claim:
    """A paper's statement and the rule that judges it.

    statement: for people, such that it can be wrong. treatment, baseline: arms (the baseline may be a number). effect: what decides.
    mechanisms: controls, one at least. also: what must hold besides. sanity: what must be true for the claim to mean anything.
    reported: comparisons that are published and decide nothing. seeds: how many, 0, 1, ...; the verdict is of exactly these.
    """

    statement: str
    treatment: str
    baseline: Side
    effect: Effect
    mechanisms: tuple[Mechanism, ...]
    also: tuple[Effect | NotWorse, ...] = ()
    sanity: tuple[Comparison, ...] = ()
    reported: tuple[Comparison, ...] = ()
    interval: Interval = "paired_t"
    seeds: int = 8

    def compared(self) -> Iterator[tuple[Side, str]]:
        """Every side and metric that a comparison needs, numbers too; some more than once."""
        for one in (self.effect, *self.also):
            base = one.baseline if isinstance(one, Effect) else ""
            yield from ((self.treatment, one.metric), (self.against(base), one.metric))
        for control in self.mechanisms:
            yield from ((control.arm, self.effect.metric), (self.against(control.baseline), self.effect.metric))
        for comparison in (*self.sanity, *self.reported):
            yield from ((comparison.treatment, comparison.metric), (comparison.baseline, comparison.metric))

    def against(self, baseline: Side) -> Side:
        """The claim's baseline where a part names none of its own ("")."""
        return self.baseline if baseline == "" else baseline

    def arms(self) -> dict[str, tuple[str, ...]]:
        """Arm -> the metrics that must be measured of it, in the order in which the claim names them."""
        found: dict[str, dict[str, None]] = {}
        for side, metric in self.compared():
            if isinstance(side, str):
                found.setdefault(side, {})[metric] = None
        return {arm: tuple(metrics) for arm, metrics in found.items()}

    def rule(self) -> dict[str, Any]:
        """All that a verdict depends on; words for people are left out, so that they may be mended later."""
        rule = asdict(self)
        del rule["statement"], rule["reported"]
        for part in (rule["effect"], *rule["also"], *rule["mechanisms"], *rule["sanity"]):
            part.pop("lacks", None)
            part.pop("name", None)
            if "saturates" in part:
                part["saturates"] = bool(part["saturates"])
        return rule


def check(claim: Claim, paper: str) -> None:
    """BadInput, which names the paper, for a claim that cannot be judged, or that could only come out one way."""
    if problem := next(_problems(claim), ""):
        raise BadInput(f"paper {paper}: CLAIM: {problem}")


def _problems(claim: Claim) -> Iterator[str]:
    if not claim.statement.strip():
        yield "statement is empty; say what is claimed, such that it can be wrong."
    yield from _rule_problems(claim)
    for side, metric in claim.compared():
        if not metric.strip() or (isinstance(side, str) and not side.strip()):
            yield "an arm or a metric has no name."
        if not isinstance(side, str) and not math.isfinite(side):
            yield f"a baseline is {side}; an arm, or a number that is one."
    if claim.treatment == claim.baseline:
        yield f"treatment and baseline are the same arm, {claim.treatment!r}."
    for effect in (claim.effect, *(one for one in claim.also if isinstance(one, Effect))):
        yield from _effect_problems(effect)
    for one in claim.also:
        if isinstance(one, NotWorse) and not (math.isfinite(one.margin) and one.margin > 0):
            yield f"margin of {one.metric} is {one.margin}; what may be lost, above 0."
    for comparison in (*claim.sanity, *claim.reported):
        if comparison.treatment == comparison.baseline:
            yield f"{comparison.name!r} compares {comparison.treatment!r} with itself."


def _rule_problems(claim: Claim) -> Iterator[str]:
    """Of the verdict rule as a whole: interval, seeds, controls, directions."""
    if claim.interval not in get_args(Interval):
        known = get_args(Interval)
        yield f"interval = {claim.interval!r}.{nearest(claim.interval, known)} Allowed: {', '.join(known)}."
    if claim.seeds < LEAST_SEEDS:
        yield f"seeds = {claim.seeds}; fewer than {LEAST_SEEDS} say next to nothing about how much seeds differ."
    if not claim.mechanisms:
        yield (
            "there is no mechanism control. Whatever is changed may help; name an arm that does the same without what the paper says "
            "is the reason (a random mask, a linear merge, noise for reward): mechanisms=(Mechanism(arm, lacks),)."
        )
    for control in claim.mechanisms:
        if control.arm == claim.treatment:
            yield f"the mechanism control {control.arm!r} is the treatment itself."
        if control.arm == claim.against(control.baseline):
            yield f"the mechanism control {control.arm!r} is the baseline itself."
        if not control.lacks.strip():
            yield f"the mechanism control {control.arm!r} does not say what it lacks."
    for one in (claim.effect, *claim.also, *claim.sanity, *claim.reported):
        if one.direction not in get_args(Direction):
            yield f"direction of {one.metric} is {one.direction!r}. Allowed: {', '.join(get_args(Direction))}."


def _effect_problems(effect: Effect) -> Iterator[str]:
    low, high = effect.limits
    if not (math.isfinite(effect.smallest) and effect.smallest > 0):
        yield f"smallest of {effect.metric} is {effect.smallest}; the smallest difference that would matter, above 0."
    if low is not None and high is not None and not effect.smallest < high - low:
        yield f"smallest of {effect.metric} is {effect.smallest:g}; its limits {low:g} and {high:g} leave no room for it."
