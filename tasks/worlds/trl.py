"""A world for TRL's `GRPOTrainer`: environments that are its tools, rows for its dataset, and the world's own grading as the reward.

    trainer = GRPOTrainer(
        model=..., processing_class=tokenizer, args=GRPOConfig(...),
        train_dataset=dataset(world, world.problems("train", 500, seed=0)),
        environment_factory=environment_factory(world),
        reward_funcs=reward,
    )

Departures from a conversation in `tasks.rollout`, all of them TRL's (1.16):

1. Nobody answers the agent: its first message without a call is its last. So the user's one message says all that it wants, and what
   the policy wants to hear a yes to cannot be kept: the reward leaves out `policy`, as everywhere, and the metrics show it. With a
   simulated user train in Cairn's own rl room.
2. TRL goes on when a tool has ended the conversation. The environment then refuses every call, and the grading sees nothing of it.
3. A call of a tool that there is not never comes here; TRL answers it with words of its own.
4. Tools are shown as `transformers.utils.get_json_schema` reads them off a method: in the order of their names, without defaults, and
   with its name for a description where the world has none. What it cannot say at all (a pattern, a bound, nested objects) is refused.
5. A result that would overflow `max_completion_length` is taken out of the conversation, though its call was made.

A checkpoint of Cairn's has a chat template that TRL does not know by its bytes: set
`tokenizer.response_template = trl.chat_template_utils.qwen3_template`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Union

from tasks.context import seed_of
from tasks.llm import Message, Request
from tasks.params import BadInput
from tasks.prompts import system_message
from tasks.rollout import HUMAN_TOKENS, TOOL_FAILURE
from tasks.worlds import Action, Outcome, Problem, ToolResult, Trajectory
from tasks.worlds.calls import error
from tasks.worlds.scripting import STOP, human_system
from tasks.worlds.tools import Tool

if TYPE_CHECKING:
    from datasets import Dataset

    from tasks.worlds.runtime import World

RESERVED = ("reset", "get_reward")
"""Names that mean something to TRL; it hides names with a leading underscore as well."""
_PLAIN = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None), "array": list, "object": dict}
_SAID = {"type", "enum", "items", "anyOf", "nullable", "description", "default"}
_SAID_OF_ALL = {"type", "properties", "required", "additionalProperties", "description", "$schema", "$defs", "definitions"}


@dataclass
class _Played:
    """What one environment has played since its last reset."""

    world: World
    problem: Problem | None = None
    calls: list[tuple[Action, ToolResult]] = field(default_factory=list)
    stop: str = ""

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """The answer of a tool, in the words of `World.call`."""
        if self.stop:
            return error("the conversation has ended").content
        action = Action(name, arguments, self.world.tools[name].kind)
        result = self.world.call(name, arguments)
        self.calls.append((action, result))
        if action.kind == "end" and result.ok:
            self.stop = "hand_over"
        elif not result.ok and result.content.startswith(TOOL_FAILURE):
            self.stop = "tool_error"
        return result.content


def environment_factory(world: World) -> Callable[[], Any]:
    """What `GRPOTrainer` takes as `environment_factory`: gives environments with a fork of the world each.

    Their public methods are the world's tools and `reset(problem=...)`. Raises BadInput for a tool that cannot be shown as it is.
    """
    methods = {name: _method(world, tool) for name, tool in world.tools.items()}
    for name, method in methods.items():
        _prove(world, world.tools[name], method)

    def begin(environment: Any) -> None:
        environment._played = _Played(world.fork())

    def reset(environment: Any, /, problem: str, **row: Any) -> None:
        """Start over, for a row of `dataset`."""
        from tasks.rows import problem_of

        wanted = problem_of(json.loads(problem))
        if wanted.world != world.name:
            raise BadInput(f"problem {wanted.problem_id} is of the world {wanted.world!r}, its environment of {world.name!r}.")
        own = environment._played.world
        own.reset()
        environment._played = _Played(own, wanted)

    title = "".join(word.title() for word in world.name.split("_"))
    environment = type(f"{title}Environment", (), {"__init__": begin, "reset": reset, **methods})
    return lambda: environment()


def dataset(world: World, problems: Iterable[Problem], seed: int = 0) -> Dataset:
    """Rows {prompt, problem}: the system message with the policy, the user's line, and the problem as JSON for `reset`.

    The line is the world's scripted human's, asked to say everything at once, and the instruction where there is none.
    """
    from datasets import Dataset

    from tasks.rows import problem_row

    system = {"role": "system", "content": system_message(world, {"tools": "none", "policy": "full"})}
    rows = [
        {
            "prompt": [system, {"role": "user", "content": _opening(world, problem, seed)}],
            "problem": json.dumps(problem_row(problem), ensure_ascii=False),
        }
        for problem in problems
    ]
    return Dataset.from_list(rows)


def reward(
    prompts: Sequence[Sequence[Message]],
    completions: Sequence[Sequence[Message]],
    environments: Sequence[Any] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **_: Any,
) -> list[float | None]:
    """A reward function of `GRPOTrainer`: the outcome's reward, None (TRL leaves it out) where the failure is not the agent's.

    The parts of the grading are logged as metrics.
    """
    if environments is None:
        raise BadInput("reward: there are no environments. Give the trainer environment_factory=environment_factory(world) as well.")
    pairs = zip(environments, prompts, completions, strict=True)
    outcomes = [outcome(environment, [*prompt, *completion]) for environment, prompt, completion in pairs]
    if log_metric is not None:
        for part in ("state", "outputs", "required", "policy"):
            log_metric(f"outcome/{part}", sum(getattr(one, part) for one in outcomes) / len(outcomes))
    return [float(one.reward) if one.about_agent else None for one in outcomes]


def outcome(environment: Any, messages: Sequence[Message]) -> Outcome:
    """The grading of what an environment has played since its reset. messages: prompt and completion, as TRL has them."""
    played: _Played = environment._played
    if played.problem is None:
        raise BadInput("outcome: the environment was not reset to a problem. Train on the rows of `dataset`.")
    stop = played.stop or "max_steps"  # who falls silent in a conversation that goes no further is cut off
    trajectory = Trajectory(played.problem, 0, _until_the_end(played, messages), list(played.calls), stop=stop)
    return played.world.grade(trajectory, played.world)


def _until_the_end(played: _Played, messages: Sequence[Message]) -> list[Message]:
    """The messages up to the answer that ended the conversation, if one did."""
    if not played.stop:
        return list(messages)
    action, result = played.calls[-1]
    last = (action.name, result.content)
    places = [place for place, one in enumerate(messages) if one["role"] == "tool" and (one.get("name"), one["content"]) == last]
    return list(messages[: places[0] + 1] if places else messages)


def _opening(world: World, problem: Problem, seed: int) -> str:
    if world.scripts is None:
        return problem.instruction
    whole = replace(problem, intent={**problem.intent, "style": "full", "together": True})
    system: Message = {"role": "system", "content": human_system(whole)}
    line = world.scripts.human(Request([system], seed=seed_of(seed, problem.problem_id, 0, 0, "human"), max_tokens=HUMAN_TOKENS))
    text = str(line["content"]).strip()
    return problem.instruction if STOP in text else text


# --- tools as methods ---


def _method(world: World, tool: Tool) -> Callable[..., str]:
    """A method with the tool's name, types and docstring, that takes whatever it is given: the world says what is wrong with it."""

    def method(environment: Any, /, **arguments: Any) -> str:
        return str(environment._played.call(tool.name, arguments))

    if tool.name in RESERVED or tool.name.startswith("_"):
        raise _refusal(world, tool, "its name means something else to TRL")
    if more := sorted(set(tool.parameters) - _SAID_OF_ALL):
        raise _refusal(world, tool, f"its schema says {more[0]!r} of its arguments")
    arguments = _properties(tool.parameters)
    own = [inspect.Parameter("environment_", inspect.Parameter.POSITIONAL_ONLY)]
    try:
        for name, schema in arguments.items():
            default = inspect.Parameter.empty if name in tool.parameters["required"] else None
            own.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_hint(schema)))
        method.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as mistake:
        raise _refusal(world, tool, str(mistake)) from None
    method.__name__ = method.__qualname__ = tool.name
    method.__annotations__ = {one.name: one.annotation for one in own[1:]}
    lines = [f"    {name}: {_described(name, schema)}" for name, schema in arguments.items()]
    method.__doc__ = "\n".join([_described(tool.name, tool.schema()["function"]), *(["", "Args:", *lines] if lines else [])])
    return method


