from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.claims.declaration import Claim, Comparison, Effect, Mechanism, NotWorse
from flows.claims.results import Cell, Results, add, figures, read, write
from flows.claims.verdict import MEANING, Verdict, conclude, judge
from tasks.contract.params import BadInput
from tests.claims.made_up import CLAIM, CODE, MACHINE, cell, claim

LEVELS = {"plain": 0.5, "random_mask": 0.5, "base": 0.9}


def results(of: Claim, levels: Mapping[str, float | Mapping[str, float]], noise: float = 0.03, problems: int = 40) -> Results:
    """Cells in which each arm's problems lie around a level, or around one level a metric; what a seed shares moves all arms alike."""
    rng = np.random.default_rng(7)
    cells = []
    for seed in range(of.seeds):
        shared = rng.normal(0, 0.1)
        for arm, metrics in of.arms().items():
            level = levels[arm]
            by_metric = level if isinstance(level, Mapping) else dict.fromkeys(metrics, level)
            own = rng.normal(0, noise)
            values = {metric: (by_metric[metric] + shared + own + rng.normal(0, 0.05, problems)).tolist() for metric in metrics}
            cells.append(cell(arm, seed, values, of))
    return Results("made_up", of.rule(), tuple(cells))


def verdict(of: Claim = CLAIM, noise: float = 0.03, **levels: Any) -> Verdict:
    return judge(of, results(of, {**LEVELS, **levels}, noise))


@pytest.mark.parametrize("interval", ["paired_t", "hierarchical_bootstrap"])
@pytest.mark.parametrize(
    ("levels", "word", "reason"),
    [
        ({"masked": 0.65}, "reproduced", "kept of masked minus plain: +0.1"),
        ({"masked": 0.5}, "null", "kept of masked minus plain: "),
        ({"masked": 0.35}, "reversed", "; the other way"),
        ({"masked": 0.65, "random_mask": 0.65}, "unspecific", "random_mask (its mask is drawn at random) does as well, as far as"),
        ({"masked": 0.65, "random_mask": 0.85}, "unspecific", "random_mask (its mask is drawn at random) does better"),
        ({"masked": 0.65, "base": 0.3}, "broken", "the base knows the old tasks: does not hold (kept of base minus 0.8: -0."),
    ],
)
def test_what_was_planted_is_found(interval: Any, levels: dict[str, float], word: str, reason: str) -> None:
    found = verdict(claim(interval=interval), **levels)
    assert found.word == word and reason in found.reason
    assert found.word in MEANING


def test_less_may_be_better() -> None:
    lower = claim(effect=Effect("kept", "lower", 0.05))
    assert verdict(lower, masked=0.35).word == "reproduced"
    assert verdict(lower, masked=0.65).word == "reversed"
    assert verdict(lower, masked=0.35, random_mask=0.2).word == "unspecific"


def test_an_effect_too_small_to_matter_is_none() -> None:
    """It is surely there: without the smallest effect of the rule, enough seeds make anything significant."""
    found = verdict(noise=0.001, masked=0.52)
    assert found.word == "null" and "an effect of 0.05, the smallest that matters, is excluded" in found.reason
    assert found.effect.difference.low > 0


def test_a_null_says_whether_an_effect_is_excluded() -> None:
    assert "an effect of 0.05, the smallest that matters, is excluded" in verdict(noise=0.005, masked=0.5).reason
    undecided = verdict(noise=0.15, masked=0.5)
    assert undecided.word == "null" and "neither no effect nor one of 0.05 is excluded" in undecided.reason
    assert undecided.power < 0.3 and undecided.seeds_needed and undecided.seeds_needed > 40


def test_what_else_is_claimed_must_hold_too() -> None:
    both = claim(also=(NotWorse("learned", "higher", 0.05),))
    levels = {"plain": {"kept": 0.5, "learned": 0.8}, "masked": {"kept": 0.65, "learned": 0.79}}
    assert verdict(both, noise=0.01, **levels).word == "reproduced"
    levels["masked"] = {"kept": 0.65, "learned": 0.6}
    found = verdict(both, noise=0.01, **levels)
    assert found.word == "null" and "something else that is claimed is not: learned of masked minus plain: -0." in found.reason
    share = claim(also=(Effect("share", "higher", 0.1, baseline=0.5),))
    assert verdict(share, masked={"kept": 0.65, "share": 0.8}).word == "reproduced"
    assert verdict(share, masked={"kept": 0.65, "share": 0.5}).word == "null"


