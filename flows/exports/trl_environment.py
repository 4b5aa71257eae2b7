"""A world for TRL's `GRPOTrainer`: environments with its tools, rows for its dataset, and its own grading as the reward.

    GRPOTrainer(model=..., train_dataset=dataset(world, draw_problems(world, "train", 500, seed=0)),
                environment_factory=environment_factory(world), reward_funcs=reward)

How it departs from `tasks.worlds.api.play`, all by the ways of TRL 1.16:

1. Nobody answers the agent: its first message without a call is its last. So the user's one line says everything, and a policy that
   wants a yes before a change cannot be kept. The reward never counts `policy`. With a simulated user, train in Cairn's rl room.
2. TRL goes on after a tool that ends the conversation; the environment then refuses every call, and the grading sees no more.
3. TRL itself answers calls of tools that there are not and calls whose arguments are no object, and takes an answer that overflows
   `max_completion_length` out of the conversation, though its call was made.
4. A model reads of a tool what `transformers` reads off a method: tools by name, no defaults, and a name where a description is
   missing. What that cannot say at all (patterns, bounds, nested objects) is refused.

TRL does not know the chat template of Cairn's checkpoints: set `tokenizer.response_template = trl.chat_template_utils.qwen3_template`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Literal, Union

from flows.exports.calling import call
from tasks.contract.client import Message, Request
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.scripts import STOP
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.worlds.api.play import HUMAN_TOKENS
from tasks.worlds.api.system_prompt import human_system, system_message
from tasks.worlds.api.tools import Tool

if TYPE_CHECKING:
    from datasets import Dataset

    from tasks.worlds.api.runtime import World

RESERVED = ("reset", "get_reward")
"""Names that mean something to TRL; it hides names with a leading underscore as well."""
_PLAIN = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None), "array": list, "object": dict}
_ARGUMENT_KEYS = {"type", "enum", "items", "anyOf", "additionalProperties", "nullable", "description", "default"}
_PARTS = ("its name", "its description", "its arguments", "what is required")
_SCHEMA_KEYS = {"type", "properties", "required", "additionalProperties", "description", "$schema", "$defs", "definitions"}


@dataclass
class _Played:
    """What one environment has played since its last reset."""

    world: World
    problem: Problem | None = None
    calls: list[tuple[Action, ToolResult]] = field(default_factory=list)
    stop: str = ""

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """The answer of a tool, in the words of `World.call`."""
        return call(self, name, arguments)


def environment_factory(world: World) -> Callable[[], Any]:
    """What `GRPOTrainer` takes as `environment_factory`: gives environments with a fork of the world each.

    Their public methods are the world's tools and `reset(problem=...)`. Raises BadInput for a tool that cannot be shown as it is.
    """
    methods = {tool.name: _method(world, tool) for tool in world.tools.values()}

    def begin(environment: Any) -> None:
        environment._played = _Played(world.fork())

    def reset(environment: Any, /, problem: str, **row: Any) -> None:
        """Start over, for a row of `dataset`."""
        from tasks.contract.rows import problem_of

        wanted = problem_of(json.loads(problem))
        if wanted.world != world.name:
            raise BadInput(f"problem {wanted.problem_id} is of the world {wanted.world!r}, its environment of {world.name!r}.")
        own = environment._played.world
        own.reset()
        environment._played = _Played(own, wanted)

    return type(f"{world.name.title()}Environment", (), {"__init__": begin, "reset": reset, **methods})


def dataset(world: World, problems: Iterable[Problem], seed: int = 0) -> Dataset:
    """Rows {prompt, problem}: the system message with the policy, the user's line, and the problem as JSON for `reset`.

    The line is the world's scripted human's, asked to say everything at once, and the instruction where there is none.
    """
    from datasets import Dataset

    from tasks.contract.rows import problem_row

    def row(problem: Problem) -> dict[str, Any]:
        user = {"role": "user", "content": _opening(world, problem, seed)}
        return {"prompt": [system, user], "problem": json.dumps(problem_row(problem), ensure_ascii=False)}

    system = {"role": "system", "content": system_message(world, {"tools": "none", "policy": "full"})}
    return Dataset.from_list([row(problem) for problem in problems])


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
    outcomes = [outcome(one, [*said, *more]) for one, said, more in zip(environments, prompts, completions, strict=True)]
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
    last = [(action.name, result.content) for action, result in played.calls[-1:] if played.stop]
    ends = (place for place, one in enumerate(messages, 1) if one["role"] == "tool" and (one["name"], one["content"]) in last)
    return list(messages[: next(ends, len(messages))])


def _opening(world: World, problem: Problem, seed: int) -> str:
    if world.scripts is None:
        return problem.instruction
    intent = {**problem.intent, "style": "full", "together": True}
    system: Message = {"role": "system", "content": human_system(problem, world.setting)}
    noise = seed_of(seed, problem.problem_id, 0, 0, "human")
    line = world.scripts.human(Request([system], seed=noise, max_tokens=HUMAN_TOKENS, intent=intent))
    text = str(line["content"]).strip()
    return problem.instruction if STOP in text else text


# --- tools as methods ---


def _method(world: World, tool: Tool) -> Callable[..., str]:
    """A method with the tool's name, types and docstring, proven to be read as the tool's schema. It takes whatever it is given: what
    is wrong with a call the world says."""
    from transformers.utils.chat_template_utils import get_json_schema

    def method(environment: Any, /, **arguments: Any) -> str:
        return str(environment._played.call(tool.name, arguments))

    def refused(why: object) -> BadInput:
        told = "Train this world in Cairn's rl room, or give TRL one without the tool."
        return BadInput(f"world {world.name}: TRL cannot show tool {tool.name!r} as it is: {' '.join(str(why).split())}. {told}")

    if tool.name in RESERVED or tool.name.startswith("_"):
        raise refused("its name means something else to TRL")
    wanted = tool.schema()["function"]
    arguments = _properties(wanted)
    method.__name__ = method.__qualname__ = tool.name
    lines = [f"    {name}: {_described(name, schema)}" for name, schema in arguments.items()]
    method.__doc__ = "\n".join([_described(tool.name, wanted), *(["", "Args:", *lines] if lines else [])])
    own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    try:
        meant = _meaning(wanted)
        for name, schema in arguments.items():
            default = inspect.Parameter.empty if name in meant[-1] else None
            own.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_hint(schema)))
        method.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
        method.__annotations__ = {one.name: one.annotation for one in own[1:]}
        shown = _meaning(get_json_schema(method)["function"])
    except Exception as mistake:  # of names that Python does not take, of types, and transformers has some of its own
        raise refused(mistake) from None
    if shown != meant:
        what, one, other = next(parts for parts in zip(_PARTS, shown, meant, strict=True) if parts[1] != parts[2])
        raise refused(f"a model would read as {what} {one!r}, which should be {other!r}")
    return method


def _meaning(function: Mapping[str, Any]) -> tuple[Any, ...]:
    """What counts of a schema in either dialect: names, descriptions, types and what is required."""
    parameters = function["parameters"]
    if more := sorted(set(parameters) - _SCHEMA_KEYS):
        raise ValueError(f"its schema says {more[0]!r} of all arguments")
    arguments = {name: (_hint(schema), _described(name, schema)) for name, schema in _properties(function).items()}
    return function["name"], _described(function["name"], function), arguments, sorted(parameters.get("required", ()))


def _properties(function: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return function["parameters"].get("properties") or {}


def _described(name: str, schema: Mapping[str, Any]) -> str:
    return " ".join(str(schema.get("description") or "").split()) or name


def _hint(schema: Mapping[str, Any]) -> Any:
    """The type hint that a schema stands for. Raises ValueError for what none can say."""
    kind, values = schema.get("type"), schema.get("additionalProperties", True)
    if (more := sorted(set(schema) - _ARGUMENT_KEYS)) or values is False:
        raise ValueError(f"its schema says {(more or ['additionalProperties'])[0]!r}: {json.dumps(schema)[:200]}")
    if schema.get("nullable"):
        return Union[_hint({key: value for key, value in schema.items() if key != "nullable"}), None]  # noqa: UP007 - made at run time
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    if "anyOf" in schema or isinstance(kind, list):
        kinds = schema["anyOf"] if "anyOf" in schema else [{**schema, "type": one} for one in kind or ()]
        return Union[tuple(map(_hint, kinds))]  # noqa: UP007
    if kind == "array" and "items" in schema:
        return GenericAlias(list, (_hint(schema["items"]),))
    if kind == "object" and isinstance(values, Mapping):
        return GenericAlias(dict, (str, _hint(values)))
    return _PLAIN[kind] if kind else Any