def _prove(world: World, tool: Tool, method: Callable[..., str]) -> None:
    """Raise BadInput unless transformers reads off the method what the tool's schema says."""
    from transformers.utils.chat_template_utils import get_json_schema

    try:
        shown = get_json_schema(method)["function"]
    except Exception as mistake:  # it has exceptions of its own for docstrings and type hints
        raise _refusal(world, tool, " ".join(str(mistake).split())) from None
    wanted = tool.schema()["function"]
    if _meaning(shown) != _meaning(wanted):
        raise _refusal(world, tool, f"it would read {_meaning(shown)}, which should be {_meaning(wanted)}")


def _meaning(function: Mapping[str, Any]) -> tuple[Any, ...]:
    """What counts of a schema in either dialect: names, descriptions, types and what is required."""
    parameters = function["parameters"]
    arguments = {name: (_hint(schema), _described(name, schema)) for name, schema in _properties(parameters).items()}
    return function["name"], _described(function["name"], function), arguments, sorted(parameters.get("required", ()))


def _properties(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return parameters.get("properties") or {}


def _described(name: str, about: Mapping[str, Any]) -> str:
    return " ".join(str(about.get("description") or "").split()) or name


def _hint(schema: Mapping[str, Any]) -> Any:
    """The type hint that a schema stands for. Raises ValueError for what none can say."""
    if more := sorted(set(schema) - _SAID):
        raise ValueError(f"its schema says {more[0]!r}: {json.dumps(schema, default=str)[:200]}")
    kind = schema.get("type")
    if schema.get("nullable"):
        hint = Union[_hint({key: value for key, value in schema.items() if key != "nullable"}), None]  # noqa: UP007 - built at run time
    elif "enum" in schema:
        hint = Literal[tuple(schema["enum"])]
    elif "anyOf" in schema or isinstance(kind, list):
        hint = Union[tuple(_hint(one) for one in schema.get("anyOf") or [{**schema, "type": one} for one in kind])]
    elif kind == "array" and "items" in schema:
        hint = list[_hint(schema["items"])]
    else:
        hint = _PLAIN[kind] if kind in _PLAIN else Any
    return hint


def _refusal(world: World, tool: Tool, why: str) -> BadInput:
    return BadInput(
        f"world {world.name}: tool {tool.name!r} cannot be shown by TRL as it is: {why}. Train this world in Cairn's rl room, "
        "or give TRL a world without the tool."
    )
