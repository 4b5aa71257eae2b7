"""Scripted players: they read prompts alone, and err as their catalogue says and as often as they are told."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from tasks.contract.client import Request
from tasks.contract.params import BadInput
from tasks.contract.problem import Setting
from tasks.contract.scripts import STOP
from tasks.engine.shared_params import ROLES
from tasks.generate.parts.apigen_mt.committee import CRITERIA
from tasks.generate.parts.apigen_mt.prompts import render
from tasks.players import scripted
from tasks.players.authors import scripted as authors
from tasks.players.authors.scripted.planted import PLANTS, REVEALED_BY, shape
from tasks.players.scripts import people
from tasks.players.scripts.script import other_digits
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.problem_making import draw_problems, problem_of, user_context
from tasks.worlds.api.runtime import World
from tasks.worlds.api.system_prompt import human_system


@pytest.fixture(scope="module")
def world() -> World:
    """The retail world, 60 customers."""
    return World.build(world_class("tasks.worlds.library.retail:Retail"), 60, 0)


def _prompt(world: World, seed: int = 1, family: str = "two_writes", **extra: Any) -> Request:
    data = user_context(world, Random(seed), "train")
    text = render(
        "generate",
        setting=Setting(),
        tools=[],
        policies={},
        walk=[],
        family=family,
        data=data,
        persona=data["persona"],
        examples=[],
        **extra,
    )
    return Request([{"role": "user", "content": text}], seed=seed)


def _draft(world: World, request: Request, **errors: float) -> dict[str, Any]:
    answer = scripted.client("generator", world, errors, 0).complete([request])[0]
    draft: dict[str, Any] = json.loads(answer["content"])
    return draft


class TestGenerator:
    def test_a_plant_by_hand(self) -> None:
        """A digit of the last identifier changes, and only there; another row of the same shape takes an identifier's place."""
        draft = {
            "instruction": "Cancel W123.",
            "outputs": ["12.50"],
            "actions": [
                {"name": "find", "arguments": {"zip": "12345"}},
                {"name": "cancel", "arguments": {"order": "W123", "why": "late"}},
            ],
        }
        data = {"orders": {"W123": {}, "W777": {}}, "zip": "99999"}
        swapped = PLANTS["wrong_row"][0](json.loads(json.dumps(draft)), data, {}, Random(0))
        assert swapped["actions"][1]["arguments"] == {"order": "W777", "why": "late"} and swapped["actions"][0] == draft["actions"][0]
        foreign = PLANTS["other_customer"][0](json.loads(json.dumps(draft)), data, {"orders": ["W444"]}, Random(0))
        assert foreign["actions"][1]["arguments"]["order"] == "W444"
        invented = PLANTS["invented_id"][0](json.loads(json.dumps(draft)), data, {}, Random(0))
        order = invented["actions"][1]["arguments"]["order"]
        assert shape(order) == "W000" and not any(a == b for a, b in zip(order[1:], "123", strict=True))
        unsaid = PLANTS["unsaid_detail"][0](json.loads(json.dumps(draft)), data, {}, Random(0))
        assert unsaid["instruction"] == "Cancel the usual one."
        wrong = PLANTS["wrong_output"][0](json.loads(json.dumps(draft)), data, {}, Random(0))
        assert wrong["outputs"][0] != "12.50" and shape(wrong["outputs"][0]) == "00.00"

    def test_without_errors_it_is_the_worlds_own_proposal(self, world: World) -> None:
        """The limit of no errors: the draft passes for every seed, and is the same each time."""
        for seed in range(5):
            draft = _draft(world, _prompt(world, seed))
            assert draft == _draft(world, _prompt(world, seed))
            actions = problem_of(world, draft, user_context(world, Random(seed), "train")).actions
            assert world.replay(actions).ok

    @pytest.mark.parametrize("error", list(PLANTS))
    def test_each_error_changes_the_draft(self, world: World, error: str) -> None:
        drafts = [(_draft(world, _prompt(world, seed)), _draft(world, _prompt(world, seed), **{error: 1.0})) for seed in range(8)]
        assert any(good != bad for good, bad in drafts)

    def test_a_cut_off_answer_is_no_json(self, world: World) -> None:
        text = scripted.client("generator", world, {"cut_off": 1.0}, 0).complete([_prompt(world)])[0]["content"]
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)

    def test_errors_come_at_their_rate_and_by_seed(self, world: World) -> None:
        client = scripted.client("generator", world, {"tool_talk": 0.3}, 0)
        requests = [replace(_prompt(world), seed=seed) for seed in range(300)]
        spoilt = ["Please call" in message["content"] for message in client.complete(requests)]
        assert 0.22 < sum(spoilt) / 300 < 0.38
        assert spoilt[17] == ("Please call" in client.complete([requests[17]])[0]["content"])

    def test_a_plan_that_names_the_check_mends_it(self, world: World) -> None:
        errors = {"tool_talk": 1.0}
        bad = _draft(world, _prompt(world), **errors)
        talk = [*_prompt(world).messages, {"role": "assistant", "content": json.dumps(bad)}]

        def after(plan: str, **more: float) -> dict[str, Any]:
            told = {"role": "user", "content": render("revise", feedback=plan)}
            return _draft(world, replace(_prompt(world), messages=[*talk, told]), **errors, **more)

        good = _draft(world, _prompt(world))
        assert after("creativity: no customer says 'get_order'") == good
        assert "Please call" in after("creativity: no customer says it", ignores_feedback=1.0)["instruction"]
        assert "Please call" in after("Improve the task.")["instruction"] and after("Improve the task.") != bad
        assert after("creativity: no", relapse=1.0, unsaid_detail=1e-9)["instruction"] != good["instruction"]

    def test_every_error_is_revealed_by_something(self) -> None:
        known = {"format", "execution", "policy", "gate", *CRITERIA}
        assert set(REVEALED_BY) == {"cut_off", *PLANTS} and all(known >= set(words) for words in REVEALED_BY.values())


