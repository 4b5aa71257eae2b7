"""Token caps against typical conversations, measured before anything is paid.

As soon as there is a tokenizer, some problems of each world are played by its scripts, and the conversations are held against the
checkpoint's own positions and every cap that the coming stages declare: `caps(params)` in a method's module, and in a room
that owns a training loop. A world without scripts is measured by its prompt, its ground truths where it has problems, and an allowance
for what people say. Nothing here enters a key, and a run in which nothing is to do never comes here.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tasks.chat.local import kept
from tasks.checkpoints import folders
from tasks.contract.context import Context, seed_of
from tasks.contract.params import BadInput, Cap
from tasks.engine import methods
from tasks.engine.files import write_text
from tasks.engine.key import Key
from tasks.engine.settings import Settings
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.system_prompt import system_message, tools_of

if TYPE_CHECKING:
    from tasks.chat.local.calls import Tools
    from tasks.contract.client import Client, Message, Request
    from tasks.contract.problem import Problem
    from tasks.engine.artifact import Artifact
    from tasks.engine.plan import Plan
    from tasks.worlds.api.runtime import World

PROBLEMS = 24
"""Problems a world that are played: enough to see a share of 10 %, and half a second."""
ALLOWANCE = 512
"""Tokens added for what people say, where no script can say it; ours, about eight lines and replies."""
FEW = 4
"""Problems a world on which the stages' own methods are tried with scripts in all roles, to see what a local role is asked."""
LEAST = 0.5
"""Share of a local role's questions that must fit its checkpoint with their answers; ours."""
STEP = 64
"""Values that are proposed are multiples of this."""


@dataclass(frozen=True)
class Talk:
    """A typical conversation in tokens: the prompt of its first turn; all up to the agent's last turn; the agent's own; its longest
    turn."""

    prompt: int
    whole: int
    trained: int
    turn: int


@dataclass(frozen=True)
class Typical:
    """What was measured in a world, and how, in words. unseen: no training sees the world."""

    world: str
    how: str
    talks: tuple[Talk, ...]
    unseen: bool = False


@dataclass
class Caps:
    """What of a run was held against typical conversations already; one for each process that runs stages."""

    plan: Plan
    _seen: set[str] = field(default_factory=set)

    def check(self, stages: Sequence[str], there: Mapping[str, Artifact]) -> None:
        """Refuse (BadInput) params with which hardly a row, a conversation or an answer of the coming `stages` would remain.

        there: step -> its artifact, of those that are made. Frozen worlds and bases are measured once each, for the stages that hang on
        them. All that is wrong is said at once, with what was measured and a value that would do.
        """
        road, wrong, new = self.plan.settings.road, [], set()
        for room, refused in (("worlds", self._refused_by_roles), ("base", self._refused_by_base)):
            for name in road.entering(room):
                if name in there and there[name].identity not in self._seen:
                    new.add(there[name].identity)
                    wrong += refused([stage for stage in stages if stage in road.after(name)], name, there)
        if wrong:
            raise BadInput("\n".join(wrong))
        self._seen |= new

    def _refused_by_roles(self, stages: Sequence[str], name: str, there: Mapping[str, Artifact]) -> list[str]:
        return list(_local_refusals(self.plan, stages, self.plan.store.view(there[name].identity)))

    def _refused_by_base(self, stages: Sequence[str], name: str, there: Mapping[str, Artifact]) -> list[str]:
        settings = self.plan.settings
        if not any(_declared(settings, stage) for stage in stages):
            return []
        base, context = there[name].identity, context_of(self.plan.store.view(there[name].identity) / "model")
        typical = self._measured(there[settings.road[name].inputs[0]].identity, base)
        seen = [one for one in typical if not one.unseen]
        return [
            line
            for stage in stages
            for line in refusals(settings, stage, typical if methods.reads_unseen(settings.room(stage)) else seen, context)
        ]

    def _measured(self, worlds: str, base: str) -> list[Typical]:
        """`measure`, kept beside the store for the next process: under `dvc repro` every stage is one."""
        store, shared = self.plan.store, self.plan.settings.shared
        prompt = shared.prompt.model_dump()
        own = store.hashes.path(Path(__file__))
        digest = Key({"worlds": worlds, "base": base, "prompt": prompt, "seed": shared.seed, "code": self.plan.code, "own": own}).digest
        path = store.state / "typical.json"
        with suppress(OSError, ValueError, LookupError, TypeError):  # whatever is wrong with it, it can be made again
            kept = json.loads(path.read_text())
            if kept["digest"] == digest:
                return [
                    Typical(world, how, tuple(Talk(*talk) for talk in talks), unseen) for world, how, talks, unseen in kept["typical"]
                ]
        typical = measure(store.view(worlds), store.view(base) / "model", prompt, shared.seed)
        talks = [(one.world, one.how, [astuple(talk) for talk in one.talks], one.unseen) for one in typical]
        write_text(path, json.dumps({"digest": digest, "typical": talks}))
        return typical


