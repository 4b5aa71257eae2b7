"""A world in TRL's hands: the real trainer makes the environments, reads the tools, parses the turns, and gets the world's own grading.

Worked by hand: the ground truth of a retail problem and a conversation of mistakes, played by `tasks.worlds.api.play` and by one step of
`GRPOTrainer`, give the same answers, the same state hashes and the same outcomes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from flows.exports import trl_environment as to_trl
from tasks.contract.client import Message, Request
from tasks.contract.params import BadInput
from tasks.contract.problem import Problem
from tasks.contract.scripts import STOP
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.players.client_agent import ClientAgent
from tasks.worlds.adapters import from_object
from tasks.worlds.adapters.schemas import tool_of_schema
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems, problem_of
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import end, read, write
from tasks.worlds.library.library.world import Library
from tests.rollout import tiny
from tests.worlds.players import world

Turn = str | tuple[str, Any]
"""A reply, or a call: (tool, arguments)."""
WORLDS = {
    "retail": lambda: world("retail"),
    "airline": lambda: world("airline"),
    "library": lambda: World.build(Library, 30, 0),
}


def task() -> Problem:
    """A problem with one write."""
    return draw_problems(world("retail"), "train", 1, 0, ["one_write"])[0]


def solved(problem: Problem) -> list[Turn]:
    return [*((action.name, dict(action.arguments)) for action in problem.actions), f"Done: {' '.join(problem.outputs)}."]


def mistaken(problem: Problem) -> list[Turn]:
    """As many turns: a wrong type, then an unknown argument, and so on; the world refuses every one."""
    find = problem.actions[0]
    bad: list[Turn] = [
        (find.name, {**find.arguments, "zip": 70524}),
        ("get_order", {"order_id": ["W1"], "order": "W1"}),
        ("transfer_to_human", {"reason": "bored"}),
        ("cancel_order", {}),
    ]
    return [*bad[: len(problem.actions)], "I am lost."]


# --- the same through both ---


@dataclass
class Canned:
    """A client that says one line after the other."""

    lines: list[Message]
    name: str = "canned"
    revision: str = ""

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        return [self.lines.pop(0) for _ in requests]


def message_of(turn: Turn) -> Message:
    if isinstance(turn, str):
        return {"role": "assistant", "content": turn}
    call = {"id": "c0", "type": "function", "function": {"name": turn[0], "arguments": turn[1]}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def rolled(problem: Problem, turns: Sequence[Turn]) -> Trajectory:
    """Played by Cairn's own engine; nobody is left to answer the last reply."""
    here = world("retail")
    agent = ClientAgent(Canned([message_of(turn) for turn in turns]), {"tools": "none", "policy": "full"})
    human = Canned([{"role": "assistant", "content": line} for line in ("Please help.", STOP)])
    return play(here, [(problem, 0)], agent, human, seed=0)[0]


@dataclass
class Seen:
    """What a reward function is given, and what it makes of it."""

    completions: list[list[Message]]
    hashes: list[str]
    answers: list[list[str]]
    outcomes: list[Outcome]
    rewards: list[float | None]
    tools: list[Any]
    metrics: dict[str, float]


