"""The gates by hand: each one alone can refuse, and evidence that does not fit is an error.

Worked example: a difference of +0.02 whose p of "not above" is 0.04: better at level 0.05, promote; at 0.06 refuse. For
non_inferiority with margin 0.05 its interval from -0.03 counts: -0.03 > -0.05, not worse: promote.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.contract.planned import Planned
from tasks.decide import Inputs, paired_gate
from tasks.decide.paired_gate import Params, foresee, run
from tasks.evaluate.pass_k import Params as EvaluateParams
from tests.evaluate.test_tables import everything as evaluated

NONE = None
CHAMPION = "abc.dir"


def estimate(mean: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    """One estimate as evaluate writes it."""
    return {"mean": mean, "low": low, "high": high, "n": 50, "trials": 4, "resamples": "problems", **more}


def as_served(alike: int = 16, exact: bool = True, below: float = 1.0) -> dict[str, Any]:
    """16 conversations through the endpoint."""
    first = None if alike == 16 else {"world": "retail", "problem_id": "p7", "trial": 1}
    figures = {"candidate": "merged", "exact": exact, "conversations": 16, "alike": alike, "first": first}
    gap = estimate(0, 0, 0, p_below=below, p_above=1.0)
    return {**figures, "as_served": estimate(0.5, 0.4, 0.6), "evaluated": estimate(0.6, 0.5, 0.7), "difference": gap}


def metrics(reference: str | None, low: float = -0.03, above: float = 0.04) -> dict[str, Any]:
    """An evaluation of one world with two families, in which all gates hold against a champion."""
    gap = {"pass_1": estimate(0.02, low, 0.07, p_below=0.8, p_above=above)}
    families = {"one_write": copy.deepcopy(gap), "forbidden": copy.deepcopy(gap), "write": copy.deepcopy(gap)}
    block = {"pass_1": estimate(0.6, 0.5, 0.7)}
    gate: dict[str, Any] = {
        "candidate": "merged",
        "reference": reference,
        "overall": {"candidate": block},
        "worlds": {"retail": {"candidate": block}},
    }
    if reference:
        gate["overall"] |= {"reference": block, "paired": gap}
        gate["worlds"]["retail"] |= {"reference": block, "paired": {**gap, "families": families}}
    return {
        "as_served": as_served(),
        "gate": gate,
        "paired": {"merged-sft": {"retail": {**gap, "families": copy.deepcopy(families)}}},
        "baselines": {
            "retail": {
                "oracle": {"pass_1": estimate(1, 0.9, 1)},
                "do_nothing": {"pass_1": estimate(0, 0, 0.1)},
                "constant": {"pass_1": estimate(0, 0, 0.1)},
            }
        },
    }


def decide(
    tmp_path: Path,
    said: Any,
    champion: str | None = CHAMPION,
    candidate_id: str = "new.dir",
    model: str = "merged",
    parent: str = "sft",
    anchor: str | None = None,
    **params: Any,
) -> dict[str, Any]:
    """Run the method on an evaluation."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "metrics.json").write_text(said if isinstance(said, str) else json.dumps(said))
    ctx = Context(seed=0, out=out, scratch=out)
    decision = run(Inputs(tmp_path, champion, model, candidate_id, parent, anchor), Params(**params), ctx)
    assert json.loads((out / "decision.json").read_text()) == decision
    return decision


def failed(decision: dict[str, Any]) -> list[str]:
    """Names of the gates that do not hold."""
    return [gate["name"] for gate in decision["gates"] if not gate["passed"]]


def test_better_than_the_champion_is_promoted(tmp_path: Path) -> None:
    decision = decide(tmp_path, metrics("champion"))
    assert decision["decision"] == "promote" and not failed(decision)
    assert "better than the champion: p 0.04 (at most 0.05), difference +0.020, 95 % interval -0.030 to +0.070" in decision["reason"]
    assert decision["candidate"] == {"model": "merged", "identity": "new.dir", "pass_1": {"retail": 0.6}}
    assert decision["champion"] == {"identity": "abc.dir"} and decision["reason"].startswith("All 6 gates hold. On 50 fresh")


@pytest.mark.parametrize(("reference", "champion"), [("champion", CHAMPION), ("base", NONE)])
def test_not_shown_to_be_better_is_refused(tmp_path: Path, reference: str, champion: str | None) -> None:
    decision = decide(tmp_path, metrics(reference, above=0.06), champion)
    assert decision["decision"] == "refuse" and failed(decision) == ["reference"]
    assert decision["reason"].startswith("1 of 6 gates does not hold. reference: On 50 fresh problems the candidate is not shown")


def test_the_first_model_that_beats_the_base_is_promoted(tmp_path: Path) -> None:
    """Even by not_inferiority's params: there is no champion that it could fall behind."""
    decision = decide(tmp_path, metrics("base"), NONE, aim="non_inferiority")
    assert decision["decision"] == "promote" and decision["champion"] is None


@pytest.mark.parametrize(("low", "refused"), [(-0.03, []), (-0.06, ["reference"])])
def test_not_worse_than_the_champion_is_enough_where_params_say_so(tmp_path: Path, low: float, refused: list[str]) -> None:
    assert failed(decide(tmp_path, metrics("champion", low=low, above=0.5), aim="non_inferiority")) == refused