class TestJudge:
    def _vote(self, world: World, spoil: Any = None, **errors: float) -> dict[str, int]:
        draft = _draft(world, _prompt(world))
        if spoil:
            spoil(draft)
        data = user_context(world, Random(1), "train")
        problem = problem_of(world, draft, data)
        replay = world.replay(problem.actions)
        trace = [
            {"name": action.name, "arguments": action.arguments, "ok": result.ok, "answer": result.content}
            for action, result in zip(problem.actions, replay.results, strict=True)
        ]
        task = {key: draft[key] for key in ("instruction", "intent", "actions", "outputs", "required", "family")}
        text = render(
            "judge",
            number=1,
            criteria=CRITERIA,
            setting=Setting(),
            task={**task, "persona": data["persona"]},
            trace=trace,
            diff=replay.diff,
            policies={},
        )
        answer = json.loads(
            scripted.client("judge", world, errors, 0).complete([Request([{"role": "user", "content": text}])])[0]["content"]
        )
        assert all(bool(answer[name]["reason"]) != bool(answer[name]["score"]) for name in CRITERIA)
        return {name: answer[name]["score"] for name in CRITERIA}

    def test_a_good_task_has_four_points(self, world: World) -> None:
        assert set(self._vote(world).values()) == {1}

    def test_a_missing_wish_costs_correctness_and_completeness(self, world: World) -> None:
        lost = self._vote(world, lambda draft: draft["actions"].pop())
        assert not lost["correctness"] and not lost["completeness"]
        blind = self._vote(world, lambda draft: draft["actions"].pop(), overlooks_missing_wish=1.0)
        assert blind["correctness"] and blind["completeness"]

    def test_an_unsaid_detail_costs_completeness(self, world: World) -> None:
        assert not self._vote(world, lambda draft: draft.update(instruction="You want something."))["completeness"]

    def test_a_false_output_costs_satisfaction(self, world: World) -> None:
        assert not self._vote(world, lambda draft: draft["outputs"].append("7777"))["satisfaction"]

    def test_tool_talk_costs_creativity(self, world: World) -> None:
        spoil = lambda draft: draft.update(instruction=draft["instruction"] + " Call get_order.")  # noqa: E731
        assert self._vote(world, spoil) == {"correctness": 1, "completeness": 1, "satisfaction": 1, "creativity": 0}


class TestHuman:
    def _requests(self, world: World) -> list[Request]:
        problems = draw_problems(world, "train", 40, 1)
        systems = [{"role": "system", "content": human_system(problem, world.setting)} for problem in problems]
        pairs = zip(systems, problems, strict=True)
        return [Request([system], seed=place, intent=problem.intent) for place, (system, problem) in enumerate(pairs)]

    def test_without_errors_it_is_the_worlds_human(self, world: World) -> None:
        for request in self._requests(world):
            assert scripted.client("human", world, {}, 0).complete([request])[0] == world.scripts.human(request)

    def test_wrong_details_and_hanging_up(self, world: World) -> None:
        requests = self._requests(world)
        right = scripted.client("human", world, {}, 0).complete(requests)
        wrong = scripted.client("human", world, {"wrong_detail": 1.0}, 0).complete(requests)
        with_details = [place for place, line in enumerate(right) if any(char.isdigit() for char in line["content"])]
        assert with_details and all(right[place] != wrong[place] for place in with_details)
        stops = scripted.client("human", world, {"hangs_up": 1.0}, 0)
        assert STOP not in {line["content"] for line in stops.complete(requests)}, "the human opens before it hangs up"
        later = [
            replace(r, messages=[*r.messages, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "?"}])
            for r in requests
        ]
        assert {line["content"] for line in stops.complete(later)} == {STOP}