def trained(problem: Problem, scripts: Sequence[Sequence[Turn]], folder: Path) -> Seen:
    """One step of the real trainer on one problem, each generation with turns of its own; only the sampler is not TRL's."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl import GRPOConfig, GRPOTrainer
    from trl.chat_template_utils import qwen3_template

    seen: list[Seen] = []

    def watched(completions: Any, environments: Any, prompts: Any, **more: Any) -> list[float | None]:
        metrics: dict[str, float] = {}
        more["log_metric"] = metrics.__setitem__
        rewards = to_trl.reward(prompts, completions, environments, **more)
        outcomes = [to_trl.outcome(one, [*p, *c]) for one, p, c in zip(environments, prompts, completions, strict=True)]
        answers = [[one["content"] for one in said if one["role"] == "tool"] for said in completions]
        hashes = [one._played.world.state_hash() for one in environments]
        seen.append(Seen(completions, hashes, answers, outcomes, rewards, trainer.tools, metrics))
        return rewards

    tokenizer, model = tiny.tokenizer(), tiny.model()
    model.config.max_position_embeddings = 16_384  # of its 350 words the tools' descriptions take thousands
    tokenizer.response_template = qwen3_template
    config = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        max_steps=1,
        per_device_train_batch_size=len(scripts),
        num_generations=len(scripts),
        max_completion_length=3000,
    )
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=config,
        train_dataset=to_trl.dataset(world("retail"), [problem]),
        environment_factory=to_trl.environment_factory(world("retail")),
        reward_funcs=watched,
    )
    places = iter(range(len(scripts[0])))

    def turns(*_: Any, **__: Any) -> tuple[list[list[int]], None]:
        place = next(places)
        return [tokenizer.encode(text_of(turns[place])) for turns in scripts], None

    trainer._generate_single_turn = turns
    trainer.train()
    return seen[0]


def text_of(turn: Turn) -> str:
    if isinstance(turn, str):
        return f"{turn}<|im_end|>"
    said = json.dumps({"name": turn[0], "arguments": turn[1]})
    return f"<tool_call>\n{said}\n</tool_call><|im_end|>"


def test_same_actions_same_outcome(tmp_path: Path) -> None:
    problem = task()
    scripts = [solved(problem), mistaken(problem)]
    own = [rolled(problem, turns) for turns in scripts]
    seen = trained(problem, scripts, tmp_path)
    assert sorted(tool.__name__ for tool in seen.tools) == sorted(world("retail").tools)
    assert seen.answers == [[result.content for _, result in played.calls] for played in own]
    assert seen.hashes == [played.outcome.final_state_hash for played in own if played.outcome]
    assert [replace(one, blame_reason="") for one in seen.outcomes] == [replace(p.outcome, blame_reason="") for p in own if p.outcome]
    assert seen.rewards == [1.0, 0.0] and seen.metrics["outcome/state"] == 0.5
    assert seen.hashes[1] == world("retail").fork().state_hash(), "the mistakes changed nothing, nor did the neighbour"
    assert all(json.loads(answer)["error"] for answer in seen.answers[1])
    assert [message["role"] for message in seen.completions[0]] == ["assistant", *["tool", "assistant"] * len(problem.actions)]


# --- one environment ---


def started(name: str, problem: Problem) -> Any:
    here = WORLDS[name]()
    environment = to_trl.environment_factory(here)()
    environment.reset(**to_trl.dataset(here, [problem])[0])
    return environment


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("get_order", {"order_id": 5}),
        ("get_order", {"order_id": "W1", "order": "W2"}),
        ("get_order", {}),
        ("get_order", {"order_id": "\ud800"}),
        ("cancel_order", {"order_id": "W1", "reason": "bored"}),
        ("cancel_order", {"order_id": "W0", "reason": "no_longer_needed"}),
        ("find_user", {"self": "x", "name": [float("nan")], "zip": {}}),
    ],
)
def test_refused_calls_say_the_same_and_change_nothing(tool: str, arguments: dict[str, Any]) -> None:
    environment, here = started("retail", task()), world("retail").fork()
    before = here.state_hash()
    expected = here.call(tool, arguments)
    assert not expected.ok and getattr(environment, tool)(**arguments) == expected.content
    assert environment._played.world.state_hash() == before


def test_two_environments_do_not_see_each_other_and_reset_is_clean() -> None:
    problem, here = task(), world("retail")
    make = to_trl.environment_factory(here)
    one, two = make(), make()
    row = to_trl.dataset(here, [problem])[0]
    for environment in (one, two):
        environment.reset(**row)
    for action in problem.actions:
        getattr(one, action.name)(**action.arguments)
    said = [message_of(solved(problem)[-1])]
    assert to_trl.outcome(one, said).reward == 1 and to_trl.outcome(two, said).reward == 0
    assert two._played.world.diff() == "" and here.diff() == "" and one._played.world.diff() != ""
    one.reset(**row)
    assert one._played.world.state_hash() == two._played.world.state_hash() and one._played.calls == []
    assert to_trl.outcome(one, said) == to_trl.outcome(two, said)


def test_what_follows_the_end_does_not_count() -> None:
    """A hand-over ends the conversation in `tasks.worlds.api.play`; TRL lets the agent go on."""
    here = world("retail")
    problem = draw_problems(here, "train", 1, 0, ["hand_over"])[0]
    environment = started("retail", problem)
    said: list[Message] = []
    for action in problem.actions:
        content = getattr(environment, action.name)(**action.arguments)
        said += [message_of((action.name, action.arguments)), {"role": "tool", "name": action.name, "content": content}]
    won = to_trl.outcome(environment, said)
    assert won.reward == 1
    order = problem.actions[1].arguments
    refused = environment.cancel_order(**order, reason="no_longer_needed")
    assert json.loads(refused) == {"error": "the conversation has ended"}
    more = [message_of(("cancel_order", order)), {"role": "tool", "name": "cancel_order", "content": refused}, message_of("Bye.")]
    assert to_trl.outcome(environment, [*said, *more]) == won


class Frail:
    """A tool that ends, and one whose code fails."""

    NAME, POLICY = "frail", "R1. Be kind."

    def __init__(self, db: Any) -> None:
        self.db = db

    @staticmethod
    def tables(size: int, seed: int) -> Any:
        return {"users": {name: {} for name in "abc"}}

    @write()
    def breaks(
        self,
        how: Literal["badly", "gently"] | None,
        often: list[int],
        much: float,
        really: bool = False,
        day: int | None = None,
    ) -> None:
        """Break: it has every kind of argument.

        Args:
            how: One of two, or nothing.
            often: Some: numbers.
            much: A number.
            really: Yes or no.
            day: A day or none.
        """
        raise KeyError("bug")

    @read()
    def now(self) -> str:
        """What time it is."""
        return "noon"

    @end()
    def leave(self) -> str:
        """End it."""
        return "bye"


def test_a_tools_own_failure_is_left_out() -> None:
    here = World.build(Frail, 3, 0)
    environment = to_trl.environment_factory(here)()
    draft = {"instruction": "Leave.", "actions": [{"name": "leave", "arguments": {}}], "outputs": ["bye"]}
    problem = problem_of(here, draft, {"user_id": "a", "split": "train", "persona": ""})
    row = to_trl.dataset(here, [problem])[0]
    assert row["prompt"][1]["content"] == "Leave.", "without a scripted human the instruction opens"
    environment.reset(**row)
    said = environment.breaks(how=None, often=[], much=1)
    assert json.loads(said)["error"].startswith("tool failure: KeyError")
    assert to_trl.reward([row["prompt"]], [[{"role": "tool", "name": "breaks", "content": said}]], [environment]) == [None]
    environment.reset(**row)
    assert to_trl.reward([row["prompt"]], [[message_of("Hm.")]], [environment]) == [0.0]


def test_the_user_says_everything_at_once() -> None:
    here = world("retail")
    problems = draw_problems(here, "train", 14, 0)
    for row, problem in zip(to_trl.dataset(here, problems), problems, strict=True):
        system, user = row["prompt"]
        assert system["role"] == "system" and here.policy.strip() in system["content"] and user["role"] == "user"
        wanted = [problem.intent["zip"], *(value for one in problem.intent["requests"] for value in one["check"] if value[0] == "W")]
        assert all(value in user["content"] for value in wanted), (user, wanted)


# --- schemas ---


def plain(schema: Any) -> Any:
    """A schema of a world in the words of transformers: it says nullable, and nothing of further arguments."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    said = {key: plain(value) for key, value in schema.items() if key != "additionalProperties" and (key, value) != ("required", [])}
    if len(options := said.get("anyOf", ())) == 2 and {"type": "null"} in options:
        del said["anyOf"]
        said |= {**next(one for one in options if one != {"type": "null"}), "nullable": True}
    return said