def test_one_family_that_falls_is_enough_to_refuse(tmp_path: Path) -> None:
    """Two families, so each is held to 0.05 / 2: p = 0.01 refuses, p = 0.03 does not."""
    said = metrics("champion")
    gap = said["gate"]["worlds"]["retail"]["paired"]["families"]["forbidden"]["pass_1"]
    gap |= {"mean": -0.4, "p_below": 0.03}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert not failed(decide(tmp_path / "a", said))
    gap["p_below"] = 0.01
    decision = decide(tmp_path / "b", said)
    assert failed(decision) == ["families"] and "retail / forbidden (-0.400, p 0.01)" in decision["reason"]


def test_without_a_champion_families_are_held_against_sft(tmp_path: Path) -> None:
    said = metrics("base")
    said["paired"]["merged-sft"]["retail"]["families"]["forbidden"]["pass_1"]["p_below"] = 0.001
    decision = decide(tmp_path, said, NONE)
    assert failed(decision) == ["families"] and "below sft" in decision["reason"]


def test_families_are_held_against_the_model_that_params_name_and_against_nobody_where_there_is_none(tmp_path: Path) -> None:
    said = metrics("base")
    said["paired"]["merged-rl_retail"] = copy.deepcopy(said["paired"]["merged-sft"])
    said["paired"]["merged-sft"]["retail"]["families"]["forbidden"]["pass_1"]["p_below"] = 0.001
    for name in "abc":
        (tmp_path / name).mkdir()
    named = decide(tmp_path / "a", said, NONE, family_model="rl_retail")
    assert not failed(named) and named["gates"][1]["figures"]["reference"] == "rl_retail"
    for place, parent, why in (("b", "", "goes on from no model"), ("c", "merged", "is merged itself")):
        gate = decide(tmp_path / place, said, NONE, parent=parent)["gates"][1]
        assert gate["passed"] and why in gate["explanation"]


@pytest.mark.parametrize(
    ("agent", "mean", "text"),
    [
        ("oracle", 0.98, "oracle 0.980 in retail (at least 1)"),
        ("do_nothing", 0.2, "do_nothing 0.200 in retail (at most 0)"),
        ("constant", 0.1, "constant 0.100 in retail (at most 0)"),
    ],
)
def test_an_unsound_benchmark_promotes_nobody(tmp_path: Path, agent: str, mean: float, text: str) -> None:
    said = metrics("champion")
    said["baselines"]["retail"][agent]["pass_1"]["mean"] = mean
    decision = decide(tmp_path, said)
    assert failed(decision) == ["benchmark"] and text in decision["reason"]


def test_minimum_and_reach(tmp_path: Path) -> None:
    """Two families at level 0.025: 50 problems show a fall of 0.3 nine times in ten, 20 do not."""
    said = metrics("champion")
    said["gate"]["worlds"]["retail"]["paired"]["families"]["forbidden"]["pass_1"]["n"] = 20
    for name in "abc":
        (tmp_path / name).mkdir()
    decision = decide(tmp_path / "a", said, min_pass_1=0.7)
    assert failed(decision) == ["minimum", "reach"] and "0.600 in retail" in decision["reason"]
    assert "With 20 problems in the smallest of 2 families, a fall below 0.48 is not seen with probability 0.9" in decision["reason"]
    allowed = decide(tmp_path / "b", said, too_few="allow")
    assert not failed(allowed) and "a fall below 0.48 is not seen" in allowed["gates"][4]["explanation"]
    first = metrics("base")
    first["gate"]["worlds"]["retail"]["paired"]["families"]["forbidden"]["pass_1"]["n"] = 3
    gate = decide(tmp_path / "c", first, NONE)["gates"][4]
    assert gate["passed"] and "no fall is seen, not even to nothing" in gate["explanation"]


def test_what_it_will_see_is_told_before_anything_is_played() -> None:
    """14 families in two worlds of 50 gate problems: 7 a family, with which a fall to nothing has a p of 2^-7 > 0.05 / 14."""
    evaluation = Planned("evaluate", "evaluate", EvaluateParams(gate_problems=50), ["a", "b"], [], [])
    few = Planned("decide", "decide", Params(), [], [evaluation], [])
    assert foresee(few, [7, 7], champion=False)[0]
    holds, text = foresee(few, [7, 7], champion=True)
    assert not holds and "no fall is seen" in text and "Raise gate_problems to 364 a world, or write too_few: allow" in text
    assert foresee(few, [7, 0], champion=True) == (True, "")  # a world whose problems are given: nobody knows its families yet
    enough = replace(few, inputs=[replace(evaluation, params=EvaluateParams(gate_problems=364))])
    assert foresee(enough, [7, 7], champion=True)[0]


def test_nobody_to_compare_with_is_refused(tmp_path: Path) -> None:
    said = metrics(None)
    assert failed(decide(tmp_path, said, NONE)) == ["reference"]