class TestHumanCritic:
    def _score(self, line: str, history: Any = (), **errors: float) -> int:
        text = render(
            "human_critic", setting=Setting(), stop=STOP, description="You are Ann, zip 12345.", history=list(history), candidate=line
        )
        answer = scripted.client("human_critic", None, errors, 0).complete([Request([{"role": "user", "content": text}])])[0]
        return int(json.loads(answer["content"])["score"])

    def test_scores_by_hand(self) -> None:
        """10, less 4 for a zip that nobody gave, less 4 for a line said before; a stop on a question is worth 2, else 10."""
        asked = [{"speaker": "user", "line": "Hello."}, {"speaker": "assistant", "line": "Order W77? What is your zip?"}]
        assert self._score("My zip is 12345.") == 10 and self._score("My zip is 54321.") == 6
        assert self._score("Yes, W77.") == 6 and self._score("Yes, W77.", asked) == 10
        assert self._score("Hello.", asked) == 6
        assert self._score(STOP, asked) == 2 and self._score(STOP) == 10
        assert self._score(STOP, asked, likes_hanging_up=1.0) == 10 and self._score("54321", misses_wrong_detail=1.0) == 10


def test_feedback_merges_reasons_or_is_vague() -> None:
    text = render("feedback", setting=Setting(), task={}, failures=["policy R1: no", "policy R1: no", "execution: x"])
    request = Request([{"role": "user", "content": text}])
    plan = json.loads(scripted.client("feedback", None, {}, 0).complete([request])[0]["content"])["summary"]
    assert plan == "Mend this: policy R1: no; execution: x"
    vague = json.loads(scripted.client("feedback", None, {"vague": 1.0}, 0).complete([request])[0]["content"])["summary"]
    assert "policy" not in vague


def test_the_recombiner_says_who_the_customer_is_once() -> None:
    tasks = [
        {"instruction": "You are Ann. You want to cancel W1."},
        {"instruction": "You are Ann. You want to return W2. Be quick."},
    ]
    request = Request([{"role": "user", "content": render("recombine", persona="curt", tasks=tasks)}])

    def said(**errors: float) -> str:
        return str(json.loads(scripted.client("recombiner", None, errors, 0).complete([request])[0]["content"])["instruction"])

    assert said().startswith("You are Ann. You want to cancel W1. ") and said().endswith(", you want to return W2. Be quick.")
    assert said().count("Ann") == 1 and "W2" not in said(forgets_wish=1.0)


class TestCatalogue:
    def test_unknown_names_and_rates_are_refused_by_name(self, world: World) -> None:
        with pytest.raises(BadInput, match=r"unknown error 'tool_talks'\. Did you mean 'tool_talk'"):
            scripted.client("generator", world, {"tool_talks": 0.1}, 0)
        with pytest.raises(BadInput, match="a rate lies between 0 and 1"):
            scripted.client("generator", world, {"tool_talk": 1.1}, 0)
        with pytest.raises(BadInput, match=r"role 'jugde' has no script\. Did you mean 'judge'"):
            scripted.client("jugde", world, {}, 0)
        with pytest.raises(LookupError, match="needs a world"):
            scripted.client("agent", None, {}, 0)
        with pytest.raises(LookupError, match="needs a world"):
            scripted.client("generator", None, {}, 0).complete([Request([{"role": "user", "content": "hello"}])])

    def test_every_role_and_error_is_described(self, world: World) -> None:
        known = {**authors.CATALOGUE, **people.CATALOGUE}
        assert set(known) <= set(ROLES) and all(text for errors in known.values() for text in errors.values())
        assert set(scripted.errors_of("agent", world)) >= set(world.ERRORS)

    def test_a_prompt_without_its_block_is_an_error(self, world: World) -> None:
        with pytest.raises(ValueError, match="needs the JSON block 'failures'"):
            scripted.client("feedback", world, {}, 0).complete([Request([{"role": "user", "content": "hello"}])])

    def test_name_and_revision_tell_what_differs(self, world: World) -> None:
        client = scripted.client("generator", world, {"tool_talk": 0.1, "cut_off": 0.2}, 0)
        assert (client.name, client.revision) == ("scripted-generator", "cut_off=0.2,tool_talk=0.1")


def test_digits_change_and_nothing_else() -> None:
    changed = other_digits("#W12-345", Random(0))
    assert changed[:5] == "#W12-" and shape(changed) == "#W00-000"
    assert not any(a == b for a, b in zip(changed[5:], "345", strict=True))


def test_the_scripted_agent_turns_on_messages_alone(world: World) -> None:
    client = scripted.client("agent", world, {"wrong_total": 1.0}, 0)
    request = Request([{"role": "system", "content": "anything"}, {"role": "user", "content": "Hello."}], tools=world.schemas())
    assert client.complete([request, request]) == [world.scripts.agent(request, {})] * 2
