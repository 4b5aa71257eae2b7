"""APIGen-MT from end to end on a small world: what it keeps, what it refuses and why, and the traps of its dossier."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.contract.client import Client, Message, Request
from tasks.contract.params import BadInput, StageFailed, validate
from tasks.contract.scripts import STOP
from tasks.engine.shards import sharded
from tasks.generate import apigen_mt
from tasks.generate.parts.apigen_mt.checks import FAILURES
from tasks.players.scripts.script import blocks
from tasks.worlds.api.frozen import freeze_world
from tests.generate.conftest import ERRORS, Make, through_json
from tests.playing import playing

IDS = re.compile(r"\b[A-Z]\d{2,}\b")


@dataclass
class Spy:
    """Passes everything on to another client, and keeps what was asked."""

    inner: Client
    requests: list[Request] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def revision(self) -> str:
        return self.inner.revision

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        self.requests += requests
        return self.inner.complete(requests)


@dataclass
class Says:
    """A client of a few lines that is no script of ours: it answers what a function says."""

    answer: Callable[[Request], str]
    name: str = "other-model"
    revision: str = "v7"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        return [{"role": "assistant", "content": self.answer(request)} for request in requests]


def _scripted(role: str, world: Any, **errors: float) -> Client:
    from tasks.players import scripted

    return scripted.client(role, world, errors, 0)


def test_counts_by_reason_add_up_and_nothing_is_lost(make: Make) -> None:
    made = make(ERRORS, problems=60)
    for kind, is_kind in (("base", lambda row: not row["source_ids"]), ("recombined", lambda row: row["source_ids"])):
        count = made.figures[kind]
        assert count["attempts"] == count["accepted"] + sum(count[reason] for reason in FAILURES)
        found = Counter(row["status"] for row in made.blueprints if is_kind(row))
        assert found == Counter({reason: n for reason, n in count.items() if reason != "attempts" and n})
    assert made.figures["base"]["failed_format"] and made.figures["base"]["failed_exec"] and made.figures["base"]["failed_committee"]
    assert all(bool(row["fail_reason"]) == (row["status"] != "accepted") for row in made.blueprints)
    assert len({row["seed"] for row in made.blueprints if not row["source_ids"]}) == 60
    talks = made.figures["conversations"]
    assert talks["played"] == talks["won"] + talks["lost"] == len(made.trajectories) == 2 * len(made.accepted)
    assert talks["won"] >= talks["won_distinct"] and talks["lost"] > 0
    assert sum(made.figures["stops"].values()) == talks["played"]
    assert {row["problem_id"] for row in made.trajectories} == set(made.accepted)
    assert len({row["traj_id"] for row in made.trajectories}) == len(made.trajectories)


def test_same_inputs_same_bytes_whatever_the_shards(make: Make) -> None:
    first = make(ERRORS, recombine=1.0)
    assert first.files == make(ERRORS, recombine=1.0, shard_size=4096).files
    assert first.files == make(ERRORS, recombine=1.0, shard_size=1).files
    assert first.files != make(ERRORS, recombine=1.0, seed=1).files


def test_shards_side_by_side_give_the_same_bytes(make: Make, tmp_path: Any) -> None:
    """Eight shards under way in as many threads, as when models behind servers play the roles."""
    with ThreadPoolExecutor(8) as pool:
        beside = make(ERRORS, recombine=1.0, shard_size=2, shards=sharded(tmp_path / "beside", pool.submit, 8))
    assert beside.files == make(ERRORS, recombine=1.0).files


def test_a_killed_run_goes_on_to_the_same_bytes(make: Make) -> None:
    """Shards that were finished before the kill are not worked on again, and their rows come from what was kept."""
    kept: dict[tuple[str, int], str] = {}
    worked: list[tuple[str, int]] = []

    def dying(after: int) -> Callable[..., Iterator[Any]]:
        def shards(name: str, work: Callable[..., Any], items: Sequence[Any], shard_size: int) -> Iterator[Any]:
            for start in range(0, len(items), shard_size):
                if (name, start) not in kept:
                    if len(worked) == after:
                        raise KeyboardInterrupt
                    worked.append((name, start))
                    kept[name, start] = json.dumps(work(items[start : start + shard_size]))
                yield json.loads(kept[name, start])

        return shards

    with pytest.raises(KeyboardInterrupt):
        make(ERRORS, shards=dying(after=8))
    assert len(worked) == 8
    again = make(ERRORS, shards=dying(after=10**6))
    assert len(worked) == len(set(worked)) and again.files == make(ERRORS).files


class TestFeedback:
    """The loop of phase 1."""

    def test_hand_worked_loop(self, make: Make, world: Any) -> None:
        """The first answer is no JSON, the second calls no tool that exists, the third is good: three rows, attempts 0 to 2, the first
        two refused with their reason and with the plan that the author was then told, the third accepted."""

        def answer(request: Request) -> str:
            attempt = sum(message["role"] == "assistant" for message in request.messages)
            good = _scripted("generator", world).complete([request])[0]["content"]
            return ["I had rather not.", good.replace('"find_user"', '"find_usr"', 1), good][attempt]

        made = make(clients={"generator": Says(answer)}, problems=1, recombine=0)
        assert [row["attempt"] for row in made.blueprints] == [0, 1, 2]
        assert [row["status"] for row in made.blueprints] == ["failed_format", "failed_format", "accepted"]
        assert "not JSON" in made.blueprints[0]["fail_reason"] and "no tool is called 'find_usr'" in made.blueprints[1]["fail_reason"]
        assert "not JSON" in made.blueprints[0]["feedback"] and "find_usr" in made.blueprints[1]["feedback"]
        assert made.blueprints[0]["instruction"] == "I had rather not." and made.blueprints[2]["generator"] == "other-model@v7"
        assert len({row["context_hash"] for row in made.blueprints}) == 1, "all attempts have the same context"
        assert made.figures["unreadable"]["drafts"] == 1

    def test_without_reflection_it_is_generate_once_and_filter(self, make: Make) -> None:
        """The limit of no feedback: as many generator calls as blueprints, none of them with a plan."""
        made = make(ERRORS, max_reflections=0, recombine=0)
        assert made.figures["base"]["attempts"] == 30 and all(row["feedback"] == "" for row in made.blueprints)

    def test_feedback_beats_as_many_redraws(self, make: Make) -> None:
        """Trap 1: the fair control of feedback is the same number of attempts without its text."""
        rates = dict.fromkeys(("invented_id", "unsaid_detail", "tool_talk", "cut_off", "wrong_type"), 0.3)
        told = make({"generator": rates}, problems=60, recombine=0, attempts=1)
        alone = make({"generator": rates}, problems=60, recombine=0, attempts=1, feedback=False)
        assert told.figures["accepted_per_generator_call"] > 1.2 * alone.figures["accepted_per_generator_call"]

    def test_redraws_hear_of_nothing(self, make: Make, world: Any) -> None:
        spy = Spy(_scripted("generator", world, tool_talk=1.0))
        make(clients={"generator": spy}, feedback=False, problems=2, recombine=0, min_accepted=0)
        assert len(spy.requests) == 8 and all(len(request.messages) == 2 for request in spy.requests)
        assert len({request.seed for request in spy.requests}) == 8


class TestTraps:
    """The traps of the dossier, by its numbers."""

    def test_2_zero_write_problems_are_counted_apart(self, make: Make) -> None:
        made = make(problems=60)
        accepted = made.figures["accepted"]
        assert accepted["zero_writes"] == sum(row["n_writes"] == 0 for row in made.accepted.values()) > 0
        assert accepted["zero_writes"] + accepted["with_writes"] == len(made.accepted)
        gate = made.figures["gate"]
        assert gate["oracle"] == 1.0 and gate["do_nothing"] == gate["always_refuses"] == gate["always_hands_over"] == 0.0

    def test_8_the_human_knows_only_the_intent(self, make: Make, world: Any) -> None:
        """No id of the ground truth that the instruction lacks is said by the human before the agent has said it."""
        made = make(ERRORS, problems=60)
        hidden = 0
        for row in made.trajectories:
            problem = made.accepted[row["problem_id"]]
            told = problem["instruction"]
            gold = set(IDS.findall(" ".join(call["arguments_json"] for call in problem["actions"])))
            hidden += bool(gold - set(IDS.findall(told)))
            for message in row["messages"]:
                if message["role"] == "user":
                    assert not (set(IDS.findall(message["content"])) & gold) - set(IDS.findall(told)), message
                elif message["role"] == "assistant":
                    told += " " + message["content"]
        assert hidden > 20, "the test means something only when the ground truth holds ids to be looked up"

    def test_8_the_agent_never_sees_the_problem_nor_the_human_the_ground_truth(self, make: Make, world: Any) -> None:
        agent, human = Spy(_scripted("agent", world)), Spy(_scripted("human", world))
        made = make(clients={"agent": agent, "human": human}, problems=12)
        instructions = [row["instruction"] for row in made.accepted.values()]
        for request in agent.requests:
            text = json.dumps(request.messages, ensure_ascii=False)
            assert not any(instruction in text for instruction in instructions) and "intent" not in text
        diffs = [row["diff_patch"].splitlines()[0] for row in made.accepted.values() if row["diff_patch"]]
        for request in human.requests:
            text = "\n".join(str(message["content"]) for message in request.messages)
            assert not any(line in text for line in diffs) and '"actions"' not in text
            assert all(message["role"] != "tool" and not message.get("tool_calls") for message in request.messages)

    def test_10_no_lineage_is_in_two_splits(self, make: Make) -> None:
        made = make(problems=90, validation=0.4, recombine=1.0)
        split_of: dict[str, str] = {}
        for row in made.accepted.values():
            for name in row["lineage"]:
                assert split_of.setdefault(name, row["split"]) == row["split"]
        assert set(split_of.values()) == {"train", "validation"}
        joined = [row for row in made.accepted.values() if row["source_ids"]]
        assert joined
        for row in joined:
            parents = [made.accepted[source] for source in row["source_ids"]]
            assert set(row["lineage"]) == {*row["source_ids"], *(name for parent in parents for name in parent["lineage"])}
            assert row["n_writes"] == sum(parent["n_writes"] for parent in parents)
            assert row["outputs"] == list(dict.fromkeys(output for parent in parents for output in parent["outputs"]))
        assert all(row["split"] == made.accepted[row["problem_id"]]["split"] for row in made.trajectories)

    def test_12_a_round_sees_only_what_earlier_rounds_accepted_in_its_split(self, make: Make, world: Any) -> None:
        spy = Spy(_scripted("generator", world))
        made = make(clients={"generator": spy}, problems=60, round_size=20, validation=0.4, recombine=0, max_reflections=0)
        split_of = {row["instruction"]: row["split"] for row in made.accepted.values()}
        round_of = {row["instruction"]: place // 20 for place, row in reversed(list(enumerate(made.blueprints)))}
        seen = Counter[int]()
        for place, request in enumerate(spy.requests):
            split = blocks(request.messages, "data")[0]["split"]
            for example in blocks(request.messages, "examples")[0]:
                assert split_of[example["instruction"]] == split
                assert round_of[example["instruction"]] < place // 20
                seen[place // 20] += 1
        assert seen[0] == 0 and seen[1] > 0 and seen[2] > 0

    def test_11_correlated_noise_is_a_param_and_costs_blueprints(self, make: Make) -> None:
        clean = make(problems=40, recombine=0, max_reflections=0).figures["base"]
        noisy = make(problems=40, recombine=0, max_reflections=0, judge_noise=0.25, judge_correlation=1.0).figures["base"]
        assert clean["failed_committee"] == 0 < noisy["failed_committee"]


class TestRecombination:
    """Reverse task recombination."""

    def test_conflicts_are_refused_with_their_reason(self, make: Make) -> None:
        made = make(problems=90, recombine=1.0, validation=0.0)
        refused = [row for row in made.blueprints if row["source_ids"] and row["status"] != "accepted"]
        assert {row["status"] for row in refused} >= {"failed_exec"} and all(row["fail_reason"] for row in refused)
        assert any("is undone by another" in row["fail_reason"] for row in refused), "wishes that undo each other are refused too"
        assert all(row["attempt"] == 0 for row in made.blueprints if row["source_ids"])

    def test_one_instruction_says_every_wish_once(self, make: Make) -> None:
        made = make(problems=90, recombine=0.5)
        joined = [row for row in made.accepted.values() if row["source_ids"]]
        for row in joined:
            sentences = row["instruction"].split(". ")
            assert len(sentences) == len(set(sentences)) and row["instruction"].count("zip code") == 1
        played = [row for row in made.trajectories if row["problem_id"] in {row["problem_id"] for row in joined}]
        assert sum(row["reward"] for row in played) == len(played) > 0

    def test_a_forgotten_wish_is_refused_by_the_committee(self, make: Make) -> None:
        made = make({"recombiner": {"forgets_wish": 1.0}}, problems=60, recombine=0.5)
        assert made.figures["recombined"]["failed_committee"] > 0.5 * made.figures["recombined"]["attempts"]


class TestPlaying:
    """Phase 2."""

    def test_planted_agent_errors_lose_and_nothing_else_does(self, make: Make) -> None:
        assert make(problems=40).figures["won_per_conversation"] == 1.0
        assert make(ERRORS | {"generator": {}}, problems=40).figures["won_per_conversation"] < 1.0

    def test_best_of_four_mends_a_careless_human(self, make: Make) -> None:
        careless = {"human": {"wrong_detail": 0.25, "hangs_up": 0.1}}
        won = [make(careless, problems=20, user_best_of=n).figures["won_per_conversation"] for n in (1, 4)]
        assert won[1] > won[0] + 0.15

    def test_all_attempts_are_kept_and_differ(self, make: Make) -> None:
        made = make(problems=10, attempts=3, recombine=0)
        assert Counter(row["trial"] for row in made.trajectories) == dict.fromkeys(range(3), len(made.accepted))
        assert made.figures["conversations"]["won_distinct"] > 2 * len(made.accepted)

    def test_a_step_cap_ends_conversations_as_lost(self, make: Make) -> None:
        made = make(problems=10, max_steps=2)
        assert made.figures["stops"]["max_steps"] > 0 and made.figures["conversations"]["lost"] > 0


class TestOtherModels:
    """Any client will do: nothing leans on the scripts."""

    def test_other_clients_in_every_role(self, make: Make, world: Any) -> None:
        """A generator that fences its JSON, a judge that likes everything, a recombiner, a human and a critic of their own. The agent
        hands over at once: only its own conversations suffer."""

        def draft(request: Request) -> str:
            good = json.loads(_scripted("generator", world).complete([request])[0]["content"])
            good.pop("family")
            return f"```json\n{json.dumps(good, indent=1)}\n```"

        fine = {name: {"score": 1, "reason": "fine"} for name in ("correctness", "completeness", "satisfaction", "creativity")}
        clients: dict[str, Client] = {
            "generator": Says(draft),
            "judge": Says(lambda request: json.dumps(fine)),
            "feedback": Says(lambda request: json.dumps({"summary": "once more"})),
            "recombiner": Says(lambda request: json.dumps({"instruction": " ".join(map(str, blocks(request.messages, "tasks")[0]))})),
            "human": Says(lambda request: STOP if len(request.messages) > 4 else f"Hello {len(request.messages)} {request.seed % 3}"),
            "human_critic": Says(lambda request: json.dumps({"score": 5})),
        }
        made = make(clients=clients, user_best_of=2, problems=12)
        assert made.figures["base"]["accepted"] == 12 and {row["generator"] for row in made.accepted.values()} == {"other-model@v7"}
        assert {row["human"] for row in made.trajectories} == {"other-model+best-of-2:other-model"}
        assert {vote["judge"] for row in made.accepted.values() for vote in row["judge_scores"]} == {
            f"other-model#{n}" for n in (1, 2, 3)
        }

    def test_babble_in_every_role_is_counted_not_raised(self, make: Make) -> None:
        babble = Says(lambda request: "No idea, sorry." if request.seed % 2 else '{"instruction": 5}')
        roles = ("generator", "judge", "feedback", "recombiner", "human", "human_critic", "agent")
        made = make(clients=dict.fromkeys(roles, babble), problems=6, min_accepted=0)
        assert made.figures["base"]["failed_format"] == made.figures["base"]["attempts"] == 24
        assert made.figures["unreadable"] == {"drafts": 24, "plans": 18, "votes": 0, "scores": 0} and not made.trajectories

    def test_an_unreadable_committee_refuses(self, make: Make) -> None:
        made = make(clients={"judge": Says(lambda request: "Lovely!")}, problems=4, max_reflections=1, recombine=0, min_accepted=0)
        assert made.figures["base"]["failed_committee"] == 8 and made.figures["unreadable"]["votes"] == 24
        assert "unreadable vote" in made.blueprints[0]["fail_reason"]

    def test_a_stage_that_accepts_nothing_says_why_and_stops(self, make: Make) -> None:
        lovely = {"judge": Says(lambda request: "Lovely!")}
        with pytest.raises(StageFailed, match=r"0 of 8 attempts at a blueprint .* min_accepted = 1 .*\(failed_committee 8\)"):
            make(clients=lovely, problems=4, max_reflections=1, recombine=0)
        accepted = len(make(problems=12, recombine=0).accepted)
        assert make(problems=12, recombine=0, min_accepted=accepted).accepted
        with pytest.raises(StageFailed, match=rf"{accepted} of \d+ attempts .* min_accepted = {accepted + 1}"):
            make(problems=12, recombine=0, min_accepted=accepted + 1)

    def test_unreadable_scores_are_counted(self, make: Make) -> None:
        made = make(clients={"human_critic": Says(lambda request: "Nice line.")}, user_best_of=3, problems=4)
        assert made.figures["unreadable"]["scores"] > 0 and made.trajectories

    def test_a_human_and_an_agent_that_babble_lose(self, make: Make) -> None:
        made = make(clients={"human": Says(lambda request: "Hm."), "agent": Says(lambda request: "")}, problems=6)
        assert made.figures["conversations"]["won"] == 0 and made.figures["stops"] == {"parse_error": len(made.trajectories)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"feedback": False, "max_reflections": 0}, "max_reflections = 0 allows no second draw"),
        ({"threshold": 4.0}, "threshold = 4.0"),
        ({"judges": 0}, "Allowed: whole number >= 1 and <= 15"),
        ({"user_best_off": 4}, "Did you mean 'user_best_of'?"),
    ],
)
def test_bad_input_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        apigen_mt.check(validate(apigen_mt.Params, values, "params"))


def test_an_empty_folder_of_worlds_is_refused(tmp_path: Any) -> None:
    from tasks.contract.context import Context
    from tasks.generate import Inputs

    with pytest.raises(BadInput, match="holds no frozen world"):
        apigen_mt.run(Inputs(tmp_path), apigen_mt.Params(), Context(0, tmp_path, tmp_path, shards=through_json))


def test_every_built_in_world_makes_clean_data(tmp_path: Any) -> None:
    """With scripts that make no error every draft is proven and every conversation is won, in each world."""
    from tasks.contract.context import Context
    from tasks.generate import Inputs
    from tasks.players import roles
    from tasks.worlds.api.loading import BUILT_IN, world_class
    from tasks.worlds.api.runtime import World

    for address in BUILT_IN:
        world = World.build(world_class(address), 60, 0)
        freeze_world(world, tmp_path / "worlds" / world.name)
    (tmp_path / "out").mkdir()
    players = playing(roles.maker({}, tmp_path / "worlds", 0))
    ctx = Context(0, tmp_path / "out", tmp_path, shards=through_json, **players)
    figures = apigen_mt.run(Inputs(tmp_path / "worlds"), apigen_mt.Params(problems=40), ctx)
    assert figures["base"]["accepted"] + figures["base"]["failed_duplicate"] == figures["base"]["attempts"] == 40 * len(BUILT_IN)
    assert figures["won_per_conversation"] == 1.0 and set(figures["gate"]) >= {"oracle", "do_nothing"}
    assert {name.split(".")[0] for name in figures["families"]} == {"retail", "airline"}
