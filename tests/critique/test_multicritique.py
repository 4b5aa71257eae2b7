"""MultiCritique: units, verdicts, aggregate, quality, pairs, and a shard reviewed by the scripted roles."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract import schemas, tables
from tasks.contract.context import Context
from tasks.contract.params import BadInput, validate
from tasks.critique import multicritique
from tasks.critique.core import prompts, units
from tasks.critique.core.aggregate import aggregate
from tasks.critique.core.pairs import pair
from tasks.critique.core.units import SOUND, WEIGHTS, Unit, Unreadable, parse_units, parse_verdict, quality, render, score
from tasks.critique.multicritique import Params, check, review
from tasks.players.critics import scripted as critics
from tests.critique.conversations import SHARED, good, hasty

FRAMES = {"shop": SHARED}
CRITERIA = ("a", "b", "c")


def unit(critic: str, index: int, location: int, criterion: str, severity: int, quality_class: int, **more: Any) -> Unit:
    weight = WEIGHTS[quality_class - 1] if quality_class else 0.0
    return Unit(
        f"t-{critic}-{index}",
        critic,
        location,
        criterion,
        severity,
        f"{critic} says",
        "mend it",
        "",
        quality_class,
        weight,
        **more,
    )


def context(tmp_path: Path, errors: dict[str, dict[str, float]] | None = None, seed: int = 0) -> Context:
    rates = errors or {}

    def role(name: str, world: str = "") -> Any:
        return critics.client(name, None, rates.get(name, {}), seed)

    return Context(seed=seed, out=tmp_path, scratch=tmp_path, role=role)


def test_worked_example() -> None:
    """Three critics on one trajectory, by hand.

    guard:    (2, a) severity 3, class 1, weight 1.0; (4, b) severity 2, class 6, weight -1.0
    auditor:  (2, a) severity 1, class 4, weight 0.4; (5, c) severity 2, class 3, weight 0.4, fix: location 6
    advocate: (6, c) severity 4, class 2, weight 0.6
    Clusters after repair: (2, a) with severities 3 and 1, (6, c) with 2 and 4; (4, b) has no sound unit and goes.
    Lower medians: 1 and 2. Weights: 1.0 and 0.6.
    Q: guard 1*4 - 1*3 = 1; auditor .4*2 + .4*3 = 2.0; advocate .6*5 = 3; aggregate 1*2 + .6*3 = 3.8.
    Score of the aggregate: (1 - 1*1/5)(1 - .6*2/5) = .8 * .76 = .608. Pair among critics: advocate over guard, gap 2.
    """
    guard = [unit("guard", 0, 2, "a", 3, 1), unit("guard", 1, 4, "b", 2, 6)]
    auditor = [unit("auditor", 0, 2, "a", 1, 4), unit("auditor", 1, 5, "c", 2, 3, fix={"location": 6})]
    advocate = [unit("advocate", 0, 6, "c", 4, 2)]
    merged = aggregate("t-aggregate", [*guard, *auditor, *advocate])
    assert [(u.location, u.criterion, u.severity, u.weight) for u in merged] == [(2, "a", 1, 1.0), (6, "c", 2, 0.6)]
    assert [u.source_ids for u in merged] == [("t-auditor-0", "t-guard-0"), ("t-advocate-0", "t-auditor-1")]
    assert [quality(c) for c in (guard, auditor, advocate, merged)] == pytest.approx([1.0, 2.0, 3.0, 3.8])
    assert score(merged) == pytest.approx(0.608)
    row = {"traj_id": "t", "world": "shop", "lineage": ["u1"]}
    chosen = pair(row, {"guard": guard, "auditor": auditor, "advocate": advocate}, 0.5, random.Random(0))
    assert (chosen["chosen_critic"], chosen["rejected_critic"]) == ("advocate", "guard")
    assert (chosen["q_chosen"], chosen["q_rejected"], chosen["kept"], chosen["drop_reason"]) == (3.0, 1.0, True, "")
    assert (chosen["n_units_chosen"], chosen["n_units_rejected"]) == (1, 2)
    assert pair(row, {"guard": guard, "auditor": auditor}, 1.5, random.Random(0))["drop_reason"] == "margin"


def test_one_critic_whose_units_are_all_right_is_the_aggregate() -> None:
    """The limit M = 1, every class 1, distinct places: aggregation changes nothing but the names."""
    alone = [unit("guard", n, n, "abc"[n % 3], 1 + n % 4, 1) for n in range(5)]
    merged = aggregate("t-aggregate", alone)
    assert [u.remark() for u in merged] == [u.remark() for u in alone]
    assert (quality(merged), score(merged), render(merged)) == (quality(alone), score(alone), render(alone))
    assert [u.source_ids for u in merged] == [(u.unit_id,) for u in alone]


some_units = st.lists(
    st.tuples(
        st.sampled_from(["guard", "auditor", "advocate"]),
        st.integers(0, 3),
        st.sampled_from(CRITERIA),
        st.integers(1, 4),
        st.integers(0, 7),
    ),
    max_size=12,
)


@given(some_units, st.randoms(use_true_random=False))
def test_aggregation_loses_no_sound_unit_and_knows_no_order(drawn: list[tuple[Any, ...]], shuffler: random.Random) -> None:
    """Every sound unit is the source of exactly one merged unit; any order of critics gives the same; 0 <= score <= 1."""
    given_units = [unit(critic, n, *rest) for n, (critic, *rest) in enumerate(drawn)]
    merged = aggregate("t-aggregate", given_units)
    sources = [source for u in merged for source in u.source_ids]
    assert sorted(sources) == sorted(u.unit_id for u in given_units if u.quality_class in SOUND)
    assert len({(u.location, u.criterion) for u in merged}) == len(merged)
    again = list(given_units)
    shuffler.shuffle(again)
    assert aggregate("t-aggregate", again) == merged
    assert 0 <= score(given_units) <= 1
    assert score(merged) <= min([1.0, *(score([u]) for u in merged)])


@given(some_units, st.floats(0, 5))
def test_a_pair_is_kept_exactly_when_it_differs_by_the_margin(drawn: list[tuple[Any, ...]], margin: float) -> None:
    candidates: dict[str, list[Unit]] = {"guard": [], "auditor": []}
    for n, (critic, *rest) in enumerate(drawn):
        candidates.setdefault(critic, []).append(unit(critic, n, *rest))
    row = pair({"traj_id": "t", "world": "shop", "lineage": []}, candidates, margin, random.Random(1))
    gap = row["q_chosen"] - row["q_rejected"]
    assert gap >= 0
    assert row["kept"] == (gap > 0 and gap >= margin) == (row["drop_reason"] == "")
    assert row["chosen_critic"] != row["rejected_critic"]


def test_empty_critiques_tie_and_say_so() -> None:
    row = pair({"traj_id": "t", "world": "shop", "lineage": []}, {"guard": [], "auditor": []}, 0.0, random.Random(0))
    assert (row["kept"], row["drop_reason"], row["chosen"], row["rejected"]) == (
        False,
        "tie",
        "No flaw found.",
        "No flaw found.",
    )
    alone = pair({"traj_id": "t", "world": "shop", "lineage": []}, {"guard": []}, 0.0, random.Random(0))
    assert (alone["kept"], alone["drop_reason"]) == (False, "too_few")


SAID = {"location": 1, "criterion": "a", "severity": 2, "quote": "", "description": "wrong", "suggestion": "right"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"location": 9}, "location is not a message number from 0 to 4"),
        ({"location": True}, "location is not a message number from 0 to 4"),
        ({"severity": 5}, "severity is not a whole number from 1 to 4"),
        ({"criterion": "zeal"}, "criterion is not one of the given ones"),
        ({"description": " "}, "description is empty"),
        ({"quote": None}, "quote is not text"),
    ],
)
def test_a_bad_unit_is_refused_alone(change: dict[str, Any], problem: str) -> None:
    content = json.dumps({"units": [{**SAID, **change}, SAID]})
    found, refused = parse_units(content, "t-guard", "guard", 5, CRITERIA)
    assert ([u.unit_id for u in found], refused) == (["t-guard-1"], [problem])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("Looks fine to me.", "the answer is not JSON"),
        (None, "the answer is not JSON"),
        ("[]", "the answer is not a JSON object with the key 'units'"),
        ('{"units": 3}', "units is not a list"),
    ],
)
def test_an_answer_that_is_no_list_of_units_is_unreadable(content: Any, problem: str) -> None:
    with pytest.raises(Unreadable, match=problem.replace("[", r"\[")):
        parse_units(content, "t-guard", "guard", 5, CRITERIA)


def test_a_verdict_corrects_only_what_can_be_corrected() -> None:
    assert parse_verdict('{"class": 3, "why": "near", "fix": {"location": 2}}', 5, CRITERIA).fix == {"location": 2}
    assert parse_verdict('{"class": 1, "why": "so", "fix": {"location": 2}}', 5, CRITERIA).fix == {}
    for content, problem in (
        ('{"class": 8, "why": ""}', "class is not a whole number from 1 to 7"),
        ('{"class": 3, "why": "", "fix": {"location": 7}}', "location is not a message number"),
        ('{"class": 3, "why": "", "fix": {"critic": "me"}}', "critic cannot be corrected"),
    ):
        with pytest.raises(Unreadable, match=problem):
            parse_verdict(content, 5, CRITERIA)


def test_the_question_shows_neither_outcome_nor_authors(tmp_path: Path) -> None:
    case = prompts.case(hasty().row(reward=1, wanted_state_hash="feed"), SHARED)
    other = unit("auditor", 0, 1, "confirm", 2, 1)
    asked = json.dumps(prompts.meta_messages(case, unit("guard", 0, 3, "confirm", 3, 0), [other]))
    for secret in ("feed", "reward", "one_write", "t-auditor-0", '"guard"', "quality_class"):
        assert secret not in asked
    assert "auditor says" in asked


def test_a_clean_conversation_gets_empty_critiques(tmp_path: Path) -> None:
    done = review([good().row()], FRAMES, Params(), context(tmp_path))
    assert [row["source"] for row in done["critiques"]] == [*sorted(prompts.PERSONAS), "aggregate"]
    assert all(row["n_units"] == 0 and row["score"] == 1.0 for row in done["critiques"])
    assert [row["drop_reason"] for row in done["pairs"]] == ["tie"]


def test_faultless_critics_find_both_flaws_and_the_aggregate_says_each_once(tmp_path: Path) -> None:
    """hasty() breaks two rules of severity 3, both found by all four critics and judged 1: score (1 - 3/5)^2 = .16."""
    done = review([hasty().row()], FRAMES, Params(), context(tmp_path))
    merged = next(row for row in done["critiques"] if row["source"] == "aggregate")
    assert [(u["location"], u["criterion"], u["severity"]) for u in merged["units"]] == [
        (1, "authenticate_first", 3),
        (3, "confirm", 3),
    ]
    assert (merged["score"], merged["quality"], merged["n_dropped"]) == (pytest.approx(0.16), 8.0, 0)
    assert all(len(u["source_ids"]) == len(prompts.PERSONAS) for u in merged["units"])
    assert done["counts"]["meta_critic_questions"] == 8


NOISY = {role: dict(rates) for role, rates in critics.CATALOGUE.items()}


def shard() -> list[dict[str, Any]]:
    return [talk().row(f"t{n}") for n, talk in enumerate([good, hasty] * 10)]


def reviewed(tmp_path: Path, params: Params, seed: int = 0, errors: Any = NOISY) -> dict[str, Any]:
    return review(shard(), FRAMES, params, context(tmp_path, errors, seed))


def test_order_of_critics_shards_and_repetition_do_not_matter(tmp_path: Path) -> None:
    """Same seed: same rows, whatever the order of critics and however the work is cut; another seed: other rows."""
    whole = reviewed(tmp_path, Params())
    backwards = Params(critics=tuple(reversed(Params().critics)))
    assert reviewed(tmp_path, backwards) == whole
    parts = [review([row], FRAMES, Params(), context(tmp_path, NOISY)) for row in shard()]
    assert [row for part in parts for row in part["critiques"]] == whole["critiques"]
    assert [row for part in parts for row in part["pairs"]] == whole["pairs"]
    assert reviewed(tmp_path, Params(), seed=1)["critiques"] != whole["critiques"]


@pytest.mark.parametrize("aggregator", ["deterministic", "role"])
def test_counts_add_up(tmp_path: Path, aggregator: str) -> None:
    """One pair a trajectory; units of the critics = used by the aggregate + dropped; questions = units."""
    done = reviewed(tmp_path, Params(aggregator=aggregator), errors={**NOISY, "critic": {**NOISY["critic"], "malformed": 0.3}})
    assert len(done["pairs"]) == len(shard())
    by_trajectory: dict[str, list[dict[str, Any]]] = {}
    for row in done["critiques"]:
        by_trajectory.setdefault(row["traj_id"], []).append(row)
    for found in by_trajectory.values():
        merged = found[-1]
        used = {source for u in merged["units"] for source in u["source_ids"]}
        assert merged["source"] == "aggregate"
        assert sum(row["n_units"] for row in found[:-1]) == len(used) + merged["n_dropped"]
        assert sum(row["n_dropped"] for row in found[:-1]) == merged["n_dropped"]
    counts = done["counts"]
    assert counts["critic_questions"] == len(shard()) * len(Params().critics)
    written = sum(row["source"] != "aggregate" for row in done["critiques"])
    assert written == counts["critic_questions"] - counts["critic_unreadable"]
    assert counts["critic_malformed"] > counts["critic_unreadable"] > 0
    assert counts["meta_critic_questions"] == sum(row["n_units"] for row in done["critiques"] if row["source"] != "aggregate")


def test_when_nobody_can_be_read_the_trajectory_stays_unreviewed(tmp_path: Path) -> None:
    done = reviewed(tmp_path, Params(repairs=2), errors={"critic": {"malformed": 1.0}})
    questions = len(shard()) * len(Params().critics)
    assert done["critiques"] == []
    assert {row["drop_reason"] for row in done["pairs"]} == {"too_few"}
    assert (done["counts"]["critic_unreadable"], done["counts"]["critic_malformed"]) == (questions, 3 * questions)
    figures = multicritique.figures(shard(), [], done["pairs"], done["counts"])
    assert (figures["unreviewed"], figures["score"]) == (len(shard()), None)


def test_an_unreadable_verdict_leaves_the_unit_unjudged_and_out(tmp_path: Path) -> None:
    done = reviewed(tmp_path, Params(), errors={"meta_critic": {"malformed": 1.0}})
    assert {u["quality_class"] for row in done["critiques"] for u in row["units"]} == {0}
    assert all(row["n_units"] == 0 for row in done["critiques"] if row["source"] == "aggregate")


def test_an_unreadable_aggregate_falls_back_to_the_rule(tmp_path: Path) -> None:
    by_role = reviewed(tmp_path, Params(aggregator="role"), errors={"aggregator": {"malformed": 1.0}})
    by_rule = reviewed(tmp_path, Params(), errors={})
    assert by_role["critiques"] == by_rule["critiques"]
    assert by_role["counts"]["aggregator_unreadable"] == by_role["counts"]["aggregator_questions"] == 10


def test_the_aggregate_meets_critics_in_the_set_share(tmp_path: Path) -> None:
    """Share 0: critic against critic only. Share 1: among these pairs the aggregate is chosen somewhere."""
    alone = reviewed(tmp_path, Params(aggregate_share=0.0))["pairs"]
    mixed = reviewed(tmp_path, Params(aggregate_share=1.0))["pairs"]
    assert "aggregate" not in {row.get(f"{side}_critic") for row in alone for side in ("chosen", "rejected")}
    assert "aggregate" in {row.get("chosen_critic") for row in mixed}


def test_rows_fit_their_schemas(tmp_path: Path) -> None:
    done = reviewed(tmp_path, Params())
    json.dumps(done)  # what a shard returns can be kept as JSON
    for name, schema in (("critiques", schemas.CRITIQUE), ("pairs", schemas.PREFERENCE)):
        path = tmp_path / f"{name}.parquet"
        assert tables.write_rows(path, schema, done[name]) == tables.read_table(path, schema).num_rows


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"critics": ("guard", "gaurd")}, "no critic 'gaurd'. Did you mean 'guard'"),
        ({"critics": ("guard", "guard")}, "named twice"),
        ({"weights": (1.0, 0.6, 0.4, 0.4, 0.2, 0.0, 0.0)}, "class 6 .* must be below 0"),
    ],
)
def test_params_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Params(**values))


def test_no_critic_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="critics"):
        validate(Params, {"critics": []}, "params")


def test_a_repair_keeps_what_was_right() -> None:
    fixed = replace(unit("guard", 0, 2, "a", 3, 3), fix={"location": 4}).repaired()
    assert (fixed.location, fixed.criterion, fixed.severity, dict(fixed.fix)) == (4, "a", 3, {})
    assert set(units.REPAIRABLE) <= set(units.SPOKEN)