def _declared(settings: Settings, stage: str) -> list[tuple[str, Cap]]:
    """(dotted section, cap) of all caps that the chosen method of a stage and its room's training loop declare."""
    return [(where, cap) for where, module, params in settings.parts(stage) if hasattr(module, "caps") for cap in module.caps(params)]


def context_of(checkpoint: Path) -> int:
    """Positions of a checkpoint's folder; 0 when its configuration does not say."""
    about = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return int({**about, **about.get("text_config", {})}.get("max_position_embeddings") or 0)


def measure(worlds: Path, checkpoint: Path, prompt: Mapping[str, str], seed: int) -> list[Typical]:
    """Typical conversations of every frozen world in the tokens of a checkpoint, with the system prompt that `prompt` asks for."""
    from tasks.worlds.api.frozen import load_all, load_unseen

    tokenizer = _tokenizer(checkpoint)
    found = [(world, False) for world in load_all(worlds).values()] + [(world, True) for world in load_unseen(worlds).values()]
    return [replace(_typical(world, tokenizer, prompt, seed), unseen=unseen) for world, unseen in found]


def _tokenizer(checkpoint: Path) -> Any:
    """The checkpoint's tokenizer as `tasks.models` needs it for rendering, without transformers, whose import takes seconds."""
    if not (checkpoint / "tokenizer.json").is_file():
        return folders.load_tokenizer(checkpoint)
    from tokenizers import Tokenizer

    file = checkpoint / "chat_template.jinja"
    template = file.read_text("utf-8") if file.is_file() else None
    made = SimpleNamespace(backend_tokenizer=Tokenizer.from_file(str(checkpoint / "tokenizer.json")), chat_template=template)
    if chat := kept.read(checkpoint):
        kept.keep(made, chat)
    return made


def _typical(world: World, tokenizer: Any, prompt: Mapping[str, str], seed: int) -> Typical:
    how, said, more = conversations(world, seed)
    system, tools = system_message(world, prompt), tools_of(world, prompt)
    return Typical(world.name, how, tuple(_talk(tokenizer, system, tools, messages, more) for messages in said))