@pytest.mark.parametrize(
    ("message", "champion", "text"),
    [
        (metrics("base"), CHAMPION, "has to meet the champion abc.dir, but the evaluation played the gate against base"),
        (metrics("champion"), NONE, "there is no champion, but the evaluation played the gate against champion"),
        ({**metrics("champion"), "gate": {"candidate": "sft"}}, CHAMPION, "played by 'sft', not by the candidate 'merged'"),
        ({"gate": {}}, NONE, "baselines, paired missing"),
        ("{", NONE, "not valid JSON"),
        ({**metrics("base"), "paired": {}}, NONE, "has no pair 'merged-sft'"),
    ],
)
def test_evidence_that_does_not_fit_is_an_error(tmp_path: Path, message: Any, champion: str | None, text: str) -> None:
    with pytest.raises(BadInput, match=text):
        decide(tmp_path, message, champion)
    assert not list((tmp_path / "out").iterdir())


def test_no_evaluation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"metrics\.json: no such file\. Run evaluate first"):
        run(Inputs(tmp_path, None, "merged", "x", "sft"), Params(), Context(0, tmp_path, tmp_path))


def test_it_reads_what_evaluate_writes(tmp_path: Path) -> None:
    """Metrics computed from rows by the evaluate room itself: sft beats base by 0.5 on two problems, too few for a decision."""
    decision = decide(tmp_path, evaluated(), NONE, model="sft", parent="base", as_served="skip")
    assert failed(decision) == ["reference"] and decision["candidate"]["pass_1"] == {"retail": 0.75}
    assert "better than base: p 0.5 (at most 0.05)" in decision["reason"]


def test_what_is_served_must_be_what_was_evaluated(tmp_path: Path) -> None:
    """In float32 by own on a CPU token for token; elsewhere not significantly below. One that nobody played so is refused too."""
    said = metrics("champion")
    for place, (change, params, refused, words) in enumerate(
        (
            (as_served(15), {}, True, "15 of 16 conversations are the same token for token (all must be, and the first that is not is"),
            (as_served(15, exact=False), {}, False, ""),
            (as_served(0, exact=False, below=0.004), {}, True, "p of not below 0.004 (above 0.01)); pass^1 0.500 as served, 0.600 as"),
            (None, {}, True, "was not played as it is served"),
            (None, {"as_served": "skip"}, False, ""),
        )
    ):
        (folder := tmp_path / str(place)).mkdir()
        decision = decide(folder, {**said, "as_served": change}, **params)  # type: ignore[arg-type]
        assert (failed(decision) == ["as_served"]) == refused and words in decision["reason"]


def test_an_evaluation_that_cannot_tell_what_is_served_is_refused_early() -> None:
    def planned(problems: int | None, params: Params = Params(), **evaluation: Any) -> Planned:
        model = Planned("merge", "merge", None, (), (), ("merged",))
        worlds = ("retail", "airline")
        evaluate = Planned("evaluate", "evaluate", EvaluateParams(**evaluation), worlds, [model], (), as_served=problems)
        return Planned("decide", "decide", params, worlds, [model, evaluate], ())

    check = paired_gate.check_road
    check(planned(1))
    check(planned(None))
    check(planned(0, Params(as_served="skip", family_model="merged")))
    check(planned(4, dtype="bfloat16"))
    with pytest.raises(BadInput, match=r"as_served: \{method: endpoint\}.*decide.paired_gate.as_served: skip"):
        check(planned(0))
    with pytest.raises(BadInput, match=r"2 problems as served, not in float32.*served_alpha = 0.01"):
        check(planned(1, dtype="bfloat16"))


@pytest.mark.parametrize(
    ("low", "above", "refused", "best"), [(-0.06, 0.2, True, False), (-0.04, 0.2, False, False), (0.01, 0.04, False, True)]
)
def test_it_is_held_to_the_best_champion_so_far(tmp_path: Path, low: float, above: float, refused: bool, best: bool) -> None:
    """Whatever the champion is: at most anchor_margin (0.05) worse; and it becomes the best one when it is shown to be better."""
    said = metrics("champion")
    said["gate"]["overall"]["anchored"] = {"pass_1": estimate(0.0, low, 0.1, p_below=0.5, p_above=above)}
    decision = decide(tmp_path, said, anchor="best.dir", aim="non_inferiority")
    assert (failed(decision) == ["anchor"]) == refused and decision["best"] == best
    assert decision["anchor"] == {"identity": "best.dir"}
    assert ("may be 0.05 worse than the best champion so far" in decision["reason"]) == refused


def test_who_becomes_the_best_champion_where_no_other_is(tmp_path: Path) -> None:
    """Not worse than the champion is not better; the first champion is the best one. An anchor that nobody played is not surpassed."""
    cases = ((metrics("champion", above=0.3), CHAMPION, "", False), (metrics("champion"), CHAMPION, "", True))
    cases += ((metrics("base"), NONE, "", True), (metrics("champion"), CHAMPION, "best.dir", False))
    for place, (said, champion, anchor, best) in enumerate(cases):
        (folder := tmp_path / str(place)).mkdir()
        assert decide(folder, said, champion, anchor=anchor or None, aim="non_inferiority")["best"] == best