def test_a_metric_that_all_arms_master_is_not_worse() -> None:
    """No seed differs, and the 240 right answers on either side say how much may be hidden in that."""
    both = claim(also=(NotWorse("learned", "higher", 0.05),))
    learned = figures(both, "dense", {"learned": [1.0] * 40})
    cells = [replace(one, figures={**one.figures, **learned}) for one in results(CLAIM, {**LEVELS, "masked": 0.65}).cells]
    assert judge(both, Results("made_up", both.rule(), tuple(cells))).word == "reproduced"
    strict = claim(also=(NotWorse("learned", "higher", 0.01),))
    found = judge(strict, Results("made_up", strict.rule(), tuple(cells)))
    assert found.word == "null" and "learned of masked minus plain: +0 [-0.0153, +0.0153]; not shown to be worse" in found.reason


def test_a_control_in_other_surroundings_is_compared_by_its_own_gain() -> None:
    vanishes = claim(mechanisms=(Mechanism("masked_elsewhere", "nothing is to be kept there", baseline="plain_elsewhere"),))
    levels = {"masked": 0.65, "plain_elsewhere": 0.7, "masked_elsewhere": 0.7}
    assert verdict(vanishes, **levels).word == "reproduced", "higher than the treatment, and it gains nothing over its own baseline"
    assert verdict(vanishes, **{**levels, "masked_elsewhere": 0.85}).word == "unspecific"


def test_a_side_that_was_decided_before_it_ran_breaks_the_claim() -> None:
    cells = [replace(one) for one in results(CLAIM, {**LEVELS, "masked": 0.65}).cells if one.arm != "plain"]
    floor = [cell("plain", seed, {"kept": [0.0] * 40}) for seed in range(CLAIM.seeds)]
    found = judge(CLAIM, Results("made_up", CLAIM.rule(), (*cells, *floor)))
    assert found.word == "broken" and "kept of plain lies at its floor (0) in every seed" in found.reason
    free = claim(effect=Effect("kept", "higher", 0.05, limits=(None, None)))
    assert judge(free, Results("made_up", free.rule(), (*cells, *floor))).word == "reproduced", "no limit, no floor"
    once = [*floor[1:], cell("plain", 0, {"kept": [0.1] * 40})]
    assert judge(CLAIM, Results("made_up", CLAIM.rule(), (*cells, *once))).word == "reproduced", "one seed got away from it"


def test_a_treatment_that_changes_nothing_breaks_the_claim() -> None:
    cells = list(results(CLAIM, {**LEVELS, "masked": 0.65}).cells)
    same = [replace(one, arm="masked") if one.arm == "plain" else one for one in cells if one.arm != "masked"]
    plain = [one for one in cells if one.arm == "plain"]
    found = judge(CLAIM, Results("made_up", CLAIM.rule(), (*same, *plain)))
    assert found.word == "broken" and "kept of masked is that of plain in every seed, to the last digit" in found.reason


def test_yes_and_no_may_lie_at_a_limit_where_the_claim_says_why() -> None:
    """A gate that sounds in all 20 seeds: without a spread between seeds, by the interval of a share."""
    gate = claim(seeds=20, effect=Effect("sounds", "higher", 0.5, saturates="yes or no, one answer a seed"), sanity=())
    cells = [cell(arm, seed, {"sounds": [float(arm == "masked")]}, gate) for seed in range(20) for arm in gate.arms()]
    found = judge(gate, Results("made_up", gate.rule(), tuple(cells)))
    assert found.word == "reproduced" and found.effect.difference.low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 20)))
    strict = claim(seeds=20, effect=Effect("sounds", "higher", 0.5), sanity=())
    assert judge(strict, Results("made_up", strict.rule(), tuple(cells))).word == "broken"


