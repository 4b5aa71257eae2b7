"""Traps of the dossier that are about the bench: what the state check sees, ids, the bank's drift, what training must not see."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from tasks.contract.rows import problem_of
from tasks.contract.trajectory import Trajectory
from tasks.players import scripted
from tasks.players.scripts.script import blocks
from tasks.worlds.api.frozen import load
from tests.generate.conftest import ERRORS, Make
from tests.generate.test_apigen_mt import Spy


def test_3_the_state_check_minds_neither_extra_reads_nor_the_order_of_writes(make: Make, world: Any) -> None:
    """Every order of the writes that the world takes ends in the same state; so do reads made twice. One write less does not. (Writes
    of one tool to one order are left out: there the last one wins, and the order is part of the wish.)"""
    made = make(problems=90, recombine=0.5, validation=0.0)
    several = [problem_of(row) for row in made.accepted.values() if row["n_writes"] > 1]
    places = {problem.problem_id: [(one.name, one.arguments.get("order_id")) for one in problem.actions] for problem in several}
    several = [problem for problem in several if len(set(places[problem.problem_id])) == len(problem.actions)]
    other_orders = 0
    for problem in several:
        reads = [call for call in problem.actions if call.kind == "read"]
        writes = [call for call in problem.actions if call.kind == "write"]
        rest = [call for call in problem.actions if call.kind == "end"]
        wanted = world.replay(problem.actions).state_hash
        for order in permutations(writes):
            replay = world.replay([*reads, *reads, *order, *rest])
            if replay.ok:
                assert replay.state_hash == wanted
                other_orders += list(order) != writes
        assert world.replay([*reads, *writes[:-1]]).state_hash != wanted
    assert len(several) > 20 and other_orders > 5


def test_5_each_part_of_the_outcome_stands_alone_and_outputs_are_normalised_on_both_sides(make: Make, world: Any) -> None:
    """A reply with the amount does not mend a wrong state, a right state does not mend a missing amount; "$1,084.0" says "1084" and
    an expected "1,084" is said by "1084"."""
    made = make(problems=60, recombine=0)
    problem = next(problem_of(row) for row in made.accepted.values() if row["outputs"] and row["n_writes"])
    problem = replace(problem, outputs=("1,084",), required=())

    def grade(say: str, act: bool) -> tuple[int, int, int]:
        fork = world.fork()
        played = Trajectory(problem=problem, trial=0)
        for action in problem.actions if act else ():
            played.calls.append((action, fork.call(action.name, action.arguments)))
        played.messages.append({"role": "assistant", "content": say})
        outcome = world.grade(played, fork)
        return outcome.state, outcome.outputs, outcome.reward

    assert grade("It costs 1084.", act=True) == (1, 1, 1) == grade("It costs $1,084.0!", act=True)
    assert grade("It costs 1084.", act=False) == (0, 1, 0) and grade("Done.", act=True) == (1, 0, 0)


def test_7_hashes_and_generated_ids_are_the_same_in_every_process(make: Make, folder: Path) -> None:
    """The hash of a blueprint is that of its replay on a world read anew, and that which its conversations were graded with."""
    made = make(problems=60)
    fresh = load(folder / "retail")
    for row in made.accepted.values():
        assert fresh.replay(problem_of(row).actions).state_hash == row["gt_state_hash"]
    for row in made.trajectories:
        assert row["wanted_state_hash"] == made.accepted[row["problem_id"]]["gt_state_hash"]
        assert row["reward"] == 0 or row["final_state_hash"] == row["wanted_state_hash"]


def test_12_the_bank_stays_within_its_caps_over_all_rounds(make: Make, world: Any) -> None:
    """A bank of 10 with a share of 0.2: over all prompts of a split at most 10 different examples, at most 2 of one walk or family."""
    spy = Spy(scripted.client("generator", world, {}, 0))
    made = make(clients={"generator": spy}, problems=120, round_size=20, validation=0.3, recombine=0, bank=10, bank_per_walk=0.2)
    kind = {row["instruction"]: tuple(row["walk"] or [row["family"]]) for row in made.accepted.values()}
    seen: dict[str, set[str]] = {"train": set(), "validation": set()}
    for request in spy.requests:
        split = blocks(request.messages, "data")[0]["split"]
        seen[split].update(example["instruction"] for example in blocks(request.messages, "examples")[0])
    for shown in seen.values():
        walks = Counter(kind[instruction] for instruction in shown)
        assert 4 <= len(shown) <= 10 and max(walks.values()) <= 2


def test_12_recombinations_do_not_feed_the_bank_and_the_order_of_shards_does_not_matter(make: Make, world: Any) -> None:
    """What generator calls see is the same whether shards are small or large, though shards end in another order."""
    spies = [Spy(scripted.client("generator", world, ERRORS["generator"], 0)) for _ in range(2)]
    for spy, size in zip(spies, (3, 4096), strict=True):
        make(ERRORS, clients={"generator": spy}, problems=60, shard_size=size)
    first, second = (Counter(json.dumps(list(request.messages), sort_keys=True) for request in spy.requests) for spy in spies)
    assert first == second


def test_13_what_training_must_not_see_is_in_no_training_blueprint(make: Make) -> None:
    """Held-out compositions, rules and phrasings stay out of blueprints and recombinations; held-out customers are marked."""
    made = make(problems=120, recombine=1.0, parts=3, validation=0.3)
    tags = {
        split: Counter(tag for row in made.accepted.values() if row["split"] == split for tag in row["tags"])
        for split in ("train", "validation")
    }
    assert not tags["train"] and set(tags["validation"]) == {"unseen_user"}
    assert not any(row["split"] == "test" for row in made.blueprints)
    refused = Counter(row["fail_reason"] for row in made.blueprints if row["source_ids"] and row["status"] == "failed_policy")
    assert sum(n for reason, n in refused.items() if "kept for test problems" in reason) > 0, "the check was needed and made"