def _talk(tokenizer: Any, system: str, tools: Tools, messages: Sequence[Message], more: int) -> Talk:
    first = next((index for index, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    chat = kept.chat_of(tokenizer)
    prompt = len(chat.prompt_ids(tokenizer, system, messages[:first], tools))
    rows = chat.rows(tokenizer, [(system, messages, tools)])[0]
    turns = [len(list(span)) for row in rows for own, span in groupby(row.mask) if own]
    return Talk(prompt, max((len(row.ids) for row in rows), default=prompt) + more, sum(turns), max(turns, default=0))


def conversations(world: World, seed: int) -> tuple[str, list[list[Message]], int]:
    """(how they came about, typical conversations without system prompts, tokens to add to each for what is not in them)."""
    problems = _problems(world, seed)
    if world.scripts is not None and problems:
        return f"{len(problems)} conversations that the scripts played", _played(world, problems, seed), 0
    if problems:
        return (
            f"{len(problems)} ground truths and {ALLOWANCE} tokens for what people say",
            [_truth(world, p) for p in problems],
            ALLOWANCE,
        )
    return f"the prompt and {ALLOWANCE} tokens for a conversation", [[{"role": "user", "content": ""}]], ALLOWANCE


def _problems(world: World, seed: int) -> list[Problem]:
    """As many training problems as the world makes of itself, at most PROBLEMS."""
    for count in (PROBLEMS, PROBLEMS // 4, 1):
        try:
            return draw_problems(world, "train", count, seed_of(seed, "typical", world.name))
        except BadInput:  # a small world, or one whose problems are still to be generated
            continue
    return []


def _played(world: World, problems: Sequence[Problem], seed: int) -> list[list[Message]]:
    from tasks.players import scripted
    from tasks.players.client_agent import ClientAgent
    from tasks.worlds.api.play import play

    agent = ClientAgent(scripted.client("agent", world, {}, seed), {"tools": "none", "policy": "none"})
    human = scripted.client("human", world, {}, seed)
    return [talk.messages for talk in play(world, [(problem, 0) for problem in problems], agent, human, seed=seed)]


def _truth(world: World, problem: Problem) -> list[Message]:
    """A problem as its instruction, its ground truth's calls with their answers, and what had to be said."""
    from tasks.players.trivial.oracle import script

    actions = script(problem)
    messages: list[Message] = [{"role": "user", "content": problem.instruction}]
    for place, (action, result) in enumerate(zip(actions, world.replay(actions).results, strict=True)):
        function = {"name": action.name, "arguments": dict(action.arguments)}
        call = {"id": f"call_{place}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "name": action.name, "content": result.content})
    return [*messages, {"role": "assistant", "content": ". ".join((*problem.outputs, "Done. Anything else?"))}]


def refusals(settings: Settings, stage: str, typical: Sequence[Typical], context: int) -> Iterator[str]:
    """A line for every cap of a stage within which too few typical conversations stay. context: the model's positions, 0 if unknown."""
    for where, cap in _declared(settings, stage):
        limit = min(cap.tokens, context or cap.tokens) if cap.of != "turn" else cap.tokens
        for one in typical:
            fit = [talk for talk in one.talks if _size(talk, cap) <= limit]
            share = len(fit) / len(one.talks)
            if cap.of == "row" and (trained := sum(talk.trained for talk in one.talks)):
                share = min(share, sum(talk.trained for talk in fit) / trained)
            if share < cap.share or not fit:
                said = f"{_measured(one, cap, len(fit), limit)} {_remedy(typical, cap, context)}"
                yield f"{settings.source}: {where}.{cap.param} = {cap.tokens}: {said}"


def _size(talk: Talk, cap: Cap) -> int:
    return talk.turn if cap.of == "turn" else talk.whole


def _measured(one: Typical, cap: Cap, fit: int, limit: int) -> str:
    sizes = sorted(_size(talk, cap) for talk in one.talks)
    what = "longest turn" if cap.of == "turn" else "whole conversation"
    bound = "it" if limit == cap.tokens else f"the checkpoint's {limit} positions"
    return (
        f"in world {one.world} {fit} of {len(sizes)} stay within {bound} (measured: {one.how}; the first prompt has "
        f"{max(talk.prompt for talk in one.talks)} tokens, the {what} {sizes[len(sizes) // 2]} in the middle and {sizes[-1]} at most)."
    )


def _remedy(typical: Sequence[Typical], cap: Cap, context: int) -> str:
    needed = max(_size(talk, cap) for one in typical for talk in one.talks)
    value = -(-needed // STEP) * STEP
    shorter = "shorten the prompt (prompt.tools, prompt.policy)"
    if cap.of == "turn":
        return f"{value} would do."
    if context and needed > context:
        return f"The checkpoint has {context} positions: {shorter}, or start from a base with more."
    return f"{min(value, context or value)} would do; or {shorter}."


# --- local checkpoints in a role ---------------------------------------------------------------------------------------


def _local_refusals(plan: Plan, stages: Sequence[str], worlds: Path) -> Iterator[str]:
    """A line for every role whose local checkpoint has too few positions for what the coming stages ask of it."""
    settings = plan.settings
    asked_by = {key.removeprefix("roles.") for stage in stages for key in plan.stages[stage].settings if key.startswith("roles.")}
    local = [one for one in settings.shared.players() if one[2].backend == "local" and one[0].partition("/")[0] in asked_by]
    if not local:
        return
    asked, how = _requests_by_role(settings, worlds)
    for name, said, role in local:
        folder = settings.project / role.path
        context, requests = context_of(folder), asked.get(_like(name.partition("/")[0]), [])
        if not context or not requests:
            continue
        from tasks.players.local.client import prompt_text

        tokenizer = folders.load_tokenizer(folder)
        texts = [prompt_text(kept.chat_of(tokenizer), request) for request in requests]
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
        most = [(role.max_tokens or request.max_tokens) + role.thinking for request in requests]
        needs = [len(ids) + room for ids, room in zip(encoded, most, strict=True)]
        fit = sum(need <= context for need in needs)
        if fit < LEAST * len(needs):
            yield (
                f"{settings.source}: {said}.path = {role.path!r}: the checkpoint has {context} positions, and {fit} of {len(needs)} "
                f"questions of its role fit with their answers (measured: {how}; the longest needs {max(needs)} tokens). Give the "
                "role a checkpoint with more positions."
            )


def _like(role: str) -> str:
    """The role that is asked the same questions: a contender acts in the same worlds as the agent of generate."""
    return "agent" if role == "contender" else role


class _Recorder:
    """A scripted client that notes what it is asked."""

    def __init__(self, inner: Client, requests: list[Request]) -> None:
        self.name, self.revision = inner.name, inner.revision
        self._inner, self._requests = inner, requests

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """Answer as the script does."""
        self._requests += requests
        return self._inner.complete(requests)


def _requests_by_role(settings: Settings, worlds: Path) -> tuple[Mapping[str, list[Request]], str]:
    """Role -> what it is asked, and how that is known: generate and critique run on a few problems with scripts in all roles. Worlds
    without scripts show the agent's opening question alone."""
    from tasks.contract.client import Request
    from tasks.players.acting import acting
    from tasks.players.roles import maker
    from tasks.worlds.api.frozen import load_all

    heard: dict[str, list[Request]] = defaultdict(list)
    found = load_all(worlds)
    if any(world.scripts is None for world in found.values()):
        for world in found.values():
            system = system_message(world, {**settings.shared.prompt.model_dump(), "tools": "none"})
            heard["agent"].append(Request([{"role": "system", "content": system}], world.schemas(), max_tokens=ALLOWANCE))
        return heard, f"the prompt and {ALLOWANCE} tokens for a conversation"
    scripts = {name: {"backend": "scripted", "errors": role.errors, "others": []} for name, role in settings.shared.roles.items()}
    inner = maker(scripts, worlds, settings.shared.seed)

    def listening(role: str, world: str = "") -> Client:
        return _Recorder(inner(role, world), heard[role])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run(stage: str, **inputs: Path) -> None:
            params = settings.params(stage)
            few = {name: few for name, few in (("problems", FEW), ("accepted", 0)) if hasattr(params, name)}
            (folder / stage).mkdir()
            prompt = settings.shared.prompt.model_dump()
            ctx = Context(
                settings.shared.seed,
                folder / stage,
                folder / f"{stage}-scratch",
                role=listening,
                agent=acting(listening, prompt, methods.way(settings.agents(stage))),
                prompt=prompt,
            )
            module = methods.load(settings.room(stage), settings.method(stage))
            module.run(module.Inputs(**inputs), params.model_copy(update=few), ctx)

        for stage in settings.road.entering("generate"):
            run(stage, worlds=worlds)
        for stage in settings.road.entering("critique"):
            run(stage, worlds=worlds, generate=folder / settings.road[stage].inputs[1])
    return heard, f"the stages' own methods on {FEW} problems a world, with scripts in all roles"