@pytest.mark.parametrize("name", [*WORLDS, "frail"])
def test_schemas_are_the_worlds_own(name: str) -> None:
    from transformers.utils import get_json_schema

    here = World.build(Frail, 3, 0) if name == "frail" else WORLDS[name]()
    environment = to_trl.environment_factory(here)()
    public = {member for member in dir(environment) if not member.startswith("_")}
    assert public == {*here.tools, "reset"}
    for schema in here.schemas():
        shown = get_json_schema(getattr(environment, schema["function"]["name"]))
        assert shown == plain(schema)


class Desk:
    """What an adapter takes as it is."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {"u1": 1, "u2": 2, "u3": 3}

    def note(self, key, value: dict[str, int] | str, tags: list[str] | None = None):  # type: ignore[no-untyped-def]
        """Keep a note.

        Args:
            value: What to keep.
        """
        self.notes[key] = value
        return "kept"


def test_an_adapted_world() -> None:
    """Its tools are no methods of its class; what nobody described bears its own name."""
    from transformers.utils import get_json_schema

    here = World.build(from_object(Desk, name="desk", policy="R1. Be kind.", writes=["note"]), 1, 0)
    environment = to_trl.environment_factory(here)()
    assert environment.note(key="a", value={"b": 1}) == "kept" and environment._played.world.diff() != "" == here.diff()
    assert environment.note(key="a", value=7) == here.fork().call("note", {"key": "a", "value": 7}).content
    shown = get_json_schema(environment.note)["function"]
    assert shown["description"] == "Keep a note." and shown["parameters"]["required"] == ["key", "value"]
    assert shown["parameters"]["properties"] == {
        "key": {"description": "key"},
        "value": {
            "anyOf": [{"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "string"}],
            "description": "What to keep.",
        },
        "tags": {"type": "array", "items": {"type": "string"}, "nullable": True, "description": "tags"},
    }


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("name", "about", "says"),
    [
        ("reset", {}, "its name means something else to TRL"),
        ("_look", {}, "its name means something else to TRL"),
        ("look", {"a": {**TEXT, "pattern": "^W"}}, "its schema says 'pattern'"),
        ("look", {"a": {"type": "object", "properties": {"b": TEXT}}}, "its schema says 'properties'"),
        ("look", {"a": {"type": "array", "items": {"$ref": "#/properties/a"}}}, "its schema says '$ref'"),
        ("look", {"from": TEXT}, "'from'"),
        ("look", {"user-id": TEXT}, "'user-id'"),
        ("look", {"self": TEXT}, "'self'"),
        ("look", {"a": {**TEXT, "description": 'A drink (choices: ["tea"])'}}, "a model would read as its arguments"),
        ("look", {"a": {**TEXT, "description": "Not as Args: says"}}, ""),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(name: str, about: dict[str, Any], says: str) -> None:
    here = world("retail").fork()
    schema = {"type": "object", "properties": about, "required": list(about)}
    here.tools = {name: tool_of_schema(name, "Look.", schema, "read", (), "a test")}
    if not says:
        assert to_trl.environment_factory(here)()
        return
    with pytest.raises(BadInput) as caught:
        to_trl.environment_factory(here)
    assert f"world retail: TRL cannot show tool '{name}' as it is: " in str(caught.value) and says in str(caught.value)


def test_mistakes_of_the_user() -> None:
    with pytest.raises(BadInput, match="Give the trainer environment_factory"):
        to_trl.reward([], [])
    with pytest.raises(BadInput, match="was not reset to a problem"):
        to_trl.outcome(to_trl.environment_factory(world("retail"))(), [])
    other = draw_problems(world("airline"), "train", 1, 0)[0]
    row = to_trl.dataset(world("airline"), [other])[0]
    with pytest.raises(BadInput, match="is of the world 'airline', its environment of 'retail'"):
        to_trl.environment_factory(world("retail"))().reset(**row)