def test_a_sanity_condition_compares_arms_or_a_number() -> None:
    exact = claim(
        sanity=(Comparison("at least", "base", 0.75, "kept", "higher"), Comparison("two arms", "base", "plain", "kept", "higher"))
    )
    cells = [one for one in results(exact, {**LEVELS, "masked": 0.65}).cells if one.arm != "base"]

    def with_base(value: float) -> Verdict:
        base = [cell("base", seed, {"kept": [value]}) for seed in range(exact.seeds)]
        return judge(exact, Results("made_up", exact.rule(), (*cells, *base)))

    assert with_base(0.75).word == "reproduced", "a number may be reached"
    assert with_base(0.7499).word == "broken"


def test_what_is_reported_decides_nothing() -> None:
    beside = claim(reported=(Comparison("against dense", "masked", "dense", "kept", "higher"),))
    found = verdict(beside, masked=0.65, dense=0.95)
    assert found.word == "reproduced"
    assert found.reported[0].holds is None and found.reported[0].difference.mean < 0


def test_a_control_that_was_not_run_is_an_error() -> None:
    whole = results(CLAIM, {**LEVELS, "masked": 0.65})
    without = replace(whole, cells=tuple(one for one in whole.cells if one.arm != "random_mask"))
    with pytest.raises(BadInput) as told:
        judge(CLAIM, without)
    assert str(told.value).startswith("paper made_up: no verdict yet. 6 of 24 cells are open: not run: random_mask with seed 0, ")


def test_a_seed_that_failed_leaves_the_verdict_open() -> None:
    whole = results(CLAIM, {**LEVELS, "masked": 0.65})
    failed = Cell("plain", 3, 1.0, CODE, MACHINE, failed="the loss is not a number")
    cells = tuple(failed if (one.arm, one.seed) == ("plain", 3) else one for one in whole.cells)
    with pytest.raises(BadInput, match=r"1 of 24 cells are open: plain with seed 3 failed \(the loss is not a number\)"):
        judge(CLAIM, replace(whole, cells=cells))


def test_a_rule_that_was_fitted_afterwards_gives_no_verdict() -> None:
    whole = results(CLAIM, {**LEVELS, "masked": 0.65})
    with pytest.raises(BadInput, match="effect of its CLAIM changed after 24 cells were measured"):
        judge(claim(effect=Effect("kept", "higher", 0.01)), whole)


def test_sides_with_other_problems_are_not_compared() -> None:
    """Two problems beside forty would be paired with the wrong ones, or stretched."""
    paired = claim(interval="hierarchical_bootstrap")
    cells = [one for one in results(paired, {**LEVELS, "masked": 0.65}).cells if one.arm != "plain"]
    plain = [cell("plain", seed, {"kept": [0.5, 0.6]}, paired) for seed in range(paired.seeds)]
    with pytest.raises(BadInput, match="sides with 40 and 2 problems in one seed cannot be compared problem by problem"):
        judge(paired, Results("made_up", paired.rule(), (*cells, *plain)))


def test_a_conclusion_stands_in_the_results_file_until_a_cell_is_added(tmp_path: Path) -> None:
    file = tmp_path / "made_up.json"
    with pytest.raises(BadInput, match="paper made_up: no verdict: nothing was measured yet"):
        conclude(file, CLAIM, tmp_path)
    whole = results(CLAIM, {**LEVELS, "masked": 0.65})
    write(file, whole)
    found = conclude(file, CLAIM, tmp_path)
    kept = read(file)
    assert kept and kept.conclusion["verdict"] == found.word == "reproduced"
    assert kept.conclusion["effect"][0]["low"] == pytest.approx(found.effect.difference.low, rel=1e-5)
    (control,) = kept.conclusion["mechanisms"]
    assert (control["treatment"], control["baseline"], control["holds"]) == ("masked", "random_mask", True)
    (sanity,) = kept.conclusion["sanity"]
    assert sanity["baseline"] == 0.8 and kept.cells == whole.cells
    assert not add(file, CLAIM, cell("plain", 0, {"kept": [0.1]}), tmp_path).conclusion
